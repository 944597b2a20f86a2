"""The list of studies: what a PACS administrator reads at night, and how it is searched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine

from scp_node.domain import Actor, Finding, NotAnalysed, Reason, TransferEnded, Verdict
from scp_node.ledger import Count, DeliveryState, Key, StudyState, WorklistQuery, WorklistRow
from tests.scp_node.ledger.projecting import follow, followed, header, projector
from tests.scp_node.ledger.test_companions import OVERLAY, claimed, reported_with_overlay
from tests.scp_node.ledger_node import FakeClock, Node, ledger_engine


def the_row(node: Node) -> WorklistRow:
    [row] = followed(node)
    return row


def reported(node: Node, *destinations: str) -> None:
    node.clock.advance(seconds=11)
    assert node.report(*destinations) is not None


def test_a_study_is_followed_from_its_receipt_to_the_promise_to_keep_its_report(node: Node) -> None:
    received_at = node.clock()
    node.receive("1", header=header("Müller^Jörg"))
    row = the_row(node)
    assert (row.patient_name, row.patient_id, row.sex, row.age, row.views) == ("Müller, Jörg", "P1", "F", "064Y", "PA")
    assert (row.accession, row.calling_ae, row.images, row.newest_at) == ("A1", "CR1", 1, received_at)
    assert (row.state, row.waiting_since, row.verdict) == (StudyState.RECEIVED, received_at, None)

    node.clock.advance(seconds=1)
    node.analyse(Finding(probability=0.9, logit=2.0, threshold=0.5, grey_zone=0.1))
    row = the_row(node)
    assert (row.state, row.waiting_since) == (StudyState.ANALYSED, node.clock())
    assert (row.verdict, row.probability, row.threshold, row.grey_zone) == (Verdict.PRESENT, 0.9, 0.5, 0.1)
    assert (row.bundle, row.bundle_digest) == ("test-model-1.0", "sha256:" + "a" * 64)

    reported(node, "pacs")
    row = the_row(node)
    assert (row.state, row.delivery_state, row.detail) == (StudyState.REPORTED, DeliveryState.WAITING, "pacs")
    assert (row.report_version, row.reported_at, row.waiting_since) == (1, node.clock(), node.clock())

    node.ledger.deliveries.retry(claimed(node, "pacs"), status=0xA700, detail="disk full", pause=timedelta(0))
    assert the_row(node).detail == "pacs: disk full"

    node.ledger.upkeep.sweep()
    node.clock.advance(seconds=1)
    node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2", check_after=timedelta(0))
    row = the_row(node)
    assert (row.state, row.delivered_at, row.waiting_since) == (StudyState.DELIVERED, node.clock(), None)

    node.ledger.upkeep.sweep()
    [asked] = node.ledger.commitments.claim("pacs", owner="w")
    node.ledger.commitments.looked_for(asked, found=True)
    row = the_row(node)
    assert (row.state, row.delivery_state, row.committed_at) == (
        StudyState.DELIVERED,
        DeliveryState.FOUND,
        node.clock(),
    )


def test_a_delivery_that_was_given_up_stands_before_one_that_arrived(node: Node) -> None:
    reported_with_overlay(node, "pacs", "archive")
    for _ in range(2):
        node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
    node.ledger.deliveries.bury(claimed(node, "archive"), status=0x0122, detail="SOP class not supported")
    row = the_row(node)
    assert (row.state, row.delivery_state) == (StudyState.GIVEN_UP, DeliveryState.DEAD)
    assert (row.detail, row.delivered_at) == ("archive: SOP class not supported", None)
    node.ledger.upkeep.requeue("1.2.3")
    assert the_row(node).state is StudyState.REPORTED
    node.ledger.deliveries.bury(claimed(node, "archive"), status=0x0122, detail="SOP class not supported")
    node.ledger.upkeep.discard("1.2.3")
    row = the_row(node)
    assert (row.state, row.delivery_state) == (StudyState.REPORTED, DeliveryState.WAITING)  # of the picture
    node.ledger.deliveries.delivered(claimed(node, "archive"), status=0, sop_class_uid="1.2")
    assert the_row(node).state is StudyState.DISCARDED


def test_a_report_that_could_not_be_made_is_given_up_with_its_error(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    node.ledger.upkeep.sweep()
    task = node.ledger.reports.claim(owner="w")
    assert task is not None
    node.ledger.reports.fail(task, "header has no StudyInstanceUID")
    row = the_row(node)
    assert (row.state, row.detail) == (StudyState.GIVEN_UP, "header has no StudyInstanceUID")
    node.ledger.upkeep.discard("1.2.3")
    assert the_row(node).state is StudyState.DISCARDED


def test_a_report_without_a_destination_is_undeliverable(node: Node) -> None:
    node.receive("1")
    node.analyse()
    reported(node)
    assert the_row(node).state is StudyState.UNDELIVERABLE


@pytest.mark.parametrize(
    ("reason", "state"), [(Reason.VIEW, StudyState.NOT_ANALYSED), (Reason.INFERENCE, StudyState.FAILED)]
)
def test_a_film_without_a_verdict_is_told_apart_from_one_that_failed(
    node: Node, reason: Reason, state: StudyState
) -> None:
    node.receive("1")
    node.analyse(NotAnalysed(reason=reason))
    reported(node, "pacs")
    node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
    row = the_row(node)
    assert (row.state, row.reason, row.verdict, row.bundle) == (state, reason, None, "test-model-1.0")


def test_the_film_that_says_most_stands_for_the_study_and_the_side_view_does_not_hide_it(node: Node) -> None:
    node.receive("1", header=header(ViewPosition="PA"))
    node.analyse(Finding(probability=0.6, logit=1.0, threshold=0.5))
    node.receive("2", header=header(ViewPosition="AP"), calling_ae="CR2")
    node.analyse(Finding(probability=0.8, logit=2.0, threshold=0.5))
    node.receive("3", header=header(ViewPosition="LL"), calling_ae="CR2")
    node.analyse(NotAnalysed(reason=Reason.VIEW))
    reported(node, "pacs")
    node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
    row = the_row(node)
    assert (row.state, row.probability, row.reason) == (StudyState.DELIVERED, 0.8, Reason.VIEW)
    assert (row.images, row.views, row.calling_ae) == (3, "PA, AP, LL", "CR2")


def test_a_late_film_puts_a_study_back_on_top_and_into_waiting(node: Node) -> None:
    node.receive("1", study="1.1")
    node.receive("2", study="1.2")
    node.analyse()
    node.clock.advance(seconds=11)
    for _ in range(2):
        node.report("pacs")
    node.receive("3", study="1.1")
    rows = followed(node)
    assert [(row.study_uid, row.state) for row in rows] == [
        ("1.1", StudyState.RECEIVED),
        ("1.2", StudyState.REPORTED),
    ]
    node.analyse()
    assert followed(node)[0].state is StudyState.ANALYSED
    reported(node, "pacs")
    assert (followed(node)[0].state, followed(node)[0].report_version) == (StudyState.REPORTED, 2)


def test_two_films_with_one_uid_wait_for_a_person(node: Node) -> None:
    node.receive("1")
    node.receive("1", sha256="b" * 64, spool_path="other.dcm")
    node.analyse()
    row = the_row(node)
    assert (row.state, row.reason, row.images) == (StudyState.CONFLICT, Reason.CONFLICTING_INSTANCE, 2)
    node.ledger.resolution.choose("1.2.3.1", 1, actor=Actor(name="admin", address=""))
    row = the_row(node)
    assert (row.state, row.reason) == (StudyState.ANALYSED, Reason.SET_ASIDE)


def test_a_study_that_names_two_patients_has_two_rows(node: Node) -> None:
    node.receive("1", patient_id="P1", patient_key="k1", header=header("Doe^Jane"))
    node.receive("2", patient_id="P2", patient_key="k2", header=header("Roe^Jim"))
    assert [(row.patient_id, row.patient_name) for row in followed(node)] == [("P2", "Roe, Jim"), ("P1", "Doe, Jane")]
    assert [row.patient_id for row in node.ledger.worklist.study("1.2.3")] == ["P1", "P2"]


def test_a_picture_of_this_node_that_a_pacs_routed_back_moves_nothing(node: Node) -> None:
    reported_with_overlay(node, "pacs")
    before = the_row(node)
    node.clock.advance(hours=1)
    node.receive("9", sop_instance_uid=OVERLAY.sop_instance_uid, calling_ae="PACS")
    assert the_row(node) == before
    node.analyse(NotAnalysed(reason=Reason.OWN_OBJECT))
    assert the_row(node) == before


def test_an_interrupted_sender_is_seen(node: Node) -> None:
    node.receive("1")
    now = node.clock()
    ended = TransferEnded(
        study_uids=("1.2.3",), complete=False, calling_ae="CR1", peer="127.0.0.1", began_at=now, at=now
    )
    node.ledger.studies.transfers_ended([ended])
    assert the_row(node).interrupted


def test_a_header_that_cannot_be_read_still_has_its_row(node: Node) -> None:
    node.receive("1", header=b"\x10\x00\x10\x00PN\xff\xff")
    row = the_row(node)
    assert (row.patient_name, row.patient_id, row.state) == ("", "P1", StudyState.RECEIVED)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A ledger database for all tests of this module that only read the list."""
    with contextlib.ExitStack() as stack:
        url: str | Path = tmp_path_factory.mktemp("list") / "ledger.sqlite3"
        if request.param == "postgresql":
            server = request.getfixturevalue("postgres_server")
            url = stack.enter_context(server.database(request.getfixturevalue("ledger_template")))
        yield stack.enter_context(ledger_engine(url))


