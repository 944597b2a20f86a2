"""What the ledger tells of one study: patients, images, versions, deliveries, events; and of no other study."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from scp_node.domain import Actor, BuiltObject, Finding, NotAnalysed, Reason
from scp_node.ledger import DeliveryState, DeliveryTask, ImageState, LedgerError, StudySnapshot
from scp_node.ledger.study_page import MOST_EVENTS, MOST_IMAGES, can_send_again
from scp_node.ledger.study_rows import StudyPage, StudyPatient
from tests.scp_node.ledger_node import MODEL, Node, ledger_engine

STUDY: Final = "1.2.3"
MAP: Final = b"\0" * 784
ADA: Final = Actor(name="ada", address="10.0.0.9")
PICTURE: Final = BuiltObject(
    kind="overlay",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    sop_instance_uid="2.25.77",
    series_instance_uid="2.25.7",
    file=b"picture",
)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Node]:
    """A ledger in SQLite alone, where the statements are those that another test asks of both databases."""
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        yield Node(engine)


def page_of(node: Node, study: str = STUDY) -> StudyPage:
    page = node.ledger.study_pages.page(study)
    assert page
    return page


def only(node: Node) -> StudyPatient:
    [patient] = page_of(node).patients
    return patient


def reported(node: Node, *destinations: str, name: str = "1", outcome: Finding | NotAnalysed | None = None) -> None:
    node.receive(name)
    node.analyse(outcome)
    node.clock.advance(seconds=11)
    assert node.report(*destinations) is not None


def reported_with_picture(node: Node, *destinations: str) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    assert node.report(*destinations, companions=lambda _snapshot: [PICTURE]) is not None


def claimed(node: Node, destination: str = "pacs") -> DeliveryTask:
    task = node.ledger.deliveries.claim(destination, owner="s")
    assert task
    return task


def deliver(node: Node, destination: str = "pacs") -> None:
    assert node.ledger.deliveries.delivered(claimed(node, destination), status=0, sop_class_uid="1.2")


def again(node: Node, number: int = 0, *, known: tuple[str, ...] = ("pacs",), study: str = STUDY) -> str:
    """Send a delivery of the newest report again."""
    delivery = only(node).reports[0].deliveries[number]
    return node.ledger.resending.send_again(study, delivery.id, known=known, actor=ADA)


def test_an_unknown_study_has_no_page(sqlite: Node) -> None:
    sqlite.receive("1")
    assert sqlite.ledger.study_pages.page("1.2.9") is None


def test_an_image_is_told_from_its_reception_to_where_its_report_went(node: Node) -> None:
    reported(node, "pacs", outcome=Finding(probability=0.9, logit=2.0, threshold=0.5, attention=MAP))
    deliver(node)
    patient = only(node)
    [image], [report] = patient.images, patient.reports
    assert (patient.patient_id, image.row.state, image.row.probability) == ("P1", ImageState.ANALYSED, 0.9)
    assert (image.has_attention, image.size, image.removing_at) == (True, 10, None)
    assert (report.version, report.supersedes, report.report.kind) == (1, None, "report")
    [delivery] = report.deliveries
    assert (delivery.sent.destination, delivery.sent.state) == ("pacs", DeliveryState.DELIVERED)
    assert report.file == node.ledger.reports.files(STUDY)[0][2]


def test_a_study_without_a_result_is_told_too(sqlite: Node) -> None:
    sqlite.receive("1")
    [image] = only(sqlite).images
    assert (image.row.state, image.has_attention, only(sqlite).reports) == (ImageState.RECEIVED, False, ())


def test_what_went_with_a_report_is_told_and_handed_out(node: Node) -> None:
    reported_with_picture(node, "pacs")
    [report] = only(node).reports
    [picture] = report.companions
    assert (picture.kind, picture.size) == ("overlay", len(PICTURE.file))
    found = node.ledger.study_pages.file(STUDY, PICTURE.sop_instance_uid)
    assert found
    assert (found.kind, found.file) == ("overlay", PICTURE.file)
    own = node.ledger.study_pages.file(STUDY, report.report.sop_instance_uid)
    assert own
    assert (own.kind, own.file) == ("report", report.file)


def test_nothing_of_another_study_is_handed_out(node: Node) -> None:
    reported_with_picture(node, "pacs")
    [image] = only(node).images
    pages = node.ledger.study_pages
    assert pages.file("1.2.9", PICTURE.sop_instance_uid) is None
    assert pages.image("1.2.9", image.id) is None
    assert pages.attention("1.2.9", image.id) == b""
    stored = pages.image(STUDY, image.id)
    assert stored
    assert stored.spool_path == "1.dcm"


def test_the_map_is_that_of_the_newest_result(node: Node) -> None:
    node.receive("1")
    node.analyse(Finding(probability=0.9, logit=2.0, threshold=0.5, attention=MAP))
    [image] = only(node).images
    assert node.ledger.study_pages.attention(STUDY, image.id) == MAP
    node.ledger.reanalysis.request(node.ledger.reanalysis.ended(study_uid=STUDY))
    node.analyse(NotAnalysed(reason=Reason.VIEW))
    assert node.ledger.study_pages.attention(STUDY, image.id) == b""
    assert not only(node).images[0].has_attention


def test_versions_stand_newest_first_and_name_what_they_replace(sqlite: Node) -> None:
    reported(sqlite, "pacs")
    reported(sqlite, "pacs", name="2")
    assert [(report.version, report.supersedes) for report in only(sqlite).reports] == [(2, 1), (1, None)]


def test_each_patient_has_their_own_images_and_reports(node: Node) -> None:
    node.receive("1")
    node.receive("2", patient_id="P2", patient_key="key of P2", issuer="ward")
    node.analyse()
    node.clock.advance(seconds=11)
    node.report("pacs")
    node.report("pacs")
    one, other = page_of(node).patients
    assert [(each.patient_id, each.issuer) for each in (one, other)] == [("P1", ""), ("P2", "ward")]
    assert [len(each.images) for each in (one, other)] == [1, 1]
    assert {report.version for each in (one, other) for report in each.reports} == {1, 2}


def test_events_come_with_their_hashes_newest_first(node: Node) -> None:
    reported(node, "pacs")
    events = page_of(node).events
    assert [event.kind for event in events] == ["reported", "analysed", "received"]
    assert [event.previous_hash for event in events[:-1]] == [event.hash for event in events[1:]]


def test_of_a_study_with_very_many_images_the_first_are_told_and_the_rest_counted(sqlite: Node) -> None:
    sqlite.receive(*(str(number) for number in range(1, MOST_IMAGES + 4)))
    page = page_of(sqlite)
    assert (len(page.patients[0].images), page.more_images) == (MOST_IMAGES, 3)
    for _ in range(MOST_EVENTS // 100):
        sqlite.ledger.visits.note("web-viewed", ADA, study_uid=STUDY)
    assert page_of(sqlite).more_events == 0
    assert len(page_of(sqlite).events) == MOST_IMAGES + 3 + MOST_EVENTS // 100


class TestSendAgain:
    """A person has an object sent again: the same bytes, and an event with the person's name."""

    def test_what_was_given_up_waits_again(self, node: Node) -> None:
        reported(node, "pacs")
        node.ledger.deliveries.bury(claimed(node), status=0x0122, detail="SOP class not supported")
        assert only(node).reports[0].deliveries[0].can_send_again
        assert again(node) == "It waits to be sent to pacs again."
        [delivery] = only(node).reports[0].deliveries
        assert (delivery.sent.state, delivery.can_send_again) == (DeliveryState.WAITING, False)
        assert claimed(node).file == only(node).reports[0].file

    def test_a_destination_that_lost_what_it_promised_to_keep_gets_it_again(self, sqlite: Node) -> None:
        reported(sqlite, "pacs")
        task = claimed(sqlite)
        sqlite.ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2", check_after=timedelta(seconds=1))
        sqlite.clock.advance(seconds=2)
        sqlite.ledger.upkeep.sweep()
        [asked] = sqlite.ledger.commitments.claim("pacs", owner="c")
        sqlite.ledger.commitments.looked_for(asked, found=True)
        assert only(sqlite).reports[0].deliveries[0].sent.state is DeliveryState.FOUND
        assert again(sqlite) == "It waits to be sent to pacs again."
        [delivery] = only(sqlite).reports[0].deliveries
        assert (delivery.sent.state, delivery.sent.committed_at) == (DeliveryState.WAITING, None)
        assert claimed(sqlite).sop_instance_uid == task.sop_instance_uid

    def test_the_event_names_object_destination_and_person(self, sqlite: Node) -> None:
        reported(sqlite, "pacs")
        deliver(sqlite)
        again(sqlite)
        event = page_of(sqlite).events[0]
        assert event.kind == "web-resent"
        assert event.detail["by"] == "ada"
        assert event.detail["address"] == "10.0.0.9"
        assert event.detail["destination"] == "pacs"
        assert event.detail["was"] == "delivered"
        assert event.detail["sent_uid"] == only(sqlite).reports[0].report.sop_instance_uid
        assert not sqlite.ledger.verifier.verify().problems

    def test_what_waits_already_is_not_sent_twice(self, sqlite: Node) -> None:
        reported(sqlite, "pacs")
        with pytest.raises(LedgerError, match="waits to be sent to pacs already"):
            again(sqlite)
        deliver(sqlite)
        again(sqlite)
        with pytest.raises(LedgerError, match="waits to be sent to pacs already"):
            again(sqlite)
        claimed(sqlite)
        assert sqlite.ledger.deliveries.claim("pacs", owner="s") is None

    def test_a_replaced_version_that_arrived_does_not_come_after_its_successor(self, sqlite: Node) -> None:
        reported(sqlite, "pacs")
        deliver(sqlite)
        [old] = only(sqlite).reports[0].deliveries
        reported(sqlite, "pacs", name="2")
        assert not only(sqlite).reports[1].deliveries[0].can_send_again
        with pytest.raises(LedgerError, match="a newer version has replaced this one"):
            sqlite.ledger.resending.send_again(STUDY, old.id, known=("pacs",), actor=ADA)

    def test_to_a_destination_that_the_settings_do_not_name_nobody_would_send(self, sqlite: Node) -> None:
        reported(sqlite, "pacs")
        deliver(sqlite)
        with pytest.raises(LedgerError, match="no destination pacs any more"):
            again(sqlite, known=("archive",))
        assert only(sqlite).reports[0].deliveries[0].sent.state is DeliveryState.DELIVERED

    def test_an_undeliverable_report_is_routed_again(self, node: Node) -> None:
        reported(node)
        [delivery] = only(node).reports[0].deliveries
        assert (delivery.sent.state, delivery.can_send_again) == (DeliveryState.UNDELIVERABLE, True)
        assert "routed again" in again(node, known=())
        task = node.ledger.reports.claim(owner="r")
        assert task
        snapshot = node.ledger.reports.snapshot(task, MODEL)
        assert isinstance(snapshot, StudySnapshot)
        node.ledger.reports.complete_unchanged(task, snapshot, MODEL, ["pacs"])
        assert [each.sent.destination for each in only(node).reports[0].deliveries] == ["pacs"]

    def test_a_delivery_of_another_study_is_not_there(self, sqlite: Node) -> None:
        reported(sqlite, "pacs")
        deliver(sqlite)
        with pytest.raises(LedgerError, match="no such delivery"):
            again(sqlite, study="1.2.9")

    @pytest.mark.parametrize("state", DeliveryState)
    def test_every_state_is_decided(self, state: DeliveryState) -> None:
        newest, older = (can_send_again(state, is_newest=is_newest) for is_newest in (True, False))
        assert newest == (state is not DeliveryState.WAITING)
        assert older == (state is DeliveryState.DEAD)
