"""When the processes of a node look for due and lost work: often while any is under way, and seldom otherwise."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import pytest
from sqlalchemy.exc import OperationalError

from scp_node.ledger import Ledger
from tests.scp_node.ledger_node import MODEL, POLICY, QUIET, Node
from tests.waiting import wait_until

SHORT: Final = 60.0  # seconds, as all that follows: a look may take long where many tests share a machine
LONG: Final = 3_600.0


@pytest.fixture(autouse=True)
def _long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp_node.ledger.upkeep.LONGEST_REST_SECONDS", LONG)


def rested(node: Node) -> Ledger:
    """Return the ledger of a process that has looked once."""
    ledger = Ledger(node.engine, POLICY, node.clock, sweep_rest_seconds=0.001)
    ledger.upkeep.sweep(MODEL)
    return ledger


def test_where_nothing_is_under_way_a_process_rests(node: Node) -> None:
    assert rested(node).upkeep.rest() > SHORT


def test_who_has_written_looks_again_for_it_may_have_made_work(node: Node) -> None:
    ledger = rested(node)
    ledger.processes.renew("somebody")
    assert ledger.upkeep.rest() < SHORT


@pytest.mark.parametrize("is_claimed", [False, True])
def test_while_work_is_under_way_anywhere_no_process_rests(node: Node, is_claimed: bool) -> None:
    node.receive("1")
    if is_claimed:
        node.ledger.analyses.claim(owner="w", limit=1)
    assert rested(node).upkeep.rest() < SHORT


def test_who_rests_looks_again_when_the_first_study_is_due(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=QUIET.total_seconds() / 2)
    assert rested(node).upkeep.rest() <= QUIET.total_seconds() / 2
    node.clock.advance(seconds=QUIET.total_seconds() / 2)
    rested(node)
    assert node.ledger.upkeep.counts()["report"] == {"ready": 1}


def test_a_look_that_failed_is_followed_by_the_next(node: Node) -> None:
    is_away = False

    def clock() -> datetime:
        if is_away:
            raise OperationalError("SELECT", None, RuntimeError("away"))
        return node.clock()

    ledger = Ledger(node.engine, POLICY, clock, sweep_rest_seconds=0.001)
    ledger.upkeep.sweep(MODEL)
    ledger.processes.renew("somebody")
    wait_until(lambda: ledger.upkeep.rest() == 0)
    is_away = True
    with pytest.raises(OperationalError):
        ledger.upkeep.sweep(MODEL)
    assert ledger.upkeep.rest() < SHORT
