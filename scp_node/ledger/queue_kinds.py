"""The kinds of queues, what each holds, and the rules that differ between them.

A new kind gets a member here and a row in the table; nothing else compares the names of queues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

from sqlalchemy import ColumnElement, bindparam, false, literal_column, or_

from scp_node.ledger.database.schema import work

_SEPARATOR: Final = ":"
# The name of a queue in a form that no index is in: for questions about the few rows of one state, each of which has an
# index of its own. By the name, SQLite would read all rows of the queue, most of which are done.
UNINDEXED_NAME: Final[ColumnElement[str]] = work.c.queue.concat(literal_column("''"))


class Subject(Enum):
    """What a row of the table `work` is about."""

    IMAGE = auto()  # `ref_id` is a row of `instance`
    STUDY = auto()  # `ref_id` is a row of `study_patient`: a study, as far as it names one patient
    DELIVERY = auto()  # `ref_id` is a row of `delivery`


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the work of one kind is treated."""

    subject: Subject
    has_limited_tries: bool = False  # work that lost its worker too often ends as dead
    needs_model: bool = False  # giving it up writes a result, which names the model that did not answer
    may_stop_worker: bool = False  # it reads what a peer sent: what lost its worker again has to wait


class QueueKind(StrEnum):
    """One step of an image's way each: the words of heartbeats, log lines and files."""

    ANALYSE = "analyse"
    REPORT = "report"
    COMPANIONS = "companions"  # what goes with a report that is stored: no report waits for a picture
    DELIVER = "deliver"  # one queue for each destination: one that is down holds up no other
    COMMIT = "commit"  # likewise: what a destination will be asked about after its delivery
    SHADOW = "shadow"  # images for the bundle on trial: no report waits for one

    @property
    def rules(self) -> Rules:
        """Return how work of this kind is treated."""
        return _RULES[self]


_RULES: Final[Mapping[QueueKind, Rules]] = {
    QueueKind.ANALYSE: Rules(subject=Subject.IMAGE, has_limited_tries=True, needs_model=True, may_stop_worker=True),
    QueueKind.REPORT: Rules(subject=Subject.STUDY, has_limited_tries=True),
    QueueKind.COMPANIONS: Rules(subject=Subject.STUDY, has_limited_tries=True),  # `dedup` is the row of `report`
    QueueKind.DELIVER: Rules(subject=Subject.DELIVERY),
    QueueKind.COMMIT: Rules(subject=Subject.DELIVERY),
    QueueKind.SHADOW: Rules(subject=Subject.IMAGE, has_limited_tries=True, may_stop_worker=True),
}


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue: of a kind, and of one destination where each has its own."""

    kind: QueueKind
    destination: str = ""

    @property
    def name(self) -> str:
        """Return the name that the table `work` keeps, such as "analyse" or "deliver:pacs"."""
        return f"{self.kind}{_SEPARATOR}{self.destination}" if self.destination else self.kind.value

    @classmethod
    def named(cls, name: str) -> Queue:
        """Return the queue of this name.

        Raises:
            ValueError: this program has no such kind of queue.
        """
        kind, _, destination = name.partition(_SEPARATOR)
        return cls(QueueKind(kind), destination)


ANALYSE: Final = Queue(QueueKind.ANALYSE)
REPORT: Final = Queue(QueueKind.REPORT)
COMPANIONS: Final = Queue(QueueKind.COMPANIONS)
SHADOW: Final = Queue(QueueKind.SHADOW)


def deliver_queue(destination: str) -> Queue:
    """Return the queue of what waits to be sent to a destination."""
    return Queue(QueueKind.DELIVER, destination)


def commit_queue(destination: str) -> Queue:
    """Return the queue of what a destination will be asked about."""
    return Queue(QueueKind.COMMIT, destination)


def in_named_queue(*, queue_name: ColumnElement[str] = work.c.queue) -> ColumnElement[bool]:
    """Return the SQL condition that work is in the queue whose name is given as `queue_name` when it is asked."""
    return queue_name == bindparam("queue_name")


def in_queue(queue: Queue, *, queue_name: ColumnElement[str] = work.c.queue) -> ColumnElement[bool]:
    """Return the SQL condition that work is in this queue; `queue_name` may be `UNINDEXED_NAME`."""
    return queue_name == queue.name


def is_about(subject: Subject, *, name: ColumnElement[str] = work.c.queue) -> ColumnElement[bool]:
    """Return the SQL condition that work is about such a subject; `name` may be `UNINDEXED_NAME`."""
    return _of_any(lambda rules: rules.subject is subject, name=name)


def needs_model() -> ColumnElement[bool]:
    """Return the SQL condition that giving the work up needs a model."""
    return _of_any(lambda rules: rules.needs_model)


def may_stop_worker() -> ColumnElement[bool]:
    """Return the SQL condition that the work may be what stopped its worker."""
    return _of_any(lambda rules: rules.may_stop_worker)


def _of_any(condition: Callable[[Rules], bool], *, name: ColumnElement[str] = work.c.queue) -> ColumnElement[bool]:
    kinds = [kind for kind in QueueKind if condition(kind.rules)]
    return or_(false(), *(of_kind(kind, name=name) for kind in kinds))


def of_kind(kind: QueueKind, *, name: ColumnElement[str] = work.c.queue) -> ColumnElement[bool]:
    """Return the SQL condition that work is in a queue of this kind; `name` may be `UNINDEXED_NAME`."""
    if kind.rules.subject is Subject.DELIVERY:
        return name.startswith(f"{kind}{_SEPARATOR}")
    return name == kind.value
