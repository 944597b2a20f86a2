"""The worker's steps on a real ledger, with a network and a decoder that the test controls."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.gate import Appearance

from scp_node.analysis.answers import Prepared
from scp_node.decoders import DecoderStartError
from scp_node.domain import (
    BuiltObject,
    BuiltReport,
    Finding,
    ModelIdentity,
    NotAnalysed,
    Note,
    Priority,
    Reason,
    Region,
)
from scp_node.inference.ports import Scores
from scp_node.ledger import StudySnapshot
from scp_node.loops.analyse import Analyser
from scp_node.loops.report import LATE, Reporter
from scp_node.report.source.source import UnreportableHeader
from scp_node.runtime.heartbeat import Progress
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patience, Patiently, at_once
from scp_node.runtime.polling import UnfitProcessError
from scp_node.settings import PixelGate
from tests.scp_node.ledger.test_companions import OVERLAY
from tests.scp_node.ledger_node import LEASE, MODEL, Node, built_report
from tests.scp_node.spooled import FilesByName
from tests.waiting import wait_until


class Network:
    """Answers with what it was told, or raises it."""

    identity: ModelIdentity = MODEL

    def __init__(self, *answers: float | Exception) -> None:
        self.answers = list(answers)
        self.batches: list[int] = []
        self.faults: list[Exception | None] = []  # what each look at the machine finds
        self.verified = 0
        self.attended = 0
        self.detector: Detector | None = None
        self.unlikeness: list[float] | None = None  # of each image; None: the model has no gate

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        self.batches.append(len(inputs))
        values = [self.answers.pop(0) for _ in inputs]
        for value in values:
            if isinstance(value, Exception):
                raise value
        unlikeness = None if self.unlikeness is None else np.array([self.unlikeness.pop(0) for _ in inputs])
        return Scores(logits=np.array(values, np.float32), maps=self.maps, unlikeness=unlikeness)

    def appearance(self, picture: NDArray[np.float32]) -> Appearance:
        assert picture.shape == (224, 224)
        return Appearance.UPSIDE_DOWN

    def probability(self, logit: float) -> float:
        return float(1 / (1 + np.exp(-logit)))

    def regions(self, inputs: NDArray[np.float32]) -> list[tuple[Region, ...]]:
        return self.detector.regions(inputs) if self.detector else [()] * len(inputs)

    def verify(self) -> None:
        self.verified += 1
        if fault := self.faults.pop(0) if self.faults else None:
            raise fault

    def maps(self, rows: Sequence[int]) -> NDArray[np.float32]:
        self.attended += len(rows)
        return np.stack([np.full((14, 14), row, np.float32) for row in rows])


class Decoder:
    """Prepares every file, but those whose name it was told to refuse."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused

    def prepare_many(self, paths: Sequence[Path]) -> list[Prepared | NotAnalysed]:
        ready = Prepared(inputs=np.zeros((224, 224), np.float32), notes=(), input_stats={})
        refused = NotAnalysed(reason=Reason.UNREADABLE_PIXELS)
        return [refused if path.name in self.refused else ready for path in paths]

    def same_film(self, path: Path, other: Path) -> bool:
        return path.name.startswith("same") and bool(other)


def analyser(
    node: Node,
    network: Network,
    *refused: str,
    wants_attention: Callable[[Finding], bool] = lambda _: False,
    decoder: Decoder | NoDecoder | None = None,
    progress: Progress | None = None,
    batch_seconds: float = math.inf,
    pixel_gate: PixelGate = "refuse",
    runtime: str = "",
) -> Analyser:
    leases = LeaseKeeper(node.ledger, LEASE)
    return Analyser(
        ledger=node.ledger,
        leases=leases,
        files=FilesByName(),
        decoder=decoder or Decoder(*refused),
        network=network,
        batch_size=16,
        owner="w",
        wants_attention=wants_attention,
        clock=node.clock,
        progress=progress,
        batch_seconds=batch_seconds,
        pixel_gate=pixel_gate,
        runtime=runtime,
    )


