"""Originals that nothing needs are removed in two steps; what may still need one keeps it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import text

from scp_node.domain import NotAnalysed, Priority, Reason
from scp_node.ledger import Ledger, StudySnapshot
from scp_node.ledger.retention import HeldBack
from tests.scp_node.ledger_node import MODEL, POLICY, Node

OLD: Final = timedelta(days=30)
NEW_MODEL: Final = replace(MODEL, version="2.0", digest="sha256:" + "b" * 64)


def finished(node: Node, *names: str) -> None:
    """Receive images of one study, analyse, report and deliver them, and let them grow old."""
    node.receive(*names)
    node.analyse()
    node.clock.advance(seconds=60)
    assert node.report("pacs")
    deliver(node)
    node.clock.advance(days=31)


def deliver(node: Node) -> None:
    while task := node.ledger.deliveries.claim("pacs", owner="s"):
        node.ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2")


def purge(node: Node) -> list[str]:
    """Remove what may be removed, and return their paths."""
    originals = node.ledger.retention.mark(OLD)
    node.ledger.retention.close(originals)
    return [original.spool_path for original in originals]


def test_an_original_is_removed_once_it_is_old_and_reported_and_delivered(node: Node) -> None:
    finished(node, "1", "2")
    node.receive("3", study="4.5.6")
    assert purge(node) == ["1.dcm", "2.dcm"]
    assert purge(node) == []
    assert [row["purged_at"] is None for row in node.audit()] == [False, False, True]
    purged = [event for event in node.ledger.audit.events("1.2.3") if event.kind == "purged"]
    assert [event.sop_instance_uid for event in purged] == ["1.2.3.1", "1.2.3.2"]
    assert [event.detail["input_sha256"] for event in purged] == [[f"{name:0>64}"] for name in ("1", "2")]
    assert [row["state"] for row in node.audit()] == ["analysed", "analysed", "received"]


def test_a_young_original_stays(node: Node) -> None:
    finished(node, "1")
    assert node.ledger.retention.mark(timedelta(days=32)) == []


def waiting_for_analysis(node: Node) -> None:
    node.receive("1")


def under_analysis(node: Node) -> None:
    node.receive("1")
    assert node.ledger.analyses.claim(owner="w", limit=1)


def waiting_for_its_report(node: Node) -> None:
    node.receive("1")
    node.analyse()


def with_a_dead_report(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    task = node.ledger.reports.claim(owner="w")
    assert task is not None
    node.ledger.reports.fail(task, "no header")


def waiting_for_delivery(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    assert node.report("pacs")


def with_a_dead_delivery(node: Node) -> None:
    waiting_for_delivery(node)
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    node.ledger.deliveries.bury(task, status=0xA900, detail="does not match")


@pytest.mark.parametrize(
    ("state", "analysis", "report", "delivery"),
    [
        (waiting_for_analysis, 1, 0, 0),
        (under_analysis, 1, 0, 0),
        (waiting_for_its_report, 0, 1, 0),
        (with_a_dead_report, 0, 1, 0),
        (waiting_for_delivery, 0, 0, 1),
        (with_a_dead_delivery, 0, 0, 1),
    ],
)
def test_an_original_stays_however_old_while_somebody_may_want_it_and_it_is_said_who(
    node: Node, state: Callable[[Node], None], analysis: int, report: int, delivery: int
) -> None:
    state(node)
    node.clock.advance(days=31)
    assert node.ledger.retention.mark(OLD) == []
    told = HeldBack(older=1, analysis=analysis, report=report, delivery=delivery)
    assert node.ledger.retention.held_back(OLD) == told


@pytest.mark.parametrize("state", [with_a_dead_report, with_a_dead_delivery])
def test_what_an_operator_discards_holds_nothing_back(node: Node, state: Callable[[Node], None]) -> None:
    state(node)
    node.clock.advance(days=31)
    node.ledger.upkeep.discard("1.2.3")
    assert purge(node) == ["1.dcm"]


def test_a_conflicting_instance_is_removed_once_it_is_old_for_nothing_waits_for_it(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    first, other = node.ledger.analyses.claim(owner="w", limit=2)
    assert node.ledger.analyses.compared(other, same=False)
    node.ledger.analyses.put_back([first], error="")
    node.clock.advance(days=31)
    assert purge(node) == ["2.dcm"]
    assert node.ledger.retention.held_back(OLD) == HeldBack(older=1, analysis=1, report=1, delivery=0)


def test_what_was_marked_and_not_closed_is_named_until_it_is(node: Node) -> None:
    finished(node, "1", "2")
    marked = node.ledger.retention.mark(OLD)
    assert node.ledger.retention.mark(OLD) == []
    assert node.ledger.retention.unfinished() == marked
    assert node.ledger.retention.close(marked[:1]) == 1
    assert node.ledger.retention.unfinished() == marked[1:]
    assert node.ledger.retention.close(marked) == 1  # the first was noted by somebody else
    assert node.ledger.retention.unfinished() == []
    kinds = [event.kind for event in node.ledger.audit.events("1.2.3")]
    assert kinds.count("purged") == 2


def test_only_what_was_marked_is_closed(node: Node) -> None:
    finished(node, "1")
    marked = node.ledger.retention.mark(OLD)
    assert node.ledger.retention.close([replace(marked[0], instance_id=marked[0].instance_id + 1)]) == 0


def test_an_image_that_comes_again_after_its_purge_is_known_and_not_analysed_again(node: Node) -> None:
    finished(node, "1")
    purge(node)
    again = node.ledger.intake.register([node.instance("1", spool_path="again.dcm")])
    assert again.new == 0
    assert [(each.spool_path, each.original_kept) for each in again.duplicates] == [("again.dcm", False)]
    assert node.analyse() == 0
    assert not node.ledger.intake.adopt(again.duplicates[0])


def test_a_duplicate_takes_the_place_of_an_original_that_is_lost(node: Node) -> None:
    node.receive("1")
    [duplicate] = node.ledger.intake.register([node.instance("1", spool_path="again.dcm")]).duplicates
    assert node.ledger.intake.adopt(duplicate)
    assert node.rows("SELECT spool_path FROM instance") == [("again.dcm",)]
    assert node.ledger.audit.events("1.2.3")[-1].kind == "original-replaced"
    assert not node.ledger.intake.adopt(replace(duplicate, spool_path="third.dcm"))


def test_a_failed_image_without_its_original_is_not_put_back_and_is_counted(node: Node) -> None:
    node.receive("1", "2", priority=Priority.STAT)
    node.analyse(NotAnalysed(reason=Reason.UNREADABLE_PIXELS))
    assert node.report("pacs")
    deliver(node)
    node.clock.advance(days=31)
    node.ledger.retention.mark(OLD)
    node.rows("UPDATE instance SET purging_at = NULL WHERE spool_path = '2.dcm' RETURNING id")
    assert node.ledger.upkeep.requeue("1.2.3") == 1
    assert node.ledger.upkeep.without_original("1.2.3") == 1
    assert [task.spool_path for task in node.ledger.analyses.claim(owner="w", limit=9)] == ["2.dcm"]


def test_an_image_without_its_original_is_not_analysed_again_on_request(node: Node) -> None:
    finished(node, "1")
    before = node.ledger.reanalysis.ended(study_uid="1.2.3")
    purge(node)
    assert [image.kept for image in before] == [True]
    assert [image.kept for image in node.ledger.reanalysis.ended(study_uid="1.2.3")] == [False]
    assert node.ledger.reanalysis.request(before) == 0
    assert node.analyse() == 0


def test_a_new_model_says_of_an_old_image_that_its_original_is_not_kept(node: Node) -> None:
    finished(node, "1")
    purge(node)
    node.receive("2")
    node.analyse(model=NEW_MODEL)
    node.clock.advance(seconds=60)
    snapshot = node.report("pacs", model=NEW_MODEL)
    assert isinstance(snapshot, StudySnapshot)
    first, second = [image.outcome for image in snapshot.images]
    assert first == NotAnalysed(reason=Reason.ORIGINAL_REMOVED)
    assert not isinstance(second, NotAnalysed)
    assert snapshot.previous is not None
    states = [(row["state"], row["reason"]) for row in node.audit()]
    assert states == [("failed", "original-removed"), ("analysed", None)]


def test_our_own_picture_stays_ours_for_a_new_model_that_cannot_see_it(node: Node) -> None:
    node.receive("own")
    node.analyse(NotAnalysed(reason=Reason.OWN_OBJECT))
    node.clock.advance(days=31)
    assert purge(node) == ["own.dcm"]
    node.receive("2")
    node.analyse(model=NEW_MODEL)
    node.clock.advance(seconds=60)
    snapshot = node.report("pacs", model=NEW_MODEL)
    assert snapshot is not None
    assert [image.sop_instance_uid for image in snapshot.images] == ["1.2.3.2"]


def test_a_purge_and_a_request_to_analyse_again_exclude_each_other(node: Node) -> None:
    """The request comes between the look of the purge and its lock: whoever is second sees what the first did."""
    finished(node, "1")
    images = node.ledger.reanalysis.ended(study_uid="1.2.3")
    if node.engine.dialect.name == "sqlite":
        assert node.ledger.reanalysis.request(images) == 1  # one writer at a time: nothing comes in between
        assert node.ledger.retention.mark(OLD) == []
        return
    other = Ledger(node.engine, POLICY, node.clock)
    with node.engine.begin() as holder:  # a request under way: it holds the original
        holder.execute(text("SELECT id FROM instance FOR SHARE"))
        assert other.retention.mark(OLD) == []
    with node.engine.begin() as purging:  # a purge under way: it has locked the original and not yet marked it
        purging.execute(text("SELECT id FROM instance FOR UPDATE"))
        woken: list[int] = []
        asking = threading.Thread(target=lambda: woken.append(other.reanalysis.request(images)))
        asking.start()
        asking.join(0.3)
        assert asking.is_alive()
        purging.execute(text("UPDATE instance SET purging_at = now()"))
    asking.join(10)
    assert woken == [0]
