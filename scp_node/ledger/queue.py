"""The work queue: rows with leases and fencing tokens.

    ready -claim-> leased -complete-> done
                          -release--> delayed -due-> ready
                          -bury-----> dead -requeue-> ready, or cancelled
          leased, lease over: ready again, or dead once its attempts are spent

The claim counts the attempt, so that an input that kills its worker is dead after `max_attempts`. A worker whose lease
ran out has lost its claim: the token has changed, and the queue refuses whatever the worker writes.

Work that was claimed before and did not end well is suspect. If the work of a queue can stop its worker, a suspect is
claimed alone, so that it takes no other work down with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Insert, Integer, Select, bindparam, case, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from scp_node.domain import Priority
from scp_node.ledger.database.schema import work
from scp_node.ledger.notices import notice
from scp_node.ledger.queue_kinds import Queue, in_named_queue, in_queue

AFTER_ALL_ELSE: Final = 2 * Priority.ROUTINE  # of work that nobody waits for: behind everything that arrives
# added to the priority of what goes with a report: no report waits for a picture
BEHIND_REPORTS: Final = Priority.ROUTINE + 1
_MOST_URGENT: Final[Sequence[ColumnElement[Any]]] = (work.c.priority, work.c.id)
_OLDEST: Final[Sequence[ColumnElement[Any]]] = (work.c.created_at, work.c.id)
RELEASED: Final[dict[str, Any]] = {"lease_owner": None, "lease_until": None}


class WorkState(StrEnum):
    """The state of a piece of work."""

    READY = "ready"  # may be claimed
    LEASED = "leased"  # somebody works on it until lease_until
    DELAYED = "delayed"  # becomes ready at due_at
    DONE = "done"
    DEAD = "dead"  # given up: a person has to look at it
    CANCELLED = "cancelled"  # discarded: by a person, or since nothing is left to do


# Statements that each image needs are built once: to build one takes longer than to run it.
_INSERT: Final = work.insert()
_CLOSE: Final = update(work).where(
    work.c.id == bindparam("held_id"),
    work.c.lease_owner == bindparam("held_owner"),
    work.c.lease_token == bindparam("held_token"),
    work.c.state == WorkState.LEASED,
)


def _any(condition: ColumnElement[bool], by: Sequence[ColumnElement[Any]]) -> Select[Any]:
    return select(work.c.id).where(condition).order_by(*by).limit(1)


def _pick(by: Sequence[ColumnElement[Any]]) -> Select[Any]:
    ready = select(work.c.id, work.c.attempt).where(_READY).order_by(*by).limit(bindparam("most", type_=Integer))
    return ready.with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer anyway


_READY: Final = in_named_queue() & (work.c.state == WorkState.READY)
_ANY_READY: Final = _any(_READY, _MOST_URGENT)
_OLDEST_READY: Final = select(work.c.created_at).where(_READY).order_by(*_OLDEST).limit(1)
_PICK_MOST_URGENT: Final = _pick(_MOST_URGENT)
_PICK_OLDEST: Final = _pick(_OLDEST)
_TAKE: Final = (
    update(work)
    .where(work.c.id.in_(bindparam("taken_ids", expanding=True)))
    .values(
        state=WorkState.LEASED,
        lease_owner=bindparam("taken_by"),
        lease_token=work.c.lease_token + 1,
        lease_until=bindparam("taken_until"),
        attempt=work.c.attempt + 1,
        started_at=bindparam("taken_at"),
    )
    .returning(
        work.c.id,
        work.c.dedup,
        work.c.ref_id,
        work.c.lease_token,
        work.c.attempt,
        work.c.priority,
        work.c.created_at,
    )
)

OPEN_STATES: Final = (WorkState.READY, WorkState.LEASED, WorkState.DELAYED)


class Suspects(StrEnum):
    """How a claim treats suspect work."""

    BATCHED = "batched"  # takes suspects like other work
    ALONE = "alone"  # takes a suspect at the front by itself; a suspect further back ends the batch before it
    LEFT = "left"  # takes no suspect: the batch ends before the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to finish one piece of work while the lease lasts."""

    id: int
    queue: Queue
    dedup: str
    ref_id: int | None
    owner: str
    token: int
    attempt: int
    priority: int
    created_at: datetime


def ready_exists(connection: Connection, queue: Queue) -> bool:
    """Return whether `queue` has ready work to claim."""
    return connection.execute(_ANY_READY, {"queue_name": queue.name}).first() is not None


def oldest_ready(connection: Connection, queue: Queue) -> datetime | None:
    """Return when the oldest ready work of `queue` was added; None if there is none to claim."""
    return connection.execute(_OLDEST_READY, {"queue_name": queue.name}).scalar()


def any_work(connection: Connection, condition: ColumnElement[bool], *, by: Sequence[ColumnElement[Any]]) -> bool:
    """Return whether any work meets `condition`, as the one index that is in the order `by` tells.

    Without an order PostgreSQL expects to find such a row soon, and reads the table from its start, where all work is
    done.
    """
    return connection.execute(_any(condition, by)).first() is not None


