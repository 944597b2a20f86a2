"""Opens the database: SQLite for one machine, PostgreSQL for many."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakSet

from sqlalchemy import URL, Connection, Dialect, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError

from scp_node.ledger.database.errors import LedgerError

LOCK_SECONDS: Final = 10.0  # longest wait for a lock or a connection, before the next try
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}
)
_READ_ONLY: Final = "ledger_read_only"
_LIBPQ_DRIVERS: Final = frozenset({"psycopg", "psycopg2"})
# The node notices within 30 s that the database's host has vanished ...
_KEEPALIVE: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
# ... and the database notices that the node's has: TCP by itself would keep a lost session's locks for two hours.
_SESSION: Final = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
}
_READ_ONLY_TRANSACTION: Final = "25006"  # SQLSTATE
# After these errors a connection stays broken, even if the database recovers: SQLite opens a file that it may not write
# for reading only, and a session of PostgreSQL keeps the default that it began with.
_STALE_SQLITE: Final = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
    }
)


def create_ledger_engine(url: str, *, password: str | None = None, patience: float = LOCK_SECONDS) -> Engine:
    """Return an engine with the transaction rules that the ledger needs; it has not connected to the database yet.

    SQLite: write-ahead log and synchronous=FULL, since with NORMAL a power cut can undo a commit that was already acted
    on. A writer takes the lock when it begins, so that it never fails half-way. A missing file is not created.
    PostgreSQL: READ COMMITTED, by the `password` if one is given. Both wait up to `patience` seconds for a lock.

    Raises:
        LedgerError: the URL is invalid, its driver is not installed, or SQLite would lie on a network file system.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return _sqlite_engine(parsed, patience)
        if backend == "postgresql":
            return _postgresql_engine(parsed if password is None else parsed.set(password=password), patience)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise LedgerError(f"database.url: {error}") from None
    except ValueError:  # its message may quote the password
        told = "the port is not a number; in user and password, write : / @ % as %3A %2F %40 %25"
        raise LedgerError(f"database.url: {told}") from None
    raise LedgerError(f"database.url: {backend} is not supported; use sqlite or postgresql+psycopg")


def reading(engine: Engine) -> Engine:
    """Return the engine for transactions that only read: on SQLite they do not wait for a writer."""
    return engine.execution_options(**{_READ_ONLY: True})


def sqlite_file(url: URL) -> Path | None:
    """Return the file of an SQLite database; None for PostgreSQL, a database in memory or a `file:` URI."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name).absolute()


def _postgresql_engine(url: URL, patience: float) -> Engine:
    is_libpq = url.get_driver_name() in _LIBPQ_DRIVERS
    options = {"connect_timeout": max(2, round(patience)), **_KEEPALIVE} if is_libpq else {}
    own = {name: value for name, value in options.items() if name not in url.query}  # the administrator's options win
    engine = create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=5, connect_args=own, hide_parameters=True)
    session = {**_SESSION, "lock_timeout": f"{round(patience * 1000)}ms"}

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for name, value in session.items():
                cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.commit()

    event.listen(engine, "handle_error", _drop_read_only)
    return engine


def _sqlite_engine(url: URL, patience: float) -> Engine:
    file = sqlite_file(url)
    if file and (kind := _file_system(file.parent)) in _NETWORK_FILE_SYSTEMS:
        raise LedgerError(f"database.url: SQLite cannot lock safely on {kind}; use a local disk or PostgreSQL")
    engine = create_engine(url, connect_args={"timeout": patience}, hide_parameters=True)
    milliseconds = round(patience * 1000)

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # `_on_begin` begins transactions, not the driver
        try:
            for pragma in (f"busy_timeout={milliseconds}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()  # now, not at garbage collection: see _StaleConnections
            raise

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    if file:
        _use_only(engine, file)
    _StaleConnections(engine)
    return engine


class _SqliteConnection(sqlite3.Connection):
    """An SQLite connection that takes weak references and knows whether it is open, in use and stale."""

    is_open = True
    in_use = True  # by a thread; otherwise it waits in the pool
    is_stale = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor, and keep a weak reference to it."""
        cursor = super().cursor(*arguments, **options)
        self._cursors.add(cursor)
        return cursor

    def close(self) -> None:
        """Close the connection and its cursors: a cursor that an exception refers to would keep it open in SQLite."""
        for cursor in self._cursors:
            cursor.close()
        super().close()
        self.is_open = False


class _StaleConnections:
    """Closes every connection of this process to a SQLite file after a lasting error, before it opens a new one.

    The connections of a process share the index of the write-ahead log in the mode in which the first of them opened
    it. A connection that saw the disk read-only passes that mode on to each later one, until none is left. As long as
    one is left, SQLite also keeps the file descriptors of closed connections
    (https://sqlite.org/src/file/src/os_unix.c).
    """

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._known: WeakSet[_SqliteConnection] = WeakSet()
        event.listen(engine, "do_connect", self._on_do_connect)  # the last listener, since it makes the connection
        event.listen(engine, "checkout", self._on_checkout)
        event.listen(engine, "checkin", self._on_checkin)
        event.listen(engine, "handle_error", self._on_error)

    def _on_do_connect(
        self, dialect: Dialect, _record: object, arguments: list[Any], options: dict[str, Any]
    ) -> _SqliteConnection:
        with self._lock:
            if any(connection.is_open and connection.is_stale for connection in self._known):
                raise sqlite3.OperationalError("connections from before an error of the disk are still in use")
            connection: Any = dialect.connect(*arguments, **options, factory=_SqliteConnection)
            self._known.add(connection)
            return connection  # type: ignore[no-any-return]

    def _on_checkout(self, connection: _SqliteConnection, _record: object, _proxy: object) -> None:
        with self._lock:
            connection.in_use = True
            if connection.is_stale:
                raise DisconnectionError("the connection is from before an error of the disk")

    def _on_checkin(self, connection: _SqliteConnection | None, record: Any) -> None:
        with self._lock:
            if connection is not None:
                connection.in_use = False
                if connection.is_stale:
                    record.invalidate()  # closes the connection

    def _on_error(self, context: ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF not in _STALE_SQLITE:
            return
        context.is_disconnect = True
        with self._lock:
            for connection in self._known:
                connection.is_stale = True
                if not connection.in_use:
                    connection.close()


def _use_only(engine: Engine, file: Path) -> None:
    """Use this file and no other: never create a new one in its place, and never write to one that was moved away."""

    @event.listens_for(engine, "do_connect")
    def _on_do_connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> None:
        arguments[:] = [f"file:{quote(str(file))}?mode=rw"]
        options["uri"] = True

    @event.listens_for(engine, "connect")
    def _on_connect(_connection: object, record: Any) -> None:
        record.info["file"] = _identity(file)

    @event.listens_for(engine, "checkout")
    def _on_checkout(_connection: object, record: Any, _proxy: object) -> None:
        identity = _identity(file)
        if identity is None or identity != record.info["file"]:
            raise DisconnectionError("the file of the database is not the one that was opened")


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _drop_read_only(context: ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY_TRANSACTION:
        context.is_disconnect = True


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds `folder`, or "" where the operating system does not say."""
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