def states(node: Node) -> list[tuple[str, str | None]]:
    return [(row["state"], row["reason"]) for row in node.audit()]


def test_a_batch_is_analysed_at_once_and_each_image_gets_its_own_answer(node: Node) -> None:
    node.receive("1", "2", "3")
    network = Network(-2.0, 2.0)
    assert analyser(node, network, "2.dcm").step()
    assert network.batches == [2]
    assert states(node) == [("analysed", None), ("failed", "unreadable-pixels"), ("analysed", None)]
    assert [row["verdict"] for row in node.audit()] == ["not-detected", None, "present"]


def test_the_grey_zone_of_the_model_decides(node: Node) -> None:
    node.receive("1", "2", "3")
    network = Network(-2.0, 0.1, 2.0)
    network.identity = replace(MODEL, grey_zone=0.1)
    analyser(node, network).step()
    assert [row["verdict"] for row in node.audit()] == ["not-detected", "undetermined", "present"]


def snapshot_of(node: Node) -> StudySnapshot:
    node.clock.advance(seconds=11)
    snapshot = node.report()
    assert snapshot is not None
    return snapshot


def gated(*unlikeness: float) -> Network:
    network = Network(*[2.0] * len(unlikeness))
    network.unlikeness = list(unlikeness)
    return network


def test_a_picture_that_the_gate_refuses_gets_no_score_and_its_report_says_what_it_looks_like(node: Node) -> None:
    node.receive("1", "2", "3")
    analyser(node, gated(1.0, 1.336, 0.25)).step()
    refused = ("not-analysed", "unlike-a-frontal-chest-film")
    assert states(node) == [("analysed", None), refused, ("analysed", None)]
    assert [row["probability"] is None for row in node.audit()] == [False, True, False]
    [outcome] = [image.outcome for image in snapshot_of(node).images if isinstance(image.outcome, NotAnalysed)]
    assert outcome.sentence == (
        "picture does not look like a frontal chest film (looks like one that is upside down; unlikeness 1.34, limit 1)"
    )


def test_what_the_gate_found_is_kept_with_a_finding(node: Node) -> None:
    node.receive("1")
    analyser(node, gated(0.71234567)).step()
    [image] = snapshot_of(node).images
    assert isinstance(image.outcome, Finding)
    assert image.outcome.input_stats == {"unlikeness": 0.7123}
    assert image.outcome.notes == ()


def test_a_gate_that_only_notes_lets_the_score_stand_with_a_note(node: Node) -> None:
    node.receive("1", "2")
    analyser(node, gated(1.2, 0.9), pixel_gate="note").step()
    outcomes = [image.outcome for image in snapshot_of(node).images]
    assert [outcome.notes for outcome in outcomes if isinstance(outcome, Finding)] == [
        (Note.UNLIKE_A_FRONTAL_CHEST_FILM,),
        (),
    ]


def test_a_gate_that_is_off_is_not_spoken_of(node: Node) -> None:
    node.receive("1")
    analyser(node, gated(3.0), pixel_gate="off").step()
    [image] = snapshot_of(node).images
    assert isinstance(image.outcome, Finding)
    assert (image.outcome.notes, image.outcome.input_stats) == ((), {})


def test_an_unlikeness_that_is_no_number_lets_nothing_through(node: Node) -> None:
    node.receive("1")
    analyser(node, gated(float("nan"))).step()
    assert states(node) == [("not-analysed", "unlike-a-frontal-chest-film")]


def test_a_gate_with_another_number_of_answers_is_a_fault_of_the_machine(node: Node) -> None:
    node.receive("1", "2")
    network = gated(0.5, 0.5)
    network.scores = lambda inputs: Scores(  # type: ignore[method-assign]
        logits=np.zeros(len(inputs), np.float32), maps=network.maps, unlikeness=np.zeros(1)
    )
    analyser(node, network).step()
    assert states(node) == [("received", None)] * 2