def searched(node: Node, text: str) -> set[str]:
    return {row.study_uid for row in node.ledger.worklist.rows(WorklistQuery(search=text))}


NAMES: Final = {  # the studies that the searches are for
    "1.1": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "1.2": "Иванов^Пётр",
    "1.3": "Müller-Lüdenscheidt^Jörg^^Dr.",
    "1.4": "Łukasik^Ewa",
    "1.5": "O'Brien^Ann_Marie",
    "1.6": "김^철수",
}


@pytest.fixture(scope="module")
def listed(shared_engine: Engine) -> Node:
    """Ten studies, a minute apart, from two senders; of the first five three are positive. Then six with names."""
    node = Node(shared_engine)
    for number in range(10):
        node.receive(f"{number}", study=f"2.{number}", calling_ae=f"CR{number % 2}")
        if number < 5:
            node.analyse(Finding(probability=0.9 if number % 2 == 0 else 0.1, logit=0.0, threshold=0.5))
        node.clock.advance(minutes=1)
    node.clock.now -= timedelta(days=1)
    for study, name in NAMES.items():
        ids = {"patient_id": f"ID-{study}%", "accession": f"ACC{study}"}
        node.receive(study, study=study, calling_ae="DX", header=header(name), **ids)
    node.clock.now += timedelta(days=1)
    followed(node)
    return node


