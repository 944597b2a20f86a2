"""The worker's process: analyses images."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from scp_node.analysis.answers import Equipment
from scp_node.decoders import DECODER, DecoderPool, WatchedDecoder
from scp_node.inference.identity import ShadowRefusedError
from scp_node.inference.served_model import ServedModel
from scp_node.inference.shadow import open_shadow
from scp_node.ledger import Ledger
from scp_node.logs import get_logger
from scp_node.loops.analyse import Analyser
from scp_node.loops.report_builder import wants_attention
from scp_node.loops.shadow import ShadowAnalyser
from scp_node.opening import lease_of, stored_files
from scp_node.private_files import FILE_MODE
from scp_node.roles.common import STEP_SECONDS, Loop, Parts, await_ledger, open_bells, owner_named, run_loops
from scp_node.roles.presence import deciding, presence
from scp_node.runtime.heartbeat import Heartbeat, Progress
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patience
from scp_node.settings import Settings

log = get_logger(__name__)

_CHAIN_NOTE_SECONDS: Final = 86_400.0
_LONGEST_NOTE_PAUSE: Final = 30.0  # seconds; of loops that tell what hardly ever changes


def run_worker(
    settings: Settings, stop: threading.Event, heart: Heartbeat, parts: Parts, *, allow_different: bool = False
) -> int:
    """Analyse until `stop` is set; return the exit status of the role.

    Raises:
        BundleError: the bundle is missing or altered, or its answers differ from those at its release.
        BackendError: the runtime or device is missing.
        LedgerError: the schema of the database is not this program's, or another process of the ledger has other
            settings.
    """
    model = parts.open_model(settings.inference)
    shadow = _open_shadow(settings, model, parts)
    with ExitStack() as stack:
        bells = stack.enter_context(open_bells(settings))
        if (ledger := await_ledger(settings, stop, heart, bells)) is None:
            return 0
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
                own=Equipment(manufacturer=settings.node.manufacturer, model_name=settings.node.model_name),
                program=parts.decoder or DECODER,
            )
        )
        files = stored_files(settings)
        analysing = heart.loop("analyse", STEP_SECONDS)
        on_trial = settings.analysis.decoder_processes if shadow else 0  # films of the shadow that may be read first
        analyser = Analyser(
            ledger=ledger,
            leases=leases,
            files=files,
            decoder=WatchedDecoder(pool, analysing, others=on_trial),
            network=model,
            batch_size=settings.inference.batch_size,
            owner=owner_named("worker"),
            wants_attention=lambda finding: wants_attention(settings.report, finding),
            shadow=shadow.identity if shadow else None,
            runtime=model.runtime,
            pixel_gate=settings.analysis.pixel_gate,
            progress=analysing,
            batch_seconds=settings.inference.batch_seconds,
            patiently=Patience(stop, name="analyse", renew=analysing.renew),
        )
        log.info(
            "analysing",
            bundle=model.identity.bundle,
            backend=model.backend,
            device=model.device,
            precision=model.precision,
            gate=settings.analysis.pixel_gate if model.gate else "none",
            detector="yes" if model.detector else "no",
        )
        noting = heart.loop("note the chain", STEP_SECONDS)
        loops = [
            Loop(progress=analysing, step=analyser.step),
            Loop(progress=noting, step=_chain_notes(ledger), longest_pause=_LONGEST_NOTE_PAUSE),
        ]
        if shadow:
            trying = Progress("shadow", STEP_SECONDS)  # unknown to the heartbeat: if it hangs, the others go on
            trial = ShadowAnalyser(
                ledger=ledger,
                leases=leases,
                files=files,
                decoder=WatchedDecoder(pool, trying, others=settings.inference.batch_size),
                network=shadow,
                images=on_trial,
                owner=owner_named("shadow"),
                may_begin=lambda: analyser.is_idle,
                pixel_gate=settings.analysis.pixel_gate,
                progress=trying,
                batch_seconds=settings.inference.batch_seconds,
                patiently=Patience(stop, name="shadow", renew=trying.renew),
            )
            loops.append(Loop(progress=trying, step=trial.step))
            watching = heart.loop("watch the shadow", STEP_SECONDS)
            loops.append(Loop(progress=watching, step=_shadow_watch(trying), longest_pause=_LONGEST_NOTE_PAUSE))
        return run_loops(stop, heart, loops, bells)


def _open_shadow(settings: Settings, model: ServedModel, parts: Parts) -> ServedModel | None:
    """Open the bundle on trial; one that is refused is an alarm in the log, and reporting goes on without it."""
    try:
        with _once(settings.node.data_dir / f"opening-shadow-{socket.gethostname()}"):
            shadow = open_shadow(settings.inference, model.identity, parts.open_model)
    except ShadowRefusedError as error:
        log.error("shadow bundle is refused, reporting goes on without it", reason=error)  # noqa: TRY400 - said in one line
        return None
    if shadow:
        identity = shadow.identity
        log.info("shadow analyses", bundle=identity.bundle, digest=identity.digest, threshold=identity.threshold)
    return shadow


@contextmanager
def _once(marker: Path) -> Iterator[None]:
    """Mark the block as begun, so that the start after one that ended the process leaves it out.

    A folder in which nothing may be written has no mark.

    Raises:
        ShadowRefusedError: the process before ended in the block; the mark is removed.
    """
    with suppress(OSError):
        if marker.exists():
            marker.unlink()
            raise ShadowRefusedError("the process ended while it was opened; the next start tries it again")
        marker.touch(mode=FILE_MODE)
    try:
        yield
    finally:
        with suppress(OSError):
            marker.unlink()


def _shadow_watch(progress: Progress) -> Callable[[], bool]:
    """Return a step that logs once that the shadow hangs: its images stay with this process until it ends."""
    is_logged = False

    def step() -> bool:
        nonlocal is_logged
        if progress.is_late and not is_logged:
            log.error("shadow hangs, reporting goes on without it", place=progress.place)
        is_logged = progress.is_late
        return False

    return step


def _chain_notes(ledger: Ledger) -> Callable[[], bool]:
    """Return a step that logs the end of the audit chain at the start and once a day.

    A log that is kept elsewhere then reveals a rewritten history: see `scp-node audit verify --head`.
    """
    due = time.monotonic()

    def step() -> bool:
        nonlocal due
        if time.monotonic() >= due:
            end = ledger.verifier.end()
            log.info("audit chain", events=end.length, head=end.head or "none")
            due += _CHAIN_NOTE_SECONDS
        return False

    return step
