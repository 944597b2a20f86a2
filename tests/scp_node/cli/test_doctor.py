"""What `scp-node doctor` says of a destination that is down, or refused something."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from scp_node.cli.doctor import Examination, examine_deliveries
from tests.scp_node.ledger_node import Node

NAME: Final = "deliveries to pacs"


def _waiting(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    assert node.report("pacs") is not None


def test_what_waits_for_a_destination_is_no_problem(node: Node) -> None:
    _waiting(node)
    assert examine_deliveries(node.ledger, "pacs") == Examination(name=NAME, good=True, message="1 waiting")


def test_a_paused_destination_is_a_problem_with_its_reason(node: Node) -> None:
    _waiting(node)
    node.ledger.deliveries.destination_failed(
        "pacs", detail="no connection: Connection refused", enough=1, pause=lambda _: timedelta(minutes=1)
    )
    told = "1 waiting, paused after 1 failures in a row: no connection: Connection refused"
    assert examine_deliveries(node.ledger, "pacs") == Examination(name=NAME, good=False, message=told)


def test_a_dead_letter_is_a_problem_until_it_is_requeued(node: Node) -> None:
    _waiting(node)
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    node.ledger.deliveries.bury(task, status=0xA900, detail="status 0xA900")
    told = "0 waiting, 1 given up (see `scp-node requeue`)"
    assert examine_deliveries(node.ledger, "pacs") == Examination(name=NAME, good=False, message=told)
    node.ledger.upkeep.requeue()
    assert examine_deliveries(node.ledger, "pacs").good
