"""The wall clock of the ledger, and the correction when it jumps.

A retry, a lease or a pause waits for an instant of the wall clock, since no other clock survives in a database across
processes and restarts. Each process compares the wall clock with the monotonic clock at each transaction. If the two
disagree, somebody has set the wall clock. The first process that notices moves every waiting instant by the size of the
jump, once. It also adds the jump to a sum that is kept in the database. The others subtract that sum, so to them the
clock has not jumped. See docs/decisions/0011-time.md.
"""

from __future__ import annotations

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
from scp_node.logs import get_logger

TOLERANCE: Final = 2.0  # seconds; nobody would notice the effect of a smaller jump
DRIFT: Final = 0.001  # seconds per second by which two sound clocks may differ; NTP slews by half of it
JUMP_LOCK: Final = 0x5C9_0C1  # any constant: a correction waits for all transactions, and they wait for it
_OLDEST: Final = timedelta(days=7)  # a delivery that is older is given up by any clock
_JUMPED: Final = select(clock.c.jumped_seconds).where(clock.c.id == 1)
_LOOK: Final = text(  # the lock comes first: a transaction that waited for it must not read the time before the wait
    "SELECT pg_advisory_xact_lock_shared(:key), clock_timestamp() AS wall, jumped_seconds FROM clock WHERE id = 1"
)

log = get_logger(__name__)


def host_seconds() -> float:
    """Return seconds that run evenly when somebody sets the wall clock, and on Linux also while the host sleeps."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One reading of the wall clock, between two readings of the monotonic clock."""

    wall: datetime
    jumped: float  # sum in seconds of all jumps that were corrected
    before: float
    after: float

    @property
    def even(self) -> float:
        """Seconds without the corrected jumps; a jump that was not corrected yet is still in them."""
        return self.wall.timestamp() - self.jumped


class WallClock:
    """Tells the time of the database's host, and whether it has jumped since the last look; for many threads."""

    def __init__(self, *, wall: Clock | None = None, monotonic: Callable[[], float] | None = None) -> None:
        """Read the time from `wall`; by default from PostgreSQL, or from this machine if the database is SQLite.

        A machine that sleeps together with its SQLite file has missed nothing, so the default `monotonic` stops with
        it. A machine that sleeps while PostgreSQL runs on must not see a jump of PostgreSQL's clock, so there the
        default runs on during sleep.
        """
        self._wall = wall
        self._monotonic = monotonic
        self._last: Look | None = None

    def look(self, connection: Connection) -> Look:
        """Read the time in a transaction; no correction of a jump can commit before this transaction ends."""
        if connection.dialect.name == "postgresql":
            return self._look_postgresql(connection, self._monotonic or host_seconds)
        monotonic = self._monotonic or time.monotonic
        jumped = connection.execute(_JUMPED).scalar_one()  # first, since it fixes the state that this transaction sees
        before = monotonic()
        wall = (self._wall or utc_now)()
        return Look(wall=wall, jumped=jumped, before=before, after=monotonic())

    def _look_postgresql(self, connection: Connection, monotonic: Callable[[], float]) -> Look:
        before = monotonic()
        row = connection.execute(_LOOK, {"key": JUMP_LOCK}).one()
        wall = self._wall() if self._wall else row.wall.astimezone(UTC)
        return Look(wall=wall, jumped=row.jumped_seconds, before=before, after=monotonic())

    def jump(self, look: Look) -> float:
        """Return the seconds by which the wall clock was set since the last look, or 0 and keep `look`."""
        if (last := self._last) is not None:
            passed = look.even - last.even
            least, most = look.before - last.after, look.after - last.before
            allowed = TOLERANCE + DRIFT * abs(most)
            if not least - allowed <= passed <= most + allowed:
                return passed - (least + most) / 2
        if last is None or look.after - look.before < TOLERANCE:  # a slow answer does not say when it was made
            self._last = look
        return 0.0

    def make_good(self, connection: Connection) -> float:
        """Look again, keep all other transactions out, and correct the jump; return its size in seconds.

        It is 0 if another process has corrected the jump meanwhile. `connection` is in a separate writing transaction.
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
            log.warning("clock jumped, what waits was moved with it", seconds=round(seconds, 3), moved=moved)
            self._last = replace(look, jumped=look.jumped + seconds)
        return seconds


def _move(connection: Connection, seconds: float, was: datetime) -> int:
    """Move the instants that the clock can have written when it said `was`; return the number of rows.

    Any other instant was written before the node started, by a clock that was right or wrong in another way. A machine
    may start in the year 2000 until it hears of NTP; yesterday's retries must not move by decades then.
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
    return func.strftime("%Y-%m-%d %H:%M:%f000", column, f"{seconds:+.3f} seconds")  # the format of UtcDateTime
