"""Opens the database with its ledger and the spool that the settings name, and holds the installation's identifier.

It also prepares the database for a role, and never begins an empty ledger in place of one that was there before.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, Engine

from scp_node.ledger import (
    Copied,
    Ledger,
    LedgerError,
    LedgerGoneError,
    LedgerUnreachableError,
    Policy,
    Verification,
    check_revision,
    create_ledger_engine,
    is_begun,
    is_up_to_date,
    upgrade,
)
from scp_node.ledger.database.engine import LOCK_SECONDS, sqlite_file
from scp_node.private_files import make_private_folder, write_private
from scp_node.runtime.patience import Patience
from scp_node.secret_files import read_secret
from scp_node.settings import Settings, SettingsError

if TYPE_CHECKING:
    from scp_node.spool import Spool, SpoolFiles

INSTALLATION_ID: Final = "installation-id"  # a name in the data folder, like the next two
SPOOL_FOLDER: Final = "spool"
MARKER: Final = "ledger"  # holds the name of the database with this node's ledger


def await_schema(
    engine: Engine,
    data_dir: Path,
    stop: threading.Event,
    *,
    may_upgrade: bool,
    renew: Callable[[], None] = lambda: None,
) -> bool:
    """Wait for a usable database with this program's schema; return False if `stop` was set first.

    `renew` is called before each try.

    Raises:
        LedgerError: the schema does not fit.
    """
    patience = Patience(stop, name="start", renew=renew)
    try:
        patience(lambda: prepare_ledger(engine, data_dir, may_upgrade=may_upgrade))
    except LedgerUnreachableError:
        return False
    return True


def prepare_ledger(engine: Engine, data_dir: Path, *, may_upgrade: bool) -> None:
    """Make sure that the schema is this program's; upgrade it if `may_upgrade`.

    Raises:
        LedgerUnreachableError: the database cannot be used now.
        LedgerError: the schema does not fit.
    """
    if not may_upgrade:
        check_revision(engine)
    elif not _is_ready(engine, data_dir):
        upgrade_ledger(engine, data_dir)


def upgrade_ledger(engine: Engine, data_dir: Path) -> None:
    """Upgrade the schema, and remember the database in the data folder.

    Raises:
        LedgerUnreachableError: the database cannot be used now, or it held a ledger before and is empty or gone
            now.
        LedgerError: its schema is newer than this program.
    """
    marker, name = data_dir / MARKER, _name(engine.url)
    try:
        upgrade(engine, begin=not _is_marked(marker, name))
    except LedgerGoneError as error:
        raise LedgerGoneError(f"{error}: put it back, or remove {marker} to begin an empty one") from error
    _mark(marker, name)


def _is_ready(engine: Engine, data_dir: Path) -> bool:
    file = sqlite_file(engine.url)
    return (file is None or file.exists()) and (data_dir / MARKER).exists() and is_up_to_date(engine)


def _is_marked(marker: Path, name: str) -> bool:
    try:
        return marker.read_text(encoding="utf-8").strip() == name
    except (FileNotFoundError, NotADirectoryError):
        return False


def _mark(marker: Path, name: str) -> None:
    if _is_marked(marker, name):
        return
    make_private_folder(marker.parent)
    temporary = marker.with_name(f"{MARKER}.{os.getpid()}")
    write_private(temporary, f"{name}\n".encode())
    temporary.replace(marker)


def _name(url: URL) -> str:
    """Return the name of the database without user and password."""
    if file := sqlite_file(url):
        return f"sqlite:///{file}"
    return f"{url.get_backend_name()}://{url.host}:{url.port or ''}/{url.database}"


def open_engine(settings: Settings, *, patience: float = LOCK_SECONDS) -> Engine:
    """Return an engine for the database of these settings; it has not connected yet.

    Raises:
        LedgerError: see `create_ledger_engine`; or the file with the password cannot be used.
    """
    file = settings.database.password_file
    try:
        password = read_secret(file, "database.password_file") if file else None
    except SettingsError as error:
        raise LedgerError(str(error)) from None
    return create_ledger_engine(settings.database_url, password=password, patience=patience)


def open_ledger(settings: Settings) -> Ledger:
    """Return the ledger of these settings; its schema must exist.

    Raises:
        LedgerError: the database cannot be reached, or its schema is not this program's.
    """
    engine = open_engine(settings)
    check_revision(engine)
    return Ledger(engine, policy_of(settings))


def has_ledger(settings: Settings) -> bool:
    """Return whether the database of these settings holds a ledger; creates nothing.

    Raises:
        LedgerGoneError: there was one, by what the data folder remembers, and it is gone.
        LedgerError: the database cannot be used.
    """
    engine = open_engine(settings)
    try:
        if is_begun(engine):
            return True
        name = _name(engine.url)
    finally:
        engine.dispose()
    marker = settings.node.data_dir / MARKER
    if _is_marked(marker, name):
        raise LedgerGoneError(f"database: {name} is gone: put it back, or remove {marker} to begin an empty one")
    return False


def upgrade_database(settings: Settings, *, patience: float = LOCK_SECONDS) -> None:
    """Upgrade the schema, and wait at most `patience` seconds for a connection or a lock.

    Raises:
        LedgerUnreachableError: the database cannot be used now.
        LedgerError: its schema is newer than this program.
    """
    engine = open_engine(settings, patience=patience)
    try:
        upgrade_ledger(engine, settings.node.data_dir)
    finally:
        engine.dispose()


def copy_database(settings: Settings, url: str) -> Copied:
    """Copy the database of these settings into the empty one at `url`; no role may run meanwhile.

    Raises:
        LedgerError: see `scp_node.ledger.copy_ledger`.
    """
    with closing(open_ledger(settings)) as source:
        target = create_ledger_engine(url)
        try:
            upgrade(target)
            return source.copy_to(target)
        finally:
            target.dispose()


def backup_database(settings: Settings, file: Path, *, overwrite: bool = False) -> Verification:
    """Copy an SQLite database to `file` while the node runs, and return the result of a check of the copy.

    Raises:
        LedgerError: see `scp_node.ledger.backup_ledger`.
    """
    with closing(open_ledger(settings)) as ledger:
        return ledger.backup(file, overwrite=overwrite)


def open_spool(settings: Settings) -> Spool:
    """Return the spool of these settings.

    Raises:
        SpoolError: its folder cannot be created.
    """
    from scp_node.spool import Spool  # noqa: PLC0415 - loads the DICOM library, which not every command needs

    return Spool(settings.node.data_dir / SPOOL_FOLDER, low_water_bytes=settings.listen.low_water_mib * 2**20)


def stored_files(settings: Settings) -> SpoolFiles:
    """Return the files of the spool for a process that only reads them."""
    from scp_node.spool import SpoolFiles  # noqa: PLC0415 - as above

    return SpoolFiles(settings.node.data_dir / SPOOL_FOLDER)


def lease_of(settings: Settings) -> timedelta:
    """Return how long a process may be silent before others take its work."""
    return timedelta(seconds=settings.work.lease_seconds)


def policy_of(settings: Settings) -> Policy:
    """Return the ledger's policy by these settings."""
    return Policy(
        quiet=timedelta(seconds=settings.study.quiet_seconds),
        lease=lease_of(settings),
        max_attempts=settings.work.max_attempts,
        commit_attempts=settings.delivery.commit_attempts,
        versions_apart=timedelta(seconds=settings.study.version_seconds),
    )


def installation_id(data_dir: Path) -> uuid.UUID:
    """Return the installation's identifier; create it at the first start.

    Raises:
        OSError: the data folder cannot be written.
        ValueError: the file does not hold an identifier.
    """
    make_private_folder(data_dir)
    path = data_dir / INSTALLATION_ID
    if not path.exists():
        temporary = data_dir / f"{INSTALLATION_ID}.{os.getpid()}"
        write_private(temporary, f"{uuid.uuid4()}\n".encode())
        try:
            os.link(temporary, path)  # fails if another process was faster: its identifier counts
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return uuid.UUID(path.read_text(encoding="ascii").strip())
