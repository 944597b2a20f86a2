"""Looks for problems that would keep a node from working, and says what to do about them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

from pneumonia_model.bundle import BundleError
from pneumonia_model.prediction import BackendError

from scp_node.app import check_demonstration
from scp_node.delivery.echo import answers_echo, echo
from scp_node.inference.served_model import ServedModel
from scp_node.ledger import Ledger, LedgerError
from scp_node.ledger.queue import OPEN_STATES, WorkState
from scp_node.ledger.queue_kinds import deliver_queue
from scp_node.opening import open_ledger, open_spool
from scp_node.settings import DestinationSettings, Settings, SettingsError
from scp_node.spool import SpoolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """One thing that was looked at."""

    name: str
    good: bool
    message: str


def examine(settings: Settings) -> list[Examination]:
    """Return what was found of each part that a node needs."""
    return list(_examinations(settings))


def _examinations(settings: Settings) -> Iterator[Examination]:
    yield _try("data folder", lambda: _data_folder(settings))
    yield _try("database", lambda: _database(settings))
    yield _try("retention", lambda: _retention(settings))
    yield _try("model", lambda: _model(settings))
    yield _try("demonstration", lambda: _demonstration(settings))
    yield _listener(settings)
    if not settings.destinations:
        yield Examination(
            name="destinations", good=True, message="none: reports are kept and sent nowhere ([[destinations]])"
        )
    for destination in settings.destinations:
        yield _destination(settings, destination)
        yield _deliveries(settings, destination.name)


def _try(name: str, look: Callable[[], str]) -> Examination:
    try:
        return Examination(name=name, good=True, message=look())
    except (SettingsError, LedgerError, SpoolError, BundleError, BackendError, OSError, ValueError) as error:
        return Examination(name=name, good=False, message=str(error))


def _data_folder(settings: Settings) -> str:
    spool = open_spool(settings)
    free = shutil.disk_usage(settings.node.data_dir).free // 2**20
    if not spool.has_space():
        raise SpoolError(
            f"{settings.node.data_dir}: {free} MiB free, stores are refused below listen.low_water_mib = "
            f"{settings.listen.low_water_mib}"
        )
    return f"{settings.node.data_dir.resolve()}, {free} MiB free"


def _database(settings: Settings) -> str:
    with closing(open_ledger(settings)) as ledger:
        dead = sum(states.get("dead", 0) for states in ledger.upkeep.counts().values())
        number = ledger.audit.unregistrable()
    message = f"schema is up to date, {dead} given up" + (" (see `scp-node requeue --dead`)" if dead else "")
    if number:
        message += f", {number} received files without a row (see `scp-node audit --state failed`)"
    return message


def _retention(settings: Settings) -> str:
    days = settings.retention.days
    if not days:
        return "originals are kept for good (retention.days = 0)"
    with closing(open_ledger(settings)) as ledger:
        held = ledger.retention.held_back(timedelta(days=days))
    reasons = {"analysis": held.analysis, "report": held.report, "delivery": held.delivery}
    by = ", ".join(f"{number} by {name}" for name, number in reasons.items() if number)
    message = f"originals are removed after {days:g} days; {held.older} are older"
    return f"{message}, held back {by} that is not done" if by else message


def _model(settings: Settings) -> str:
    model = ServedModel.open(settings.inference)
    return f"{model.identity.bundle} ({model.identity.status}) on {model.backend}, {model.device}; golden inputs agree"


def _demonstration(settings: Settings) -> str:
    check_demonstration(settings)
    return "the model may send to all destinations"


def _listener(settings: Settings) -> Examination:
    where = f"{settings.node.ae_title} at {settings.listen.host}:{settings.listen.port}"
    if answers_echo(settings):
        return Examination(name="listener", good=True, message=f"{where} answers C-ECHO")
    return Examination(name="listener", good=True, message=f"{where} does not answer: the node is not running")


def _destination(settings: Settings, destination: DestinationSettings) -> Examination:
    good = echo(settings, destination)
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    message = (
        f"{where} answers C-ECHO"
        if good
        else (
            f"{where} does not answer C-ECHO: is it running, is the port open, and does it know our AE title "
            f"{settings.node.ae_title}?"
        )
    )
    return Examination(name=f"destination {destination.name}", good=good, message=message)


def _deliveries(settings: Settings, name: str) -> Examination:
    try:
        with closing(open_ledger(settings)) as ledger:
            return examine_deliveries(ledger, name)
    except LedgerError as error:
        return Examination(name=f"deliveries to {name}", good=False, message=str(error))


def examine_deliveries(ledger: Ledger, name: str) -> Examination:
    """Return what waits for a destination, and whether a person has to look after it."""
    states = ledger.upkeep.counts().get(deliver_queue(name).name, {})
    dead = states.get(WorkState.DEAD, 0)
    words = [f"{sum(states.get(state, 0) for state in OPEN_STATES)} waiting"]
    if dead:
        words.append(f"{dead} given up (see `scp-node requeue`)")
    state = ledger.deliveries.destination(name)
    if state.paused:
        words.append(f"paused after {state.failures} failures in a row: {state.detail}")
    return Examination(name=f"deliveries to {name}", good=not dead and not state.paused, message=", ".join(words))