@pytest.mark.parametrize(
    ("text", "study"),
    [
        ("yamada", "1.1"),
        ("TAROU yamada", "1.1"),
        ("山田", "1.1"),
        ("太", "1.1"),
        ("山田 太郎", "1.1"),
        ("やまだ", "1.1"),
        ("ﾔﾏﾀﾞ", None),  # katakana is not hiragana
        ("иванов", "1.2"),
        ("ПЕТР", "1.2"),
        ("ив", "1.2"),
        ("muller", "1.3"),
        ("denscheidt", "1.3"),
        ("JÖRG dr", "1.3"),
        ("lukasik", "1.4"),
        ("ew", "1.4"),
        ("wa", None),  # two letters stand at the start of a word
        ("o'brien", "1.5"),
        ("ann_", "1.5"),
        ("김", "1.6"),
        ("id-1.4%", "1.4"),
        ("acc1.2", "1.2"),
        ("1.5", "1.5"),
        ("1.2.3.1.6", "1.6"),  # the SOP Instance UID of its image
        ("%", None),
        ('" OR 1', None),
        ("a* NOT", None),
    ],
)
def test_a_study_is_found_by_words_in_any_script(listed: Node, text: str, study: str | None) -> None:
    assert searched(listed, text) == ({study} if study else set())


def test_a_search_without_a_word_is_none(listed: Node) -> None:
    assert len(searched(listed, "\0 ^ ,")) == 16


def test_a_search_for_what_many_have_reads_the_list_itself(listed: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp_node.ledger.worklist._FEW", 2)
    assert len(searched(listed, "id-1")) == 6
    assert searched(listed, "id-1 ew") == {"1.4"}
    assert listed.ledger.worklist.count(WorklistQuery(search="id-1")) == Count(number=6, is_capped=False)
    assert listed.ledger.worklist.count(WorklistQuery(search="id-1"), most=4) == Count(number=4, is_capped=True)
    assert listed.ledger.worklist.count(WorklistQuery(search="a", calling_ae="CR1")).number == 5


def test_a_name_that_was_corrected_is_not_found_by_its_old_spelling(node: Node) -> None:
    node.receive("1", header=header("Smith^Jon"))
    followed(node)
    node.receive("2", sha256="c" * 64, header=header("Smythe^Jon"))
    node.ledger.resolution  # noqa: B018 - the service that would set the first film aside
    with node.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE instance SET \"use\" = 'set-aside' WHERE id = 1")
    followed(node)
    assert (searched(node, "smith"), searched(node, "smythe")) == (set(), {"1.2.3"})


DAY: Final = FakeClock().now  # when the first of the ten came
RECENT: Final = WorklistQuery(since=DAY)


def studies(rows: tuple[WorklistRow, ...]) -> str:
    return "".join(row.study_uid[2:] for row in rows)