def enqueue(
    connection: Connection,
    subjects: Iterable[tuple[int, int]],
    *,
    queue: Queue,
    max_attempts: int | None,
    at: datetime,
) -> None:
    """Add work that is ready at once, a row for each subject: its id and the priority.

    Raises:
        sqlalchemy.exc.IntegrityError: the queue has a row for one of them.
    """
    rows = [
        _new_row(queue=queue, dedup=str(ref_id), ref_id=ref_id, priority=priority, max_attempts=max_attempts, at=at)
        for ref_id, priority in subjects
    ]
    connection.execute(_INSERT, [{"state": WorkState.READY, **row} for row in rows])
    notice(connection, queue.name)


def schedule(
    connection: Connection,
    *,
    queue: Queue,
    dedup: str,
    priority: int,
    max_attempts: int | None,
    due: datetime,
    at: datetime,
    ref_id: int | None = None,
    keep_attempt: bool = False,
) -> None:
    """Have this work done once more, at `due` or later: add its row or wake the existing one.

    A leased row keeps its lease: the holder must look again before it completes. With `keep_attempt` the row keeps the
    count of its tries.
    """
    state = WorkState.DELAYED if due > at else WorkState.READY
    row = _new_row(queue=queue, dedup=dedup, ref_id=ref_id, priority=priority, max_attempts=max_attempts, at=at)
    statement = _add_or_wake(connection.dialect.name, keep_attempt=keep_attempt)
    connection.execute(statement, {"state": state, "due_at": due, **row})
    if state is WorkState.READY:
        notice(connection, queue.name)


def reschedule_waiting(connection: Connection, *, queue: Queue, dedup: str, due: datetime, at: datetime) -> None:
    """Move waiting work to `due`; work that is not waiting stays as it is."""
    waiting = work.c.state.in_([WorkState.READY, WorkState.DELAYED])
    state = WorkState.DELAYED if due > at else WorkState.READY
    connection.execute(
        update(work).where(in_queue(queue), work.c.dedup == dedup, waiting).values(state=state, due_at=due)
    )
    if state is WorkState.READY:
        notice(connection, queue.name)


def claim(
    connection: Connection,
    queue: Queue,
    *,
    owner: str,
    limit: int,
    lease: timedelta,
    at: datetime,
    oldest_first: bool = False,
    suspects: Suspects = Suspects.BATCHED,
    among: ColumnElement[bool] | None = None,
) -> list[Claim]:
    """Take up to `limit` pieces of ready work, most urgent first, and return the claims in that order.

    With `oldest_first` the age decides, not the priority: one such claim in a few keeps routine work from starving.
    With `among` only work that meets this condition is taken.
    """
    pick = _PICK_OLDEST if oldest_first else _PICK_MOST_URGENT
    pick = pick if among is None else pick.where(among)
    picked = connection.execute(pick, {"queue_name": queue.name, "most": limit})
    ready = [(row.id, row.attempt > 0) for row in picked]
    ids = _together(ready, suspects)
    if not ids:
        return []
    taking = {"taken_ids": ids, "taken_by": owner, "taken_until": at + lease, "taken_at": at}
    claims = [
        Claim(
            id=row.id,
            queue=queue,
            dedup=row.dedup,
            ref_id=row.ref_id,
            owner=owner,
            token=row.lease_token,
            attempt=row.attempt,
            priority=row.priority,
            created_at=row.created_at,
        )
        for row in connection.execute(_TAKE, taking)
    ]
    return sorted(claims, key=lambda c: (c.created_at if oldest_first else c.priority, c.id))


def _together(ready: Sequence[tuple[int, bool]], suspects: Suspects) -> list[int]:
    """Return the ids that make one batch; each item of `ready` is an id and whether that work is suspect."""
    if suspects is Suspects.BATCHED:
        return [row_id for row_id, _ in ready]
    fresh = [row_id for row_id, _ in itertools.takewhile(lambda row: not row[1], ready)]
    if fresh or suspects is Suspects.LEFT:
        return fresh
    return [row_id for row_id, _ in ready[:1]]


def renew(connection: Connection, claims: Sequence[Claim], *, lease: timedelta, at: datetime) -> int:
    """Extend the leases of the claims that still hold; return their number."""
    return sum(_close(connection, claim, lease_until=at + lease) for claim in claims)


def complete(connection: Connection, claim: Claim, *, at: datetime, error: str = "") -> bool:
    """Close the work; return False if the claim was lost, and then the caller must drop its results."""
    return _close(connection, claim, state=WorkState.DONE, done_at=at, error=error, **RELEASED)


def release_until(
    connection: Connection, claim: Claim, *, due: datetime, error: str = "", keep_attempt: bool = False
) -> bool:
    """Put the work back until `due`; with `keep_attempt` the try is not counted. False: the claim was lost."""
    attempt = claim.attempt - 1 if keep_attempt else claim.attempt
    return _close(connection, claim, state=WorkState.DELAYED, due_at=due, error=error, attempt=attempt, **RELEASED)


