"""Starts the node: all roles under a supervisor, or one of them in this process."""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from pneumonia_model.bundle import BundleError
from pneumonia_model.errors import BackendError

from scp_node import __version__
from scp_node.dicom.libraries import ARRAYS, DOWNLOADS, PIXELS, leave_out_libraries
from scp_node.domain import NodeError
from scp_node.ledger import LedgerError, LedgerUnreachableError
from scp_node.logs import get_logger
from scp_node.opening import INSTALLATION_ID, installation_id, upgrade_database
from scp_node.roles.common import PARTS, Parts
from scp_node.runtime.arguments import ALLOW_DIFFERENT, SUPERVISED
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.runtime.memory import return_free_memory
from scp_node.runtime.ports import reserve_ports
from scp_node.runtime.signals import RENEWING, STOPPING, set_on, signals_wait
from scp_node.runtime.supervision import Plan, become_supervisor
from scp_node.runtime.supervisor import stop_when_orphaned
from scp_node.settings import Settings, SettingsError, is_loopback
from scp_node.settings_file import refuse_system_folder

log = get_logger(__name__)

# What the operator has to mend: an exit with one line, and no use in another try.
REFUSALS: Final = (SettingsError, LedgerError, NodeError, BundleError, BackendError)
_FIRST_TRY_SECONDS: Final = 3.0  # longest delay of the start by a database that does not answer


class Role(StrEnum):
    """The role that `serve` runs, or all of them."""

    ALL = "all"
    LISTENER = "listener"
    WORKER = "worker"
    REPORTER = "reporter"
    SENDER = "sender"
    WEB = "web"

    @property
    def members(self) -> tuple[Role, ...]:
        """Return the roles that run as processes."""
        return tuple(role for role in Role if role is not Role.ALL) if self is Role.ALL else (self,)


# What pydicom would load: only the worker has decoders; it, the reporter and the web page compute.
LIBRARIES_LEFT_OUT: Final[Mapping[Role, Sequence[str]]] = {
    Role.LISTENER: (*DOWNLOADS, *PIXELS, *ARRAYS),
    Role.WORKER: DOWNLOADS,
    Role.REPORTER: (*DOWNLOADS, *PIXELS),
    Role.SENDER: (*DOWNLOADS, *PIXELS, *ARRAYS),
    Role.WEB: (*DOWNLOADS, *PIXELS),
}


def serve(
    settings: Settings,
    config: Path | None,
    role: Role,
    *,
    supervised: bool = False,
    allow_different: bool = False,
    parts: Parts = PARTS,
) -> int:
    """Become the supervisor of all roles or of one, or, as its child, run one role; return the exit status."""
    if not supervised:
        with signals_wait():  # for the supervisor
            become_supervisor(_checked(settings, _command(config, parts, allow_different=allow_different), role))
    stop, renew = set_on(*STOPPING), set_on(*RENEWING)
    stop_when_orphaned(stop)
    heart = Heartbeat(at_work=_settle)
    heart.start(stop)
    return _run(role, settings, stop, heart, parts, config=config, allow_different=allow_different, renew=renew)


def _settle() -> None:
    """Return what only the start needed, and have the garbage collector leave alone what is loaded.

    To look through that held a role up for half a second.
    """
    gc.collect()
    gc.freeze()
    return_free_memory()


def _run(
    role: Role,
    settings: Settings,
    stop: threading.Event,
    heart: Heartbeat,
    parts: Parts,
    *,
    config: Path | None,
    allow_different: bool,
    renew: threading.Event,
) -> int:
    leave_out_libraries(*LIBRARIES_LEFT_OUT.get(role, ()))
    match role:  # each process loads only what it needs
        case Role.LISTENER:
            from scp_node.roles.listener import run_listener  # noqa: PLC0415

            return run_listener(settings, stop, heart, renew=renew)
        case Role.WORKER:
            from scp_node.roles.worker import run_worker  # noqa: PLC0415

            return run_worker(settings, stop, heart, parts, allow_different=allow_different)
        case Role.REPORTER:
            from scp_node.roles.reporter import run_reporter  # noqa: PLC0415

            return run_reporter(settings, stop, heart, parts, allow_different=allow_different)
        case Role.SENDER:
            from scp_node.roles.sender import run_sender  # noqa: PLC0415

            return run_sender(settings, stop, heart, allow_different=allow_different)
        case Role.WEB:
            from scp_node.roles.web import run_web  # noqa: PLC0415

            return run_web(settings, stop, heart, config=config, renew=renew)
        case Role.ALL:
            raise ValueError("a process has one role")


