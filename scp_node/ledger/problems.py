"""What a person should look at, and what the queues hold: for the system page. It reads, and changes nothing.

Every question reads an index or the newest rows, so that it costs the same after years of use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, case, func, literal_column, select

from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.database.revision import current_revision
from scp_node.ledger.database.schema import Use, delivery, destination, event, instance, result, work
from scp_node.ledger.queue import OPEN_STATES, WorkState
from scp_node.ledger.queue_kinds import UNINDEXED_NAME, Queue, QueueKind, of_kind
from scp_node.ledger.selection import WorkSelection, failed_images, given_up, undeliverable_reports
from scp_node.ledger.transactions import Transactions
from scp_node.ledger.unregistrable import count_unregistrable, unregistrable

MOST: Final = 50  # rows of one list
_NEWEST_IMAGES: Final = 2_000  # among which the senders are looked for
_ERRORS: Final = 15
_FAILURES: Final = ("delivery-dead", "delivery-delayed", "report-failed", "commitment-unanswered", "unregistrable")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """What one queue holds, without what is done."""

    kind: QueueKind
    destination: str  # "" where the kind has one queue
    ready: int = 0
    leased: int = 0
    delayed: int = 0
    dead: int = 0
    oldest: datetime | None = None  # since when the oldest work waits that is due; a delivery: since it was opened

    @property
    def waiting(self) -> int:
        """Return the number of what is not closed."""
        return self.ready + self.leased + self.delayed


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """Dead work of one queue with one reason."""

    kind: QueueKind
    destination: str
    reason: str
    number: int
    since: datetime | None
    newest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAnalyses:
    """Images whose analysis failed for one reason, among the newest results."""

    reason: str  # a word of domain.Reason
    number: int
    without_original: int
    since: datetime
    newest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedDestination:
    """A destination that is only probed by C-ECHO at present."""

    name: str
    failures: int  # in a row
    paused_until: datetime
    reason: str
    since: datetime  # when it was paused first in this outage


@dataclass(frozen=True, slots=True, kw_only=True)
class Undeliverable:
    """Reports that no destination is to get."""

    number: int
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Images that wait for a person, since another one has their SOP Instance UID."""

    sop_instance_uid: str
    number: int  # of those that wait
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UnregistrableRow:
    """A received file that has no row in the ledger."""

    path: str
    reason: str
    calling_ae: str
    peer: str
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LastError:
    """One of the newest failures in the trail."""

    at: datetime
    kind: str
    destination: str
    reason: str
    study_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sent the newest images."""

    calling_ae: str
    peer: str
    number: int  # among the newest
    newest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Everything that needs a person, and what the queues hold."""

    at: datetime
    depths: tuple[QueueDepth, ...]
    given_up: tuple[GivenUp, ...]
    failed: tuple[FailedAnalyses, ...]
    paused: tuple[PausedDestination, ...]
    undeliverable: Undeliverable
    conflicts: tuple[Conflict, ...]
    conflict_number: int
    unregistrable: tuple[UnregistrableRow, ...]
    unregistrable_number: int
    errors: tuple[LastError, ...]


