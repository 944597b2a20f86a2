"""Opens the ledger's transactions and reads the time in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, Table, text
from sqlalchemy.sql.dml import ReturningInsert

from scp_node.domain import Clock, Priority
from scp_node.ledger import queue
from scp_node.ledger.clock import WallClock
from scp_node.ledger.database.engine import reading
from scp_node.ledger.notices import noticing
from scp_node.ledger.queue_kinds import Queue
from scp_node.ledger.trail.events import recording

Ring: TypeAlias = Callable[[Collection[str]], object]  # of the names of queues


def ring_nobody(_queues: Collection[str]) -> None:
    """Tell nobody of new work: whoever waits for it looks by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The numbers that decide when work is due and when it is given up."""

    quiet: timedelta  # a study is reported when nothing has arrived for this long
    lease: timedelta  # a claim that is not renewed for this long is lost
    max_attempts: int  # tries of an analysis or a report before it is given up
    commit_attempts: int = 4  # how often a destination is asked for an object before that is given up
    versions_apart: timedelta = timedelta(0)  # least time between two versions of a report

    def most_tries(self, waiting: Queue) -> int | None:
        """Return the number of tries before work of this queue is given up, or None where only time limits it."""
        return self.max_attempts if waiting.kind.rules.has_limited_tries else None

    def report_due(
        self, priority: int, last_received: datetime, now: datetime, last_version: datetime | None = None
    ) -> datetime:
        """Return when a study becomes quiet, and its last version is old enough; an urgent study does not wait.

        The instants may come from two clocks, or from one that was set in between: no study waits longer than `quiet`
        or `versions_apart`.
        """
        if priority == Priority.STAT:
            return now
        quiet = min(last_received, now) + self.quiet
        return quiet if last_version is None else max(quiet, min(last_version, now) + self.versions_apart)


def insert_row(connection: Connection, table: Table, **values: Any) -> int:
    """Add one row and return its id."""
    row_id: int = connection.execute(_inserting(table), values).scalar_one()
    return row_id


@cache
def _inserting(table: Table) -> ReturningInsert[Any]:
    return table.insert().returning(table.c.id)


class Transactions:
    """Transactions on one engine, each with the instant at which it began."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock | None = None,
        *,
        wall_clock: WallClock | None = None,
        ring: Ring = ring_nobody,
    ) -> None:
        """Take the time from `clock` as it is, or else from `wall_clock`, by default the one that all hosts share.

        `ring` is called after each commit that made work ready, with the names of its queues.
        """
        self.engine = engine
        self._ring = ring
        self._reader = reading(engine)
        self._clock = clock
        self._wall_clock = wall_clock or WallClock()
        self.has_recorded = False  # whether a transaction has written an event
        self.writes = 0  # grows with each transaction that was committed here

    @contextmanager
    def writing(self) -> Iterator[tuple[Connection, datetime]]:
        """Commit when the block ends, together with its events; roll back when it raises."""
        noted: set[str] = set()
        with (
            self._transaction(self.engine) as (connection, now),
            noticing(connection, noted),
            recording(connection) as events,
        ):
            yield connection, now
        self.has_recorded = self.has_recorded or bool(events)
        self.writes += 1
        if noted:
            self._ring(noted)

    @contextmanager
    def reading(self) -> Iterator[tuple[Connection, datetime]]:
        """Read one consistent state; on SQLite this does not wait for a writer."""
        with self._transaction(self._reader) as transaction:
            yield transaction

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Read one state with many statements, however long they take; later writes stay invisible."""
        with self._reader.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite always reads so
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield connection

    def ready(self, waiting: Queue) -> bool:
        """Return whether queue `name` has ready work, without a lock, so that idle polling does not disturb writers."""
        with self._reader.begin() as connection:
            return queue.ready_exists(connection, waiting)

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[tuple[Connection, datetime]]:
        """Begin a transaction with the time; first correct a jump of the clock, in a separate transaction."""
        while True:
            with engine.begin() as connection:
                now = self._now(connection)
                if now is not None:
                    yield connection, now
                    return
            with self.engine.begin() as connection, recording(connection):
                self._wall_clock.make_good(connection)
            self.has_recorded = True

    def _now(self, connection: Connection) -> datetime | None:
        """Return the time; None if the clock has jumped."""
        if self._clock is not None:
            return self._clock()
        look = self._wall_clock.look(connection)
        return None if self._wall_clock.jump(look) else look.wall