def _command(config: Path | None, parts: Parts, *, allow_different: bool) -> list[str]:
    """Return the command that runs a role as a child, without the role."""
    base = [*parts.program, "serve", SUPERVISED]
    if config:
        base += ["--config", str(config)]
    return [*base, ALLOW_DIFFERENT] if allow_different else base


def _checked(settings: Settings, base: Sequence[str], role: Role) -> Plan:
    """Check what no role could work without, and return what the supervisor is to run.

    Raises:
        SettingsError: the data folder cannot be used, or see `check_demonstration`.
        BundleError: the bundle is missing or damaged.
        LedgerError: the schema is newer than this program.
        PortTakenError: a port that several processes are to share is another's.
    """
    refuse_system_folder(settings)
    if role not in {Role.LISTENER, Role.WEB}:  # which need no model
        check_demonstration(settings)
    _prepare_data_folder(settings.node.data_dir)
    if Role.LISTENER in role.members:
        reserve_ports(settings.listen)
    if role is Role.ALL and settings.database.upgrade_at_start:
        _upgrade_or_go_on(settings)
    log.info("node starts", version=__version__, ae_title=settings.node.ae_title)
    roles = [each for each in role.members if each is not Role.WEB or role is Role.WEB or settings.web.enabled]
    return Plan(
        commands={name: [*base, "--role", each.value] for each in roles for name in _processes(each, settings)},
        silent_seconds=settings.node.silent_seconds,
        longest_pause=settings.node.restart_cap_seconds,
        log=settings.log.model_dump(mode="json"),
    )


def _processes(role: Role, settings: Settings) -> list[str]:
    """Return the names of the processes that run a role."""
    numbers = {Role.LISTENER: settings.listen.processes, Role.REPORTER: settings.report.process_count}
    number = numbers.get(role, 1)
    return [role.value] if number == 1 else [f"{role.value}-{each}" for each in range(1, number + 1)]


def _prepare_data_folder(folder: Path) -> None:
    """Make the data folder and the installation's identifier in it, if they are missing.

    Raises:
        SettingsError: it cannot be written, or the identifier is damaged.
    """
    try:
        installation_id(folder)
    except OSError as error:
        raise SettingsError(f"node.data_dir: {folder} cannot be used: {error.strerror}") from error
    except ValueError as error:
        told = f"{folder / INSTALLATION_ID} does not hold an identifier: put it back from the backup"
        raise SettingsError(f"node.data_dir: {told}") from error


def _upgrade_or_go_on(settings: Settings) -> None:
    """Upgrade now if the database is reachable, so that a schema that does not fit is reported before any role starts.

    Raises:
        LedgerError: the schema is newer than this program.
    """
    try:
        upgrade_database(settings, patience=_FIRST_TRY_SECONDS)
    except LedgerUnreachableError as error:  # the first role to reach it upgrades it
        log.error("database cannot be used, receiving goes on", reason=error)  # noqa: TRY400 - said in one line


def check_demonstration(settings: Settings) -> None:
    """Refuse to send reports of a demonstration model into a clinical network unless that is acknowledged.

    Raises:
        SettingsError: a destination is not on this machine, and nobody acknowledged the demonstration model.
        BundleError: the bundle is missing or damaged.
    """
    from scp_node.inference.identity import identify  # noqa: PLC0415 - the listener must not need a model

    identity = identify(settings.inference)
    outside = [entry.name for entry in settings.destinations if not is_loopback(entry.host)]
    if identity.status == "demonstration" and outside and not settings.inference.acknowledge_demonstration:
        raise SettingsError(
            f"inference.acknowledge_demonstration: {identity.bundle} is a demonstration model, not for clinical use, "
            f"and destination {', '.join(outside)} is not on this machine; set it to true to send reports there anyway"
        )
