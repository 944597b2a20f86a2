"""The worker's loop: analyses images in batches.

Claim, pure step, complete. A failure in a step is either an outcome of the image (`NotAnalysed`) or an exception. After
an exception either the machine or one image is to blame. The loop asks the machine something that it must know, and
puts the images of the batch back, to be claimed one by one. See docs/decisions/0012.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.gate import Appearance
from pneumonia_model.prediction import NotFiniteError

from scp_node.analysis.analyse import conclude
from scp_node.analysis.answers import Prepared
from scp_node.decoders import DecoderStartError
from scp_node.domain import (
    UNLIKENESS,
    Clock,
    Finding,
    ModelIdentity,
    NotAnalysed,
    Note,
    Outcome,
    Priority,
    Reason,
    utc_now,
)
from scp_node.inference.ports import Network, Scores
from scp_node.ledger import Analysed, AnalysisTask, Ledger, Suspects
from scp_node.logs import get_logger
from scp_node.runtime.heartbeat import Progress
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patiently, at_once
from scp_node.runtime.polling import UnfitProcessError
from scp_node.settings import PixelGate
from scp_node.spool import StoredFiles

log = get_logger(__name__)

TOP_UP_SECONDS: Final = 0.05  # a batch that is not full waits this long, once, for more images
OLDEST_FIRST_EVERY: Final = 8  # one claim in this many ignores priority, so that routine images never starve
RETRY_PAUSE: Final = timedelta(seconds=5)

APPEARANCES: Final[Mapping[Appearance, str]] = {
    Appearance.TURNED_LEFT: "looks like one that is turned by 90 degrees, head to the left",
    Appearance.UPSIDE_DOWN: "looks like one that is upside down",
    Appearance.TURNED_RIGHT: "looks like one that is turned by 90 degrees, head to the right",
    Appearance.INVERTED: "looks like one with dark and bright exchanged",
    Appearance.UNKNOWN: "nor would it if it were turned or inverted",
}
"""What a report says of the look of a picture that the gate refused."""


class Decoder(Protocol):
    """Turns stored files into inputs of the network, or into the reason why that failed."""

    def prepare_many(self, paths: Sequence[Path]) -> list[Prepared | NotAnalysed]:
        """Return one outcome for each path, in order."""

    def same_film(self, path: Path, other: Path) -> bool:
        """Return whether two files hold one film in two encodings; False if that cannot be told."""


class Analyser:
    """Analyses the waiting images, one batch a step."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        leases: LeaseKeeper,
        files: StoredFiles,
        decoder: Decoder,
        network: Network,
        batch_size: int,
        owner: str,
        wants_attention: Callable[[Finding], bool] = lambda _: False,
        shadow: ModelIdentity | None = None,
        runtime: str = "",
        pixel_gate: PixelGate = "refuse",
        clock: Clock = utc_now,
        progress: Progress | None = None,
        batch_seconds: float = math.inf,
        patiently: Patiently = at_once,
    ) -> None:
        """Analyse stored `files` and write the outcomes to `ledger`, some with their activation map.

        `pixel_gate` says what becomes of a picture that the network's gate refuses. Each finding opens the work of the
        `shadow` that this process serves, if any. Each result is recorded with its `runtime`. The network has
        `batch_seconds` for a batch; after that the loop with this `progress` counts as hung.
        """
        self._patiently = patiently
        self._ledger = ledger
        self._leases = leases
        self._files = files
        self._decoder = decoder
        self._network = network
        self._wants_attention = wants_attention
        self._batch_size = batch_size
        self._owner = owner
        self._clock = clock
        self._progress = progress or Progress("analyse")
        self._batch_seconds = batch_seconds
        self._shadow = shadow
        self._runtime = runtime
        self._pixel_gate = pixel_gate
        self._claims = 0
        self._is_busy = False

    @property
    def is_idle(self) -> bool:
        """Whether no batch is under analysis here; for any thread."""
        return not self._is_busy

    def step(self) -> bool:
        """Analyse one batch; return whether there was one."""
        self._ledger.upkeep.sweep(self._network.identity)
        tasks = self._claim()
        if not tasks:
            return False
        self._is_busy = True
        try:
            with self._leases.hold([task.claim for task in tasks]):
                if tasks[0].claim.attempt > 1:
                    self._require_sound_machine(tasks)
                self._finish(tasks)
        finally:
            self._is_busy = False
        return True

    def _finish(self, tasks: Sequence[AnalysisTask]) -> None:
        """Analyse and record. Decoders answer with outcomes, so an exception comes from the network or the machine."""
        ours = [task for task in tasks if not task.in_conflict]
        try:
            for task in tasks:
                if task.in_conflict:
                    self._compare(task)
            analysed = self._analyse(ours) if ours else []
        except DecoderStartError as error:
            self._give_back(tasks, str(error))
        except Exception as error:
            log.exception("analysis failed", count=len(tasks))
            self._blame(tasks, type(error).__name__)
        else:
            self._record(analysed)

    def _compare(self, task: AnalysisTask) -> None:
        """Find out whether an image in conflict is the one that is read, in another encoding."""
        same = False
        if task.rival_path is not None:
            with self._files.open([task.spool_path, task.rival_path]) as [path, rival]:
                same = self._decoder.same_film(path, rival)
        if self._patiently(lambda: self._ledger.analyses.compared(task, same=same)):
            log.error(
                "image is not analysed, another with its SOP Instance UID came before",
                sop_instance_uid=task.sop_instance_uid,
                study_uid=task.study_uid,
            )

    def _blame(self, tasks: Sequence[AnalysisTask], error: str) -> None:
        """Have the images tried again, a batch one by one, and find out whether this process may do that.

        The try counts for all of them: one may be at fault, and may break the machine as well as the step.

        Raises:
            UnfitProcessError: the machine is broken now.
        """
        fault = self._fault()
        pause = RETRY_PAUSE if fault or len(tasks) == 1 else timedelta(0)
        self._ledger.analyses.retry(tasks, self._network.identity, pause=pause, error=fault or error)
        if fault:
            raise UnfitProcessError(fault)

    def _require_sound_machine(self, tasks: Sequence[AnalysisTask]) -> None:
        """Test the machine before it gets a suspect: if it breaks after that, the image is to blame."""
        if fault := self._fault():
            self._give_back(tasks, fault)

    def _give_back(self, tasks: Sequence[AnalysisTask], fault: str) -> None:
        """End the process without counting a try of these images: the next process begins with a sound machine."""
        self._ledger.analyses.put_back(tasks, error=fault)
        raise UnfitProcessError(fault)

    def _fault(self) -> str:
        """Return the fault of the machine; "" if it answers as it should."""
        try:
            with self._progress.stage(self._batch_seconds):
                self._network.verify()
        except Exception as error:
            log.exception("network does not answer as it should")
            return f"machine fault: {type(error).__name__}"
        return ""

    def _record(self, analysed: Sequence[Analysed]) -> None:
        kept = self._patiently(lambda: self._ledger.analyses.record(analysed, self._network.identity, self._shadow))
        for item in analysed:
            _log_outcome(item)
        if kept < len(analysed):
            log.warning("claims lost", count=len(analysed) - kept)

    def _claim(self) -> list[AnalysisTask]:
        self._claims += 1
        oldest_first = self._claims % OLDEST_FIRST_EVERY == 0
        tasks = self._ledger.analyses.claim(owner=self._owner, limit=self._batch_size, oldest_first=oldest_first)
        urgent = any(task.claim.priority == Priority.STAT for task in tasks)
        if 1 < len(tasks) < self._batch_size and not urgent:  # more are probably coming; a lone image does not wait
            time.sleep(TOP_UP_SECONDS)
            more = self._batch_size - len(tasks)
            tasks += self._ledger.analyses.claim(owner=self._owner, limit=more, suspects=Suspects.LEFT)
        return tasks

    def _analyse(self, tasks: Sequence[AnalysisTask]) -> list[Analysed]:
        started_at, began = self._clock(), time.monotonic()
        with self._files.open([task.spool_path for task in tasks]) as paths:
            prepared = self._decoder.prepare_many(paths)
        decoded = time.monotonic()
        with self._progress.stage(self._batch_seconds):
            outcomes = infer(
                self._network, prepared, pixel_gate=self._pixel_gate, wants_attention=self._wants_attention
            )
            outcomes = self._with_regions(prepared, outcomes)
        timings = {
            "batch": float(len(tasks)),
            "decode_seconds": round(decoded - began, 4),
            "inference_seconds": round(time.monotonic() - decoded, 4),
        }
        return [
            Analysed(task=task, outcome=outcome, started_at=started_at, timings=timings, runtime=self._runtime)
            for task, outcome in zip(tasks, outcomes, strict=True)
        ]

    def _with_regions(self, prepared: Sequence[Prepared | NotAnalysed], outcomes: list[Outcome]) -> list[Outcome]:
        """Return the outcomes, with regions for the positive ones: the detector does not look at other images."""
        pairs = zip(prepared, outcomes, strict=True)
        inputs = [item.inputs for item, outcome in pairs if isinstance(item, Prepared) and outcome.is_positive]
        if not inputs:
            return outcomes
        regions = iter(self._network.regions(np.stack(inputs)))
        return [
            replace(outcome, regions=next(regions)) if isinstance(outcome, Finding) and outcome.is_positive else outcome
            for outcome in outcomes
        ]


