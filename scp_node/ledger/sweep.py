"""Work comes back: what is due, and what lost its worker because nobody renewed the lease."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, case, false, or_, select, update

from scp_node.ledger.database.schema import work
from scp_node.ledger.notices import notice
from scp_node.ledger.queue import RELEASED, WorkState, any_work
from scp_node.ledger.queue_kinds import Queue, may_stop_worker, needs_model

# no setting allows a pause of more than a day: what is due later had another clock
LONGEST_WAIT: Final = timedelta(hours=25)
LONGEST_LEASE: Final = timedelta(hours=2)  # nor a lease of more than an hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The state of the queues, to see when a sweep is needed."""

    needed: bool  # a sweep would change something
    leased: bool  # somebody holds a lease
    under_way: bool  # work is leased or ready: at any time it may be followed by more
    first_due: datetime | None  # of the work that waits for its time


_FIRST_DUE: Final = select(work.c.due_at).where(work.c.state == WorkState.DELAYED).order_by(work.c.due_at).limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """A lease that ran out."""

    id: int
    queue: Queue
    dedup: str
    ref_id: int | None
    attempt: int
    dead: bool


def outlook(connection: Connection, *, at: datetime, lost: bool = True) -> Outlook:
    """Return the outlook at `at`; without `lost` no lease is taken for lost."""
    leased = any_work(connection, work.c.state == WorkState.LEASED, by=[work.c.lease_until])
    first_due = connection.scalar(_FIRST_DUE)
    needed = first_due is not None and (first_due <= at or (lost and _any_misdated(connection, at)))
    needed = needed or (leased and lost and any_work(connection, _expired(at), by=[work.c.lease_until]))
    under_way = leased or any_work(
        connection, work.c.state == WorkState.READY, by=[work.c.queue, work.c.priority, work.c.id]
    )
    return Outlook(needed=needed, leased=leased, under_way=under_way, first_due=first_due)


def sweep(
    connection: Connection,
    *,
    at: datetime,
    pause: timedelta = timedelta(0),
    has_model: bool = True,
    lost: bool = True,
) -> list[Expired]:
    """Return due work and lost leases to ready, or bury what has spent its attempts; return the lost leases.

    An image that lost its worker again, alone, waits for `pause`: everything else that waits goes first. Without
    `has_model` work stays leased where burying it would need one. Without `lost` no lease is taken for lost.
    """
    due = _due(at) | _misdated(at) if lost else _due(at)
    ready = update(work).where(due).values(state=WorkState.READY).returning(work.c.queue)
    notice(connection, *connection.scalars(ready).all())
    if not lost:
        return []
    spent = and_(work.c.max_attempts.is_not(None), work.c.attempt >= work.c.max_attempts)
    again = and_(may_stop_worker(), work.c.attempt > 1)
    left = false() if has_model else and_(needs_model(), spent)
    expired = (
        update(work)
        .where(_expired(at), ~left)
        .values(
            state=case((spent, WorkState.DEAD), (again, WorkState.DELAYED), else_=WorkState.READY),
            due_at=case((again, at + pause), else_=work.c.due_at),
            done_at=case((spent, at), else_=None),
            error=case((spent, "lease expired, attempts spent"), else_="lease expired"),
            **RELEASED,
        )
        .returning(work.c.id, work.c.queue, work.c.dedup, work.c.ref_id, work.c.attempt, work.c.state)
    )
    rows = connection.execute(expired).all()
    notice(connection, *(row.queue for row in rows if row.state == WorkState.READY))
    return [
        Expired(
            id=row.id,
            queue=Queue.named(row.queue),
            dedup=row.dedup,
            ref_id=row.ref_id,
            attempt=row.attempt,
            dead=row.state == WorkState.DEAD,
        )
        for row in rows
    ]


def _due(at: datetime) -> ColumnElement[bool]:
    return and_(work.c.state == WorkState.DELAYED, work.c.due_at <= at)


def _any_misdated(connection: Connection, at: datetime) -> bool:
    return any_work(connection, _misdated(at), by=[work.c.due_at])


def _misdated(at: datetime) -> ColumnElement[bool]:
    """Return the condition of work whose pause was written by a clock that ran ahead and has been set back since."""
    return and_(work.c.state == WorkState.DELAYED, work.c.due_at > at + LONGEST_WAIT)


def _expired(at: datetime) -> ColumnElement[bool]:
    """Return the condition of work whose lease is over, or was written by a clock that ran ahead."""
    over = or_(work.c.lease_until < at, work.c.lease_until > at + LONGEST_LEASE)
    return and_(work.c.state == WorkState.LEASED, over)
