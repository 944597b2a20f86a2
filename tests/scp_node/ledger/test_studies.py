"""A study whose sender was interrupted may be incomplete: its report says so, until the rest has come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from scp_node.domain import NotAnalysed, Priority, Reason, TransferEnded
from scp_node.ledger import NothingToReport, StudySnapshot
from scp_node.ledger.transactions import Policy
from tests.scp_node.ledger_node import MODEL, Node, built_report

STUDY: Final = "1.2.3"


def ending(node: Node, *studies: str, complete: bool = False, **changes: Any) -> TransferEnded:
    values: dict[str, Any] = {
        "study_uids": studies or (STUDY,),
        "complete": complete,
        "calling_ae": "CR1",
        "peer": "127.0.0.1",
        "began_at": node.clock() - timedelta(seconds=1),
        "at": node.clock(),
        "cut_instance": "",
    }
    return TransferEnded(**(values | changes))


def interrupt(node: Node, *studies: str, **changes: Any) -> None:
    node.ledger.studies.transfers_ended([ending(node, *studies, **changes)])


def resume(node: Node, *studies: str, **changes: Any) -> None:
    """End an association as it should be that began after all that was before."""
    node.clock.advance(seconds=30)
    node.ledger.studies.transfers_ended([ending(node, *studies, complete=True, **changes)])


def reported(node: Node) -> StudySnapshot:
    """Return what the next report of the study says."""
    node.clock.advance(seconds=60)
    node.analyse()
    node.clock.advance(seconds=60)
    snapshot = node.report("pacs")
    assert snapshot is not None
    return snapshot


def told(node: Node) -> list[str]:
    return [event.kind for event in node.ledger.audit.events(STUDY) if "association" in event.kind]


def test_a_study_whose_sender_was_interrupted_is_reported_as_possibly_incomplete(node: Node) -> None:
    node.receive("1", "2")
    interrupt(node)
    assert reported(node).incomplete
    assert told(node) == ["association-interrupted"]
    assert [row["interrupted"] for row in node.audit()] == [True, True]


def test_a_study_that_came_as_it_should_is_not(node: Node) -> None:
    node.receive("1", "2")
    node.ledger.studies.transfers_ended([ending(node, complete=True)])
    assert not reported(node).incomplete
    assert told(node) == []
    assert [row["interrupted"] for row in node.audit()] == [False, False]


def test_who_has_sent_nothing_of_a_study_leaves_no_doubt_about_it(node: Node) -> None:
    node.receive("1", "2")
    interrupt(node, calling_ae="ANOTHER")
    assert not reported(node).incomplete
    assert told(node) == []
    interrupt(node)
    assert reported(node).incomplete


def test_versions_of_a_report_have_a_least_distance_unless_it_is_urgent() -> None:
    policy = Policy(
        quiet=timedelta(seconds=10),
        lease=timedelta(seconds=3),
        max_attempts=3,
        versions_apart=timedelta(seconds=30),
    )
    now = datetime(2026, 5, 1, tzinfo=UTC)

    def due(priority: Priority, *, received: int, version: int | None) -> float:
        last = None if version is None else now + timedelta(seconds=version)
        return (policy.report_due(priority, now + timedelta(seconds=received), now, last) - now).total_seconds()

    assert due(Priority.ROUTINE, received=-4, version=None) == 6
    assert due(Priority.ROUTINE, received=-4, version=-5) == 25
    assert due(Priority.ROUTINE, received=-4, version=-28) == 6
    assert due(Priority.ROUTINE, received=-4, version=90) == 30  # of a clock that goes before
    assert due(Priority.STAT, received=-4, version=-5) == 0


def test_a_report_that_was_made_before_the_interruption_gets_a_version_that_says_so(node: Node) -> None:
    node.receive("1")
    assert not reported(node).incomplete
    interrupt(node)
    snapshot = reported(node)
    assert snapshot.incomplete
    assert snapshot.previous is not None


def test_the_interruption_may_be_known_before_the_first_image_is_registered(node: Node) -> None:
    interrupt(node)
    assert node.ledger.reports.claim(owner="w") is None
    node.receive("1")
    assert reported(node).incomplete


def test_when_the_same_sender_has_sent_the_rest_a_new_version_follows_without_the_sentence(node: Node) -> None:
    node.receive("1")
    interrupt(node, cut_instance="1.2.3.2")
    assert reported(node).incomplete
    node.receive("2")
    resume(node)
    snapshot = reported(node)
    assert not snapshot.incomplete
    assert snapshot.previous is not None
    assert len(snapshot.images) == 2
    assert told(node) == ["association-interrupted", "association-resumed"]


@pytest.mark.parametrize(
    ("began", "calling_ae"), [(-5, "CR1"), (1, "CR2")], ids=["an association beside it", "another sender"]
)
def test_what_does_not_show_that_the_rest_came_clears_nothing(node: Node, began: int, calling_ae: str) -> None:
    node.receive("1")
    began_at = node.clock() + timedelta(seconds=began)
    interrupt(node)
    resume(node, began_at=began_at, calling_ae=calling_ae)
    assert reported(node).incomplete


def test_the_image_that_was_cut_off_has_to_come(node: Node) -> None:
    node.receive("1")
    interrupt(node, cut_instance="1.2.3.3")
    interrupt(node, cut_instance="1.2.3.4")  # two of many associations were cut
    node.receive("2", "3")
    resume(node)
    assert reported(node).incomplete
    node.receive("4")
    resume(node)
    assert not reported(node).incomplete


def test_other_studies_of_the_association_are_whole_when_the_sender_went_on_where_it_was_cut_off(node: Node) -> None:
    node.receive("1")
    interrupt(node, STUDY, "4.5.6", cut_instance="1.2.3.9")
    resume(node, "4.5.6")
    assert told(node) == ["association-interrupted"]
    node.receive("9", study="4.5.6")
    resume(node, "4.5.6")
    assert told(node) == ["association-interrupted", "association-resumed"]


def test_other_studies_stay_in_doubt_when_nobody_knows_what_was_cut_off(node: Node) -> None:
    node.receive("1")
    interrupt(node, STUDY, "4.5.6")
    resume(node, "4.5.6")
    assert told(node) == ["association-interrupted"]
    assert reported(node).incomplete


def test_a_second_interruption_is_not_healed_by_what_healed_the_first(node: Node) -> None:
    node.receive("1")
    interrupt(node, cut_instance="1.2.3.1")
    resume(node)
    interrupt(node)
    resume(node, "4.5.6")
    assert reported(node).incomplete


def test_an_interruption_while_the_report_is_built_makes_it_be_built_again(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=60)
    node.ledger.upkeep.sweep(MODEL)
    task = node.ledger.reports.claim(owner="w")
    assert task is not None
    snapshot = node.ledger.reports.snapshot(task, MODEL)
    assert isinstance(snapshot, StudySnapshot)
    interrupt(node)
    assert not node.ledger.reports.save(task, snapshot, built_report(STUDY, snapshot), MODEL, ["pacs"])
    again = node.report("pacs")
    assert again is not None
    assert again.incomplete


def test_a_result_that_comes_while_a_report_is_found_unchanged_is_still_reported(node: Node) -> None:
    node.receive("1")
    first = reported(node)
    node.receive("2")
    interrupt(node)
    resume(node)
    node.clock.advance(seconds=60)
    node.ledger.upkeep.sweep(MODEL)
    task = node.ledger.reports.claim(owner="w")
    assert task is not None
    node.analyse()
    node.ledger.reports.complete_unchanged(task, first, MODEL, ["pacs"])
    again = node.report("pacs")
    assert again is not None
    assert len(again.images) == 2


def test_a_study_of_our_own_pictures_that_is_interrupted_gets_no_report(node: Node) -> None:
    node.receive("own")
    interrupt(node)
    node.analyse(NotAnalysed(reason=Reason.OWN_OBJECT))
    node.clock.advance(seconds=60)
    node.ledger.upkeep.sweep(MODEL)
    task = node.ledger.reports.claim(owner="w")
    assert task is not None
    assert node.ledger.reports.snapshot(task, MODEL) == NothingToReport()
    node.ledger.reports.close(task, MODEL)
    assert node.ledger.upkeep.counts()["report"] == {"done": 1}


def test_told_twice_it_is_one_interruption(node: Node) -> None:
    node.receive("1")
    interrupt(node)
    interrupt(node)
    assert reported(node).incomplete
    interrupt(node)
    node.clock.advance(seconds=60)
    node.ledger.upkeep.sweep(MODEL)
    task = node.ledger.reports.claim(owner="w")
    assert task is not None
    snapshot = node.ledger.reports.snapshot(task, MODEL)
    assert isinstance(snapshot, StudySnapshot)
    assert built_report(STUDY, snapshot).content_digest == snapshot.previous_content_digest