def infer(
    network: Network,
    prepared: Sequence[Prepared | NotAnalysed],
    *,
    pixel_gate: PixelGate = "refuse",
    wants_attention: Callable[[Finding], bool] = lambda _: False,
) -> list[Outcome]:
    """Return the outcome of each image by the network, in order; one that could not be prepared has its own.

    A finding has its activation map if `wants_attention` says so: a map costs as much as a score.

    Raises:
        NotFiniteError: the network gave a number that is not finite.
        RuntimeError: it gave another number of values than there are images.
    """
    ready = [item for item in prepared if isinstance(item, Prepared)]
    if not ready:
        return [item for item in prepared if isinstance(item, NotAnalysed)]
    scores = network.scores(np.stack([item.inputs for item in ready]))
    seen = None if pixel_gate == "off" else scores.unlikeness
    unlikeness = [None] * len(ready) if seen is None else seen.tolist()
    if not len(scores.logits) == len(unlikeness) == len(ready):
        raise RuntimeError(f"the network gave {len(scores.logits)} values for {len(ready)} images")
    _require_numbers(scores.logits)
    values = zip(ready, scores.logits.tolist(), unlikeness, strict=True)
    concluded = [_conclude(network, *each, pixel_gate) for each in values]
    rest = iter(_with_maps(scores, concluded, wants_attention))
    return [item if isinstance(item, NotAnalysed) else next(rest) for item in prepared]


