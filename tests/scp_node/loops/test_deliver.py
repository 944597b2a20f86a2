"""The sender's steps on a real ledger, with a destination that the test controls."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

import pytest

from scp_node.delivery import Disposition, SendResult
from scp_node.domain import BuiltObject, Priority
from scp_node.loops.deliver import Sender
from scp_node.runtime.leases import LeaseKeeper
from scp_node.settings import DeliverySettings
from tests.scp_node.ledger_node import LEASE, Node

DELIVERED: Final = SendResult(disposition=Disposition.DELIVERED, status=0, sop_class_uid="1.2", detail="")
BUSY: Final = SendResult(disposition=Disposition.BUSY, status=0xA700, sop_class_uid="1.2", detail="status 0xA700")
LATER: Final = SendResult(disposition=Disposition.RETRY, status=0x0110, sop_class_uid="1.2", detail="status 0x0110")
REFUSED: Final = SendResult(
    disposition=Disposition.UNREACHABLE, status=None, sop_class_uid="", detail="connection refused"
)
SILENT: Final = SendResult(
    disposition=Disposition.UNANSWERED, status=None, sop_class_uid="", detail="no answer in time"
)
WRONG: Final = SendResult(
    disposition=Disposition.PERMANENT, status=0xA900, sop_class_uid="1.2", detail="does not match"
)


class Scu:
    """A destination that answers as it was told."""

    def __init__(
        self,
        *answers: SendResult,
        echoes: bool = True,
        unwanted: Iterable[bytes] = (),
        refuses: Callable[[bytes], SendResult | None] = lambda _: None,
    ) -> None:
        """Give `answers` in turn, then take what comes; never answer to what is unwanted, and refuse as `refuses`."""
        self.answers = list(answers)
        self.echoes = echoes
        self.unwanted = set(unwanted)
        self.refuses = refuses
        self.sent: list[bytes] = []
        self.took: list[bytes] = []

    def send(self, file: bytes) -> SendResult:
        self.sent.append(file)
        if file in self.unwanted:
            return SILENT
        if refusal := self.refuses(file):
            return refusal
        result = self.answers.pop(0) if self.answers else DELIVERED
        if result is DELIVERED:
            self.took.append(file)
        return result

    def open(self, *, seconds: float) -> str:
        raise AssertionError(f"the first sender opens by itself, not within {seconds} s")

    def echo(self) -> bool:
        return self.echoes

    def close_if_idle(self) -> None: ...

    def close(self) -> None: ...


def sender(node: Node, scu: Scu, *, check_after: float | None = None, **changes: float) -> Sender:
    settings = DeliverySettings.model_validate({"breaker_failures": 2, **changes})
    leases = LeaseKeeper(node.ledger, LEASE)
    return Sender(
        name="pacs",
        scu=scu,
        ledger=node.ledger,
        leases=leases,
        settings=settings,
        owner="s",
        check_after=None if check_after is None else timedelta(seconds=check_after),
        randomness=random.Random(1),
    )


def reported(node: Node, *studies: str) -> None:
    for study in studies:
        node.receive(study, study=study, priority=Priority.STAT)
        node.analyse()
        assert node.report("pacs") is not None


def pictures_of(study: str) -> list[BuiltObject]:
    """Return three pictures."""
    return [
        BuiltObject(
            kind="overlay",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
            sop_instance_uid=f"{study}.{number}",
            series_instance_uid=f"{study}.7",
            file=f"picture {study} {number}".encode(),
        )
        for number in range(3)
    ]


def reported_with_pictures(node: Node, study: str) -> None:
    node.receive(study, study=study, priority=Priority.STAT)
    node.analyse()
    assert node.report("pacs", companions=lambda _snapshot: pictures_of(study)) is not None


def is_picture(file: bytes) -> bool:
    return file.startswith(b"picture")


def of_kind(node: Node, kind: str) -> list[str]:
    """Return the states of all deliveries of a kind, in the order of the studies."""
    return [sent["state"] for row in node.audit() for sent in row["deliveries"] if sent["kind"] == kind]


def delivery(node: Node) -> tuple[str, str | None, int]:
    [sent] = node.audit()[0]["deliveries"]
    return sent["state"], sent["status"], sent["attempts"]


def later(node: Node, worker: Sender, steps: int) -> None:
    for _ in range(steps):
        worker.step()
        node.clock.advance(minutes=20)


def states(node: Node) -> list[str]:
    return [row["deliveries"][0]["state"] for row in node.audit()]


def test_a_report_is_delivered_once(node: Node) -> None:
    reported(node, "1.2.3")
    scu = Scu(DELIVERED)
    worker = sender(node, scu)
    assert worker.step()
    assert not worker.step()
    assert delivery(node) == ("delivered", "0x0000", 1)


@pytest.mark.parametrize("answer", [BUSY, LATER])
def test_a_destination_that_cannot_take_it_now_gets_the_same_bytes_again_later(node: Node, answer: SendResult) -> None:
    reported(node, "1.2.3")
    scu = Scu(answer, DELIVERED)
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
    scu = Scu(REFUSED, REFUSED, echoes=False)
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
    worker = sender(node, Scu(*[BUSY] * 3))
    worker.step()
    node.clock.advance(days=8)
    worker.step()
    assert delivery(node) == ("dead", "0xA700", 2)
    assert node.ledger.upkeep.requeue("1.2.3") == 1
    worker.step()
    assert delivery(node)[0] == "waiting", "a requeued report has its full time again"


@pytest.mark.parametrize("answer", [BUSY, REFUSED, SILENT])
def test_a_destination_on_trial_gets_one_report_and_is_paused_again_for_longer(node: Node, answer: SendResult) -> None:
    reported(node, *(f"1.{number}" for number in range(9)))
    scu = Scu(*[answer] * 9)
    worker = sender(node, scu)
    pauses = []
    while scu.answers:
        sends = len(scu.sent)
        worker.step()
        pause = node.paused_for("pacs")
        if pause and len(scu.sent) > sends:
            pauses.append(pause)
        node.clock.advance(seconds=pause)
    longest = [10, 20, 40, 60, 60, 60, 60, 60]
    assert len(pauses) == len(longest), "after the first two failures every one pauses"
    assert all(full / 2 <= pause <= full for pause, full in zip(pauses, longest, strict=True)), pauses
    assert len(set(pauses[3:])) > 1, "spread"


def test_an_outage_is_one_alarm_and_its_end_one_line(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    reported(node, "1.1", "1.2", "1.3")
    scu = Scu(*[REFUSED] * 3, echoes=False)
    worker = sender(node, scu)
    later(node, worker, 10)
    scu.echoes = True
    later(node, worker, 10)
    lines = [(r.levelno, r.getMessage()) for r in caplog.records if r.getMessage().startswith("destination")]
    assert lines == [
        (logging.ERROR, "destination paused destination=pacs reason='connection refused'"),
        (logging.WARNING, "destination is back destination=pacs"),
    ]
    kinds = node.rows("SELECT kind FROM event WHERE kind LIKE 'destination-%' ORDER BY id")
    assert kinds == [("destination-paused",), ("destination-recovered",)]
    assert states(node) == ["delivered"] * 3


def test_after_an_outage_the_oldest_goes_first_although_its_own_pause_is_not_over(node: Node) -> None:
    reported(node, "1.1", "1.2", "1.3")
    files = [bytes(file) for (file,) in node.rows("SELECT file FROM report ORDER BY id")]
    scu = Scu(REFUSED, REFUSED, echoes=False)
    worker = sender(node, scu, retry_first_seconds=900, probe_seconds=1)
    worker.step()
    worker.step()
    node.clock.advance(seconds=2)
    worker.step()
    scu.echoes = True
    node.clock.advance(seconds=2)
    for _ in range(5):
        worker.step()
    assert scu.took == files


def test_after_an_outage_nothing_waits_for_its_pause(node: Node) -> None:
    reported(node, "1.1", "1.2", "1.3")
    worker = sender(node, Scu(*[REFUSED] * 12), probe_seconds=1)
    while node.ledger.deliveries.destination("pacs").failures < 12:
        worker.step()
        node.clock.advance(seconds=2)
    assert node.rows("SELECT COUNT(*) FROM work WHERE state = 'delayed' AND queue = 'deliver:pacs'") != [(0,)]
    for _ in range(8):
        worker.step()
        if states(node).count("delivered") == 1:
            break
        node.clock.advance(seconds=60)
    while worker.step():
        pass
    assert states(node) == ["delivered"] * 3


def test_what_gets_no_response_while_others_are_taken_is_a_dead_letter_and_holds_up_nothing(node: Node) -> None:
    reported(node, "1.1")
    [(poison,)] = node.rows("SELECT file FROM report")
    scu = Scu(unwanted=[bytes(poison)])
    worker = sender(node, scu)
    began, taken = node.clock(), 1
    while states(node)[0] == "waiting":
        node.clock.advance(seconds=1)
        taken += 1
        reported(node, f"1.{taken}")
        for _ in range(45):
            worker.step()
            node.clock.advance(seconds=2)
        assert states(node)[1:] == ["delivered"] * (taken - 1), "a report behind it arrives within 90 s"
    assert states(node)[0] == "dead"
    assert scu.sent.count(bytes(poison)) >= DeliverySettings().unanswered_attempts
    assert 10 * 60 < (node.clock() - began).total_seconds() < 3_600
    assert node.ledger.upkeep.requeue("1.1") == 1
    scu.unwanted = set()
    later(node, worker, 3)
    assert states(node)[0] == "delivered"


def test_a_destination_that_answers_nobody_costs_no_report_more_than_one_try(node: Node) -> None:
    reported(node, "1.0")
    scu = Scu(DELIVERED, *[SILENT] * 40)
    worker = sender(node, scu)
    reported(node, "1.1", "1.2", "1.3")
    node.clock.advance(seconds=1)
    while scu.answers:
        worker.step()
        node.clock.advance(seconds=61)
    assert node.rows("SELECT MAX(attempt) FROM work WHERE queue = 'deliver:pacs' AND state <> 'done'")[0][0] <= 1
    later(node, worker, 6)
    assert states(node) == ["delivered"] * 4


def test_what_waits_for_a_week_at_a_paused_destination_is_a_dead_letter_with_an_alarm_and_comes_back(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    reported(node, "1.1", "1.2")
    scu = Scu(REFUSED, REFUSED, echoes=False)
    worker = sender(node, scu)
    later(node, worker, 3)
    node.clock.advance(days=6)
    later(node, worker, 1)
    assert states(node) == ["waiting"] * 2
    reported(node, "1.3")
    node.clock.advance(days=1)
    later(node, worker, 1)
    assert states(node) == ["dead", "dead", "waiting"]
    dead = [r for r in caplog.records if r.getMessage().startswith("report not delivered, given up")]
    assert [r.levelno for r in dead] == [logging.ERROR] * 2
    assert "reason='waited too long: connection refused'" in dead[0].getMessage()
    assert [event.kind for event in node.ledger.audit.events("1.1")][-1] == "delivery-dead"
    assert node.ledger.upkeep.requeue() == 2
    scu.echoes = True
    later(node, worker, 4)
    assert states(node) == ["delivered"] * 3
    assert len(scu.sent) == 2 + 3


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


WITH_REMARK: Final = SendResult(
    disposition=Disposition.DELIVERED, status=0xB000, sop_class_uid="1.2", detail="warning 0xB000: data were coerced"
)


def test_a_warning_is_a_delivery_whose_remark_is_in_audit_event_and_log(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    reported(node, "1.2.3")
    worker = sender(node, Scu(WITH_REMARK))
    assert worker.step()
    assert not worker.step()
    [sent] = node.audit()[0]["deliveries"]
    assert (sent["state"], sent["status"], sent["detail"]) == ("delivered", "0xB000", WITH_REMARK.detail)
    last = node.ledger.audit.events("1.2.3")[-1]
    assert (last.kind, last.detail["status"], last.detail["detail"]) == ("delivered", "0xB000", WITH_REMARK.detail)
    [line] = [r for r in caplog.records if r.getMessage().startswith("report delivered")]
    assert line.levelno == logging.WARNING
    assert "status=0xB000 remark='warning 0xB000: data were coerced'" in line.getMessage()


@pytest.mark.parametrize("answer", [BUSY, SILENT])
def test_a_destination_that_refuses_pictures_gets_every_report_at_once(node: Node, answer: SendResult) -> None:
    scu = Scu(refuses=lambda file: answer if is_picture(file) else None)
    worker = sender(node, scu)
    for number in range(12):
        reported_with_pictures(node, f"1.{number}")
        for _ in range(100):  # until nothing is left to do at this instant
            if not worker.step():
                break
        assert of_kind(node, "report") == ["delivered"] * (number + 1), "without a pause of the clock"
        assert not node.ledger.deliveries.destination("pacs").paused
        node.clock.advance(seconds=(5, 30, 600)[number % 3])
    assert not any(map(is_picture, scu.took))
    assert set(of_kind(node, "overlay")) <= {"waiting", "dead"}


@pytest.mark.parametrize("answer", [BUSY, SILENT])
def test_pictures_that_are_refused_in_a_quiet_hour_slow_no_report_after_it(node: Node, answer: SendResult) -> None:
    scu = Scu(refuses=lambda file: answer if is_picture(file) else None)
    worker = sender(node, scu)
    reported_with_pictures(node, "1.1")
    for _ in range(300):
        worker.step()
        node.clock.advance(seconds=12)
    tries = sum(map(is_picture, scu.sent))
    assert 3 * 5 <= tries <= 3 * 15, "by their own pauses: 10 s, doubled"
    assert not node.ledger.deliveries.destination("pacs").paused
    assert of_kind(node, "overlay") == ["waiting"] * 3, "nothing else was sent: it may be the destination"
    reported_with_pictures(node, "1.2")
    worker.step()
    assert of_kind(node, "report") == ["delivered"] * 2


@pytest.mark.parametrize("answer", [BUSY, SILENT])
def test_refused_pictures_end_by_themselves(node: Node, answer: SendResult) -> None:
    worker = sender(node, Scu(refuses=lambda file: answer if is_picture(file) else None))
    reported_with_pictures(node, "1.1")
    for _ in range(9 * 4):
        while worker.step():
            pass
        node.clock.advance(hours=6)
    assert of_kind(node, "overlay") == ["dead"] * 3
    assert of_kind(node, "report") == ["delivered"]


def test_one_report_that_is_refused_while_others_are_taken_pauses_nothing(node: Node) -> None:
    reported(node, "1.0")
    [(refused,)] = node.rows("SELECT file FROM report")
    scu = Scu(refuses=lambda file: BUSY if file == bytes(refused) else None)
    worker = sender(node, scu)
    worker.step()
    node.clock.advance(seconds=1)
    reported(node, "1.1")
    worker.step()
    for number in range(2, 8):
        for _ in range(25):
            worker.step()
            node.clock.advance(seconds=14)
            assert not node.ledger.deliveries.destination("pacs").paused
        reported(node, f"1.{number}")
        while worker.step():
            pass
        assert states(node)[1:] == ["delivered"] * number
    assert states(node)[0] == "waiting"


def test_a_destination_that_becomes_full_between_two_reports_is_paused_and_spends_no_try(node: Node) -> None:
    for number in range(6):
        reported_with_pictures(node, f"1.{number}")
    scu = Scu(DELIVERED)
    worker = sender(node, scu)
    node.clock.advance(seconds=1)
    worker.step()
    scu.refuses = lambda _: BUSY
    while worker.step():
        pass
    assert node.ledger.deliveries.destination("pacs").paused
    assert len(scu.sent) == 1 + 2, "two failures in a row pause it"
    assert node.rows("SELECT MAX(attempt) FROM work WHERE queue = 'deliver:pacs' AND state <> 'done'") == [(0,)]
    scu.refuses = lambda _: None
    node.clock.advance(seconds=61)
    while worker.step():
        pass
    assert of_kind(node, "report") == ["delivered"] * 6
    assert of_kind(node, "overlay") == ["delivered"] * 18
