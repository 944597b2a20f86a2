"""Copies the database to a file while the node runs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import quote

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.transactions import Transactions
from scp_node.ledger.verification import Verification, Verifier
from scp_node.private_files import opener


def backup_ledger(engine: Engine, file: Path, *, overwrite: bool = False) -> Verification:
    """Write one consistent copy of an SQLite ledger to `file`, check it, and return the result of the check.

    The writers of a running node do not wait for it. Either `file` is complete and synced, or it does not exist.

    Raises:
        LedgerError: the database is PostgreSQL, `file` exists already, or the copy could not be made or is damaged.
    """
    if engine.dialect.name != "sqlite":
        raise LedgerError(f"backup: use PostgreSQL's own tool, `{_pg_dump(engine, file)}`; see docs/backup.md")
    if file.exists() and (not overwrite or file.samefile(str(engine.url.database))):
        raise LedgerError(f"backup: {file} is there already")
    try:
        with _renamed_when_done(file) as temporary:
            _copy(engine, temporary)
            return _checked(temporary)
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(f"backup: {file} not written: {error}") from error


def _pg_dump(engine: Engine, file: Path) -> str:
    at = engine.url
    where = [
        f"--{name}={value}"
        for name, value in (("host", at.host), ("port", at.port), ("username", at.username))
        if value
    ]
    return " ".join(["pg_dump --format=custom", *where, f"--file={file}", at.database or ""])


@contextmanager
def _renamed_when_done(file: Path) -> Iterator[Path]:
    """Yield a private file beside `file`, and rename it to `file` once it is complete and synced."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    open(temporary, "xb", opener=opener).close()
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(file)
        _sync(file.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(engine: Engine, temporary: Path) -> None:
    """Copy with SQLite's backup, in one step: a backup in several steps starts over after every commit of the node."""
    with closing(engine.raw_connection()) as pooled, closing(sqlite3.connect(temporary)) as target:
        cast("sqlite3.Connection", pooled.driver_connection).backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        found = target.execute("PRAGMA integrity_check").fetchall()
        orphans = target.execute("PRAGMA foreign_key_check").fetchall()
    if found != [("ok",)] or orphans:
        raise LedgerError(f"backup: the copy is damaged, and so is probably the database: {found[0][0]}")


def _checked(copy: Path) -> Verification:
    address = f"file:{quote(str(copy.absolute()))}?mode=ro"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool)
    return Verifier(Transactions(engine)).verify()
