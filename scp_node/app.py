"""The composition root: settings become an engine, a spool, a ledger, a model and the roles that use them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scp_node import __version__
from scp_node.commitment import LARGEST_REQUEST
from scp_node.heartbeat import Heartbeat, Progress
from scp_node.identity import installation_id
from scp_node.ledger import (
    Copied,
    Ledger,
    LedgerError,
    LedgerUnreachableError,
    Policy,
    StudySnapshot,
    Verification,
    check_revision,
    create_ledger_engine,
    upgrade,
)
from scp_node.ledger.engine import LOCK_SECONDS
from scp_node.opening import await_schema, upgrade_ledger
from scp_node.patience import Patience, waiting
from scp_node.polling import have_ended, poll
from scp_node.settings import DestinationSettings, InferenceSettings, Settings, SettingsError, is_loopback
from scp_node.spool import Spool
from scp_node.supervisor import SUPERVISED, Supervisor, stop_when_orphaned

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from scp_node.analysis import Equipment
    from scp_node.listener import Listener
    from scp_node.model import ServedModel
    from scp_node.report import Site

log = logging.getLogger(__name__)

ROLES = ("listener", "worker", "sender")
SPOOL_FOLDER = "spool"
_STOP_GRACE_SECONDS = 20.0
_PORT_PATIENCE_SECONDS = 10.0
_CHAIN_NOTE_SECONDS = 86_400.0
_FIRST_TRY_SECONDS = 3.0  # that a database which does not answer holds up the start
_LAST_TRY_SECONDS = 8.0  # that it holds up the end
_UNFIT = 1  # exit status of a role that has to be started again
_STEP_SECONDS = 120.0  # that a step of a loop may take beside what has a time of its own: a database that is slow
_UPGRADE_SECONDS = 3_600.0  # that a database may take to be brought up to date


def _open_model(settings: InferenceSettings) -> ServedModel:
    from scp_node.model import ServedModel  # noqa: PLC0415 - only the worker pays for it

    return ServedModel.open(settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a node is made of where a trial puts in something else."""

    program: Sequence[str] = (sys.executable, "-m", "scp_node")  # starts a role
    open_model: Callable[[InferenceSettings], ServedModel] = _open_model
    decoder: Sequence[str] | None = None  # arguments of the interpreter that start a decoder process; None: our own


PARTS = Parts()


def open_ledger(settings: Settings) -> Ledger:
    """Return the ledger of these settings; its schema must be there.

    Raises:
        LedgerError: the database cannot be reached, or its schema is not this program's.
    """
    engine = create_ledger_engine(settings.database_url)
    check_revision(engine)
    return Ledger(engine, _policy(settings))


def upgrade_database(settings: Settings, *, patience: float = LOCK_SECONDS) -> None:
    """Bring the schema up to date, waiting no longer than `patience` seconds for a connection or a lock.

    Raises:
        LedgerUnreachableError: the database cannot be used now.
        LedgerError: it is newer than this program.
    """
    engine = create_ledger_engine(settings.database_url, patience=patience)
    try:
        upgrade_ledger(engine, settings.node.data_dir)
    finally:
        engine.dispose()


