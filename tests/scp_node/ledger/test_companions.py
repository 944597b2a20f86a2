"""What goes with a report - pictures - is stored with it, and delivered after it, each object by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import text

from scp_node.domain import BuiltObject, NotAnalysed, Priority, Reason
from scp_node.ledger import (
    CompanionsTask,
    DeliveryTask,
    ReportTask,
    StudySnapshot,
    Takes,
    create_ledger_engine,
    takes_all,
)
from scp_node.roles.routing import taken
from scp_node.settings import EVERY_OBJECT, DestinationSettings, Settings
from tests.scp_node.ledger_node import LEASE, MODEL, Node, built_report, migrate

OVERLAY: Final = BuiltObject(
    kind="overlay",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    sop_instance_uid="2.25.77",
    series_instance_uid="2.25.7",
    file=b"picture",
)


TEXT: Final = replace(OVERLAY, kind="text", sop_instance_uid="2.25.78", file=b"text")


def reported_with_overlay(
    node: Node, *destinations: str, takes: Takes = takes_all, companions: tuple[BuiltObject, ...] = (OVERLAY,)
) -> None:
    """Have a report stored, and then its companions."""
    reported_first(node, *destinations)
    assert node.ledger.reports.save_companions(companions_task(node), companions, takes=takes)


def reported_first(node: Node, *destinations: str) -> None:
    """Have a report stored whose pictures are still to be made."""
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    task, snapshot = study_to_report(node)
    built = built_report(task.study_uid, snapshot)
    assert node.ledger.reports.save(task, snapshot, built, MODEL, destinations, companions_follow=True)


def study_to_report(node: Node) -> tuple[ReportTask, StudySnapshot]:
    """Claim the study that is due, and return what its report is to say."""
    node.ledger.upkeep.sweep(MODEL)
    task = node.ledger.reports.claim(owner="r")
    assert task
    snapshot = node.ledger.reports.snapshot(task, MODEL)
    assert isinstance(snapshot, StudySnapshot)
    return task, snapshot


def claimed(node: Node, destination: str) -> DeliveryTask:
    task = node.ledger.deliveries.claim(destination, owner="s")
    assert task
    return task


def test_a_picture_follows_its_report_to_every_destination(node: Node) -> None:
    reported_with_overlay(node, "pacs", "archive")
    for destination in ("pacs", "archive"):
        report = claimed(node, destination)
        assert node.ledger.deliveries.claim(destination, owner="s") is None, "a picture overtakes its report"
        deliver(node, report)
        picture = claimed(node, destination)
        assert report.file != picture.file == OVERLAY.file
        assert picture.sop_instance_uid == OVERLAY.sop_instance_uid != report.sop_instance_uid
        assert node.ledger.deliveries.claim(destination, owner="s") is None


def deliver(node: Node, task: DeliveryTask) -> None:
    assert node.ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2")


def sent(node: Node, destination: str) -> list[DeliveryTask]:
    """Deliver all that waits for a destination, one after the other."""
    tasks = []
    while task := node.ledger.deliveries.claim(destination, owner="s"):
        deliver(node, task)
        tasks.append(task)
    return tasks


def sent_kinds(node: Node, destination: str) -> list[str]:
    return [task.kind for task in sent(node, destination)]


def test_each_destination_gets_the_report_and_of_the_rest_what_it_accepts(node: Node) -> None:
    accepts = {"pacs": list(EVERY_OBJECT), "archive": ["report", "text"], "ward": ["report"]}
    entries = [
        {"name": name, "ae_title": name, "host": "127.0.0.1", "accepts": kinds} for name, kinds in accepts.items()
    ]
    takes = taken(Settings(destinations=[DestinationSettings.model_validate(entry) for entry in entries]))
    reported_with_overlay(node, *accepts, takes=takes, companions=(OVERLAY, TEXT))
    assert sent_kinds(node, "pacs") == ["report", "overlay", "text"]
    assert sent_kinds(node, "archive") == ["report", "text"]
    assert sent_kinds(node, "ward") == ["report"]
    [told] = [event for event in node.ledger.audit.events("1.2.3") if event.kind == "companions-made"]
    assert told.detail["left_out"] == {"archive": ["overlay"], "ward": ["overlay", "text"]}
    assert {(sent["destination"], sent["kind"]) for sent in node.audit()[0]["deliveries"]} == {
        *(("pacs", kind) for kind in ("report", "overlay", "text")),
        *(("archive", kind) for kind in ("report", "text")),
        ("ward", "report"),
    }


def test_where_nothing_is_left_out_the_event_names_nothing(node: Node) -> None:
    reported_with_overlay(node, "pacs")
    assert "left_out" not in node.ledger.audit.events("1.2.3")[-1].detail


def test_no_report_waits_for_a_picture(node: Node) -> None:
    reported_with_overlay(node, "pacs")
    node.receive("late", study="1.2.4")
    node.analyse()
    node.clock.advance(seconds=11)
    node.report("pacs")
    assert [task.study_uid for task in sent(node, "pacs")] == ["1.2.3", "1.2.4", "1.2.3"]


def test_a_picture_that_is_refused_leaves_its_report_delivered(node: Node) -> None:
    reported_with_overlay(node, "pacs")
    node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
    node.ledger.deliveries.bury(claimed(node, "pacs"), status=0x0122, detail="SOP class")
    sent = [(row["kind"], row["state"], row["sop_instance_uid"]) for row in node.audit()[0]["deliveries"]]
    assert sent == [("report", "delivered", node.audit()[0]["report_uid"]), ("overlay", "dead", "2.25.77")]
    assert node.ledger.upkeep.requeue(OVERLAY.sop_instance_uid) == 1
    assert claimed(node, "pacs").file == OVERLAY.file


def test_the_trail_of_a_study_names_what_went_with_its_report(node: Node) -> None:
    reported_with_overlay(node, "pacs")
    assert node.ledger.audit.events("1.2.3")[-1].detail["companions"] == {"2.25.77": "overlay"}


def test_deliveries_from_before_there_were_companions_are_their_reports(tmp_path: Path) -> None:
    (tmp_path / "old.sqlite3").touch()
    engine = create_ledger_engine(f"sqlite:///{tmp_path / 'old.sqlite3'}")
    migrate(engine, "0002")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO report VALUES (7, '1.2', 1, 'd', 'c', '1.3', '1.4', '1.5', NULL, x'00', 's', '2026-01-01')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO delivery (id, report_id, destination, state, attempts, detail, created_at)"
                " VALUES (3, 7, 'pacs', 'delivered', 1, '', '2026-01-01')"
            )
        )
    migrate(engine, "head")
    with engine.begin() as connection:
        kept = connection.execute(text("SELECT id, report_id, companion_id, state FROM delivery")).one()
    engine.dispose()
    assert tuple(kept) == (3, 7, None, "delivered")


class TestWhatAPacsRoutesBack:
    """A PACS that sends whole studies to the node sends it its own pictures, too."""

    def test_our_picture_opens_no_report_and_is_in_none(self, node: Node) -> None:
        reported_with_overlay(node, "pacs")
        node.receive("own", sop_instance_uid=OVERLAY.sop_instance_uid)
        assert node.analyse(NotAnalysed(reason=Reason.OWN_OBJECT)) == 1
        node.clock.advance(seconds=60)
        assert node.report("pacs") is None
        node.receive("2")
        node.analyse()
        node.clock.advance(seconds=60)
        snapshot = node.report("pacs")
        assert snapshot is not None
        assert [image.sop_instance_uid for image in snapshot.images] == ["1.2.3.1", "1.2.3.2"]
        assert (node.audit()[1]["state"], node.audit()[1]["reason"]) == ("not-analysed", "own-object")
        assert node.audit()[1]["report_uid"] is None

    def test_it_is_known_by_its_uid_where_the_header_does_not_tell(self, node: Node) -> None:
        reported_with_overlay(node, "pacs")
        node.receive("own", sop_instance_uid=OVERLAY.sop_instance_uid)
        node.analyse(NotAnalysed(reason=Reason.MODALITY))
        node.clock.advance(seconds=60)
        assert node.report("pacs") is None
        assert node.audit()[1]["reason"] == "own-object"

    def test_a_study_of_nothing_else_has_no_report(self, node: Node) -> None:
        node.receive("own")
        node.analyse(NotAnalysed(reason=Reason.OWN_OBJECT))
        node.clock.advance(seconds=60)
        assert node.report("pacs") is None
        assert "report" not in node.ledger.upkeep.counts()

    def test_a_picture_by_somebody_else_is_reported_as_not_analysed(self, node: Node) -> None:
        reported_with_overlay(node, "pacs")
        node.receive("foreign")
        node.analyse(NotAnalysed(reason=Reason.MODALITY))
        node.clock.advance(seconds=60)
        snapshot = node.report("pacs")
        assert snapshot is not None
        assert len(snapshot.images) == 2


def companions_task(node: Node) -> CompanionsTask:
    task = node.ledger.reports.claim_companions(owner="r")
    assert task
    return task


def test_a_report_is_sent_while_its_picture_is_still_made_and_the_picture_follows(node: Node) -> None:
    reported_first(node, "pacs", "archive")
    assert sent_kinds(node, "pacs") == ["report"]
    node.clock.advance(seconds=3)
    task = companions_task(node)
    assert node.ledger.reports.save_companions(task, [OVERLAY, TEXT], takes=lambda name, _: name == "pacs")
    assert node.ledger.reports.claim_companions(owner="r") is None
    assert sent_kinds(node, "pacs") == ["overlay", "text"]
    assert sent_kinds(node, "archive") == ["report"]
    [told] = [event for event in node.ledger.audit.events("1.2.3") if event.kind == "companions-made"]
    assert told.detail["companions"] == {"2.25.77": "overlay", "2.25.78": "text"}
    assert told.detail["left_out"] == {"archive": ["overlay", "text"]}
    assert node.ledger.verifier.verify().problems == ()


def test_pictures_whose_maker_was_killed_are_made_by_another_and_once(node: Node) -> None:
    reported_first(node, "pacs")
    lost = companions_task(node)
    node.clock.advance(seconds=LEASE.total_seconds() + 1)
    node.ledger.upkeep.sweep(MODEL)
    task = companions_task(node)
    assert node.ledger.reports.save_companions(task, [OVERLAY])
    assert not node.ledger.reports.save_companions(lost, [OVERLAY])
    assert sent_kinds(node, "pacs") == ["report", "overlay"]


def test_of_pictures_that_wait_for_too_long_the_oldest_is_made_first(node: Node) -> None:
    reported_first(node, "pacs")
    node.clock.advance(seconds=29)
    node.receive("2", study="1.2.4", priority=Priority.STAT)
    node.analyse()
    task, snapshot = study_to_report(node)
    built = built_report(task.study_uid, snapshot)
    assert node.ledger.reports.save(task, snapshot, built, MODEL, ["pacs"], companions_follow=True)
    late = timedelta(seconds=30)
    assert node.ledger.reports.claim_late_companions(owner="r", late=late) is None
    node.clock.advance(seconds=1)
    first = node.ledger.reports.claim_late_companions(owner="r", late=late)
    assert first
    assert first.study_uid == "1.2.3"
    assert node.ledger.reports.claim_late_companions(owner="r", late=late) is None
    assert companions_task(node).study_uid == "1.2.4"


def test_a_version_that_was_replaced_gets_no_picture_any_more(node: Node) -> None:
    reported_first(node, "pacs")
    first = companions_task(node)
    assert node.ledger.reports.snapshot_again(first, MODEL) is not None
    node.receive("2")
    node.analyse()
    node.clock.advance(seconds=11)
    assert node.report("pacs") is not None
    assert node.ledger.reports.snapshot_again(first, MODEL) is None


def test_the_contents_of_a_stored_report_are_those_that_it_was_made_from(node: Node) -> None:
    node.receive("1", "2")
    node.analyse()
    node.clock.advance(seconds=11)
    assert node.report("pacs") is not None
    node.receive("3")
    node.analyse(NotAnalysed(reason=Reason.BODY_PART))
    node.clock.advance(seconds=11)
    task, snapshot = study_to_report(node)
    built = built_report(task.study_uid, snapshot)
    assert node.ledger.reports.save(task, snapshot, built, MODEL, ["pacs"], companions_follow=True)
    assert node.ledger.reports.snapshot_again(companions_task(node), MODEL) == snapshot


def test_a_report_that_was_for_nobody_gets_its_pictures_and_sends_them_once_it_is_routed(node: Node) -> None:
    reported_first(node)
    assert node.ledger.reports.save_companions(companions_task(node), [OVERLAY])
    assert node.ledger.upkeep.requeue() == 1
    task, snapshot = study_to_report(node)
    node.ledger.reports.complete_unchanged(task, snapshot, MODEL, ["pacs"])
    assert sent_kinds(node, "pacs") == ["report", "overlay"]


def test_pictures_that_cannot_be_made_are_left_to_a_person_and_the_report_stays(node: Node) -> None:
    reported_first(node, "pacs")
    for _ in range(3):
        node.ledger.reports.retry_companions(companions_task(node), pause=timedelta(seconds=5), error="bug")
        node.clock.advance(seconds=6)
        node.ledger.upkeep.sweep(MODEL)
    assert node.ledger.upkeep.counts()["companions"] == {"dead": 1}
    assert node.ledger.upkeep.requeue("1.2.3") == 1
    assert node.ledger.reports.save_companions(companions_task(node), [OVERLAY])
    assert sent_kinds(node, "pacs") == ["report", "overlay"]
