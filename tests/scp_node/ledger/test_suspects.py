"""An image that stops its worker takes no other image with it, and keeps none waiting: on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

from scp_node.domain import Finding, Priority
from scp_node.ledger import Analysed, AnalysisTask, Suspects
from tests.scp_node.ledger_node import LEASE, MODEL, Node


def claim(node: Node, **how: Suspects | bool) -> list[str]:
    """Claim a batch of up to four images and return the last number of each UID."""
    return [number(task) for task in claimed(node, **how)]


def claimed(node: Node, **how: Suspects | bool) -> list[AnalysisTask]:
    return node.ledger.analyses.claim(owner="w", limit=4, **how)  # type: ignore[arg-type]


def number(task: AnalysisTask) -> str:
    return task.sop_instance_uid.rpartition(".")[2]


def lose_the_worker(node: Node) -> None:
    node.clock.advance(seconds=LEASE.total_seconds() + 1)
    node.ledger.upkeep.sweep(MODEL)


def test_images_whose_worker_was_lost_are_tried_again_one_by_one(node: Node) -> None:
    node.receive("1", "2", "3")
    assert claim(node) == ["1", "2", "3"]
    lose_the_worker(node)
    assert [claim(node) for _ in range(4)] == [["1"], ["2"], ["3"], []]


def test_fresh_images_in_front_of_a_suspect_are_a_batch_without_it(node: Node) -> None:
    node.receive("1")
    claim(node)
    lose_the_worker(node)
    node.receive("2", "3", priority=Priority.STAT)
    node.receive("4")
    assert claim(node, suspects=Suspects.LEFT) == ["2", "3"]
    assert claim(node, suspects=Suspects.LEFT) == []
    assert [claim(node), claim(node)] == [["1"], ["4"]]


def test_a_suspect_that_is_the_oldest_is_taken_alone_when_the_oldest_go_first(node: Node) -> None:
    node.receive("1")
    claim(node)
    lose_the_worker(node)
    node.receive("2", "3", priority=Priority.STAT)
    assert claim(node, oldest_first=True) == ["1"]
    assert claim(node) == ["2", "3"]


def test_an_image_that_stopped_its_worker_when_it_was_alone_lets_all_others_go_first(node: Node) -> None:
    node.receive("1", "2")
    claim(node)
    lose_the_worker(node)
    assert claim(node) == ["1"]
    lose_the_worker(node)
    assert [claim(node), claim(node)] == [["2"], []]
    node.clock.advance(seconds=2 * LEASE.total_seconds())
    node.ledger.upkeep.sweep(MODEL)
    assert claim(node) == ["1"]


def test_others_lose_one_try_at_most_to_an_image_that_stops_every_worker(node: Node) -> None:
    node.receive("1", "2", "3", "4")
    tries = dict.fromkeys("1234", 0)
    for _ in range(20):
        for task in (tasks := claimed(node)):
            tries[number(task)] += 1
        if "1" in map(number, tasks):
            lose_the_worker(node)
            continue
        finding = Finding(probability=0.1, logit=-2.0, threshold=0.5)
        done = [Analysed(task=task, outcome=finding, started_at=node.clock()) for task in tasks]
        node.ledger.analyses.record(done, MODEL)
        node.clock.advance(seconds=10)
        node.ledger.upkeep.sweep(MODEL)
    assert tries == {"1": 3, "2": 2, "3": 2, "4": 2}
    states = [(row["state"], row["reason"]) for row in node.audit()]
    assert states == [("failed", "abandoned"), *[("analysed", None)] * 3]
    assert node.rows("SELECT count(*), max(run) FROM result") == [(4, 1)]


def test_images_that_were_not_tried_are_put_back_with_all_their_tries(node: Node) -> None:
    node.receive("1", "2")
    first, second = claimed(node)
    finding = Finding(probability=0.1, logit=-2.0, threshold=0.5)
    node.ledger.analyses.record([Analysed(task=first, outcome=finding, started_at=node.clock())], MODEL)
    node.ledger.analyses.put_back([first, second], error="machine fault")
    node.ledger.upkeep.sweep(MODEL)
    assert node.rows("SELECT state, attempt FROM work WHERE queue = 'analyse' ORDER BY id") == [
        ("done", 1),
        ("ready", 0),
    ]


def test_an_image_that_is_requeued_is_no_suspect_any_more(node: Node) -> None:
    node.receive("1", "2")
    for task in claimed(node):
        node.ledger.analyses.retry([task], MODEL, pause=timedelta(0), error="bug")
    for _ in range(4):
        node.ledger.upkeep.sweep(MODEL)
        node.ledger.analyses.retry(claimed(node), MODEL, pause=timedelta(0), error="bug")
    assert [row["detail"] for row in node.audit()] == ["bug, tried 3 times"] * 2
    assert node.ledger.upkeep.requeue("1.2.3") == 2
    assert claim(node) == ["1", "2"]
