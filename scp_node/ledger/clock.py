"""The wall clock of the ledger, and what is done when it jumps.

What waits for an instant - a retry, a lease, a pause - waits for an instant of the wall clock, since that is the only
clock that a database keeps across processes and restarts. Each process compares it with the monotonic clock at each
transaction. Where the two disagree the wall clock was set, and all that waits is moved by as much, once, by whoever
finds it: to everybody else the clock has gone on evenly, since the sum of all jumps is kept beside the rows and is
taken off. See docs/decisions/0011-time.md.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, Interval, func, literal, select, text, update
from sqlalchemy.sql.elements import KeyedColumnElement

from scp_node.domain import Clock, utc_now
from scp_node.ledger.database.schema import clock, delivery, destination, work
from scp_node.ledger.queue import WorkState
from scp_node.ledger.sweep import LONGEST_WAIT
from scp_node.ledger.trail.events import record_event

TOLERANCE: Final = 2.0  # seconds; a smaller jump makes nothing early or late that anybody would notice
DRIFT: Final = 0.001  # seconds a second by which two sound clocks may part; NTP slews by half of it
JUMP_LOCK: Final = 0x5C9_0C1  # any constant: who makes a jump good waits for all transactions, and they for it
_OLDEST: Final = timedelta(days=7)  # an older delivery is given up by any clock
_JUMPED: Final = select(clock.c.jumped_seconds).where(clock.c.id == 1)
_LOOK: Final = text(  # the lock comes before the time: who waited for it must not answer with the time before
    "SELECT pg_advisory_xact_lock_shared(:key), clock_timestamp() AS wall, jumped_seconds FROM clock WHERE id = 1"
)

log = logging.getLogger(__name__)


def host_seconds() -> float:
    """Return seconds that go on evenly whoever sets the wall clock, and while the host sleeps where it can tell."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One reading of the wall clock, made between two of the monotonic clock."""

    wall: datetime
    jumped: float  # seconds of all jumps that were made good
    before: float
    after: float

    @property
    def even(self) -> float:
        """Seconds that have no jump in them, but one that was not made good yet."""
        return self.wall.timestamp() - self.jumped


class WallClock:
    """Tells the time of the database's host, and whether it jumped since this process looked last; for many threads."""

    def __init__(self, *, wall: Clock | None = None, monotonic: Callable[[], float] | None = None) -> None:
        """Read the time from `wall`; without one from PostgreSQL, or on SQLite from this machine.

        A machine that slept with its SQLite file has missed nothing: its default `monotonic` stops meanwhile. One
        that sleeps while PostgreSQL goes on must not take that for a jump of PostgreSQL's clock.
        """
        self._wall = wall
        self._monotonic = monotonic
        self._last: Look | None = None

    def look(self, connection: Connection) -> Look:
        """Read the time in a transaction; none that makes a jump good can commit before this one ends."""
        if connection.dialect.name == "postgresql":
            return self._look_postgresql(connection, self._monotonic or host_seconds)
        monotonic = self._monotonic or time.monotonic
        jumped = connection.execute(_JUMPED).scalar_one()  # first: it fixes what this transaction sees
        before = monotonic()
        wall = (self._wall or utc_now)()
        return Look(wall=wall, jumped=jumped, before=before, after=monotonic())

    def _look_postgresql(self, connection: Connection, monotonic: Callable[[], float]) -> Look:
        before = monotonic()
        row = connection.execute(_LOOK, {"key": JUMP_LOCK}).one()
        wall = self._wall() if self._wall else row.wall.astimezone(UTC)
        return Look(wall=wall, jumped=row.jumped_seconds, before=before, after=monotonic())

    def jump(self, look: Look) -> float:
        """Return by how many seconds the wall clock was set since the last look, 0 if it was not; then keep `look`."""
        if (last := self._last) is not None:
            passed = look.even - last.even
            least, most = look.before - last.after, look.after - last.before
            allowed = TOLERANCE + DRIFT * abs(most)
            if not least - allowed <= passed <= most + allowed:
                return passed - (least + most) / 2
        if last is None or look.after - look.before < TOLERANCE:  # a slow answer says too little of when it was made
            self._last = look
        return 0.0

    def make_good(self, connection: Connection) -> float:
        """Look again, with every other transaction kept out, and move what waits; return the seconds of the jump.

        It is 0 where another process has done it meanwhile. `connection` is in a writing transaction of its own.
        """
        if connection.dialect.name == "postgresql":  # SQLite has one writer
            connection.execute(select(func.pg_advisory_xact_lock(JUMP_LOCK)))
        look = self.look(connection)
        seconds = self.jump(look)
        if seconds:
            moved = _move(connection, seconds, look.wall - timedelta(seconds=seconds))
            proof = {
                column: _later(connection, column, seconds) for column in (clock.c.writable_since, clock.c.writable_at)
            }
            jumped = {clock.c.jumps: clock.c.jumps + 1, clock.c.jumped_seconds: look.jumped + seconds}
            connection.execute(update(clock).where(clock.c.id == 1).values({**jumped, **proof}))
            detail = {"seconds": round(seconds, 3), "moved": moved}
            record_event(connection, look.wall, "clock-jumped", detail=detail)
            log.warning("clock jumped, what waits was moved with it seconds=%.3f moved=%d", seconds, moved)
            self._last = replace(look, jumped=look.jumped + seconds)
        return seconds


def _move(connection: Connection, seconds: float, was: datetime) -> int:
    """Move what the clock that said `was` could have written; return how many rows.

    What it could not have written is from before the node started, by a clock that was right or wrong in its own way:
    a machine that starts in the year 2000 until it hears of NTP must not move yesterday's retries by decades.
    """
    waiting: tuple[tuple[KeyedColumnElement[datetime], ColumnElement[bool]], ...] = (
        (work.c.due_at, (work.c.state == WorkState.DELAYED) & (work.c.due_at <= was + LONGEST_WAIT)),
        (work.c.lease_until, (work.c.state == WorkState.LEASED) & (work.c.lease_until <= was + LONGEST_WAIT)),
        (destination.c.paused_until, destination.c.paused_until <= was + LONGEST_WAIT),
        (
            delivery.c.created_at,
            (delivery.c.state == "waiting")
            & delivery.c.created_at.between(was - _OLDEST, was + timedelta(seconds=TOLERANCE)),
        ),
    )
    moved = 0
    for column, condition in waiting:
        statement = update(column.table).where(condition).values({column: _later(connection, column, seconds)})
        moved += connection.execute(statement).rowcount
    return moved


def _later(connection: Connection, column: ColumnElement[datetime], seconds: float) -> ColumnElement[datetime]:
    if connection.dialect.name == "postgresql":
        return column + literal(timedelta(seconds=seconds), Interval())
    return func.strftime("%Y-%m-%d %H:%M:%f000", column, f"{seconds:+.3f} seconds")  # as UtcDateTime keeps it
