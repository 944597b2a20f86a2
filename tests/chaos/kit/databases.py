"""Ways in which a database goes away and comes back, each a block: in it the database is away."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

import psycopg

from tests.chaos.kit.disk import Disk
from tests.chaos.kit.preload import build
from tests.servers import LOOPBACK, Postgres

Outage = Callable[[], AbstractContextManager[None]]


def of_postgres(server: Postgres, database: str) -> dict[str, Outage]:
    """Return what may happen to a PostgreSQL server, by name."""
    return {
        "stopped": lambda: _stopped(server),
        "stopped again": lambda: _stopped(server),
        "frozen": lambda: _frozen(server),
        "locked": lambda: _tables_locked(server, database),
        "read-only": lambda: _read_only(server),
    }


def of_sqlite(file: Path, disk: Disk, failure: Failure) -> dict[str, Outage]:
    """Return what may happen to a SQLite file that has a small disk to itself, by name."""
    return {
        "locked": lambda: _file_locked(file),
        "full": lambda: _full(disk),
        "read-only": failure.now,
        "gone": lambda: moved_away(file),
    }


class Failure:
    """A folder whose disk can fail: the programs that have its environment write nothing there any more."""

    def __init__(self, disk: Path, folder: Path) -> None:
        """Build in `folder` what is preloaded."""
        self._has_failed = folder / "disk-has-failed"
        self.environment = {
            "LD_PRELOAD": str(build("read_only", folder)),
            "TEST_READ_ONLY": str(disk.resolve()),
            "TEST_READ_ONLY_WHILE": str(self._has_failed),
        }

    @contextmanager
    def now(self) -> Iterator[None]:
        """Let it have failed in this block."""
        self._has_failed.touch()
        try:
            yield
        finally:
            self._has_failed.unlink()


@contextmanager
def moved_away(file: Path) -> Iterator[None]:
    """Take a SQLite database from its place, as an administrator by mistake, or a disk that is not mounted."""
    away = file.parent / "away"
    away.mkdir()
    names = [entry.name for entry in file.parent.iterdir() if entry.name.startswith(file.name)]
    for name in sorted(names):  # the database before its log: never the one without the other
        (file.parent / name).rename(away / name)
    try:
        yield
    finally:
        made = sorted(entry.name for entry in file.parent.iterdir() if entry.name.startswith(file.name))
        for name in sorted(names, reverse=True):
            (away / name).rename(file.parent / name)
        away.rmdir()
        assert made == [], "an empty database was made in its place"


@contextmanager
def _stopped(server: Postgres) -> Iterator[None]:
    """As after a power cut: no transaction ends, and the server recovers from its log when it starts."""
    server.stop_immediately()
    try:
        yield
    finally:
        server.start()


@contextmanager
def _frozen(server: Postgres) -> Iterator[None]:
    """Its host accepts connections and acknowledges bytes, and nobody answers."""
    server.pause()
    children = _children(server.pid)
    _signal(children, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(children, signal.SIGCONT)
        server.resume()


@contextmanager
def _tables_locked(server: Postgres, database: str) -> Iterator[None]:
    """Somebody works on the tables, in a transaction that is left open."""
    at = {"host": LOOPBACK, "port": server.port, "user": "postgres", "dbname": database}
    with psycopg.connect(**at) as connection:  # type: ignore[arg-type]
        connection.execute("LOCK TABLE instance, work, delivery, event, chain IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


@contextmanager
def _read_only(server: Postgres) -> Iterator[None]:
    """As a standby that did not become the primary, or a server whose disk is watched."""
    _set_read_only(server, "on")
    try:
        yield
    finally:
        _set_read_only(server, "off")


def _set_read_only(server: Postgres, value: str) -> None:
    server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    server.execute("SELECT pg_reload_conf()")


@contextmanager
def _file_locked(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None, timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def _full(disk: Disk) -> Iterator[None]:
    disk.fill()
    try:
        yield
    finally:
        disk.make_room()


def _children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended in between
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def _signal(processes: list[int], number: signal.Signals) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