class Problems:
    """Reads what is wrong."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def overview(self, selection: WorkSelection | None = None) -> Overview:
        """Return the overview; of what was given up, failed or is undeliverable only what `selection` names."""
        wanted = selection or WorkSelection()
        with self._transactions.reading() as (connection, now):
            conflicts, conflict_number = _conflicts(connection)
            return Overview(
                at=now,
                depths=depths_of(connection, now),
                given_up=tuple(_given_up(connection, wanted)),
                failed=tuple(_failed(connection, wanted)),
                paused=tuple(_paused(connection)),
                undeliverable=_undeliverable(connection, wanted),
                conflicts=conflicts,
                conflict_number=conflict_number,
                unregistrable=tuple(_unregistrable(connection)),
                unregistrable_number=count_unregistrable(connection),
                errors=tuple(_errors(connection)),
            )

    def depths(self) -> list[QueueDepth]:
        """Return what each queue holds that is not empty."""
        with self._transactions.reading() as (connection, now):
            return list(depths_of(connection, now))

    def destinations(self) -> list[str]:
        """Return the names of all destinations that have work or were paused, whatever the settings name now."""
        with self._transactions.reading() as (connection, now):
            names = {depth.destination for depth in depths_of(connection, now)}
            return sorted((names | set(connection.scalars(select(destination.c.name)))) - {""})

    def senders(self) -> list[Sender]:
        """Return who sent the newest images, the newest first."""
        newest = select(func.coalesce(func.max(instance.c.id), 0)).scalar_subquery()
        columns = (instance.c.calling_ae, instance.c.peer, instance.c.received_at)
        recent = select(*columns).where(instance.c.id > newest - _NEWEST_IMAGES).subquery()
        grouped = select(recent.c.calling_ae, recent.c.peer, func.count(), func.max(recent.c.received_at))
        chosen = grouped.group_by(recent.c.calling_ae, recent.c.peer).order_by(func.max(recent.c.received_at).desc())
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(chosen.limit(MOST)).all()
        return [Sender(calling_ae=row[0], peer=row[1], number=row[2], newest=row[3]) for row in rows]

    def schema(self) -> str:
        """Return the revision of the schema; it is this program's.

        Raises:
            LedgerError: it is another one.
        """
        with self._transactions.reading() as (connection, _now):
            current, newest = current_revision(connection)
        if current != newest:
            raise LedgerError(f"database: schema is at {current or 'nothing'}, not {newest}")
        return newest

    def database(self) -> str:
        """Return the name and the version of the database server."""
        with self._transactions.reading() as (connection, _now):
            dialect = connection.dialect
            version = ".".join(map(str, getattr(dialect, "server_version_info", None) or ()))
        return f"{ {'sqlite': 'SQLite', 'postgresql': 'PostgreSQL'}.get(dialect.name, dialect.name) } {version}".strip()


def depths_of(connection: Connection, now: datetime) -> tuple[QueueDepth, ...]:
    """Return what each queue holds that is not empty: one state at a time, since each has an index of its own."""
    counted: dict[str, dict[str, int]] = {}
    oldest: dict[str, datetime] = {}
    for state in (*OPEN_STATES, WorkState.DEAD):
        for name, number, since in connection.execute(_in_state(state)):
            counted.setdefault(name, {})[state.value] = number
            if state is not WorkState.DEAD and since is not None and since <= now:
                oldest[name] = min(since, oldest.get(name, since))
    found = []
    for name in sorted(counted, key=_place):
        queue = Queue.named(name)
        depth = QueueDepth(kind=queue.kind, destination=queue.destination, oldest=oldest.get(name), **counted[name])
        found.append(depth)
    return tuple(found)


def _place(name: str) -> tuple[int, str]:
    queue = Queue.named(name)
    return list(QueueKind).index(queue.kind), queue.destination


def _in_state(state: WorkState) -> Select[str, int, Any]:
    """Return the query for queue, number, and since when the oldest waits."""
    if state is WorkState.DEAD:
        return (
            select(UNINDEXED_NAME, func.count(), func.min(work.c.done_at))
            .where(work.c.state == state)
            .group_by(UNINDEXED_NAME)
        )
    due = func.coalesce(work.c.due_at, work.c.created_at)
    # a delivery waits since it was opened, whatever its next try: its row of `work` keeps no such instant
    since = case((of_kind(QueueKind.DELIVER, name=UNINDEXED_NAME), delivery.c.created_at), else_=due)
    joined = work.outerjoin(
        delivery, of_kind(QueueKind.DELIVER, name=UNINDEXED_NAME) & (delivery.c.id == work.c.ref_id)
    )
    counted = select(UNINDEXED_NAME, func.count(), func.min(since)).select_from(joined)
    return counted.where(work.c.state == state).group_by(UNINDEXED_NAME)


def _given_up(connection: Connection, selection: WorkSelection) -> Iterator[GivenUp]:
    number = func.count().label("number")
    columns = (UNINDEXED_NAME, work.c.error, number, func.min(work.c.done_at), func.max(work.c.done_at))
    grouped = select(*columns).where(given_up(selection)).group_by(UNINDEXED_NAME, work.c.error)
    for name, reason, count, since, newest in connection.execute(
        grouped.order_by(number.desc(), UNINDEXED_NAME, work.c.error).limit(MOST)
    ):
        queue = Queue.named(name)
        yield GivenUp(
            kind=queue.kind,
            destination=queue.destination,
            reason=reason,
            number=count,
            since=since,
            newest=newest,
        )


def _failed(connection: Connection, selection: WorkSelection) -> Iterator[FailedAnalyses]:
    if selection.kind not in {None, QueueKind.ANALYSE} or selection.destination is not None:
        return
    columns = (result.c.reason, result.c.at, instance.c.purging_at)
    images = failed_images(selection).add_columns(*columns).subquery()
    instants = (func.min(images.c.at), func.max(images.c.at))
    counted = select(images.c.reason, func.count(), func.count(images.c.purging_at), *instants)
    for reason, number, gone, since, newest in connection.execute(counted.group_by(images.c.reason)):
        yield FailedAnalyses(reason=reason, number=number, without_original=gone, since=since, newest=newest)


def _paused(connection: Connection) -> Iterator[PausedDestination]:
    paused = select(destination).where(destination.c.paused_until.is_not(None)).order_by(destination.c.name)
    rows = connection.execute(paused).all()
    if not rows:
        return
    began: dict[str, datetime] = {}
    for row in _newest_events(connection, "destination-paused", MOST):
        began.setdefault(row.detail.get("destination", ""), row.at)
    for row in rows:
        yield PausedDestination(
            name=row.name,
            failures=row.failures,
            paused_until=row.paused_until,
            reason=row.detail,
            since=began.get(row.name, row.at),
        )


def _undeliverable(connection: Connection, selection: WorkSelection) -> Undeliverable:
    if selection.kind is not None or selection.destination is not None or selection.reason is not None:
        return Undeliverable(number=0, since=None)
    reports = undeliverable_reports(selection).subquery()
    number, since = connection.execute(select(func.count(), func.min(reports.c.at)).select_from(reports)).one()
    return Undeliverable(number=number, since=since)


def _conflicts(connection: Connection) -> tuple[tuple[Conflict, ...], int]:
    waits = instance.c.use == Use.CONFLICT
    since = func.min(instance.c.received_at)
    uid = instance.c.sop_instance_uid.concat(literal_column("''"))  # by the index of conflicts, not by that of all UIDs
    grouped = select(uid, func.count(), since).where(waits)
    rows = connection.execute(grouped.group_by(uid).order_by(since.desc()).limit(MOST)).all()
    total: int = connection.execute(select(func.count()).select_from(instance).where(waits)).scalar_one()
    return tuple(Conflict(sop_instance_uid=row[0], number=row[1], since=row[2]) for row in rows), total


def _unregistrable(connection: Connection) -> Iterator[UnregistrableRow]:
    for row in list(unregistrable(connection))[-MOST:]:
        yield UnregistrableRow(
            path=row.detail["path"],
            reason=row.detail["reason"],
            calling_ae=row.detail["calling_ae"],
            peer=row.detail["peer"],
            received_at=datetime.fromisoformat(row.detail["received_at"]),
        )


def _errors(connection: Connection) -> Iterator[LastError]:
    rows = [row for kind in _FAILURES for row in _newest_events(connection, kind, _ERRORS)]
    for row in sorted(rows, key=lambda each: each.id, reverse=True)[:_ERRORS]:
        words = (row.detail.get(name) for name in ("detail", "reason", "error"))
        yield LastError(
            at=row.at,
            kind=row.kind,
            destination=row.detail.get("destination", ""),
            reason=next((str(word) for word in words if word), ""),
            study_uid=row.study_uid,
        )


def _newest_events(connection: Connection, kind: str, most: int) -> Sequence[Row[Any]]:
    chosen = select(event).where(event.c.kind == kind).order_by(event.c.at.desc(), event.c.id.desc()).limit(most)
    return connection.execute(chosen).all()