def test_the_trail_says_with_each_result_what_computed_it(node: Node) -> None:
    node.receive("1")
    worker = analyser(node, Network(2.0), runtime="torch, cuda, float16")
    worker.step()
    last = node.ledger.audit.events("1.2.3")[-1]
    assert (last.kind, last.detail["runtime"]) == ("analysed", "torch, cuda, float16")


def test_nothing_to_do_is_said_so(node: Node) -> None:
    assert not analyser(node, Network()).step()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_never_becomes_a_result(node: Node, value: float) -> None:
    node.receive("1", "2")
    worker = analyser(node, Network(value, 2.0, value, value, 2.0))
    worker.step()
    assert states(node) == [("received", None)] * 2
    for _ in range(4):
        node.clock.advance(seconds=6)
        worker.step()
    assert states(node) == [("failed", "inference"), ("analysed", None)]
    [failed, _] = node.audit()
    assert (failed["probability"], failed["detail"]) == (None, "NotFiniteError, tried 3 times")


def test_a_device_that_answers_everything_with_nan_fails_no_image(node: Node) -> None:
    node.receive("1", "2")
    network = Network(math.nan, math.nan)
    network.faults = [RuntimeError("answers differ from the released ones")]
    with pytest.raises(UnfitProcessError):
        analyser(node, network).step()
    assert states(node) == [("received", None)] * 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_finding_and_a_region_without_numbers_cannot_be_made(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Finding(probability=0.5, logit=value, threshold=0.5)
    with pytest.raises(ValueError, match="probability"):
        Finding(probability=value, logit=0.0, threshold=0.5)
    for name in ("left", "top", "right", "bottom", "score"):
        with pytest.raises(ValueError, match="finite"):
            replace(Region(left=0.1, top=0.1, right=0.2, bottom=0.2, score=0.5), **{name: value})


def test_one_image_that_breaks_the_network_does_not_take_its_batch_with_it(node: Node) -> None:
    node.receive("1", "2", "3")
    network = Network(2.0, RuntimeError(), 2.0, 2.0, RuntimeError(), 2.0, RuntimeError())
    worker = analyser(node, network)
    while worker.step():
        pass
    assert states(node) == [("analysed", None), ("received", None), ("analysed", None)]
    node.clock.advance(seconds=6)
    worker.step()
    assert states(node)[1] == ("failed", "inference")
    assert network.batches == [3, 1, 1, 1, 1], "the others twice at most, the one at fault three times"


def test_a_network_that_fails_once_is_asked_again(node: Node) -> None:
    node.receive("1")
    worker = analyser(node, Network(MemoryError(), 2.0))
    assert worker.step()
    assert states(node) == [("received", None)]
    node.clock.advance(seconds=6)
    assert worker.step()
    assert states(node) == [("analysed", None)]


def test_a_network_that_keeps_failing_ends_the_image_as_failed_after_three_tries(node: Node) -> None:
    node.receive("1")
    worker = analyser(node, Network(*[MemoryError()] * 9))
    for _ in range(5):
        worker.step()
        node.clock.advance(seconds=6)
    assert states(node) == [("failed", "inference")]
    assert node.audit()[0]["detail"] == "MemoryError, tried 3 times"


def test_a_batch_that_fails_on_a_broken_machine_blames_no_image_and_ends_the_process(node: Node) -> None:
    node.receive("1", "2")
    network = Network(RuntimeError("device lost"))
    network.faults = [RuntimeError("device lost")]
    with pytest.raises(UnfitProcessError, match="machine fault: RuntimeError"):
        analyser(node, network).step()
    assert network.batches == [2], "no image was tried alone on a machine that is broken"
    assert states(node) == [("received", None)] * 2
    node.clock.advance(seconds=6)
    another = analyser(node, Network(2.0, 2.0))
    assert another.step()
    assert another.step()
    assert states(node) == [("analysed", None)] * 2


def test_an_image_is_not_given_to_a_machine_that_is_broken_already_and_loses_no_try(node: Node) -> None:
    node.receive("1")
    analyser(node, Network(MemoryError())).step()
    for _ in range(5):
        node.clock.advance(seconds=6)
        network = Network()
        network.faults = [RuntimeError("device lost")]
        with pytest.raises(UnfitProcessError):
            analyser(node, network).step()
        assert network.batches == []
    node.clock.advance(seconds=6)
    analyser(node, Network(2.0)).step()
    assert states(node) == [("analysed", None)]


def test_an_image_that_breaks_the_machine_each_time_ends_as_failed_after_three_tries(node: Node) -> None:
    node.receive("1")
    for tries in range(3):
        node.clock.advance(seconds=6)
        network = Network(RuntimeError())
        network.faults = [*([None] if tries else []), RuntimeError("sticky")]
        with pytest.raises(UnfitProcessError):
            analyser(node, network).step()
    assert states(node) == [("failed", "inference")]
    assert node.audit()[0]["detail"] == "machine fault: RuntimeError, tried 3 times"


def test_one_image_that_breaks_the_machine_costs_the_others_behind_it_one_try(node: Node) -> None:
    node.receive("1", "2", "3")
    network = Network(2.0, MemoryError(), 2.0, 2.0, RuntimeError())
    network.faults = [None, None, None, RuntimeError("sticky")]
    worker = analyser(node, network)
    worker.step()
    worker.step()
    with pytest.raises(UnfitProcessError):
        worker.step()
    assert states(node) == [("analysed", None), ("received", None), ("received", None)]
    assert node.rows("SELECT attempt FROM work WHERE queue = 'analyse' ORDER BY id") == [(2,), (2,), (1,)]


def test_an_image_is_not_blamed_for_decoders_that_do_not_start(node: Node) -> None:
    node.receive("1", "2")
    worker = analyser(node, Network(), decoder=NoDecoder())
    with pytest.raises(UnfitProcessError, match="no decoder process"):
        worker.step()
    assert node.rows("SELECT attempt FROM work WHERE queue = 'analyse'") == [(0,), (0,)]


def test_an_image_that_failed_before_is_not_topped_up_into_a_batch_with_fresh_ones(node: Node) -> None:
    node.receive("1", "2", "3")
    network = Network(2.0, 2.0, MemoryError(), 2.0, 2.0, MemoryError())
    worker = analyser(node, network)
    while worker.step():
        pass
    assert states(node) == [("analysed", None), ("analysed", None), ("received", None)]
    node.clock.advance(seconds=6)
    node.receive("4", "5", priority=Priority.HIGH)
    network.answers, network.batches = [2.0, 2.0, 2.0], []
    worker.step()
    worker.step()
    assert network.batches == [2, 1]


class SlowNetwork(Network):
    """Answers when its loop is late."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(2.0)
        self.progress = progress
        self.late_at_first: bool | None = None

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        self.late_at_first = self.progress.is_late
        wait_until(lambda: self.progress.is_late)
        return super().scores(inputs)


def test_a_network_that_hangs_makes_its_loop_late_after_its_time_and_not_before(node: Node) -> None:
    node.receive("1")
    progress = Progress("analyse")
    network = SlowNetwork(progress)
    analyser(node, network, progress=progress, batch_seconds=0.2).step()
    assert network.late_at_first is False
    assert not progress.is_late
    assert states(node) == [("analysed", None)]


class NoDecoder:
    """A machine that starts no process any more."""

    def prepare_many(self, paths: Sequence[Path]) -> list[Prepared | NotAnalysed]:
        raise DecoderStartError(f"no decoder process for {len(paths)} images: out of memory")

    def same_film(self, path: Path, other: Path) -> bool:
        raise DecoderStartError(f"no decoder process for {path} and {other}: out of memory")


class Detector:
    """Finds one region in each film, further to the right in each."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.films = 0

    def regions(self, inputs: NDArray[np.float32]) -> list[tuple[Region, ...]]:
        if self.error:
            raise self.error
        found: list[tuple[Region, ...]] = []
        for _ in inputs:
            self.films += 1
            left = self.films / 10
            found.append((Region(left=left, top=0.25, right=0.5, bottom=0.75, score=0.4),))
        return found


def test_only_positive_images_are_searched_for_regions_and_each_keeps_its_own(node: Node) -> None:
    node.receive("1", "2", "3", "4", "5")
    network = Network(2.0, -2.0, -2.0, 2.0)
    network.detector = Detector()
    analyser(node, network, "2.dcm").step()
    assert network.detector.films == 2
    assert [[region["left"] for region in row["regions"]] for row in node.audit()] == [[0.1], [], [], [], [0.2]]
    assert node.audit()[0]["regions"] == [{"left": 0.1, "top": 0.25, "right": 0.5, "bottom": 0.75, "score": 0.4}]


def test_a_model_without_a_detector_leaves_no_regions(node: Node) -> None:
    node.receive("1")
    analyser(node, Network(2.0)).step()
    assert node.audit()[0]["regions"] == []


def test_an_image_whose_detector_fails_is_tried_again_never_reported_without_its_regions(node: Node) -> None:
    node.receive("1")
    network = Network(2.0, 2.0, 2.0)
    network.detector = Detector(MemoryError())
    worker = analyser(node, network)
    worker.step()
    assert states(node) == [("received", None)]
    for _ in range(2):
        node.clock.advance(seconds=6)
        worker.step()
    assert states(node) == [("failed", "inference")]


def test_a_map_is_computed_for_the_images_that_will_have_a_picture_and_kept_with_their_result(node: Node) -> None:
    node.receive("1", "2", "3")
    network = Network(2.0, -2.0, 2.0)
    analyser(node, network, wants_attention=lambda finding: finding.logit > 0).step()
    assert network.attended == 2
    node.clock.advance(seconds=11)
    snapshot = node.report()
    assert snapshot is not None
    maps = [image.outcome.attention for image in snapshot.images if isinstance(image.outcome, Finding)]
    assert [set(np.frombuffer(each, "<f4").tolist()) for each in maps] == [{0.0}, set(), {2.0}]
    assert [len(each) for each in maps] == [14 * 14 * 4, 0, 14 * 14 * 4]
    assert network.batches == [3]  # the maps are made from the scores' own pass
    assert node.rows("SELECT count(*) FROM result WHERE attention IS NOT NULL") == [(2,)]


class Building:
    """Builds what a test says, or raises it; and a picture beside it where there is one."""

    def __init__(
        self,
        build: BuiltReport | Exception | Callable[[StudySnapshot], BuiltReport] | None = None,
        *pictures: BuiltObject | Exception,
    ) -> None:
        self.build = build
        self.pictures = list(pictures)

    def __call__(self, snapshot: StudySnapshot) -> BuiltReport:
        if isinstance(self.build, Exception):
            raise self.build
        if callable(self.build):
            return self.build(snapshot)
        return self.build or built_report("1.2.3", snapshot)

    def wants_companions(self, snapshot: StudySnapshot) -> bool:
        return bool(self.pictures and snapshot.images)

    def companions(self, snapshot: StudySnapshot, *, at: datetime, content_digest: str) -> list[BuiltObject]:
        assert content_digest == built_report("1.2.3", snapshot).content_digest
        assert at.tzinfo
        picture = self.pictures.pop(0)
        if isinstance(picture, Exception):
            raise picture
        return [picture]


def reporter(
    node: Node,
    build: Building | BuiltReport | Exception | Callable[[StudySnapshot], BuiltReport] | None = None,
    *,
    patiently: Patiently = at_once,
) -> Reporter:
    leases = LeaseKeeper(node.ledger, LEASE)
    return Reporter(
        ledger=node.ledger,
        leases=leases,
        model=MODEL,
        build=build if isinstance(build, Building) else Building(build),
        destinations=lambda _: ["pacs"],
        owner="r",
        patiently=patiently,
    )


def ready_study(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    node.ledger.upkeep.sweep(MODEL)


def test_a_header_that_cannot_carry_a_report_ends_visibly(node: Node) -> None:
    ready_study(node)
    assert reporter(node, UnreportableHeader("no Study Instance UID", "1.2.3.1")).step()
    assert node.ledger.upkeep.counts()["report"] == {"dead": 1}
    assert node.ledger.audit.events("1.2.3")[-1].kind == "report-failed"


def test_a_bug_in_the_builder_is_tried_three_times_and_then_left_to_a_person(node: Node) -> None:
    ready_study(node)
    worker = reporter(node, RuntimeError("bug"))
    for _ in range(3):
        assert worker.step()
        node.clock.advance(seconds=6)
        node.ledger.upkeep.sweep(MODEL)
    assert not worker.step()
    assert node.ledger.upkeep.counts()["report"] == {"dead": 1}


def test_a_report_that_the_database_refuses_is_left_to_a_person_and_holds_up_no_other(node: Node) -> None:
    ready_study(node)
    same = BuiltReport(
        study_uid="1.2.3",
        sop_class_uid="1.2",
        sop_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        content_digest="the same for all",
        file=b"report",
    )
    patiently = Patience(threading.Event(), name="report")
    worker = reporter(node, same, patiently=patiently)
    assert worker.step()
    node.receive("2", study="1.2.4")
    node.analyse()
    for _ in range(4):
        node.clock.advance(seconds=20)
        node.ledger.upkeep.sweep(MODEL)
        worker.step()
    assert node.ledger.upkeep.counts()["report"] == {"done": 1, "dead": 1}
    node.receive("3", study="1.2.5")
    node.analyse()
    node.clock.advance(seconds=20)
    assert reporter(node, replace(same, study_uid="1.2.5", sop_instance_uid="2.25.3"), patiently=patiently).step()
    assert node.ledger.upkeep.counts()["report"] == {"done": 2, "dead": 1}


def test_a_study_that_says_nothing_new_gets_no_second_report(node: Node) -> None:
    ready_study(node)
    assert reporter(node).step()
    node.ledger.upkeep.requeue()
    with node.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE work SET state = 'ready' WHERE queue = 'report'")
    assert reporter(node).step()
    assert node.rows("SELECT count(*) FROM report") == [(1,)]


def test_the_lease_of_a_loop_that_hangs_runs_out(node: Node) -> None:
    node.receive("1")
    [task] = node.ledger.analyses.claim(owner="w", limit=1)
    asked: list[bool] = []

    def hangs() -> bool:
        asked.append(True)
        return len(asked) < 5

    keeper = LeaseKeeper(node.ledger, timedelta(seconds=0.06), hangs=hangs).start()
    node.clock.advance(seconds=14)
    before = node.rows("SELECT lease_until FROM work")
    with keeper.hold([task.claim]):
        wait_until(lambda: len(asked) == 4)
        assert node.rows("SELECT lease_until FROM work") == before
        wait_until(lambda: node.rows("SELECT lease_until FROM work") != before)
    keeper.close()


def test_a_held_lease_outlives_its_length(node: Node) -> None:
    node.receive("1")
    [task] = node.ledger.analyses.claim(owner="w", limit=1)
    keeper = LeaseKeeper(node.ledger, timedelta(seconds=0.06)).start()
    node.clock.advance(seconds=14)
    before = node.rows("SELECT lease_until FROM work")
    with keeper.hold([task.claim]):
        wait_until(lambda: node.rows("SELECT lease_until FROM work") != before)
    keeper.close()


def test_a_film_that_comes_while_a_reporter_works_is_in_the_first_report_of_the_other(node: Node) -> None:
    ready_study(node)
    second = reporter(node)

    def film_comes(snapshot: StudySnapshot) -> BuiltReport:
        node.receive("2")
        node.analyse()
        node.clock.advance(seconds=11)
        assert not second.step(), "the study is in the hands of the first"
        return built_report("1.2.3", snapshot)

    assert reporter(node, film_comes).step()
    assert node.rows("SELECT count(*) FROM report") == [(0,)], "it would lack a film"
    assert second.step()
    assert not second.step()
    assert node.rows("SELECT version, supersedes FROM report") == [(1, None)]
    assert node.rows("SELECT count(*) FROM report_result") == [(2,)]


def test_a_reporter_that_was_too_slow_writes_no_version_behind_that_of_another(node: Node) -> None:
    ready_study(node)
    second = reporter(node)

    def takes_too_long(snapshot: StudySnapshot) -> BuiltReport:
        node.clock.advance(seconds=LEASE.total_seconds() + 1)
        assert second.step(), "the lease was not renewed"
        node.receive("2")
        node.analyse()
        node.clock.advance(seconds=11)
        assert second.step()
        return built_report("1.2.3", snapshot)

    assert reporter(node, takes_too_long).step()
    [first, newest] = node.rows("SELECT id, version, supersedes FROM report ORDER BY version")
    assert (first[1:], newest[1:]) == ((1, None), (2, first[0]))
    assert node.rows("SELECT report_id, count(*) FROM report_result GROUP BY report_id ORDER BY report_id") == [
        (first[0], 1),
        (newest[0], 2),
    ]


def test_a_picture_is_made_after_the_report_is_on_its_way(node: Node) -> None:
    ready_study(node)
    worker = reporter(node, Building(None, OVERLAY))
    assert worker.step()
    assert node.rows("SELECT count(*) FROM report") == [(1,)]
    assert node.rows("SELECT count(*) FROM companion") == [(0,)]
    assert worker.step()
    assert node.rows("SELECT count(*) FROM companion") == [(1,)]
    assert not worker.step()


def test_under_a_lasting_overload_no_picture_waits_for_ever_and_each_report_for_one_picture_at_most(node: Node) -> None:
    pictures = [replace(OVERLAY, sop_instance_uid=f"2.25.{number}") for number in range(120)]
    worker = reporter(node, Building(lambda of: built_report(f"1.{of.images[0].sop_instance_uid}", of), *pictures))
    turns, made, late = "", 0, int(LATE.total_seconds())
    for number in range(4 * late):  # in each second a study comes, and there is time for one turn
        node.receive(str(number), study=f"1.1.2.3.{number}", priority=Priority.STAT)
        node.analyse()
        assert worker.step()
        [(now_made,)] = node.rows("SELECT count(*) FROM companion")
        turns, made = turns + ("picture " if now_made > made else "report "), now_made
        node.clock.advance(seconds=1)
    assert turns == "report " * late + "picture report " * (3 * late // 2)
    times = node.rows("SELECT created_at, done_at FROM work WHERE queue = 'companions' AND state = 'done'")
    waits = [datetime.fromisoformat(str(done)) - datetime.fromisoformat(str(created)) for created, done in times]
    assert LATE <= max(waits) < 2 * LATE


def test_a_bug_in_a_picture_is_tried_again_and_leaves_its_report_alone(node: Node) -> None:
    ready_study(node)
    worker = reporter(node, Building(None, RuntimeError("bug"), OVERLAY))
    assert worker.step()
    assert worker.step()
    assert not worker.step(), "not before its pause"
    assert node.ledger.upkeep.counts()["report"] == {"done": 1}
    node.clock.advance(seconds=6)
    assert worker.step()
    assert node.rows("SELECT count(*) FROM companion") == [(1,)]
