"""The sender's steps on a real ledger, with a destination that the test controls."""

from __future__ import annotations

import random
from datetime import timedelta

from scp_node.delivery import Disposition, SendResult
from scp_node.domain import Priority
from scp_node.leases import LeaseKeeper
from scp_node.sender import Sender
from scp_node.settings import DeliverySettings
from tests.scp_node.ledger_node import LEASE, Node

DELIVERED = SendResult(disposition=Disposition.DELIVERED, status=0, sop_class_uid="1.2", detail="")
BUSY = SendResult(disposition=Disposition.RETRY, status=0xA700, sop_class_uid="1.2", detail="out of resources")
REFUSED = SendResult(disposition=Disposition.RETRY, status=None, sop_class_uid="", detail="connection refused")
WRONG = SendResult(disposition=Disposition.PERMANENT, status=0xA900, sop_class_uid="1.2", detail="does not match")


class Scu:
    """A destination that answers as it was told."""

    def __init__(self, *answers: SendResult, echoes: bool = True) -> None:
        self.answers = list(answers)
        self.echoes = echoes
        self.sent: list[bytes] = []

    def send(self, file: bytes) -> SendResult:
        self.sent.append(file)
        return self.answers.pop(0)

    def echo(self) -> bool:
        return self.echoes

    def close_if_idle(self) -> None: ...

    def close(self) -> None: ...


def sender(node: Node, scu: Scu, *, check_after: float | None = None) -> Sender:
    settings = DeliverySettings(breaker_failures=2)
    leases = LeaseKeeper(node.ledger, LEASE)
    return Sender(name="pacs", scu=scu, ledger=node.ledger, leases=leases, settings=settings, owner="s",
                  check_after=None if check_after is None else timedelta(seconds=check_after),
                  randomness=random.Random(1))  # fmt: skip


def reported(node: Node, *studies: str) -> None:
    for study in studies:
        node.receive(study, study=study, priority=Priority.STAT)
        node.analyse()
        assert node.report("pacs") is not None


def delivery(node: Node) -> tuple[str, str | None, int]:
    [sent] = node.audit()[0]["deliveries"]
    return sent["state"], sent["status"], sent["attempts"]


def later(node: Node, worker: Sender, steps: int) -> None:
    for _ in range(steps):
        worker.step()
        node.clock.advance(minutes=20)


def test_a_report_is_delivered_once(node: Node) -> None:
    reported(node, "1.2.3")
    scu = Scu(DELIVERED)
    worker = sender(node, scu)
    assert worker.step()
    assert not worker.step()
    assert delivery(node) == ("delivered", "0x0000", 1)


def test_a_busy_destination_gets_the_same_bytes_again_later(node: Node) -> None:
    reported(node, "1.2.3")
    scu = Scu(BUSY, DELIVERED)
    worker = sender(node, scu)
    worker.step()
    assert not worker.step(), "not before its pause"
    node.clock.advance(seconds=20)
    worker.step()
    assert delivery(node) == ("delivered", "0x0000", 2)
    assert scu.sent[0] == scu.sent[1]


def test_a_status_that_says_no_for_good_is_a_dead_letter_after_a_few_tries(node: Node) -> None:
    reported(node, "1.2.3")
    later(node, sender(node, Scu(*[WRONG] * 9)), 6)
    assert delivery(node) == ("dead", "0xA900", 3)


def test_a_destination_that_refuses_connections_is_paused_and_no_try_of_a_report_is_spent(
    node: Node,
) -> None:
    reported(node, "1.2.3")
    scu = Scu(REFUSED, REFUSED, DELIVERED, echoes=False)
    worker = sender(node, scu)
    later(node, worker, 2)
    assert node.ledger.deliveries.destination("pacs").paused
    later(node, worker, 5)
    assert len(scu.sent) == 2, "only C-ECHO while it is paused"
    assert node.rows("SELECT attempt FROM work WHERE queue = 'deliver:pacs'") == [(0,)]
    scu.echoes = True
    later(node, worker, 3)
    assert delivery(node)[:2] == ("delivered", "0x0000")


def test_a_report_that_cannot_be_delivered_for_a_week_is_given_up(node: Node) -> None:
    reported(node, "1.2.3")
    worker = sender(node, Scu(*[BUSY] * 5))
    worker.step()
    node.clock.advance(days=8)
    worker.step()
    assert delivery(node) == ("dead", "0xA700", 2)
    assert node.ledger.upkeep.requeue("1.2.3") == 1
    worker.step()
    assert delivery(node)[0] == "waiting", "a requeued report has its full time again"


def test_urgent_reports_go_first_then_the_oldest(node: Node) -> None:
    for name, priority in (("1.1", Priority.ROUTINE), ("1.2", Priority.ROUTINE), ("1.3", Priority.STAT)):
        node.receive(name, study=name, priority=priority)
        node.analyse()
        node.clock.advance(seconds=11)
        assert node.report("pacs") is not None
    order = []
    while task := node.ledger.deliveries.claim("pacs", owner="s"):
        order.append(task.study_uid)
    assert order == ["1.3", "1.1", "1.2"]