def bury(connection: Connection, claim: Claim, *, error: str, at: datetime) -> bool:
    """Give the work up; return False if the claim was lost."""
    return _close(connection, claim, state=WorkState.DEAD, done_at=at, error=error, **RELEASED)


def bury_waiting(connection: Connection, ids: Sequence[int], *, error: str, at: datetime) -> None:
    """Give up waiting work whose rows the caller has locked."""
    waiting = work.c.state.in_([WorkState.READY, WorkState.DELAYED])
    connection.execute(
        update(work).where(work.c.id.in_(ids), waiting).values(state=WorkState.DEAD, done_at=at, error=error)
    )


def wake(connection: Connection, condition: ColumnElement[bool], *, at: datetime) -> int:
    """Make ended work that meets `condition` ready again, with all its attempts; return the number of rows."""
    ended = work.c.state.in_([WorkState.DONE, WorkState.DEAD, WorkState.CANCELLED])
    again = {"state": WorkState.READY, "attempt": 0, "due_at": at, "done_at": None, "error": ""}
    woken = update(work).where(ended, condition).values(**again).returning(work.c.queue)
    names = connection.scalars(woken).all()
    notice(connection, *names)
    return len(names)


def attempts(connection: Connection, *, queue: Queue, dedup: str) -> int:
    """Return the number of tries of this work; 0 if it has no row."""
    counted = select(work.c.attempt).where(in_queue(queue), work.c.dedup == dedup)
    return connection.scalar(counted) or 0


def forget_attempts(connection: Connection, *, queue: Queue, dedup: str) -> None:
    """Give this work all its tries again, whatever its state."""
    connection.execute(update(work).where(in_queue(queue), work.c.dedup == dedup).values(attempt=0))


def close_unclaimed(connection: Connection, *, queue: Queue, dedup: str, at: datetime, error: str = "") -> None:
    """Close this work in whatever state it is: something else has done it. A holder loses its claim."""
    known = update(work).where(in_queue(queue), work.c.dedup == dedup)
    connection.execute(known.values(state=WorkState.DONE, done_at=at, error=error, **RELEASED))


def mark_done_as_dead(connection: Connection, *, queue: Queue, dedup: str, error: str, at: datetime) -> None:
    """Give up work that was done, because a destination does not have what it took."""
    done = in_queue(queue) & (work.c.dedup == dedup) & (work.c.state == WorkState.DONE)
    connection.execute(update(work).where(done).values(state=WorkState.DEAD, done_at=at, error=error))


def hasten(connection: Connection, queue: Queue, *, at: datetime) -> None:
    """Make all delayed work of `queue` ready at once."""
    delayed = update(work).where(in_queue(queue), work.c.state == WorkState.DELAYED)
    connection.execute(delayed.values(state=WorkState.READY, due_at=at))
    notice(connection, queue.name)


def cancel(connection: Connection, condition: ColumnElement[bool], *, at: datetime) -> int:
    """Discard dead work that meets `condition`; return the number of rows."""
    return connection.execute(
        update(work).where(work.c.state == WorkState.DEAD, condition).values(state=WorkState.CANCELLED, done_at=at)
    ).rowcount


def cancel_unneeded(connection: Connection, condition: ColumnElement[bool], *, error: str, at: datetime) -> int:
    """Discard open and dead work that meets `condition`, since nothing is left to do; a holder loses its claim."""
    needless = work.c.state.in_([*OPEN_STATES, WorkState.DEAD])
    values = {"state": WorkState.CANCELLED, "done_at": at, "error": error, **RELEASED}
    return connection.execute(update(work).where(needless, condition).values(**values)).rowcount


def _close(connection: Connection, claim: Claim, **values: Any) -> bool:
    held = {"held_id": claim.id, "held_owner": claim.owner, "held_token": claim.token}
    return connection.execute(_CLOSE, {**values, **held}).rowcount == 1


@cache
def _add_or_wake(dialect: str, *, keep_attempt: bool) -> Insert:
    insert = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(work)
    new = insert.excluded
    is_leased = work.c.state == WorkState.LEASED
    return insert.on_conflict_do_update(
        index_elements=[work.c.queue, work.c.dedup],
        set_={
            "state": case((is_leased, work.c.state), else_=new.state),
            "due_at": new.due_at,
            "attempt": case((true() if keep_attempt else is_leased, work.c.attempt), else_=0),
            "priority": case((work.c.priority < new.priority, work.c.priority), else_=new.priority),
        },
    )


def _new_row(
    *, queue: Queue, dedup: str, ref_id: int | None, priority: int, max_attempts: int | None, at: datetime
) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "dedup": dedup,
        "ref_id": ref_id,
        "priority": int(priority),
        "attempt": 0,
        "max_attempts": max_attempts,
        "lease_token": 0,
        "error": "",
        "created_at": at,
    }
