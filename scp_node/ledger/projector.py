"""Keeps the list of studies and the daily counts up to date: it follows the events, and makes both again on request.

One process at a time does this, the one that holds the lease in the row of `projection`. A step reads one state of the
ledger, makes the rows of the studies that the next sealed events name, and writes them together with the number of the
last of these events. A step that is repeated writes the same rows, so that a crash costs nothing. No transaction of the
other roles does anything for it.

Phases: `clear` empties the projections in batches, `fill` makes the rows of all studies, the newest ones first, while
new events are followed already, and `follow` goes on with the events alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from scp_node.ledger.daily import apply, kept_facts
from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.database.schema import chain, daily, event, film, instance, projection, study_patient, worklist
from scp_node.ledger.following import is_free
from scp_node.ledger.projection import Describe, Descriptions, Projected, project
from scp_node.ledger.search import ensure_index
from scp_node.ledger.selecting import chunks
from scp_node.ledger.transactions import Transactions

LEASE: Final = timedelta(seconds=15)
# of events about a study, those that change no row; any other kind is followed, so that a new one is not forgotten
_CHANGE_NOTHING: Final = frozenset(
    {"purged", "original-replaced", "duplicate", "unregistrable", "web-viewed", "web-downloaded"}
)
_CLOCK_JUMPED: Final = "clock-jumped"
_RESOLVED: Final = "resolved"  # changes every image of its SOP Instance UID, in whatever study
_EVENTS: Final = 500  # of one step
_STUDIES: Final = 100  # rows of study_patient in one transaction
_CLEARED: Final = 2_000  # rows in one transaction
_LONGEST_REST: Final = 0.5  # seconds
_PAUSE: Final = 0.1  # seconds, while another process works on a rebuild


class Phase(StrEnum):
    """What the projector does."""

    CLEAR = "clear"
    FILL = "fill"
    FOLLOW = "follow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rebuild is."""

    phase: Phase
    left: int  # the highest id of study_patient that is not made yet, from which it counts down


class LostLeaseError(LedgerError):
    """Another process follows the events by now; nothing was written."""


class Projector:
    """Follows the events; one works at a time, and the next takes over when its lease is lost."""

    def __init__(
        self, transactions: Transactions, describe: Describe, *, owner: str, rest_seconds: float = 0.0
    ) -> None:
        """Describe headers with `describe`; `owner` names this process among those of the ledger.

        With `rest_seconds` it looks for events again only so long after it has come to the last one: a study has about
        six within some seconds, and its row is made once for all that came together.
        """
        self._transactions = transactions
        self._rest_seconds = rest_seconds
        self._look_again_at = -math.inf  # time.monotonic()
        self._descriptions = Descriptions(describe)
        self._owner = owner
        self._renew_at: datetime | None = None

    def step(self) -> bool:
        """Do the next piece of work; return whether there was one."""
        if time.monotonic() < self._look_again_at:
            return False
        with self._transactions.reading() as (connection, now):
            standing = connection.execute(select(projection)).one()
            has_events = _has_events(connection, standing.position)
        if not (self._holds(standing, now) or self._take_over(standing, now)):
            return False
        try:
            return self._work(standing, has_events=has_events)
        except LostLeaseError:
            return False

    def close(self) -> None:
        """Let another process take over at once."""
        with self._transactions.writing() as (connection, _now):
            mine = projection.c.owner == self._owner
            connection.execute(update(projection).where(mine).values(owner=None, lease_until=None))
        self._renew_at = None

    def rebuild(self, progress: Callable[[Progress], None] = lambda _: None) -> int:
        """Make the projections again from nothing, or help the process that does; return the number of studies.

        The node may run. Asked for twice, it begins again; a rebuild that is interrupted is finished by whoever follows
        the events next.
        """
        with self._transactions.writing() as (connection, _now):
            ensure_index(connection)
            begin_rebuild(connection)
        while True:
            busy = self.step()
            with self._transactions.reading() as (connection, _now):
                standing = connection.execute(select(projection)).one()
                if standing.phase == Phase.FOLLOW and not _has_events(connection, standing.position):
                    return connection.execute(select(func.count()).select_from(worklist)).scalar_one()
            progress(Progress(phase=Phase(standing.phase), left=standing.cursor))
            if not busy:
                time.sleep(_PAUSE)

    def _holds(self, standing: Row[Any], now: datetime) -> bool:
        return standing.owner == self._owner and self._renew_at is not None and now < self._renew_at

    def _take_over(self, standing: Row[Any], now: datetime) -> bool:
        """Take the lease, or renew it; return False while another process has it."""
        if standing.owner not in {None, self._owner} and now < standing.lease_until <= now + LEASE:
            return False
        with self._transactions.writing() as (connection, at):
            lost = is_free(projection, self._owner, at=at, lease=LEASE)
            taken = update(projection).where(lost).values(owner=self._owner, lease_until=at + LEASE)
            if connection.execute(taken).rowcount == 0:
                return False
        self._renew_at = at + LEASE / 3
        return True

    def _work(self, standing: Row[Any], *, has_events: bool) -> bool:
        phase = Phase(standing.phase)
        if phase is Phase.CLEAR:
            self._clear()
            return True
        if has_events:
            self._follow(phase, standing.position)
        if phase is Phase.FILL:
            self._fill(standing.cursor)
            return True
        return has_events

    def _follow(self, phase: Phase, position: int) -> None:
        """Make the rows of the studies that the next events name."""
        with self._transactions.snapshot() as connection:
            columns = select(event.c.seq, event.c.kind, event.c.study_uid, event.c.sop_instance_uid)
            behind = columns.where(event.c.seq > position).order_by(event.c.seq)
            events = connection.execute(behind.limit(_EVENTS)).all()
            telling = [each for each in events if changes_a_row(each.kind)]
            ids = _named(connection, telling)
        for some in chunks(ids, _STUDIES):
            self._make(phase, some)
        self._write(phase, _nothing, position=events[-1].seq)
        if phase is Phase.FOLLOW and len(events) < _EVENTS:
            self._look_again_at = time.monotonic() + self._rest_seconds

    def _fill(self, cursor: int) -> None:
        """Make the rows of the next studies, from the newest one back."""
        older = select(study_patient.c.id).where(study_patient.c.id < cursor)
        with self._transactions.reading() as (connection, _now):
            ids = connection.scalars(older.order_by(study_patient.c.id.desc()).limit(_STUDIES)).all()
        if ids:
            began = time.monotonic()
            self._make(Phase.FILL, ids, cursor=ids[-1])
            time.sleep(min(_LONGEST_REST, time.monotonic() - began))  # half of the time is for the other roles
        else:
            self._write(Phase.FILL, _nothing, phase=Phase.FOLLOW, cursor=0)

    def _make(self, phase: Phase, ids: Sequence[int], **standing: Any) -> None:
        with self._transactions.snapshot() as connection:
            projected = project(connection, ids, self._descriptions)
            before = kept_facts(connection, ids)
        after = {facts.id: facts for each in projected for facts in each.films}

        def write(connection: Connection) -> None:
            _put(connection, projected)
            apply(connection, before, after)

        self._write(phase, write, **standing)

    def _clear(self) -> None:
        def write(connection: Connection) -> None:
            if sum(_some_deleted(connection, table) for table in (worklist, film, daily)):
                return
            last_event = connection.scalar(select(chain.c.length)) or 0
            last_patient = connection.scalar(select(func.max(study_patient.c.id))) or 0
            values = {"phase": Phase.FILL, "position": last_event, "cursor": last_patient + 1}
            connection.execute(update(projection).values(**values))

        self._write(Phase.CLEAR, write)

    def _write(self, during: Phase, write: Callable[[Connection], None], **standing: Any) -> None:
        """Write in one transaction, and renew the lease in it.

        Raises:
            LostLeaseError: another process has the lease, or somebody began a rebuild in this phase.
        """
        with self._transactions.writing() as (connection, now):
            # this locks the row on PostgreSQL too: whoever takes the lease over waits for what is written here
            mine = (projection.c.owner == self._owner) & (projection.c.phase == during)
            values = {"lease_until": now + LEASE, **standing}
            if connection.execute(update(projection).where(mine).values(**values)).rowcount == 0:
                raise LostLeaseError("the events are followed by another process")
            write(connection)
        self._renew_at = now + LEASE / 3


