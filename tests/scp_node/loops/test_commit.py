"""The committer's steps on a real ledger, with a destination that the test controls."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from scp_node.delivery import Asked, AskResult, FindResult, Wanted
from scp_node.domain import CommitmentReport, Priority, Reference
from scp_node.loops.commit import NOT_OFFERED_SECONDS, Committer
from scp_node.loops.deliver import Sender
from scp_node.runtime.leases import LeaseKeeper
from scp_node.settings import DeliverySettings
from tests.scp_node.ledger_node import LEASE, POLICY, Node
from tests.scp_node.loops.test_deliver import DELIVERED, Scu, later, sender

SETTINGS: Final = DeliverySettings(commit_attempts=POLICY.commit_attempts)
PROMISE: Final = "promise"
REQUESTED: Final = AskResult(asked=Asked.REQUESTED)
REFUSED: Final = AskResult(asked=Asked.REFUSED, detail="status 0x0110")
NOT_OFFERED: Final = AskResult(asked=Asked.NOT_OFFERED, detail="storage commitment is not offered")
UNREACHABLE: Final = AskResult(asked=Asked.UNREACHABLE, detail="no connection")


class Asker:
    """A destination that answers as it was told: `PROMISE` commits itself to all, on the same association."""

    def __init__(self, *answers: AskResult | str | int) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Sequence[Reference]]] = []

    def ask(self, transaction_uid: str, announced: Callable[[], Sequence[Reference]]) -> AskResult:
        answer = self.answers.pop(0)
        if answer in (NOT_OFFERED, UNREACHABLE):
            self.asked.append((transaction_uid, []))
            assert isinstance(answer, AskResult)
            return answer
        references = announced()
        self.asked.append((transaction_uid, references))
        if isinstance(answer, AskResult):
            return answer
        failed = {} if isinstance(answer, str) else dict.fromkeys(references, answer)
        report = CommitmentReport(
            transaction_uid=transaction_uid, committed=frozenset(references) - set(failed), failed=failed
        )
        return AskResult(asked=Asked.REQUESTED, reports=(report,))


class Finder:
    """An archive that shows everything, or nothing, or cannot be reached."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def find(self, instances: Sequence[Wanted]) -> FindResult:
        match self.answers.pop(0):
            case "shows":
                return FindResult(is_offered=True, found=frozenset(instances))
            case "lacks":
                return FindResult(is_offered=True, missing=frozenset(instances))
            case "fails":
                return FindResult(is_offered=True, detail="no connection")
            case _:
                return FindResult(is_offered=False, detail="C-FIND is not offered")


def committer(node: Node, asker: Asker | None = None, finder: Finder | None = None) -> Committer:
    return Committer(
        name="pacs",
        asker=asker,
        finder=finder,
        ledger=node.ledger,
        leases=LeaseKeeper(node.ledger, LEASE),
        settings=SETTINGS,
        owner="c",
        randomness=random.Random(1),
    )


def delivering(node: Node, *studies: str) -> Sender:
    """Report the studies, and return the sender that delivers whatever waits, and has it asked about."""
    for study in studies:
        node.receive(study, study=study, priority=Priority.STAT)
        node.analyse()
        assert node.report("pacs") is not None
    worker = sender(node, Scu(*[DELIVERED] * 20), check_after=10)
    while worker.step():
        pass
    node.clock.advance(seconds=10)
    return worker


def states(node: Node) -> list[str]:
    return [sent["state"] for row in node.audit() for sent in row["deliveries"]]


def queue(node: Node) -> list[str]:
    return [state for (state,) in node.rows("SELECT state FROM work WHERE queue = 'commit:pacs'")]


def test_all_that_is_due_is_asked_in_one_transaction(node: Node) -> None:
    delivering(node, "1.2.3", "1.2.4", "1.2.5")
    asker = Asker(PROMISE)
    worker = committer(node, asker)
    assert worker.step()
    assert not worker.step()
    [(_, references)] = asker.asked
    assert len(references) == 3
    assert states(node) == ["committed"] * 3


def test_every_request_has_a_transaction_uid_of_its_own(node: Node) -> None:
    delivering(node, "1.2.3")
    asker = Asker(REQUESTED, REQUESTED, PROMISE)
    worker = committer(node, asker)
    for _ in range(3):
        worker.step()
        node.clock.advance(hours=1)
    assert len({uid for uid, _ in asker.asked}) == 3
    assert states(node) == ["committed"]


