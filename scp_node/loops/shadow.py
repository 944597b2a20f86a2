"""Runs the bundle on trial on images that have their result, while nothing waits for its analysis.

A failure is logged, and its images are tried again, a few times. It ends no process, and no report waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final

from scp_node.decoders import DecoderStartError
from scp_node.domain import NotAnalysed, Outcome
from scp_node.inference.ports import Network
from scp_node.ledger import Ledger, ShadowOutcome, ShadowTask
from scp_node.logs import get_logger
from scp_node.loops.analyse import Decoder, infer
from scp_node.runtime.heartbeat import Progress
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patiently, at_once
from scp_node.settings import PixelGate
from scp_node.spool import StoredFiles

log = get_logger(__name__)

RETRY_PAUSE: Final = timedelta(seconds=5)
RESTART_PAUSE: Final = timedelta(seconds=30)  # where decoders do not start


class ShadowAnalyser:
    """Runs the bundle on trial, a few images a step."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        leases: LeaseKeeper,
        files: StoredFiles,
        decoder: Decoder,
        network: Network,
        images: int,
        owner: str,
        may_begin: Callable[[], bool] = lambda: True,
        pixel_gate: PixelGate = "refuse",
        progress: Progress | None = None,
        batch_seconds: float = math.inf,
        patiently: Patiently = at_once,
    ) -> None:
        """Run `network` on stored `files`, at most `images` at once, while `may_begin` says that it is in nobody's way.

        `pixel_gate` says what becomes of a picture that its gate refuses. The network has `batch_seconds` for them;
        after that `progress` is late.
        """
        self._ledger = ledger
        self._leases = leases
        self._files = files
        self._decoder = decoder
        self._network = network
        self._images = images
        self._owner = owner
        self._may_begin = may_begin
        self._pixel_gate = pixel_gate
        self._progress = progress or Progress("shadow")
        self._batch_seconds = batch_seconds
        self._patiently = patiently

    def step(self) -> bool:
        """Run it on some images; return whether there were any."""
        if not self._may_begin():
            return False
        tasks = self._ledger.shadow_queue.claim(owner=self._owner, limit=self._images)
        if not tasks:
            return False
        with self._leases.hold([task.claim for task in tasks]):
            try:
                with _PutBack(self._ledger, tasks):
                    outcomes = self._analyse(tasks)
            except DecoderStartError as error:
                self._ledger.shadow_queue.put_back(tasks, pause=RESTART_PAUSE, error=str(error))
                log.error("shadow analysis waits, decoders do not start", reason=error)  # noqa: TRY400 - said in one line
                return False
            self._record(tasks, outcomes)
        return True

    def _analyse(self, tasks: Sequence[ShadowTask]) -> list[Outcome]:
        with self._files.open([task.spool_path for task in tasks]) as paths:
            prepared = self._decoder.prepare_many(paths)
        with self._progress.stage(self._batch_seconds):
            return infer(self._network, prepared, pixel_gate=self._pixel_gate)

    def _record(self, tasks: Sequence[ShadowTask], outcomes: Sequence[Outcome]) -> None:
        pairs = zip(tasks, outcomes, strict=True)
        done = [ShadowOutcome(task=task, outcome=outcome) for task, outcome in pairs]
        kept = self._patiently(lambda: self._ledger.shadow_queue.record(done, self._network.identity))
        for item in done:
            uid, outcome = item.task.sop_instance_uid, item.outcome
            if isinstance(outcome, NotAnalysed):
                log.warning("shadow gives no finding", sop_instance_uid=uid, reason=outcome.reason)
            else:
                log.debug("shadow analysed", sop_instance_uid=uid, verdict=outcome.verdict)
        if kept < len(done):
            log.info("shadow claims lost", count=len(done) - kept)


class _PutBack:
    """Puts images back when the block raises, and lets the error go on: the step runner logs it and waits longer."""

    def __init__(self, ledger: Ledger, tasks: Sequence[ShadowTask]) -> None:
        self._ledger = ledger
        self._tasks = tasks

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, DecoderStartError):
            self._ledger.shadow_queue.retry(self._tasks, pause=RETRY_PAUSE, error=kind.__name__)
