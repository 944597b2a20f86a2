"""What goes with a report - pictures - is stored with it, and delivered after it, each object by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from sqlalchemy import text

from scp_node.domain import BuiltObject, NotAnalysed, Reason
from scp_node.ledger import DeliveryTask, StudySnapshot, Takes, create_ledger_engine, takes_all
from scp_node.roles.routing import taken
from scp_node.settings import EVERY_OBJECT, DestinationSettings, Settings
from tests.scp_node.ledger_node import MODEL, Node, built_report, migrate

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
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    node.ledger.upkeep.sweep(MODEL)
    task = node.ledger.reports.claim(owner="r")
    assert task
    snapshot = node.ledger.reports.snapshot(task, MODEL)
    assert isinstance(snapshot, StudySnapshot)
    built = replace(built_report(task.study_uid, snapshot), companions=companions)
    assert node.ledger.reports.save(task, snapshot, built, MODEL, destinations, takes=takes)


def claimed(node: Node, destination: str) -> DeliveryTask:
    task = node.ledger.deliveries.claim(destination, owner="s")
    assert task
    return task


def test_a_picture_follows_its_report_to_every_destination(node: Node) -> None:
    reported_with_overlay(node, "pacs", "archive")
    for destination in ("pacs", "archive"):
        report, picture = claimed(node, destination), claimed(node, destination)
        assert report.file != picture.file == OVERLAY.file
        assert picture.sop_instance_uid == OVERLAY.sop_instance_uid != report.sop_instance_uid
        assert node.ledger.deliveries.claim(destination, owner="s") is None


def sent_kinds(node: Node, destination: str) -> list[str]:
    kinds = []
    while task := node.ledger.deliveries.claim(destination, owner="s"):
        kinds.append(task.kind)
    return kinds


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
    told = node.ledger.audit.events("1.2.3")[-1]
    assert told.kind == "reported"
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
    assert [claimed(node, "pacs").study_uid for _ in range(3)] == ["1.2.3", "1.2.4", "1.2.3"]


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
