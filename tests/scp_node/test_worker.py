"""The worker's steps on a real ledger, with a network and a decoder that the test controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scp_node.analysis import Prepared
from scp_node.domain import BuiltReport, Finding, ModelIdentity, NotAnalysed, Reason, Region
from scp_node.leases import LeaseKeeper
from scp_node.ledger import StudySnapshot
from scp_node.report import UnreportableHeader
from scp_node.worker import Analyser, Reporter
from tests.scp_node.ledger_node import LEASE, MODEL, Node, built_report
from tests.waiting import wait_until


class Network:
    """Answers with what it was told, or raises it."""

    identity: ModelIdentity = MODEL

    def __init__(self, *answers: float | Exception) -> None:
        self.answers = list(answers)
        self.batches: list[int] = []
        self.attended = 0

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches.append(len(inputs))
        values = [self.answers.pop(0) for _ in inputs]
        for value in values:
            if isinstance(value, Exception):
                raise value
        return np.array(values, np.float32)

    def probability(self, logit: float) -> float:
        return float(1 / (1 + np.exp(-logit)))

    def attention(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        self.attended += len(inputs)
        return np.stack([np.full((14, 14), self.attended, np.float32) for _ in inputs])


class Decoder:
    """Prepares every file, but those whose name it was told to refuse."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused

    def prepare_many(self, paths: Sequence[Path]) -> list[Prepared | NotAnalysed]:
        ready = Prepared(inputs=np.zeros((224, 224), np.float32), notes=(), input_stats={})
        refused = NotAnalysed(reason=Reason.UNREADABLE_PIXELS)
        return [refused if path.name in self.refused else ready for path in paths]


def analyser(
    node: Node, network: Network, *refused: str, detector: Detector | None = None,
    wants_attention: Callable[[Finding], bool] = lambda _: False,
) -> Analyser:  # fmt: skip
    leases = LeaseKeeper(node.ledger, LEASE)
    return Analyser(
        ledger=node.ledger, leases=leases, spool_folder=Path(), decoder=Decoder(*refused), network=network,
        batch_size=16, owner="w", detector=detector, wants_attention=wants_attention,
        clock=node.clock,
    )  # fmt: skip


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


def test_nothing_to_do_is_said_so(node: Node) -> None:
    assert not analyser(node, Network()).step()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_never_becomes_a_result(node: Node, value: float) -> None:
    node.receive("1", "2")
    analyser(node, Network(value, 2.0)).step()
    assert states(node) == [("failed", "inference"), ("analysed", None)]
    assert node.audit()[0]["probability"] is None


def test_one_image_that_breaks_the_network_does_not_take_its_batch_with_it(node: Node) -> None:
    node.receive("1", "2", "3")
    batch: list[float | Exception] = [2.0, RuntimeError(), 2.0]
    analyser(node, Network(*batch, *batch)).step()
    assert states(node) == [("analysed", None), ("received", None), ("analysed", None)]


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
    assert node.audit()[0]["detail"] == "MemoryError"


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
    detector = Detector()
    analyser(node, Network(2.0, -2.0, float("nan"), 2.0), "2.dcm", detector=detector).step()
    assert detector.films == 2
    assert [[region["left"] for region in row["regions"]] for row in node.audit()] == [[0.1], [], [], [], [0.2]]
    assert node.audit()[0]["regions"] == [{"left": 0.1, "top": 0.25, "right": 0.5, "bottom": 0.75, "score": 0.4}]


def test_a_model_without_a_detector_leaves_no_regions(node: Node) -> None:
    node.receive("1")
    analyser(node, Network(2.0)).step()
    assert node.audit()[0]["regions"] == []


def test_an_image_whose_detector_fails_is_tried_again_never_reported_without_its_regions(node: Node) -> None:
    node.receive("1")
    worker = analyser(node, Network(2.0, 2.0, 2.0), detector=Detector(MemoryError()))
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
    assert [len(each) for each in maps] == [14 * 14 * 4, 0, 14 * 14 * 4]
    assert node.rows("SELECT count(*) FROM result WHERE attention IS NOT NULL") == [(2,)]


def reporter(node: Node, build: BuiltReport | Exception | None = None) -> Reporter:
    def make(snapshot: StudySnapshot) -> BuiltReport:
        if isinstance(build, Exception):
            raise build
        return build or built_report("1.2.3", snapshot)

    leases = LeaseKeeper(node.ledger, LEASE)
    return Reporter(
        ledger=node.ledger, leases=leases, model=MODEL, build=make, destinations=lambda _: ["pacs"], owner="r"
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
    assert node.ledger.audit.events("1.2.3")[-1]["kind"] == "report-failed"


def test_a_bug_in_the_builder_is_tried_three_times_and_then_left_to_a_person(node: Node) -> None:
    ready_study(node)
    worker = reporter(node, RuntimeError("bug"))
    for _ in range(3):
        assert worker.step()
        node.clock.advance(seconds=6)
        node.ledger.upkeep.sweep(MODEL)
    assert not worker.step()
    assert node.ledger.upkeep.counts()["report"] == {"dead": 1}


def test_a_study_that_says_nothing_new_gets_no_second_report(node: Node) -> None:
    ready_study(node)
    assert reporter(node).step()
    node.ledger.upkeep.requeue()
    with node.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE work SET state = 'ready' WHERE queue = 'report'")
    assert reporter(node).step()
    assert node.rows("SELECT count(*) FROM report") == [(1,)]


def test_a_held_lease_outlives_its_length(node: Node) -> None:
    node.receive("1")
    [task] = node.ledger.analyses.claim(owner="w", limit=1)
    keeper = LeaseKeeper(node.ledger, timedelta(seconds=0.06)).start()
    node.clock.advance(seconds=14)
    before = node.rows("SELECT lease_until FROM work")
    with keeper.hold([task.claim]):
        wait_until(lambda: node.rows("SELECT lease_until FROM work") != before)
    keeper.close()
