"""The audit finds by state, in the database, what its rows say; and it is read in pages."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console
from sqlalchemy import event

from scp_node.cli.tables import print_audit
from scp_node.domain import Actor, NotAnalysed, Priority, Reason, RejectedInstance
from scp_node.ledger import AuditQuery, AuditRow, DeliveryState, ImageState
from tests.scp_node.ledger_node import MODEL, Node, ledger_engine

AT: Final = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def mixed(node: Node) -> Node:
    """One image in each state, and a delivery in each state that needs no commitment."""
    for study, outcome in (("1.2.1", None), ("1.2.2", NotAnalysed(reason=Reason.VIEW))):
        node.receive(study, study=study)
        node.analyse(outcome)
    node.receive("failed", study="1.2.3")
    node.analyse(NotAnalysed(reason=Reason.UNREADABLE_PIXELS))
    node.clock.advance(seconds=node.policy.quiet.total_seconds())
    for _ in range(3):
        node.report("pacs", "archive")
    sent = node.ledger.deliveries.claim("pacs", owner="s")
    refused = node.ledger.deliveries.claim("pacs", owner="s")
    assert sent is not None
    assert refused is not None
    node.ledger.deliveries.delivered(sent, status=0, sop_class_uid="1.2.3")
    node.ledger.deliveries.bury(refused, status=0xA900, detail="refused")
    node.receive("copy", study="1.2.3", sop_instance_uid="1.2.3.failed")
    [copy] = node.ledger.analyses.claim(owner="w", limit=9)
    assert not node.ledger.analyses.compared(copy, same=True)
    for name in ("first", "second"):
        node.receive(name, study="1.2.6", sop_instance_uid="1.2.3.chosen")
        node.analyse()
    node.ledger.resolution.choose("1.2.3.chosen", 2, actor=Actor(name="somebody", address=""))
    node.analyse()
    node.receive("analysing", study="1.2.4")
    assert len(node.ledger.analyses.claim(owner="w", limit=1)) == 1
    node.receive("received", study="1.2.5")
    node.receive("again", study="1.2.5", sop_instance_uid="1.2.3.received")
    node.ledger.intake.record_rejected(
        RejectedInstance(
            sop_instance_uid="1.2.9", calling_ae="CR1", peer="127.0.0.1", status=0xA700, reason="disk is full", at=AT
        )
    )
    return node


def ask(node: Node, state: ImageState | DeliveryState | None) -> list[AuditRow]:
    return list(node.ledger.audit.instances(AuditQuery(state=state)))


def test_each_state_of_an_image_is_found_by_the_database_as_its_row_says_it(mixed: Node) -> None:
    everything = ask(mixed, None)
    assert {row.state for row in everything} == set(ImageState)
    for state in ImageState:
        assert ask(mixed, state) == [row for row in everything if row.state is state]


def test_each_state_of_a_delivery_is_found_by_the_database_as_its_row_says_it(mixed: Node) -> None:
    everything = ask(mixed, None)
    found = {sent.state for row in everything for sent in row.deliveries}
    assert found == {DeliveryState.WAITING, DeliveryState.DELIVERED, DeliveryState.DEAD}
    for state in DeliveryState:
        assert ask(mixed, state) == [row for row in everything if state in {sent.state for sent in row.deliveries}]


def test_an_image_that_is_analysed_again_is_found_by_its_newest_result_and_report(mixed: Node) -> None:
    images = mixed.ledger.reanalysis.ended(study_uid="1.2.1")
    mixed.ledger.reanalysis.request(images)
    assert [row.study_uid for row in ask(mixed, ImageState.ANALYSED)] == ["1.2.1", "1.2.6"]
    mixed.clock.advance(seconds=60)
    mixed.ledger.upkeep.sweep()
    while mixed.analyse(NotAnalysed(reason=Reason.BODY_PART)):  # what lost its worker comes alone
        pass
    assert "1.2.1" not in [row.study_uid for row in ask(mixed, ImageState.ANALYSED)]
    assert "1.2.1" in [row.study_uid for row in ask(mixed, ImageState.NOT_ANALYSED)]


def test_pages_by_key_hold_every_image_once_and_in_order(node: Node) -> None:
    names = [str(number) for number in range(1, 8)]
    node.receive(*names)
    seen, after = [], 0
    sizes = []
    while True:
        page = node.ledger.audit.page(AuditQuery(), after=after, most=3)
        seen += [row.sop_instance_uid for row in page.rows]
        sizes.append(len(page.rows))
        if page.next_key is None:
            break
        after = page.next_key
    assert seen == [f"1.2.3.{name}" for name in names]
    assert sizes == [3, 3, 1]


def test_a_page_that_ends_with_the_last_image_is_followed_by_an_empty_one(node: Node) -> None:
    node.receive("1", "2")
    page = node.ledger.audit.page(AuditQuery(), most=2)
    assert page.next_key is not None
    assert node.ledger.audit.page(AuditQuery(), after=page.next_key, most=2).rows == ()


def test_csv_has_its_header_without_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_audit([], "csv", Console())
    [header] = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == [each.name for each in fields(AuditRow)]
    assert header[:4] == ["sop_instance_uid", "study_uid", "series_uid", "accession"]


def test_the_printed_forms_hold_the_same_values(mixed: Node, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ask(mixed, None)
    print_audit(rows, "json", Console())
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    print_audit(rows, "csv", Console())
    cells = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [document["state"] for document in documents] == [cell["state"] for cell in cells]
    assert list(documents[0]) == list(cells[0])
    assert documents[0]["deliveries"] == json.loads(cells[0]["deliveries"])
    assert documents[0]["received_at"] == mixed.ledger.audit.page(AuditQuery()).rows[0].document()["received_at"]
    assert documents[-1]["received_at"] == AT.isoformat()


def found(node: Node, **query: str) -> list[str]:
    """Return the last part of the SOP Instance UID of each image that is found."""
    rows = node.ledger.audit.instances(AuditQuery(**query))  # type: ignore[arg-type]
    return [str(row.sop_instance_uid).rpartition(".")[2] for row in rows]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("A12", ["1"]),
        ("A12*", ["1", "2", "3"]),
        ("A12?", ["2"]),
        ("A*5", ["3", "6"]),
        ("*5", ["3", "6"]),
        ("?12", ["1", "4"]),
        ("a12*", ["4"]),
        ("A1%*", []),
        ("A_%*", ["5"]),
        ("[A]*", ["7"]),
        ("A*\\*", ["8"]),
        ("*", ["1", "2", "3", "4", "5", "6", "7", "8", "9"]),
        ("Ä1*", ["9"]),
    ],
)
@pytest.mark.parametrize("column", ["accession", "patient_id"])
def test_wildcards_stand_for_any_characters_and_for_one(node: Node, column: str, wanted: str, names: list[str]) -> None:
    values = ("A12", "A123", "A1235", "a12", "A_%1", "A95", "[A]1", "A\\1", "Ä1\U0001f600")
    for number, value in enumerate(values, start=1):
        node.receive(str(number), **{column: value})
    assert found(node, **{column: wanted}) == names


def test_a_patient_and_an_accession_must_both_hold_and_find_nothing_that_is_not_registered(mixed: Node) -> None:
    mixed.receive("other", accession="A2", patient_id="P2", study="1.2.6")
    assert found(mixed, patient_id="P2", accession="A*") == ["other"]
    assert found(mixed, patient_id="P1", accession="A2") == []
    assert "9" in found(mixed), "an image that was rejected"
    assert "9" not in found(mixed, patient_id="*1")


def test_an_image_is_found_by_its_uid_and_by_those_of_its_report(mixed: Node) -> None:
    [row] = mixed.ledger.audit.instances(AuditQuery(study_uid="1.2.1"))
    assert found(mixed, sop_instance_uid="1.2.3.1.2.1") == ["1"]
    assert row.report_uid
    assert found(mixed, sop_instance_uid=row.report_uid) == ["1"]
    assert found(mixed, sop_instance_uid="1.2.9") == ["9"]
    assert found(mixed, sop_instance_uid="1.2.404") == []


def test_what_is_known_is_told_from_what_is_not(mixed: Node) -> None:
    audit = mixed.ledger.audit
    [row] = audit.instances(AuditQuery(study_uid="1.2.1"))
    for name in (row.sop_instance_uid, row.study_uid, row.report_uid, "1"):
        assert audit.knows(str(name)), name
    for name in ("1.2.404", "404", "", "P1", "9" * 30):
        assert not audit.knows(name), name
    assert audit.knows_study("1.2.1")
    assert not audit.knows_study(str(row.sop_instance_uid))
    assert audit.knows_model(MODEL.digest)
    assert audit.knows_model("test-model-1.0")
    assert not audit.knows_model("test-model")


def test_an_accession_that_begins_as_asked_is_looked_up_in_the_index(tmp_path: Path) -> None:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        node = Node(engine)
        for number in range(3_000):
            node.receive(str(number), accession=f"A{number:05}", header=bytes(100))
        with engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
        plans: list[str] = []

        @event.listens_for(engine, "before_cursor_execute")
        def _explain(connection: Any, _cursor: object, statement: str, parameters: Any, *_more: object) -> None:
            if ("GLOB" in statement or " UNION " in statement) and not statement.startswith("EXPLAIN"):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans.extend(row[-1] for row in rows)

        assert found(node, accession="A0123*") == [str(number) for number in range(1230, 1240)]
        assert any("USING COVERING INDEX ix_instance_accession (accession>? AND accession<?)" in plan for plan in plans)
        assert found(node, sop_instance_uid="1.2.3.7") == ["7"]
        assert not [plan for plan in plans if plan.startswith("SCAN") or "rowid>?" in plan], plans


def test_the_table_shows_the_remark_of_a_destination_and_not_why_another_has_not_taken_it(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    node.report("pacs", "archive")
    for name, status, remark in (("pacs", 0xB000, "warning 0xB000: data elements were coerced"), ("archive", 0, "")):
        task = node.ledger.deliveries.claim(name, owner="s")
        assert task
        node.ledger.deliveries.delivered(task, status=status, sop_class_uid="1.2", remark=remark)
    print_audit(ask(node, None), "table", Console(width=400))
    printed = capsys.readouterr().out
    assert "pacs report: delivered 0xB000 (warning 0xB000: data elements were coerced)" in printed
    assert "archive report: delivered 0x0000 " in printed