def test_pages_go_forward_and_back_by_key(listed: Node) -> None:
    read, every = listed.ledger.worklist.page, RECENT
    first = read(every, most=4)
    assert (studies(first.rows), first.has_newer, first.has_older) == ("9876", False, True)
    second = read(every, older_than=first.rows[-1].key, most=4)
    assert (studies(second.rows), second.has_newer, second.has_older) == ("5432", True, True)
    last = read(every, older_than=second.rows[-1].key, most=4)
    assert (studies(last.rows), last.has_newer, last.has_older) == ("10", True, False)
    back = read(every, newer_than=last.rows[0].key, most=4)
    assert (studies(back.rows), back.has_newer, back.has_older) == ("5432", True, True)
    top = read(every, newer_than=back.rows[0].key, most=4)
    assert (studies(top.rows), top.has_newer, top.has_older) == ("9876", False, True)


def test_rows_of_one_instant_are_told_apart_by_their_number(node: Node) -> None:
    for number in range(5):
        node.receive(f"{number}", study=f"1.{number}")
    followed(node)
    seen, key = "", None
    while (page := node.ledger.worklist.page(WorklistQuery(), older_than=key, most=2)).rows:
        seen, key = seen + studies(page.rows), page.rows[-1].key
    assert seen == "43210"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (WorklistQuery(since=DAY, verdict=Verdict.PRESENT), "420"),
        (WorklistQuery(since=DAY, verdict=Verdict.PRESENT, calling_ae="CR0", state=StudyState.ANALYSED), "420"),
        (WorklistQuery(since=DAY, verdict=Verdict.PRESENT, calling_ae="CR1"), ""),
        (WorklistQuery(since=DAY, state=StudyState.RECEIVED, calling_ae="CR1"), "975"),
        (WorklistQuery(bundle="test-model-1.0"), "43210"),
        (WorklistQuery(reason=Reason.VIEW), ""),
        (WorklistQuery(since=DAY, feedback="none", calling_ae="CR1"), "97531"),
        (WorklistQuery(feedback="any"), ""),
        (WorklistQuery(feedback="agree"), ""),
        (WorklistQuery(search="A1", calling_ae="CR1"), "97531"),
    ],
)
def test_filters_hold_together(listed: Node, query: WorklistQuery, expected: str) -> None:
    assert studies(listed.ledger.worklist.page(query).rows) == expected
    assert listed.ledger.worklist.count(query).number == len(expected)
    rows = listed.ledger.worklist.page(query, most=2).rows
    if len(expected) > 2:
        assert studies(listed.ledger.worklist.page(query, older_than=rows[-1].key).rows) == expected[2:]
        assert listed.ledger.worklist.newer(query, rows[-1].key).number == 1


def test_a_range_of_time_has_its_start_and_not_its_end(listed: Node) -> None:
    start = DAY + timedelta(minutes=3)
    query = WorklistQuery(since=start, until=start + timedelta(minutes=2))
    assert studies(listed.ledger.worklist.page(query).rows) == "43"
    assert studies(listed.ledger.worklist.page(WorklistQuery(search="A1", since=start, until=query.until)).rows) == "43"


def test_counts_end_at_their_limit_and_what_is_new_is_counted_by_key(listed: Node) -> None:
    worklist = listed.ledger.worklist
    assert worklist.count(RECENT, most=4) == Count(number=4, is_capped=True)
    assert worklist.count(RECENT, most=10) == Count(number=10, is_capped=False)
    key = worklist.page(WorklistQuery()).rows[3].key
    assert worklist.newer(WorklistQuery(), key) == Count(number=3, is_capped=False)
    assert worklist.newer(WorklistQuery(calling_ae="CR1"), key) == Count(number=2, is_capped=False)
    assert worklist.newer(WorklistQuery(), Key(newest_at=key.newest_at, id=key.id), most=2).is_capped


def test_the_menus_hold_what_occurs(listed: Node) -> None:
    menus = listed.ledger.worklist.menus()
    assert (menus.calling_aes, menus.bundles) == (("CR0", "CR1", "DX"), ("test-model-1.0",))
    assert (menus.reasons, menus.opinions) == ((), ())


def test_the_list_says_how_far_it_is_behind(node: Node) -> None:
    worklist = node.ledger.worklist
    assert not worklist.standing().is_complete
    following = projector(node)
    follow(following)
    node.receive("1")
    node.clock.advance(seconds=3)
    standing = worklist.standing()
    assert (standing.is_followed, standing.is_complete, standing.behind_seconds) == (True, True, 3.0)
    follow(following)
    assert worklist.standing().behind_seconds == 0
    following.close()
    assert not worklist.standing().is_followed
