"""Looks at the work rows from outside while things break: how long did one stand still that should have moved?

Not counted: a row that is delayed until later, one that waits while its queue moves on, and time in which no process
ran that could have moved it. What waits in vain while others pass is seen at the end: the node does not get idle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from sqlalchemy import create_engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from scp_node.ledger.database.schema import work

PERIOD: Final = 0.25  # seconds between two looks
_COLUMNS: Final = (work.c.id, work.c.queue, work.c.state, work.c.lease_token, work.c.lease_until, work.c.due_at)


@dataclass(slots=True)
class Still:
    """A row that has not changed."""

    row: tuple[Any, ...]
    seconds: float = 0.0  # with a process that could have moved it


class WorkWatch:
    """A thread that looks at every open row; `longest` is the worst that it saw."""

    def __init__(self, url: str, *, is_served: Callable[[str], bool]) -> None:
        """Look into the database at `url`, over a connection that is closed after each look."""
        self._engine = create_engine(url, poolclass=NullPool)
        self._is_served = is_served  # whether a process runs that works on this queue
        self._still: dict[int, Still] = {}  # by row
        self._looked_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self.longest = 0.0  # seconds
        self.what = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._engine.dispose()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD):
            try:
                with self._engine.connect() as connection:
                    rows = connection.execute(select(*_COLUMNS).where(work.c.state.in_(["ready", "leased", "delayed"])))
                    self._look(rows.all())
            except SQLAlchemyError:  # the database is busy: the next look tells
                continue

    def _look(self, rows: Any) -> None:
        now, clock = time.monotonic(), datetime.now(UTC)
        passed, self._looked_at = now - self._looked_at, now
        due = [tuple(row) for row in rows if row.state != "delayed" or row.due_at <= clock]
        before, self._still = self._still, {row[0]: Still(row) for row in due}
        moved = {still.row[1] for still in before.values() if still.row not in due}
        for number, still in self._still.items():
            _, queue, state, *_ = still.row
            last = before.get(number)
            if last is None or last.row != still.row or (queue in moved and state != "leased"):
                continue
            still.seconds = last.seconds + passed * self._is_served(queue)
            if still.seconds > self.longest:
                self.longest, self.what = still.seconds, f"{queue} {state}"