def test_a_destination_that_never_answers_is_asked_a_few_times_and_an_alarm_is_given(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    delivering(node, "1.2.3")
    asker = Asker(*[REQUESTED, REFUSED] * 10)
    worker = committer(node, asker)
    for _ in range(10):
        worker.step()
        node.clock.advance(hours=1)
    assert len(asker.asked) == SETTINGS.commit_attempts
    assert (states(node), queue(node)) == (["delivered"], ["dead"])
    alarms = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert ["commitment given up" in record.message for record in alarms] == [True]


def test_a_destination_that_is_down_is_asked_until_the_week_is_over(node: Node) -> None:
    delivering(node, "1.2.3")
    asker = Asker(*[UNREACHABLE] * 99)
    worker = committer(node, asker)
    for _ in range(8 * 4):
        worker.step()
        node.clock.advance(hours=6)
    assert len(asker.asked) == 7 * 4 + 1
    assert (states(node), queue(node)) == (["delivered"], ["dead"])


def test_a_destination_that_is_down_for_a_day_commits_itself_when_it_is_back(node: Node) -> None:
    delivering(node, "1.2.3")
    worker = committer(node, Asker(*[UNREACHABLE] * 24, PROMISE))
    for _ in range(25):
        worker.step()
        node.clock.advance(hours=1)
    assert states(node) == ["committed"]


def test_a_paused_destination_is_not_asked(node: Node) -> None:
    delivering(node, "1.2.3")
    node.ledger.deliveries.destination_failed("pacs", pause=lambda _: LEASE, enough=1, detail="down")
    assert not committer(node, Asker()).step()


def test_a_destination_without_storage_commitment_leaves_the_report_delivered_and_is_not_asked_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivering(node, "1.2.3")
    asker = Asker(NOT_OFFERED, PROMISE)
    worker = committer(node, asker)
    worker.step()
    delivering(node, "1.2.4")
    worker.step()
    assert len(asker.asked) == 1
    assert (states(node), queue(node)) == (["delivered"] * 2, ["done"] * 2)
    monkeypatch.setattr(worker, "_not_offered_until", worker._not_offered_until - NOT_OFFERED_SECONDS)
    delivering(node, "1.2.5")
    worker.step()
    assert states(node) == ["delivered", "delivered", "committed"]
    kinds = [event.kind for event in node.ledger.audit.events("1.2.3")]
    assert kinds[-2:] == ["delivered", "commitment-not-offered"]


@pytest.mark.parametrize("asker", [None, NOT_OFFERED], ids=["not to be asked", "not offered"])
def test_else_it_is_looked_into(node: Node, asker: AskResult | None) -> None:
    delivering(node, "1.2.3")
    committer(node, Asker(asker) if asker else None, Finder("shows")).step()
    assert states(node) == ["found"]


def test_without_commitment_and_without_c_find_it_stays_delivered(node: Node) -> None:
    delivering(node, "1.2.3")
    committer(node, Asker(NOT_OFFERED), Finder("not offered")).step()
    assert (states(node), queue(node)) == (["delivered"], ["done"])


def test_what_a_look_does_not_show_is_sent_again_and_a_look_that_fails_changes_nothing(node: Node) -> None:
    worker = delivering(node, "1.2.3")
    looker = committer(node, None, Finder("fails", "lacks", "shows"))
    looker.step()
    assert states(node) == ["delivered"]
    node.clock.advance(minutes=1)
    looker.step()
    assert states(node) == ["waiting"]
    later(node, worker, 1)
    looker.step()
    assert states(node) == ["found"]


def test_a_destination_that_never_answers_is_looked_into_at_last(node: Node) -> None:
    delivering(node, "1.2.3")
    worker = committer(node, Asker(*[REQUESTED] * 9), Finder("shows"))
    for _ in range(SETTINGS.commit_attempts + 1):
        worker.step()
        node.clock.advance(hours=1)
    assert states(node) == ["found"]


def test_an_object_that_a_destination_never_keeps_is_sent_a_few_times_and_given_up_with_an_alarm(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    worker = delivering(node, "1.2.3")
    asker = committer(node, Asker(*[0x0112] * 9))
    for _ in range(9):
        asker.step()
        later(node, worker, 1)
    [sent] = node.audit()[0]["deliveries"]
    assert (sent["state"], sent["attempts"]) == ("dead", SETTINGS.commit_attempts)
    alarms = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert ["given up" in alarm and "0x0112" in alarm for alarm in alarms] == [True]
