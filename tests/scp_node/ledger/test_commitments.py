"""Delivered and committed are different states, and the ledger goes from one to the other on the destination's word."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest

from scp_node.domain import CommitmentReport, Priority, Reference
from scp_node.ledger import AuditQuery, CommitmentTask, DeliveryState
from tests.scp_node.ledger_node import LEASE, POLICY, Node

AFTER: Final = timedelta(seconds=10)
WAIT: Final = timedelta(hours=1)
SR: Final = "1.2.840.10008.5.1.4.1.1.88.34"
MISSING: Final = 0x0112


def delivered(node: Node, *studies: str, again: bool = False, remark: str = "") -> None:
    """Send a report of each study, so that its destination is to be asked."""
    for study in studies:
        if not again:
            node.receive(study, study=study, priority=Priority.STAT)
            node.analyse()
            assert node.report("pacs") is not None
        task = node.ledger.deliveries.claim("pacs", owner="s")
        assert task is not None
        assert node.ledger.deliveries.delivered(task, status=0, sop_class_uid=SR, remark=remark, check_after=AFTER)


def due(node: Node) -> list[CommitmentTask]:
    node.ledger.upkeep.sweep()
    return node.ledger.commitments.claim("pacs", owner="c")


def requested(node: Node, transaction_uid: str = "2.25.1") -> list[CommitmentTask]:
    """Ask about all that was delivered."""
    node.clock.advance(seconds=10)
    tasks = node.ledger.commitments.request(due(node), transaction_uid)
    node.ledger.commitments.await_answer(tasks, wait=WAIT)
    return tasks


def answer(
    tasks: list[CommitmentTask], *, failed: dict[Reference, int] | None = None, transaction_uid: str = "2.25.1"
) -> CommitmentReport:
    committed = frozenset(task.reference for task in tasks) - set(failed or {})
    return CommitmentReport(transaction_uid=transaction_uid, committed=committed, failed=failed or {})


def states(node: Node) -> list[str]:
    return [sent["state"] for row in node.audit() for sent in row["deliveries"]]


def kinds(node: Node, study: str = "1.2.3") -> list[str]:
    return [event.kind for event in node.ledger.audit.events(study)][3:]


def work(node: Node) -> list[tuple[str, str]]:
    return node.rows("SELECT queue, state FROM work WHERE queue IN ('commit:pacs', 'deliver:pacs') ORDER BY queue")


def test_a_report_is_delivered_until_its_destination_commits_itself_to_it(node: Node) -> None:
    delivered(node, "1.2.3")
    assert due(node) == []
    tasks = requested(node)
    assert states(node) == ["delivered"]
    [outcome] = node.ledger.commitments.answered(answer(tasks), {"pacs"}) or []
    assert (outcome.state, states(node)) == ("committed", ["committed"])
    [sent] = node.audit()[0]["deliveries"]
    assert sent["committed_at"] == node.clock().isoformat()
    assert kinds(node) == ["delivered", "commitment-requested", "committed"]
    assert work(node) == [("commit:pacs", "done"), ("deliver:pacs", "done")]


def test_the_remark_of_a_delivery_outlives_the_promise_to_keep_it(node: Node) -> None:
    delivered(node, "1.2.3", remark="warning 0xB000")
    node.ledger.commitments.answered(answer(requested(node)), {"pacs"})
    [sent] = node.audit()[0]["deliveries"]
    assert (sent["state"], sent["detail"]) == ("committed", "warning 0xB000")


def test_what_an_event_tells_of_a_commitment_names_destination_report_digest_and_transaction(node: Node) -> None:
    delivered(node, "1.2.3")
    tasks = requested(node)
    node.ledger.commitments.answered(answer(tasks), {"pacs"})
    told = node.ledger.audit.events("1.2.3")[-1]
    [(sha256,)] = node.rows("SELECT sha256 FROM report")
    assert (told.detail["destination"], told.detail["transaction_uid"], told.detail["sent_sha256"]) == (
        "pacs",
        "2.25.1",
        sha256,
    )
    assert told.detail["report_uid"] == node.audit()[0]["report_uid"]


def test_without_a_time_to_ask_nothing_is_opened(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    node.report("pacs")
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    node.ledger.deliveries.delivered(task, status=0, sop_class_uid=SR)
    assert work(node) == [("deliver:pacs", "done")]


def test_one_request_holds_fifty_objects_at_most(node: Node) -> None:
    delivered(node, *(f"1.2.{number}" for number in range(51)))
    node.clock.advance(seconds=10)
    assert [len(due(node)), len(due(node))] == [50, 1]


@pytest.mark.parametrize(
    "other",
    [{"transaction_uid": "2.25.2"}, {"destinations": {"elsewhere"}}, {"destinations": set()}],
    ids=["unknown transaction", "another destination", "no destination"],
)
def test_only_the_destination_that_was_asked_can_answer_and_only_what_it_was_asked(
    node: Node, other: dict[str, object]
) -> None:
    delivered(node, "1.2.3")
    tasks = requested(node)
    report = answer(tasks, transaction_uid=str(other.get("transaction_uid", "2.25.1")))
    assert node.ledger.commitments.answered(report, other.get("destinations", {"pacs"})) is None  # type: ignore[arg-type]
    assert states(node) == ["delivered"]


def test_a_promise_about_another_sop_class_or_instance_is_none(node: Node) -> None:
    delivered(node, "1.2.3")
    [task] = requested(node)
    others = frozenset(
        {
            Reference(sop_class_uid="1.2", sop_instance_uid=task.reference.sop_instance_uid),
            Reference(sop_class_uid=SR, sop_instance_uid="1.2.9"),
        }
    )
    report = CommitmentReport(transaction_uid="2.25.1", committed=others, failed={})
    assert node.ledger.commitments.answered(report, {"pacs"}) == []
    assert states(node) == ["delivered"]


def test_an_answer_that_comes_twice_changes_nothing_the_second_time(node: Node) -> None:
    delivered(node, "1.2.3")
    tasks = requested(node)
    node.ledger.commitments.answered(answer(tasks), {"pacs"})
    assert node.ledger.commitments.answered(answer(tasks), {"pacs"}) == []
    contrary = answer(tasks, failed={tasks[0].reference: MISSING})
    assert node.ledger.commitments.answered(contrary, {"pacs"}) == []
    assert (states(node), kinds(node).count("committed")) == (["committed"], 1)


def test_what_the_destination_lacks_is_sent_again_and_asked_about_again(node: Node) -> None:
    delivered(node, "1.2.3", "1.2.4")
    tasks = requested(node)
    lacking = answer(tasks, failed={tasks[0].reference: MISSING})
    outcomes = node.ledger.commitments.answered(lacking, {"pacs"}) or []
    assert [(outcome.state, outcome.reason) for outcome in outcomes] == [
        ("waiting", "failure reason 0x0112"),
        ("committed", ""),
    ]
    assert node.ledger.commitments.answered(lacking, {"pacs"}) == [], "sent again once"
    delivered(node, "1.2.3", again=True)
    assert node.ledger.deliveries.claim("pacs", owner="s") is None
    [again] = requested(node, "2.25.2")
    node.ledger.commitments.answered(answer([again], transaction_uid="2.25.2"), {"pacs"})
    assert states(node) == ["committed", "committed"]
    assert kinds(node) == [
        "delivered",
        "commitment-requested",
        "not-committed",
        "delivered",
        "commitment-requested",
        "committed",
    ]


def test_what_is_never_kept_is_a_dead_letter_after_a_few_sends_and_a_person_may_put_it_back(node: Node) -> None:
    delivered(node, "1.2.3")
    for number in range(1, POLICY.commit_attempts + 1):
        [task] = requested(node, f"2.25.{number}")
        lacking = answer([task], failed={task.reference: MISSING}, transaction_uid=f"2.25.{number}")
        [outcome] = node.ledger.commitments.answered(lacking, {"pacs"}) or []
        if number < POLICY.commit_attempts:
            assert outcome.state == "waiting"
            delivered(node, "1.2.3", again=True)
    assert (outcome.state, states(node)) == ("dead", ["dead"])
    assert work(node) == [("commit:pacs", "done"), ("deliver:pacs", "dead")]
    assert kinds(node)[-2:] == ["not-committed", "delivery-dead"]
    assert node.ledger.upkeep.requeue("1.2.3") == 1
    assert states(node) == ["waiting"]
    delivered(node, "1.2.3", again=True)
    [task] = requested(node, "2.25.9")
    assert task.claim.attempt == 1, "with all its tries"
    node.ledger.commitments.answered(answer([task], transaction_uid="2.25.9"), {"pacs"})
    assert states(node) == ["committed"]


def test_a_destination_that_does_not_commit_itself_to_the_sop_class_is_not_sent_it_again(node: Node) -> None:
    delivered(node, "1.2.3")
    [task] = requested(node)
    [outcome] = node.ledger.commitments.answered(answer([task], failed={task.reference: 0x0122}), {"pacs"}) or []
    assert (outcome.state, states(node)) == ("delivered", ["delivered"])
    assert work(node) == [("commit:pacs", "done"), ("deliver:pacs", "done")]


def test_a_transaction_uid_that_the_destination_had_before_is_asked_again_with_another(node: Node) -> None:
    delivered(node, "1.2.3")
    [task] = requested(node)
    node.ledger.commitments.answered(answer([task], failed={task.reference: 0x0131}), {"pacs"})
    node.clock.advance(seconds=WAIT.total_seconds())
    [again] = due(node)
    assert (states(node), again.reference) == (["delivered"], task.reference)


def test_no_answer_is_asked_for_again_and_nothing_is_sent_again(node: Node) -> None:
    delivered(node, "1.2.3")
    requested(node)
    node.clock.advance(seconds=WAIT.total_seconds() - 1)
    assert due(node) == []
    node.clock.advance(seconds=1)
    tasks = node.ledger.commitments.request(due(node), "2.25.2")
    assert node.ledger.commitments.answered(answer(tasks), {"pacs"}) is None, "the older transaction is over"
    node.ledger.commitments.give_up(tasks, detail="not answered")
    assert states(node) == ["delivered"]
    assert work(node) == [("commit:pacs", "dead"), ("deliver:pacs", "done")]
    assert kinds(node) == [
        "delivered",
        "commitment-requested",
        "commitment-unanswered",
        "commitment-requested",
        "commitment-unanswered",
    ]


def test_a_question_that_was_given_up_is_put_back_without_sending_anything(node: Node) -> None:
    delivered(node, "1.2.3")
    requested(node)
    node.clock.advance(seconds=WAIT.total_seconds())
    node.ledger.commitments.give_up(due(node), detail="not answered")
    assert node.ledger.upkeep.requeue() == 1
    assert states(node) == ["delivered"]
    assert node.ledger.deliveries.claim("pacs", owner="s") is None
    [task] = due(node)
    assert task.claim.attempt == 1


def test_an_answer_later_than_the_last_question_still_counts(node: Node) -> None:
    delivered(node, "1.2.3")
    tasks = requested(node)
    node.clock.advance(seconds=WAIT.total_seconds())
    node.ledger.commitments.give_up(due(node), detail="not answered")
    node.ledger.commitments.answered(answer(tasks), {"pacs"})
    assert states(node) == ["committed"]
    assert work(node)[0] == ("commit:pacs", "done")


def test_discarding_a_question_leaves_its_report_delivered(node: Node) -> None:
    delivered(node, "1.2.3")
    node.clock.advance(seconds=10)
    node.ledger.commitments.give_up(due(node), detail="not answered")
    assert node.ledger.upkeep.discard("1.2.3") == 1
    assert states(node) == ["delivered"]
    assert work(node)[0] == ("commit:pacs", "cancelled")


def test_an_answer_that_is_faster_than_the_note_of_the_request_is_not_undone_by_it(node: Node) -> None:
    delivered(node, "1.2.3")
    node.clock.advance(seconds=10)
    tasks = node.ledger.commitments.request(due(node), "2.25.1")
    node.ledger.commitments.answered(answer(tasks), {"pacs"})
    node.ledger.commitments.await_answer(tasks, wait=WAIT)
    node.clock.advance(seconds=WAIT.total_seconds())
    assert due(node) == []
    assert (states(node), work(node)[0]) == (["committed"], ("commit:pacs", "done"))


def test_a_committer_that_lost_its_lease_asks_for_nothing_and_writes_nothing(node: Node) -> None:
    delivered(node, "1.2.3")
    node.clock.advance(seconds=10)
    slow = due(node)
    node.clock.advance(seconds=LEASE.total_seconds() + 1)
    fast = due(node)
    assert [task.delivery_id for task in slow] == [task.delivery_id for task in fast]
    assert node.ledger.commitments.request(slow, "2.25.7") == []
    node.ledger.commitments.give_up(slow, detail="lost")
    node.ledger.commitments.close(slow, detail="lost")
    assert node.ledger.commitments.looked_for(slow[0], found=True) is None
    assert (states(node), work(node)[0]) == (["delivered"], ("commit:pacs", "leased"))


def test_a_destination_that_cannot_be_reached_spends_no_try(node: Node) -> None:
    delivered(node, "1.2.3")
    node.clock.advance(seconds=10)
    for _ in range(9):
        [task] = tasks = due(node)
        assert task.claim.attempt == 1
        node.ledger.commitments.put_back(tasks, pause=AFTER, detail="no connection")
        node.clock.advance(seconds=10)


def test_what_c_find_shows_is_found_and_what_it_does_not_show_is_sent_again(node: Node) -> None:
    delivered(node, "1.2.3", "1.2.4")
    node.clock.advance(seconds=10)
    first, second = due(node)
    found, missing = (
        node.ledger.commitments.looked_for(first, found=True),
        node.ledger.commitments.looked_for(second, found=False),
    )
    assert found is not None
    assert missing is not None
    assert (found.state, missing.state, states(node)) == ("found", "waiting", ["found", "waiting"])
    assert kinds(node)[-1] == "found"


def test_the_audit_tells_delivered_committed_and_found_apart(node: Node) -> None:
    delivered(node, "1.2.3", "1.2.4")
    tasks = requested(node)
    node.ledger.commitments.answered(answer(tasks[:1]), {"pacs"})

    def shown(state: str) -> list[str | None]:
        return [row.study_uid for row in node.ledger.audit.instances(AuditQuery(state=DeliveryState(state)))]

    assert (shown("committed"), shown("delivered"), shown("found")) == (["1.2.3"], ["1.2.4"], [])
