"""Makes the database ready for a role, and never begins an empty ledger where there was one before."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import URL, Engine

from scp_node.ledger import LedgerGoneError, LedgerUnreachableError, check_revision, is_up_to_date, upgrade
from scp_node.ledger.engine import sqlite_file
from scp_node.patience import Patience

MARKER = "ledger"  # in the data folder: names the database that this node made, or found made


def await_schema(
    engine: Engine, data_dir: Path, stop: threading.Event, *, may_upgrade: bool,
    renew: Callable[[], None] = lambda: None,
) -> bool:  # fmt: skip
    """Wait for a database that can be used, with this program's schema; False: `stop` was set before.

    `renew` is called before each try.

    Raises:
        LedgerError: it does not fit.
    """
    patience = Patience(stop, name="start", renew=renew)
    try:
        patience(lambda: prepare_ledger(engine, data_dir, may_upgrade=may_upgrade))
    except LedgerUnreachableError:
        return False
    return True


def prepare_ledger(engine: Engine, data_dir: Path, *, may_upgrade: bool) -> None:
    """Make sure that the schema is this program's; bring it up to date where that is allowed.

    Raises:
        LedgerUnreachableError: the database cannot be used now.
        LedgerError: it does not fit.
    """
    if not may_upgrade:
        check_revision(engine)
    elif not _is_ready(engine, data_dir):
        upgrade_ledger(engine, data_dir)


def upgrade_ledger(engine: Engine, data_dir: Path) -> None:
    """Bring the schema up to date, and remember which database that was.

    Raises:
        LedgerUnreachableError: the database cannot be used now, or is empty or gone and was not before.
        LedgerError: its schema is newer than this program.
    """
    marker, name = data_dir / MARKER, _name(engine.url)
    try:
        upgrade(engine, begin=not _had_one(marker, name))
    except LedgerGoneError as error:
        raise LedgerGoneError(f"{error}: put it back, or remove {marker} to begin an empty one") from error
    _mark(marker, name)


def _is_ready(engine: Engine, data_dir: Path) -> bool:
    file = sqlite_file(engine.url)
    return (file is None or file.exists()) and (data_dir / MARKER).exists() and is_up_to_date(engine)


def _had_one(marker: Path, name: str) -> bool:
    try:
        return marker.read_text(encoding="utf-8").strip() == name
    except FileNotFoundError:
        return False


def _mark(marker: Path, name: str) -> None:
    if _had_one(marker, name):
        return
    marker.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = marker.with_name(f"{MARKER}.{os.getpid()}")
    temporary.write_text(f"{name}\n", encoding="utf-8")
    temporary.replace(marker)


def _name(url: URL) -> str:
    """Return which database this is, without who uses it."""
    if file := sqlite_file(url):
        return f"sqlite:///{file}"
    return f"{url.get_backend_name()}://{url.host}:{url.port or ''}/{url.database}"
