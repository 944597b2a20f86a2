"""The figures of the metrics: each event counts once, and a report's time is that of its last image."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest

from scp_node.domain import NotAnalysed, Priority, Reason
from scp_node.ledger import DeliveryKey, ResultKey, figures
from tests.scp_node.ledger_node import Node

FINDING: Final = ResultKey(outcome="finding", verdict="present", reason="")
LATERAL: Final = ResultKey(outcome="not-attempted", verdict="", reason="view")


def deliver(node: Node, destination: str) -> None:
    task = node.ledger.deliveries.claim(destination, owner="s")
    assert task is not None
    node.ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2")


def test_results_before_the_start_and_after_it_are_counted_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "CHUNK", 2)
    node.receive("1", "2", priority=Priority.STAT)
    node.analyse()
    node.ledger.seal()
    start = node.ledger.figures.start()
    assert start.results == {FINDING: 2}
    node.receive("3", priority=Priority.STAT)
    node.analyse(NotAnalysed(reason=Reason.VIEW))
    node.ledger.seal()
    position, counted, more = start.position, dict(start.results), True
    while more:
        happened = node.ledger.figures.happened(position)
        position, more = happened.position, happened.more
        for key, number in happened.results.items():
            counted[key] = counted.get(key, 0) + number
    assert counted == {FINDING: 2, LATERAL: 1}
    assert node.ledger.figures.happened(position).results == {}
    assert node.ledger.figures.start().results == counted


def test_deliveries_are_counted_by_destination_with_the_time_since_the_last_image(node: Node) -> None:
    start = node.ledger.figures.start()
    node.receive("1", priority=Priority.STAT)
    node.clock.advance(seconds=4)
    node.receive("2", priority=Priority.STAT)
    node.analyse()
    node.report("pacs", "archive")
    node.clock.advance(seconds=3)
    task = node.ledger.deliveries.claim("archive", owner="s")
    assert task is not None
    node.ledger.deliveries.retry(task, status=None, detail="away", pause=timedelta(seconds=1))
    deliver(node, "pacs")
    node.ledger.seal()
    happened = node.ledger.figures.happened(start.position)
    assert happened.deliveries == {
        DeliveryKey(destination="archive", outcome="delayed"): 1,
        DeliveryKey(destination="pacs", outcome="delivered"): 1,
    }
    assert list(happened.seconds) == [3.0]


def test_the_state_counts_what_an_alarm_needs(node: Node) -> None:
    empty = node.ledger.figures.state(idle=timedelta(minutes=30))
    assert (empty.newest_image, empty.events, empty.conflicts, empty.depths) == (None, 0, 0, ())
    node.receive("1", priority=Priority.STAT)
    node.receive("2", sop_instance_uid="1.2.3.1", priority=Priority.STAT)
    node.ledger.deliveries.destination_failed("pacs", detail="away", enough=2, pause=lambda _: timedelta(minutes=1))
    state = node.ledger.figures.state(idle=timedelta(minutes=30))
    assert (state.newest_image, state.conflicts, dict(state.failures)) == (node.clock(), 1, {"pacs": 1})
    assert state.paused == frozenset()
    node.ledger.deliveries.destination_failed("pacs", detail="away", enough=2, pause=lambda _: timedelta(minutes=1))
    assert node.ledger.figures.state(idle=timedelta(minutes=30)).paused == {"pacs"}
