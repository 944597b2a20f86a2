"""The reporter's process: makes the reports of quiet studies, without a model."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Final

import cv2

from scp_node import __version__
from scp_node.decoders import DECODER, DecoderPool, WatchedDecoder
from scp_node.inference.identity import identify
from scp_node.logs import get_logger
from scp_node.loops.report import Reporter
from scp_node.loops.report_builder import ReportBuilder
from scp_node.opening import installation_id, lease_of, stored_files
from scp_node.report.objects.sr import warm_up
from scp_node.report.site import Site
from scp_node.roles.common import STEP_SECONDS, Loop, Parts, await_ledger, open_bells, owner_named, run_loops
from scp_node.roles.presence import deciding, presence
from scp_node.roles.routing import route, taken
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patience
from scp_node.settings import Settings

log = get_logger(__name__)

_NO_OTHERS: Final = 0  # loops of this process that read pixels beside the one that reports


def run_reporter(
    settings: Settings, stop: threading.Event, heart: Heartbeat, parts: Parts, *, allow_different: bool = False
) -> int:
    """Report until `stop` is set; return the exit status of the role.

    Raises:
        BundleError: the bundle is missing or altered.
        SettingsError: the bundle has no such operating point, or the grey zone does not fit around it.
        LedgerError: the schema of the database is not this program's, or another process of the ledger has other
            settings.
    """
    model = identify(settings.inference)
    warm_up()
    cv2.setNumThreads(1)  # drawing takes milliseconds; further threads would turn for longer while they wait for it
    with ExitStack() as stack:
        bells = stack.enter_context(open_bells(settings))
        if (ledger := await_ledger(settings, stop, heart, bells)) is None:
            return 0
        stack.callback(ledger.close)
        decided = deciding(settings, model.digest)
        stack.enter_context(presence(ledger, owner_named("reporter"), decided, stop, allow_different=allow_different))
        leases = LeaseKeeper(ledger, lease_of(settings), hangs=heart.late).start()
        stack.callback(leases.close)
        pool = stack.enter_context(
            DecoderPool(
                settings.analysis,
                processes=1,
                memory_mib=settings.analysis.decoder_memory_mib,
                program=parts.decoder or DECODER,
                at_first_image=True,
            )
        )
        reporting = heart.loop("report", STEP_SECONDS)
        build = ReportBuilder(
            settings=settings.report,
            model=model,
            site=Site.of(settings, str(installation_id(settings.node.data_dir)), __version__),
            files=stored_files(settings),
            pictures=WatchedDecoder(pool, reporting, others=_NO_OTHERS),
        )
        reporter = Reporter(
            ledger=ledger,
            leases=leases,
            model=model,
            build=build,
            destinations=lambda snapshot: route(settings, snapshot),
            takes=taken(settings),
            owner=owner_named("reporter"),
            patiently=Patience(stop, name="report", renew=reporting.renew),
        )
        log.info("reporting", bundle=model.bundle)
        return run_loops(stop, heart, [Loop(progress=reporting, step=reporter.step)], bells)
