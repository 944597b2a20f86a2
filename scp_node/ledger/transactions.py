"""How the ledger opens transactions, and what time it is in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Table, text

from scp_node.domain import Clock, Priority, utc_now
from scp_node.ledger import work as queue
from scp_node.ledger.engine import reading
from scp_node.ledger.events import recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The numbers that decide when work is due and when it is given up."""

    quiet: timedelta  # a study is reported when nothing more arrived for this long
    lease: timedelta  # a claim that is not renewed for this long is lost
    max_attempts: int  # tries of an analysis or a report before it is given up
    commit_attempts: int = 4  # how often a destination is asked whether it has an object before that is given up

    def report_due(self, priority: int, last_received: datetime, now: datetime) -> datetime:
        """Return when a study is quiet; an urgent one does not wait."""
        return now if priority == Priority.STAT else last_received + self.quiet


def insert_row(connection: Connection, table: Table, **values: Any) -> int:
    """Add one row and return its id."""
    row_id: int = connection.execute(table.insert().values(**values).returning(table.c.id)).scalar_one()
    return row_id


class Transactions:
    """Transactions on one engine, each with the instant it began."""

    def __init__(self, engine: Engine, clock: Clock | None = None) -> None:
        """Take the time from `clock`; without one from PostgreSQL, or on SQLite from this machine: all hosts agree."""
        self.engine = engine
        self._reader = reading(engine)
        self._clock = clock or (utc_now if engine.dialect.name == "sqlite" else None)

    @contextmanager
    def writing(self) -> Iterator[tuple[Connection, datetime]]:
        """Commit when the block ends, with its events at the end of the chain; roll back when it raises."""
        with self.engine.begin() as connection, recording(connection):
            yield connection, self._now(connection)

    @contextmanager
    def reading(self) -> Iterator[tuple[Connection, datetime]]:
        """Read one consistent state; on SQLite this waits for no writer."""
        with self._reader.begin() as connection:
            yield connection, self._now(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Read one state with many statements, however long that takes: what is written meanwhile is not seen."""
        with self._reader.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite's readers do so anyway
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield connection

    def ready(self, name: str) -> bool:
        """Return whether there is something to claim, without taking a lock: idle polling costs no writer."""
        with self._reader.begin() as connection:
            return queue.ready_exists(connection, name)

    def _now(self, connection: Connection) -> datetime:
        return self._clock() if self._clock is not None else queue.database_now(connection)