def _nothing(_connection: Connection) -> None:
    """Write no row beside that of the projection."""


def changes_a_row(kind: str) -> bool:
    """Return whether an event of this kind may change a row of the list or a count."""
    return kind not in _CHANGE_NOTHING


def begin_rebuild(connection: Connection) -> None:
    """Have the projections made again from nothing by whoever follows the events."""
    connection.execute(update(projection).values(phase=Phase.CLEAR, position=0, cursor=0))


def _has_events(connection: Connection, position: int) -> bool:
    return connection.execute(select(event.c.id).where(event.c.seq > position).limit(1)).first() is not None


def _named(connection: Connection, events: Sequence[Any]) -> list[int]:
    """Return the rows of `study_patient` that these events may have changed."""
    studies = {each.study_uid for each in events if each.study_uid}
    ids = set(connection.scalars(select(study_patient.c.id).where(study_patient.c.study_uid.in_(studies))))
    if resolved := {each.sop_instance_uid for each in events if each.kind == _RESOLVED}:
        rivals = select(instance.c.study_patient_id).where(instance.c.sop_instance_uid.in_(resolved))
        ids.update(connection.scalars(rivals))
    if any(each.kind == _CLOCK_JUMPED for each in events):
        ids.update(connection.scalars(select(worklist.c.id).where(worklist.c.waiting_since.is_not(None))))
    return sorted(ids)


def _some_deleted(connection: Connection, table: Table) -> bool:
    if table is daily:  # has no number for its rows, and few of them
        return connection.execute(delete(daily)).rowcount > 0
    some = select(table.c.id).limit(_CLEARED)
    return connection.execute(delete(table).where(table.c.id.in_(some))).rowcount > 0


def _put(connection: Connection, projected: Iterable[Projected]) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    names = [column.name for column in worklist.c if column is not worklist.c.search]
    values = [{**{name: getattr(each.row, name) for name in names}, "search": each.search} for each in projected]
    if not values:
        return
    statement = insert(worklist)
    new = {column.name: statement.excluded[column.name] for column in worklist.c if column is not worklist.c.id}
    connection.execute(statement.on_conflict_do_update(index_elements=[worklist.c.id], set_=new), values)