def _with_maps(scores: Scores, outcomes: list[Outcome], wants_attention: Callable[[Finding], bool]) -> list[Outcome]:
    """Return the outcomes of the rows of `scores`, with an activation map for those that need one."""
    wanted = {row: of for row, of in enumerate(outcomes) if isinstance(of, Finding) and wants_attention(of)}
    if not wanted:
        return outcomes
    maps = _require_numbers(scores.maps(list(wanted))).astype("<f4")
    mapped = {
        row: replace(finding, attention=each.tobytes())
        for (row, finding), each in zip(wanted.items(), maps, strict=True)
    }
    return [mapped.get(row, outcome) for row, outcome in enumerate(outcomes)]


def _conclude(
    network: Network, item: Prepared, logit: float, unlikeness: float | None, pixel_gate: PixelGate
) -> Outcome:
    if unlikeness is not None:
        stranger = not unlikeness <= 1  # True for NaN
        if stranger and pixel_gate == "refuse":
            looks = APPEARANCES[network.appearance(item.inputs)]
            detail = f"{looks}; unlikeness {unlikeness:.2f}, limit 1"
            return NotAnalysed(reason=Reason.UNLIKE_A_FRONTAL_CHEST_FILM, detail=detail)
        added = (Note.UNLIKE_A_FRONTAL_CHEST_FILM,) if stranger else ()
        stats = {**item.input_stats, UNLIKENESS: round(unlikeness, 4)}
        item = replace(item, notes=(*item.notes, *added), input_stats=stats)
    identity = network.identity
    return conclude(
        item,
        logit=logit,
        probability=network.probability(logit),
        threshold=identity.threshold,
        grey_zone=identity.grey_zone,
    )


def _require_numbers(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise NotFiniteError("the network gave a number that is not finite")
    return values


def _log_outcome(item: Analysed) -> None:
    outcome = item.outcome
    if isinstance(outcome, NotAnalysed):
        log.info("not analysed", sop_instance_uid=item.task.sop_instance_uid, reason=outcome.reason)
    else:
        log.info(
            "analysed",
            sop_instance_uid=item.task.sop_instance_uid,
            verdict=outcome.verdict,
            probability=round(outcome.probability, 3),
        )
