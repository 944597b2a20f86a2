"""Looks for problems that would keep a node from working, and says what to do about them. It creates nothing."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

from pneumonia_model.bundle import BundleError
from pneumonia_model.errors import BackendError

from scp_node.app import check_demonstration
from scp_node.audit_messages.collector import Collector, CollectorError
from scp_node.cli.contact import held_by_another, why_not_listening
from scp_node.cli.examination import Examination, examine_destination
from scp_node.decoders.confinement import gaps_here
from scp_node.delivery.connection import LateError, RejectedError, TlsError, UnreachableError, UntrustedError
from scp_node.delivery.echo import echo_ourselves, echo_ourselves_by_tls
from scp_node.domain import utc_now
from scp_node.inference.identity import ShadowRefusedError, identify
from scp_node.inference.served_model import ServedModel
from scp_node.inference.shadow import open_shadow
from scp_node.ledger import Ledger, LedgerError, ShadowWaiting
from scp_node.ledger.queue import OPEN_STATES, WorkState
from scp_node.ledger.queue_kinds import deliver_queue
from scp_node.opening import SPOOL_FOLDER, has_ledger, open_ledger
from scp_node.secret_files import refuse_if_others_read
from scp_node.settings import AnalysisSettings, Settings, SettingsError
from scp_node.settings_file import refuse_system_folder
from scp_node.spool import SpoolError
from scp_node.tls.certificates import WARNING, expiry_of, own_certificates
from scp_node.tls.contexts import server_context

_UNSEALED_SECONDS: Final = 5.0  # for which an event may wait for its place in the chain


def examine(settings: Settings, file: Path | None = None) -> list[Examination]:
    """Return what was found of each part that a node needs; what `serve` will make is missing without a problem.

    `file` is the one that the settings were read from.
    """
    return [*_settings_file(settings, file), *_examinations(settings)]


def _settings_file(settings: Settings, file: Path | None) -> Iterator[Examination]:
    """Yield a problem if others may read the password of the database in the settings file."""
    url = settings.database.url
    if file is None or not settings.database.url_has_password or url not in file.read_text(encoding="utf-8-sig"):
        return
    try:
        refuse_if_others_read(file, "settings file")
    except SettingsError as error:
        told = f"{str(error).removeprefix('settings file: ')}; or move the password to database.password_file"
        yield Examination(name="settings file", good=False, message=told)


def _examinations(settings: Settings) -> Iterator[Examination]:
    yield _try("data folder", lambda: _data_folder(settings))
    yield _try("database", lambda: _database(settings))
    yield _try("retention", lambda: _retention(settings))
    yield _try("model", lambda: _model(settings))
    yield from _shadow(settings)
    yield examine_decoders(settings.analysis)
    yield _try("demonstration", lambda: _demonstration(settings))
    yield _listener(settings)
    yield from _certificates(settings)
    if settings.listen.tls.certificate:
        yield _try("TLS listener", lambda: _tls_listener(settings))
    if not settings.destinations:
        yield Examination(
            name="destinations", good=True, message="none: reports are kept and sent nowhere ([[destinations]])"
        )
    yield from _for_a_person(settings)
    yield from _audit_trail(settings)
    if settings.audit_messages.host:
        yield _audit_messages(settings)
    for destination in settings.destinations:
        yield examine_destination(settings, destination)
        yield _deliveries(settings, destination.name)


def _for_a_person(settings: Settings) -> Iterator[Examination]:
    """Yield what nobody but a person can decide; nothing where there is no ledger that can be read."""
    try:
        if not has_ledger(settings):
            return
        with closing(open_ledger(settings)) as ledger:
            undeliverable, conflicts = ledger.upkeep.undeliverable(), ledger.resolution.unresolved()
    except (LedgerError, OSError):
        return  # the examination of the database says so
    if undeliverable:
        yield Examination(
            name="undeliverable",
            good=not settings.destinations,
            message=f"{undeliverable} reports that no destination gets (see `scp-node audit --state undeliverable`); "
            "name one in [[destinations]] and routing.reply_to, then `scp-node requeue --dead`",
        )
    if conflicts:
        yield Examination(
            name="conflicts",
            good=False,
            message=f"{conflicts} images have the SOP Instance UID of another one and are not read "
            "(see `scp-node audit --state conflict`, `scp-node resolve`)",
        )


def _audit_trail(settings: Settings) -> Iterator[Examination]:
    """Yield whether events get their place in the hash chain; nothing where there is no ledger that can be read."""
    try:
        if not has_ledger(settings):
            return
        with closing(open_ledger(settings)) as ledger:
            state = ledger.verifier.unsealed()
    except (LedgerError, OSError):
        return  # the examination of the database says so
    message = "every event has its place in the chain"
    if state.events:
        message = f"{state.events} events wait for their place in the chain, one for {state.seconds:.0f} s"
    good = state.seconds <= _UNSEALED_SECONDS
    told = "" if good else ": start the sender or the web page, which seal them, or run `scp-node db upgrade`"
    yield Examination(name="audit trail", good=good, message=message + told)


def _try(name: str, look: Callable[[], str]) -> Examination:
    try:
        return Examination(name=name, good=True, message=look())
    except (SettingsError, LedgerError, SpoolError, BundleError, BackendError, OSError, ValueError) as error:
        return Examination(name=name, good=False, message=str(error).removeprefix(f"{name}: "))


def _data_folder(settings: Settings) -> str:
    refuse_system_folder(settings)
    folder = Path(os.path.realpath(settings.node.data_dir))
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    spool = folder / SPOOL_FOLDER
    for place in (nearest, spool) if os.path.lexists(spool) else (nearest,):
        if not place.is_dir():
            raise SpoolError(f"{place} is not a folder; remove it, or set node.data_dir")
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise SpoolError(f"{place}: user {os.geteuid()} may not write there; change that, or set node.data_dir")
    _refuse_open_folder(folder)
    free = shutil.disk_usage(nearest).free // 2**20
    if free < settings.listen.low_water_mib:
        low = settings.listen.low_water_mib
        raise SpoolError(f"{folder}: {free} MiB free, stores are refused below listen.low_water_mib = {low}")
    return f"{folder}, {free} MiB free" + ("" if nearest == folder else "; not there yet, `scp-node serve` makes it")


def _refuse_open_folder(folder: Path) -> None:
    """Refuse a data folder, or one of the node's in it, that every user of the machine may look into.

    Raises:
        SpoolError: it is one.
    """
    for place in (folder, folder / SPOOL_FOLDER):
        if os.path.lexists(place) and (mode := stat.S_IMODE(place.stat().st_mode)) & stat.S_IRWXO:
            raise SpoolError(f"{place} has mode {mode:04o}, others may enter: chmod o-rwx {place}")


def _database(settings: Settings) -> str:
    if not has_ledger(settings):
        if not settings.database.upgrade_at_start:
            raise LedgerError("no ledger yet: run `scp-node db upgrade` (database.upgrade_at_start = false)")
        return "no ledger yet, `scp-node serve` makes it"
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
    if not has_ledger(settings):
        return f"originals are removed after {days:g} days; no image has come yet"
    with closing(open_ledger(settings)) as ledger:
        held = ledger.retention.held_back(timedelta(days=days))
    reasons = {"analysis": held.analysis, "report": held.report, "delivery": held.delivery}
    by = ", ".join(f"{number} by {name}" for name, number in reasons.items() if number)
    message = f"originals are removed after {days:g} days; {held.older} are older"
    return f"{message}, held back {by} that is not done" if by else message


def _model(settings: Settings) -> str:
    model = ServedModel.open(settings.inference)
    return f"{model.identity.bundle} ({model.identity.status}) on {model.runtime}; golden inputs agree"


def _shadow(settings: Settings) -> Iterator[Examination]:
    """Yield what becomes of the bundle on trial; nothing where there is none and none of its work is left."""
    waiting = _waiting_for_shadow(settings)
    left = f"{waiting.open} images wait for it, {waiting.given_up} given up" if waiting else "no image has come yet"
    if settings.inference.shadow_bundle is None:
        if waiting and waiting.open:
            message = f"none is set, and {waiting.open} images wait for one; that holds up nothing"
            yield Examination(name="shadow model", good=True, message=message)
        return
    try:
        reporting = identify(settings.inference)
    except (SettingsError, BundleError):
        return  # the examination of the model says so
    try:
        model = open_shadow(settings.inference, reporting)
    except ShadowRefusedError as error:
        told = f"{error}; reporting goes on without it (inference.shadow_bundle)"
        yield Examination(name="shadow model", good=False, message=told)
        return
    if model:
        runs = f"{model.identity.bundle} ({model.identity.status}) on {model.runtime}"
        message = f"{runs}; golden inputs agree; {left}; never reported"
        yield Examination(name="shadow model", good=True, message=message)


def examine_decoders(settings: AnalysisSettings) -> Examination:
    """Return whether the decoder processes are confined; a node works without, so that it is never a problem."""
    if not settings.confine_decoders:
        message = "not confined: analysis.confine_decoders = false"
    elif (gaps := gaps_here()).calls:
        message = f"not confined, films are read as before: {gaps.calls}"
    else:
        message = "confined: no network, no other program, no writing of files"
        message += f"; but they could read the memory of the node: {gaps.domain}" if gaps.domain else ""
    return Examination(name="decoders", good=True, message=message)


def _waiting_for_shadow(settings: Settings) -> ShadowWaiting | None:
    """Return the work of the bundle on trial; None where there is no ledger that can be read."""
    try:
        if has_ledger(settings):
            with closing(open_ledger(settings)) as ledger:
                return ledger.shadow.waiting()
    except (LedgerError, OSError):
        pass  # the examination of the database says so
    return None


def _demonstration(settings: Settings) -> str:
    check_demonstration(settings)
    return "the model may send to all destinations"


def _listener(settings: Settings) -> Examination:
    where = f"{settings.node.ae_title} at {settings.listen.host}:{settings.listen.port}"
    if settings.listen.port == 0:
        return Examination(name="listener", good=True, message=f"{where}: each start takes a free port; not asked")
    answer = echo_ourselves(settings)
    if answer.good:
        return Examination(name="listener", good=True, message=f"{where} answers C-ECHO")
    match answer.error:
        case UnreachableError():
            told = why_not_listening(settings)
        case LateError() as error:
            told = f"the port is open, but {error}: the node hangs, or {held_by_another(settings)}"
        case RejectedError() as error:
            told = _own_rejection(error, settings)
        case _:  # it answers, and not as this node would
            told = held_by_another(settings)
    message = f"{where}: {told}" if told else f"{where} does not answer: the node is not running, its port is free"
    return Examination(name="listener", good=told is None, message=message)


def _certificates(settings: Settings) -> Iterator[Examination]:
    """Yield until when each certificate of ours is valid."""
    for used in own_certificates(settings):
        name = f"certificate {used.setting}"
        try:
            left = expiry_of(used.file, used.setting) - utc_now()
        except SettingsError as error:
            yield Examination(name=name, good=False, message=str(error).removeprefix(f"{used.setting}: "))
            continue
        told = f"expires in {left.days} days" if left > timedelta() else "has expired"
        again = "" if left > WARNING else ": replace the files; the node takes them into use by itself"
        yield Examination(name=name, good=left > WARNING, message=f"{used.file} {told}{again}")


def _tls_listener(settings: Settings) -> str:
    """Return what the TLS port answers to our own certificate.

    Raises:
        SettingsError: a file cannot be used, or the port does not answer as it should.
    """
    tls = settings.listen.tls
    server_context(tls)
    where = f"{settings.node.ae_title} at {settings.listen.tls_host}:{tls.port}"
    if tls.port == 0:
        return f"{where}: each start takes a free port; not asked"
    answer = echo_ourselves_by_tls(settings)
    if answer.good:
        return f"{where} answers C-ECHO by TLS"
    if isinstance(answer.error, TlsError):
        if isinstance(answer.error, UntrustedError):
            raise SettingsError(f"{where} shows another certificate than {tls.certificate}: see the log of the node")
        return f"{where} speaks TLS, and does not take the node's own certificate as a peer's: {answer.error}"
    if isinstance(answer.error, UnreachableError):
        return f"{where} does not answer: the node is not running"
    raise SettingsError(f"{where} does not answer as the node would: {answer.error or answer.status}")


def _audit_messages(settings: Settings) -> Examination:
    """Return whether the collector of audit messages takes a connection, and how much it has not got."""
    name, where = "audit messages", f"{settings.audit_messages.host}:{settings.audit_messages.port}"
    try:
        waiting = _waiting_for_collector(settings)
        Collector(settings.audit_messages).send([])
    except (LedgerError, SettingsError) as error:
        return Examination(name=name, good=False, message=str(error))
    except CollectorError as error:
        return Examination(name=name, good=False, message=f"{where}: {error}; {waiting}, and nothing is lost")
    return Examination(name=name, good=True, message=f"{where} takes them; {waiting}")


def _waiting_for_collector(settings: Settings) -> str:
    if not has_ledger(settings):
        return "no event yet"
    with closing(open_ledger(settings)) as ledger:
        backlog = ledger.feed.backlog()
    since = f" since {backlog.oldest_at.isoformat(timespec='seconds')}" if backlog.oldest_at else ""
    return f"{backlog.events} events wait{since}"


def _own_rejection(error: RejectedError, settings: Settings) -> str:
    """Return what it means that our own port rejects a C-ECHO from our own AE title."""
    match error.source, error.diagnostic:
        case 3, 1:
            return (
                "the node runs and accepts nothing (2/3/1): less space is free than listen.low_water_mib, or it is "
                "stopping"
            )
        case 3, 2:
            return "the node runs, and all associations that listen.max_associations allows are in use (2/3/2)"
        case 1, 3:
            own = f'ae_title = "{settings.node.ae_title}"'
            return (
                f"it rejects a C-ECHO by our own AE title (1/1/3): list {own} and the address of this host in "
                f"[[peers]]; or {held_by_another(settings)}"
            )
        case 1, 7:
            return f"a DICOM program with another AE title answers there (1/1/7): {held_by_another(settings)}"
    return f"it is rejected there ({error}): {held_by_another(settings)}"


def _deliveries(settings: Settings, name: str) -> Examination:
    try:
        if not has_ledger(settings):
            return Examination(name=f"deliveries to {name}", good=True, message="none yet")
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
