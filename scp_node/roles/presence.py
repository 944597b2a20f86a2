"""Compares the settings of a process with those of the others that work on its ledger, and keeps its own known."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from scp_node.ledger import Ledger, LedgerError
from scp_node.ledger.processes import GONE_AFTER, SEEN_EVERY, OtherProcess
from scp_node.logs import get_logger
from scp_node.settings import ReportSettings, Settings

log = get_logger(__name__)

_LOOK_SECONDS: Final = 0.5
_RENEWALS_BEFORE_LOOK: Final = GONE_AFTER // SEEN_EVERY + 1
# By section; what only says where and how fast the work is done is left out.
_DECIDING: Final = {
    "analysis": {"modalities", "minimum_age", "minimum_pixels", "maximum_pixels", "pixel_gate"},
    "inference": {"operating_point", "grey_zone", "precision"},
    "report": set(ReportSettings.model_fields) - {"processes"},
    "routing": None,
    "study": None,
}
_OF_DESTINATIONS: Final = {"name", "ae_title", "host", "port", "commitment", "find", "accepts"}


def deciding(settings: Settings, model: str = "") -> dict[str, str]:
    """Return the settings that decide results and routing, by name, as text; `model` is the digest of the bundle."""
    found = {"model": model} if model else {}
    for section, names in _DECIDING.items():
        values = getattr(settings, section).model_dump(mode="json")
        found |= {f"{section}.{name}": json.dumps(values[name]) for name in values if names is None or name in names}
    listed = [entry.model_dump(mode="json", include=_OF_DESTINATIONS) for entry in settings.destinations]
    found["destinations"] = json.dumps(sorted(listed, key=lambda entry: entry["name"]), sort_keys=True)
    return found


@contextmanager
def presence(
    ledger: Ledger, owner: str, settings: dict[str, str], stop: threading.Event, *, allow_different: bool
) -> Iterator[None]:
    """Keep the process known to the others until the block ends.

    A process with other settings that was killed is waited for until it counts as gone.

    Raises:
        LedgerError: a process at work has other settings, and `allow_different` is False.
    """
    _compare(ledger, settings, stop, allow_different=allow_different)
    ledger.processes.enter(owner, settings, may_differ=allow_different)
    with _renewed(ledger, owner, settings, may_differ=allow_different):
        yield


@contextmanager
def announced(ledger: Ledger, owner: str) -> Iterator[None]:
    """Keep a process that decides nothing known to the others until the block ends, as long as the database answers."""
    with _renewed(ledger, owner, {}, may_differ=True):
        yield


@contextmanager
def _renewed(ledger: Ledger, owner: str, settings: dict[str, str], *, may_differ: bool) -> Iterator[None]:
    """Renew the process's row, or enter it again where it counted as gone, until the block ends.

    One that was killed just before counts as gone a little later, and is then looked for once.
    """
    done = threading.Event()
    renewals = itertools.count()

    def show() -> None:
        if not (ledger.processes.renew(owner) or done.is_set()):
            ledger.processes.enter(owner, settings, may_differ=may_differ)
        if next(renewals) == _RENEWALS_BEFORE_LOOK:
            ledger.processes.forget_gone(owner)

    thread = threading.Thread(target=_repeat, args=(show, done), name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_LOOK_SECONDS)  # so that it does not enter the row again
        with suppress(SQLAlchemyError):  # without it the row counts as gone a little later
            ledger.processes.leave(owner)


def _compare(ledger: Ledger, settings: dict[str, str], stop: threading.Event, *, allow_different: bool) -> None:
    first = {other.owner: other.seen_at for other in ledger.processes.differing(settings)}
    while first and not stop.is_set():
        others = ledger.processes.differing(settings)
        at_work = [other for other in others if other.seen_at != first.get(other.owner)]
        if allow_different and others:
            log.warning(
                "settings differ from those at work on the same ledger", owners=_owners(others), settings=_names(others)
            )
            return
        if at_work:
            raise LedgerError(f"{_said(at_work)}; give both the same, or start with --allow-different-settings")
        if not others:
            return
        stop.wait(_LOOK_SECONDS)


def _said(others: list[OtherProcess]) -> str:
    owners, names = ", ".join(_owners(others)), ", ".join(_names(others))
    return f"settings differ from those of {owners}, at work on the same ledger: {names}"


def _owners(others: list[OtherProcess]) -> list[str]:
    return [other.owner for other in others]


def _names(others: list[OtherProcess]) -> list[str]:
    return sorted({name for other in others for name in other.differing})


def _repeat(show: Callable[[], None], done: threading.Event) -> None:
    """Show at once, and then again and again, that the process is at work."""
    while True:
        try:
            show()
        except SQLAlchemyError as error:  # the database is away: so it is for the others
            log.debug("presence not renewed", error=type(error).__name__)
        if done.wait(SEEN_EVERY.total_seconds()):
            return
