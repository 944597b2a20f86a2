"""Opens the database: SQLite for one machine, PostgreSQL for many."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}
)
_READ_ONLY = "ledger_read_only"
_MIGRATION_LOCK = 0x5C9_0DE  # any constant: one upgrade at a time


class LedgerError(RuntimeError):
    """The database cannot be used; the message says why and never holds a password."""


def create_ledger_engine(url: str) -> Engine:
    """Return an engine with the transaction rules that the ledger needs.

    SQLite: write-ahead log and synchronous=FULL, since with NORMAL a power cut can undo a commit that was already
    acted on; writers take the lock when they begin, so that they never fail half-way. PostgreSQL: READ COMMITTED.

    Raises:
        LedgerError: the URL is not one, its driver is not installed, or SQLite would lie on a network file system.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return _sqlite_engine(url, parsed.database)
        if backend == "postgresql":
            return create_engine(parsed, pool_pre_ping=True, pool_size=5, max_overflow=5)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise LedgerError(f"database.url: {error}") from None
    raise LedgerError(f"database.url: {backend} is not supported; use sqlite or postgresql+psycopg")


def reading(engine: Engine) -> Engine:
    """Return the engine for transactions that only read: on SQLite they wait for no writer."""
    return engine.execution_options(**{_READ_ONLY: True})


def _sqlite_engine(url: str, database: str | None) -> Engine:
    if database and database != ":memory:":
        folder = Path(database).absolute().parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (kind := _file_system(folder)) in _NETWORK_FILE_SYSTEMS:
            raise LedgerError(f"database.url: SQLite cannot lock safely on {kind}; use a local disk or PostgreSQL")
    engine = create_engine(url, connect_args={"timeout": 30.0})

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds `folder`, empty where the system does not say."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in mounts.splitlines():
        _device, point, file_system, *_ = line.split(" ")
        mount = point.replace("\\040", " ")
        if len(mount) >= len(best) and os.path.commonpath([mount, folder.resolve()]) == mount:
            best, kind = mount, file_system
    return kind


def upgrade(engine: Engine) -> None:
    """Bring the schema to the newest revision; does nothing when it is there.

    Raises:
        LedgerError: the database cannot be reached, or its schema is newer than this program.
    """
    config = _migrations()
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            _refuse_newer(connection, ScriptDirectory.from_config(config))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except SQLAlchemyError as error:
        raise LedgerError(f"database: {_first_line(error)}") from error


def check_revision(engine: Engine) -> None:
    """Check that the schema is the one that this program was written for.

    Raises:
        LedgerError: it is not, or the database cannot be reached.
    """
    head = ScriptDirectory.from_config(_migrations()).get_current_head()
    try:
        with reading(engine).begin() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        raise LedgerError(f"database: {_first_line(error)}") from error
    if current != head:
        raise LedgerError(f"database: schema is at {current or 'nothing'}, not {head}: run `scp-node db upgrade`")


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    return config


def _refuse_newer(connection: Connection, scripts: ScriptDirectory) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise LedgerError(f"database: schema {current} is newer than this program")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