def copy_database(settings: Settings, url: str) -> Copied:
    """Copy the database of these settings into the empty one at `url`; no role may run.

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
    """Copy an SQLite database to `file` while the node runs, and return what a check of the copy found.

    Raises:
        LedgerError: see `scp_node.ledger.backup_ledger`.
    """
    with closing(open_ledger(settings)) as ledger:
        return ledger.backup(file, overwrite=overwrite)


def open_spool(settings: Settings) -> Spool:
    """Return the spool of these settings.

    Raises:
        SpoolError: its folder cannot be made.
    """
    return Spool(settings.node.data_dir / SPOOL_FOLDER, low_water_bytes=settings.listen.low_water_mib * 2**20)


def serve(settings: Settings, config: Path | None, role: str, *, supervised: bool = False, parts: Parts = PARTS) -> int:
    """Run all roles or one under a supervisor, or, as its child, one role in this process; return the exit status."""
    stop = _stop_on_signals()
    if not supervised:
        return _supervise(settings, config, role, stop, parts)
    stop_when_orphaned(stop)
    heart = Heartbeat()
    heart.start(stop)
    return _RUN[role](settings, stop, heart, parts)


def _supervise(settings: Settings, config: Path | None, role: str, stop: threading.Event, parts: Parts) -> int:
    if role != "listener":  # which needs no model
        check_demonstration(settings)
    settings.node.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    installation_id(settings.node.data_dir)
    if role == "all" and settings.database.upgrade_at_start:
        _upgrade_or_go_on(settings)
    base = [*parts.program, "serve", SUPERVISED]
    if config:
        base += ["--config", str(config)]
    log.info("node starts version=%s ae_title=%s", __version__, settings.node.ae_title)
    commands = {name: [*base, "--role", name] for name in (ROLES if role == "all" else [role])}
    status = Supervisor(
        commands, silent_seconds=settings.node.silent_seconds, longest_pause=settings.node.restart_cap_seconds
    ).run(stop)
    log.info("node stopped")
    return status


def _upgrade_or_go_on(settings: Settings) -> None:
    """Upgrade now if the database can be used now, so that what does not fit is told before anything starts.

    Raises:
        LedgerError: the schema is newer than this program.
    """
    try:
        upgrade_database(settings, patience=_FIRST_TRY_SECONDS)
    except LedgerUnreachableError as error:  # the role that first reaches it upgrades it
        log.error("database cannot be used, receiving goes on reason=%s", error)  # noqa: TRY400 - said in one line


def check_demonstration(settings: Settings) -> None:
    """Refuse to send reports of a demonstration model into a clinical network unless that is acknowledged.

    Raises:
        SettingsError: a destination is not on this machine and nobody acknowledged what the model is.
        BundleError: the bundle is missing or damaged.
    """
    from scp_node.model import identify  # noqa: PLC0415 - the listener must not need a model

    identity = identify(settings.inference)
    outside = [entry.name for entry in settings.destinations if not is_loopback(entry.host)]
    if identity.status == "demonstration" and outside and not settings.inference.acknowledge_demonstration:
        raise SettingsError(
            f"inference.acknowledge_demonstration: {identity.bundle} is a demonstration model, not for clinical use, "
            f"and destination {', '.join(outside)} is not on this machine; set it to true to send reports there anyway"
        )


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _lease(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.inference.lease_seconds)


def _policy(settings: Settings) -> Policy:
    return Policy(
        quiet=timedelta(seconds=settings.study.quiet_seconds),
        lease=_lease(settings),
        max_attempts=settings.inference.max_attempts,
        commit_attempts=settings.delivery.commit_attempts,
    )


def _owner(role: str) -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{role}:{uuid.uuid4().hex[:8]}"


# -- roles --------------------------------------------------------------------------------------------------------


def _run_listener(settings: Settings, stop: threading.Event, heart: Heartbeat, _parts: Parts) -> int:
    from scp_node.listener import Listener  # noqa: PLC0415 - each role loads only what it needs
    from scp_node.registrar import Registrar  # noqa: PLC0415
    from scp_node.retention import LONGEST_PAUSE, Retention  # noqa: PLC0415

    spool = open_spool(settings)
    spool.sweep()
    engine = create_ledger_engine(settings.database_url)
    ledger = Ledger(engine, _policy(settings))  # nothing is asked of the database yet: Success does not need it
    registrar = Registrar(ledger, spool, renew=heart.loop("register", _STEP_SECONDS).renew)
    listener = Listener(
        settings, spool, on_received=registrar.received, on_rejected=registrar.rejected, on_ended=registrar.ended,
        on_commitment=registrar.committed if any(entry.commitment for entry in settings.destinations) else None,
        renew=heart.loop("listen", _STEP_SECONDS).renew,
    )  # fmt: skip
    _start_patiently(listener, stop)
    retention = Retention(ledger=ledger, spool=spool, days=settings.retention.days)
    purge = partial(
        poll, waiting(retention.step, stop, name="retention"), stop, name="retention", longest_pause=LONGEST_PAUSE
    )
    followers = _Followers(settings, engine, register=registrar.run, purge=purge, heart=heart)
    followers.start(stop)
    stop.wait()
    listener.stop(_STOP_GRACE_SECONDS)
    if followers.end():
        ledger.close()
    return 0


class _Followers:
    """The threads beside the listener that need the database: they begin once it can be used."""

    def __init__(
        self, settings: Settings, engine: Engine, *,
        register: Callable[[threading.Event], None], purge: Callable[[], object], heart: Heartbeat,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._engine = engine
        self._register = register
        self._purge = purge
        self._heart = heart
        self._over = threading.Event()
        self._refused: LedgerError | None = None
        self._threads: list[threading.Thread] = []

    def start(self, stop: threading.Event) -> None:
        """Wait for the database beside the listener; set `stop` when it does not fit."""
        self._begin("registrar", lambda: self._await_and_register(stop))

    def end(self) -> bool:
        """Enter what has arrived, and return whether nobody uses the database any more.

        Raises:
            LedgerError: it did not fit.
        """
        self._over.set()
        ended = have_ended(self._threads, _LAST_TRY_SECONDS)
        if self._refused:
            raise self._refused
        return ended

    def _await_and_register(self, stop: threading.Event) -> None:
        data_dir, may_upgrade = self._settings.node.data_dir, self._settings.database.upgrade_at_start
        try:
            if not await_schema(self._engine, data_dir, self._over, may_upgrade=may_upgrade, renew=self._renew):
                return
        except LedgerError as error:  # the role ends, as it would have at the start
            self._refused = error
            stop.set()
            return
        self._heart.working()  # before that the role may still refuse to start, which stops the node
        self._begin("retention", self._purge)
        self._register(self._over)

    def _renew(self) -> None:
        self._heart.still_starting(_UPGRADE_SECONDS)

    def _begin(self, name: str, run: Callable[[], object]) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _await_ledger(settings: Settings, stop: threading.Event, heart: Heartbeat) -> Ledger | None:
    """Return the ledger once it can be used; None: `stop` was set before.

    Raises:
        LedgerError: its schema is not this program's.
    """
    engine = create_ledger_engine(settings.database_url)
    if not await_schema(
        engine, settings.node.data_dir, stop, may_upgrade=settings.database.upgrade_at_start,
        renew=lambda: heart.still_starting(_UPGRADE_SECONDS),
    ):  # fmt: skip
        return None
    return Ledger(engine, _policy(settings))


def _start_patiently(listener: Listener, stop: threading.Event) -> None:
    """Open the port; after a kill the process that had it may need a moment to go.

    Raises:
        ListenError: it stays taken.
    """
    from scp_node.listener import ListenError  # noqa: PLC0415

    deadline = time.monotonic() + _PORT_PATIENCE_SECONDS
    while True:
        try:
            listener.start()
        except ListenError:
            if time.monotonic() > deadline or stop.wait(0.2):
                raise
        else:
            return


def _run_worker(settings: Settings, stop: threading.Event, heart: Heartbeat, parts: Parts) -> int:
    from scp_node.analysis import DECODER, DecoderPool  # noqa: PLC0415
    from scp_node.decoding import WatchedDecoder  # noqa: PLC0415
    from scp_node.leases import LeaseKeeper  # noqa: PLC0415
    from scp_node.report import warm_up  # noqa: PLC0415
    from scp_node.reporting import ReportBuilder, Reporter, wants_attention  # noqa: PLC0415
    from scp_node.worker import Analyser  # noqa: PLC0415

    model = parts.open_model(settings.inference)
    warm_up()
    if (ledger := _await_ledger(settings, stop, heart)) is None:
        return 0
    with ExitStack() as stack:
        stack.callback(ledger.close)
        leases = LeaseKeeper(ledger, _lease(settings), hangs=heart.late).start()
        stack.callback(leases.close)
        pool = stack.enter_context(
            DecoderPool(
                settings.analysis,
                processes=settings.analysis.decoder_processes,
                memory_mib=settings.analysis.decoder_memory_mib,
                own=_equipment(settings),
                program=parts.decoder or DECODER,
            )
        )
        analysing, reporting = heart.loop("analyse", _STEP_SECONDS), heart.loop("report", _STEP_SECONDS)
        analyser = Analyser(
            ledger=ledger, leases=leases, spool_folder=settings.node.data_dir / SPOOL_FOLDER,
            decoder=WatchedDecoder(pool, analysing, others=1), network=model, detector=model.detector,
            batch_size=settings.inference.batch_size, owner=_owner("worker"),
            wants_attention=lambda finding: wants_attention(settings.report, finding),
            progress=analysing, batch_seconds=settings.inference.batch_seconds,
            patiently=Patience(stop, name="analyse", renew=analysing.renew),
        )  # fmt: skip
        build = ReportBuilder(
            settings=settings.report, model=model.identity, site=_site(settings),
            spool_folder=settings.node.data_dir / SPOOL_FOLDER,
            pictures=WatchedDecoder(pool, reporting, others=settings.inference.batch_size),
        )  # fmt: skip
        reporter = Reporter(
            ledger=ledger, leases=leases, model=model.identity, build=build,
            destinations=lambda snapshot: route(settings, snapshot), owner=_owner("reporter"),
            patiently=Patience(stop, name="report", renew=reporting.renew),
        )  # fmt: skip
        log.info(
            "analysing bundle=%s backend=%s device=%s detector=%s",
            model.identity.bundle, model.backend, model.device, "yes" if model.detector else "no",
        )  # fmt: skip
        loops = [(analysing, analyser.step), (reporting, reporter.step)]
        return _run_loops(stop, heart, [*loops, (heart.loop("note the chain", _STEP_SECONDS), _chain_notes(ledger))])


def _chain_notes(ledger: Ledger) -> Callable[[], bool]:
    """Return a step that logs where the audit chain ends, at start and once a day.

    A log that is kept elsewhere then tells of a history that was written anew: `scp-node audit verify --head`.
    """
    due = time.monotonic()

    def step() -> bool:
        nonlocal due
        if time.monotonic() >= due:
            end = ledger.verifier.end()
            log.info("audit chain events=%d head=%s", end.length, end.head or "none")
            due += _CHAIN_NOTE_SECONDS
        return False

    return step


def _run_sender(settings: Settings, stop: threading.Event, heart: Heartbeat, _parts: Parts) -> int:
    from scp_node.committer import Committer  # noqa: PLC0415
    from scp_node.delivery import CommitmentScu, QueryScu, StorageScu  # noqa: PLC0415
    from scp_node.leases import LeaseKeeper  # noqa: PLC0415
    from scp_node.report import COMPANION_SOP_CLASSES, with_sop_class  # noqa: PLC0415
    from scp_node.sender import Sender  # noqa: PLC0415

    if (ledger := _await_ledger(settings, stop, heart)) is None:
        return 0
    with ExitStack() as stack:
        stack.callback(ledger.close)
        leases = LeaseKeeper(ledger, _lease(settings), hangs=heart.late).start()
        stack.callback(leases.close)

        def open_sender(destination: DestinationSettings, progress: Progress) -> Callable[[], bool]:
            patience = Patience(stop, name=progress.name, renew=progress.renew)
            scu = StorageScu(
                destination, calling_ae=settings.node.ae_title, sop_classes=settings.report.sop_classes,
                other_sop_classes=COMPANION_SOP_CLASSES, settings=settings.delivery, recast=with_sop_class,
            )  # fmt: skip
            stack.callback(scu.close)
            is_checked = destination.commitment or destination.find
            return Sender(
                name=destination.name, scu=scu, ledger=ledger, leases=leases, settings=settings.delivery,
                owner=_owner(f"sender:{destination.name}"), patiently=patience,
                check_after=timedelta(seconds=settings.delivery.commit_after_seconds) if is_checked else None,
            ).step  # fmt: skip

        def open_committer(destination: DestinationSettings) -> Callable[[], bool]:
            asker = CommitmentScu(destination, calling_ae=settings.node.ae_title, settings=settings.delivery)
            finder = QueryScu(destination, calling_ae=settings.node.ae_title, settings=settings.delivery)
            return Committer(
                name=destination.name, ledger=ledger, leases=leases, settings=settings.delivery,
                asker=asker if destination.commitment else None, finder=finder if destination.find else None,
                owner=_owner(f"committer:{destination.name}"),
            ).step  # fmt: skip

        delivery = settings.delivery
        sending = _STEP_SECONDS + delivery.connect_seconds + 3 * delivery.send_seconds
        asking = sending + delivery.commit_answer_seconds + LARGEST_REQUEST * delivery.send_seconds
        loops = []
        for entry in settings.destinations:
            progress = heart.loop(f"deliver:{entry.name}", sending)
            loops.append((progress, open_sender(entry, progress)))
            loops.append((heart.loop(f"commit:{entry.name}", asking), open_committer(entry)))
        return _run_loops(stop, heart, loops)


def _run_loops(stop: threading.Event, heart: Heartbeat, loops: Sequence[tuple[Progress, Callable[[], bool]]]) -> int:
    """Run each loop in a thread of its own until `stop`; return the exit status of the role."""
    unfit: list[str] = []

    def run(progress: Progress, step: Callable[[], bool]) -> None:
        patient = waiting(step, stop, name=progress.name, renew=progress.renew)
        if not poll(patient, stop, name=progress.name):
            unfit.append(progress.name)

    threads = [threading.Thread(target=run, args=loop, name=loop[0].name, daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    heart.working()
    stop.wait()
    have_ended(threads, _STOP_GRACE_SECONDS)
    return _UNFIT if unfit else 0


def _equipment(settings: Settings) -> Equipment:
    """Return how our own objects are signed, so that they are left alone when a PACS routes them back."""
    from scp_node.analysis import Equipment  # noqa: PLC0415

    return Equipment(manufacturer=settings.node.manufacturer, model_name=settings.node.model_name)


def _site(settings: Settings) -> Site:
    from scp_node.report import Site  # noqa: PLC0415 - as above

    return Site(
        installation=str(installation_id(settings.node.data_dir)),
        ae_title=settings.node.ae_title,
        manufacturer=settings.node.manufacturer,
        model_name=settings.node.model_name,
        software_version=__version__,
        series_number=settings.report.series_number,
        series_description=settings.report.series_description,
    )


def route(settings: Settings, snapshot: StudySnapshot) -> list[str]:
    """Return the names of the destinations that get the report of this study."""
    reply_to = settings.routing.reply_to
    if isinstance(reply_to, list):
        return list(reply_to)
    if reply_to == "all":
        return [entry.name for entry in settings.destinations]
    names = [entry.name for entry in settings.destinations if entry.ae_title in snapshot.calling_aes]
    if not names:
        log.warning("no destination has the AE title that sent the study calling_ae=%s", sorted(snapshot.calling_aes))
    return names


_RUN: dict[str, Callable[[Settings, threading.Event, Heartbeat, Parts], int]] = {
    "listener": _run_listener,
    "worker": _run_worker,
    "sender": _run_sender,
}
