"""Checks the revision of the schema and upgrades it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from scp_node.ledger.database.engine import reading, sqlite_file
from scp_node.ledger.database.errors import LedgerError, LedgerGoneError, LedgerUnreachableError, first_line
from scp_node.private_files import FILE_MODE, make_private_folder

_MIGRATION_LOCK: Final = 0x5C9_0DE  # any constant: one upgrade at a time
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(engine: Engine, *, begin: bool = True) -> None:
    """Upgrade the schema to the newest revision; do nothing if it is there already.

    With `begin`, a database that is empty or, on SQLite, missing gets its tables. Without, that is an error: there was
    a ledger before, and an empty one in its place would be wrong.

    Raises:
        LedgerGoneError: the ledger is missing, and `begin` is False.
        LedgerUnreachableError: the database cannot be used now.
        LedgerError: its schema is newer than this program.
    """
    file = sqlite_file(engine.url)
    if file and not begin and not file.exists():
        raise LedgerGoneError(f"database: {file} is gone")
    try:
        if file and begin:
            make_private_folder(file.parent)
            file.touch(mode=FILE_MODE)  # an empty file is an empty database
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            current = _revision(connection)
            if current is None and not begin:
                raise LedgerGoneError("database: is empty, though there was a ledger in it")
            if current != _newest():
                _migrate(connection, current)
    except (SQLAlchemyError, OSError) as error:
        raise _explained(error, file) from error


def check_revision(engine: Engine) -> None:
    """Check that the schema is the one that this program was written for.

    Raises:
        LedgerUnreachableError: the database cannot be used now.
        LedgerError: the schema is a different one.
    """
    current, head = _current(engine), _newest()
    if current != head:
        raise LedgerError(f"database: schema is at {current or 'nothing'}, not {head}: run `scp-node db upgrade`")


def current_revision(connection: Connection) -> tuple[str | None, str]:
    """Return the schema's revision, None for a database without one, and the one of this program."""
    return _revision(connection), _newest()


def is_up_to_date(engine: Engine) -> bool:
    """Return whether `upgrade` would do nothing, without waiting for a writer.

    Raises:
        LedgerUnreachableError: the database cannot be used now.
        LedgerError: the file or the URL does not name a database.
    """
    return _current(engine) == _newest()


def is_begun(engine: Engine) -> bool:
    """Return whether the database holds a ledger of any revision; a missing SQLite file does not, and stays missing.

    Raises:
        LedgerUnreachableError: the database cannot be used now.
        LedgerError: the file or the URL does not name a database.
    """
    file = sqlite_file(engine.url)
    if file and _is_missing(file):
        return False
    return _current(engine) is not None


def _current(engine: Engine) -> str | None:
    try:
        with reading(engine).begin() as connection:
            return _revision(connection)
    except SQLAlchemyError as error:
        raise _explained(error, sqlite_file(engine.url)) from error


def _revision(connection: Connection) -> str | None:
    """Return the schema's revision, None for a database without one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _newest() -> str:
    """Return this program's revision: the number that begins the name of the newest migration's file."""
    return max(file.name.partition("_")[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _migrate(connection: Connection, current: str | None) -> None:
    from alembic import command  # noqa: PLC0415 - a sixth of the start of every process, and seldom needed
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise LedgerError(f"database: schema {current} is newer than this program")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _explained(error: Exception, file: Path | None) -> LedgerError:
    if file and isinstance(error, FileExistsError | NotADirectoryError):
        return LedgerUnreachableError(f"database: {file} cannot be made: {file.parent} is not a folder")
    if isinstance(error, OSError):
        return LedgerUnreachableError(f"database: {file} cannot be made: {error.strerror}")
    if file and _is_missing(file):
        return LedgerUnreachableError(f"database: {file} is not there: `scp-node db upgrade` makes it")
    if file and not os.access(file, os.R_OK | os.W_OK):
        return LedgerUnreachableError(f"database: {file}: user {os.geteuid()} may not read and write it")
    where = f"{file}: " if file else ""
    original = getattr(error, "orig", None)
    no_database = getattr(original, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB
    if no_database or isinstance(error, ProgrammingError):  # PostgreSQL: the URL has an unknown option
        return LedgerError(f"database: {where}{first_line(error)}")
    return LedgerUnreachableError(f"database: {where}{first_line(error)}")


def _is_missing(file: Path) -> bool:
    """Return whether the file is not there; one in a folder that may not be looked into counts as there."""
    try:
        return not file.exists()
    except OSError:
        return False
