"""The worker's process: analyses images and reports studies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from scp_node import __version__
from scp_node.analysis.answers import Equipment
from scp_node.decoders import DECODER, DecoderPool, WatchedDecoder
from scp_node.ledger import Ledger
from scp_node.loops.analyse import Analyser
from scp_node.loops.report import Reporter
from scp_node.loops.report_builder import ReportBuilder, wants_attention
from scp_node.opening import installation_id, lease_of, stored_files
from scp_node.report.objects.sr import warm_up
from scp_node.report.site import Site
from scp_node.roles.common import STEP_SECONDS, Parts, await_ledger, owner_named, run_loops
from scp_node.roles.presence import deciding, presence
from scp_node.roles.routing import route, taken
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patience
from scp_node.settings import Settings

log = logging.getLogger(__name__)

_CHAIN_NOTE_SECONDS: Final = 86_400.0


def run_worker(
    settings: Settings, stop: threading.Event, heart: Heartbeat, parts: Parts, *, allow_different: bool = False
) -> int:
    """Analyse and report until `stop` is set; return the exit status of the role.

    Raises:
        BundleError: the bundle is missing or altered, or its answers differ from those at its release.
        BackendError: the runtime or device is missing.
        LedgerError: the schema of the database is not this program's, or another process of the ledger has other
            settings.
    """
    model = parts.open_model(settings.inference)
    warm_up()
    if (ledger := await_ledger(settings, stop, heart)) is None:
        return 0
    with ExitStack() as stack:
        stack.callback(ledger.close)
        decided = deciding(settings, model.identity.digest)
        stack.enter_context(presence(ledger, owner_named("worker"), decided, stop, allow_different=allow_different))
        leases = LeaseKeeper(ledger, lease_of(settings), hangs=heart.late).start()
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
        files = stored_files(settings)
        analysing, reporting = heart.loop("analyse", STEP_SECONDS), heart.loop("report", STEP_SECONDS)
        analyser = Analyser(
            ledger=ledger,
            leases=leases,
            files=files,
            decoder=WatchedDecoder(pool, analysing, others=1),
            network=model,
            batch_size=settings.inference.batch_size,
            owner=owner_named("worker"),
            wants_attention=lambda finding: wants_attention(settings.report, finding),
            progress=analysing,
            batch_seconds=settings.inference.batch_seconds,
            patiently=Patience(stop, name="analyse", renew=analysing.renew),
        )
        build = ReportBuilder(
            settings=settings.report,
            model=model.identity,
            site=_site(settings),
            files=files,
            pictures=WatchedDecoder(pool, reporting, others=settings.inference.batch_size),
        )
        reporter = Reporter(
            ledger=ledger,
            leases=leases,
            model=model.identity,
            build=build,
            destinations=lambda snapshot: route(settings, snapshot),
            takes=taken(settings),
            owner=owner_named("reporter"),
            patiently=Patience(stop, name="report", renew=reporting.renew),
        )
        log.info(
            "analysing bundle=%s backend=%s device=%s detector=%s",
            model.identity.bundle,
            model.backend,
            model.device,
            "yes" if model.detector else "no",
        )
        loops = [(analysing, analyser.step), (reporting, reporter.step)]
        return run_loops(stop, heart, [*loops, (heart.loop("note the chain", STEP_SECONDS), _chain_notes(ledger))])


def _chain_notes(ledger: Ledger) -> Callable[[], bool]:
    """Return a step that logs the end of the audit chain at the start and once a day.

    A log that is kept elsewhere then reveals a rewritten history: see `scp-node audit verify --head`.
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


def _equipment(settings: Settings) -> Equipment:
    """Return the signature of this node's objects, so that they are not analysed when a PACS routes them back."""
    return Equipment(manufacturer=settings.node.manufacturer, model_name=settings.node.model_name)


def _site(settings: Settings) -> Site:
    return Site(
        installation=str(installation_id(settings.node.data_dir)),
        ae_title=settings.node.ae_title,
        manufacturer=settings.node.manufacturer,
        model_name=settings.node.model_name,
        software_version=__version__,
        series_number=settings.report.series_number,
        series_description=settings.report.series_description,
    )
