"""What needs a person: it is found, selected by what it is about, put back and discarded, and who did it is noted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import event, text

from scp_node.domain import Actor, NotAnalysed, Priority, Reason
from scp_node.ledger import LedgerError, QueueKind, Trouble, WorkSelection, upkeep
from scp_node.ledger.unregistrable import UnregistrableFile
from tests.scp_node.ledger_node import MODEL, Node, ledger_engine

ADA: Final = Actor(name="ada", address="10.1.2.3")
DESTINATIONS: Final = ("pacs", "archive")


@pytest.fixture
def sqlite_node(tmp_path: Path) -> Iterator[Node]:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        yield Node(engine)


def study(node: Node, number: int, calling_ae: str = "CR1") -> str:
    """Receive, analyse and report one study to two destinations; return its UID."""
    uid = f"1.2.{number}"
    node.receive(
        f"{number}.1",
        study=uid,
        sop_instance_uid=f"{uid}.1",
        calling_ae=calling_ae,
        patient_key=f"key {number}",
        priority=Priority.STAT,
    )
    node.analyse()
    assert node.report(*DESTINATIONS) is not None
    return uid


def bury(node: Node, destination: str, detail: str = "status 0xA900") -> None:
    task = node.ledger.deliveries.claim(destination, owner="s")
    assert task is not None
    node.ledger.deliveries.bury(task, status=0xA900, detail=detail)


def gave_up(node: Node) -> None:
    """Give up the deliveries of three studies, of two modalities and for two reasons."""
    for number, calling_ae, detail in ((1, "CR1", "refused"), (2, "CR2", "refused"), (3, "CR1", "too old")):
        study(node, number, calling_ae)
        bury(node, "pacs", detail)
        bury(node, "archive", "refused")


def states(node: Node) -> list[tuple[str, str, str]]:
    """Return study, destination and state of each delivery."""
    statement = (
        "SELECT report.study_uid, delivery.destination, delivery.state FROM delivery "
        "JOIN report ON report.id = delivery.report_id ORDER BY report.study_uid, delivery.destination"
    )
    return [(row[0], row[1], row[2]) for row in node.rows(statement)]


def dead(node: Node) -> list[tuple[str, str]]:
    return [(uid, destination) for uid, destination, state in states(node) if state == "dead"]


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        (WorkSelection(), []),
        (WorkSelection(destination="pacs"), [("1.2.1", "archive"), ("1.2.2", "archive"), ("1.2.3", "archive")]),
        (
            WorkSelection(destination="pacs", reason="refused", calling_ae="CR1"),
            [("1.2.1", "archive"), ("1.2.2", "archive"), ("1.2.2", "pacs"), ("1.2.3", "archive"), ("1.2.3", "pacs")],
        ),
        (
            WorkSelection(reason="too old"),
            [("1.2.1", "archive"), ("1.2.1", "pacs"), ("1.2.2", "archive"), ("1.2.2", "pacs"), ("1.2.3", "archive")],
        ),
        (
            WorkSelection(calling_ae="CR2"),
            [("1.2.1", "archive"), ("1.2.1", "pacs"), ("1.2.3", "archive"), ("1.2.3", "pacs")],
        ),
        (
            WorkSelection(study_uid="1.2.3", kind=QueueKind.DELIVER),
            [("1.2.1", "archive"), ("1.2.1", "pacs"), ("1.2.2", "archive"), ("1.2.2", "pacs")],
        ),
    ],
    ids=["all", "destination", "destination, reason and modality", "reason", "modality", "study and step"],
)
def test_what_was_given_up_is_put_back_by_what_it_is_about(
    node: Node, monkeypatch: pytest.MonkeyPatch, selection: WorkSelection, left: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(upkeep, "BATCH", 2)  # several transactions
    gave_up(node)
    number = len(dead(node)) - len(left)
    assert node.ledger.upkeep.matching(selection).number == number
    assert node.ledger.upkeep.requeue(selection, actor=ADA) == number
    assert dead(node) == left
    assert node.ledger.upkeep.matching(selection).number == 0
    told = [
        row.detail
        for uid in ("1.2.1", "1.2.2", "1.2.3")
        for row in node.ledger.audit.events(uid)
        if row.kind == "requeued"
    ]
    assert [(row["by"], row["address"]) for row in told] == [("ada", "10.1.2.3")] * number


def test_a_selection_of_another_step_or_destination_finds_nothing(node: Node) -> None:
    gave_up(node)
    for other in (
        WorkSelection(kind=QueueKind.COMMIT),
        WorkSelection(destination="pac"),
        WorkSelection(reason="refuse"),
    ):
        assert node.ledger.upkeep.matching(other).number == 0
        assert node.ledger.upkeep.requeue(other) == 0
    assert len(dead(node)) == 6


def test_discarding_a_selection_closes_it_for_good(node: Node) -> None:
    gave_up(node)
    assert node.ledger.upkeep.discard(WorkSelection(destination="pacs", reason="refused"), actor=ADA) == 2
    assert node.ledger.upkeep.requeue() == 4  # the rest
    assert [(uid, name) for uid, name, state in states(node) if state == "discarded"] == [
        ("1.2.1", "pacs"),
        ("1.2.2", "pacs"),
    ]
    assert [row.detail["by"] for row in node.ledger.audit.events("1.2.1") if row.kind == "discarded"] == ["ada"]


def test_failed_analyses_are_put_back_without_those_whose_original_is_gone(node: Node) -> None:
    for number in (1, 2, 3):
        node.receive(f"{number}", study=f"1.2.{number}", patient_key=f"key {number}", priority=Priority.STAT)
    node.analyse(NotAnalysed(reason=Reason.UNREADABLE_PIXELS))
    node.receive("4", study="1.2.4", patient_key="key 4", priority=Priority.STAT)
    node.analyse(NotAnalysed(reason=Reason.VIEW))  # outside the intended use: no failure
    while node.report("pacs"):
        bury(node, "pacs")
    assert node.ledger.upkeep.discard(WorkSelection()) == 4
    node.clock.advance(days=2)
    [gone] = [each for each in node.ledger.retention.mark(timedelta(days=1)) if each.spool_path == "3.dcm"]
    with node.engine.begin() as connection:  # the others are kept after all
        connection.execute(text("UPDATE instance SET purging_at = NULL WHERE spool_path <> '3.dcm'"))
    node.ledger.retention.close([gone])
    [failed] = node.ledger.problems.overview().failed
    assert (failed.reason, failed.number, failed.without_original) == ("unreadable-pixels", 3, 1)
    wanted = WorkSelection(trouble=Trouble.FAILED, reason="unreadable-pixels")
    matching = node.ledger.upkeep.matching(wanted)
    assert (matching.number, matching.without_original) == (2, 1)
    with pytest.raises(LedgerError, match="nothing to discard"):
        node.ledger.upkeep.discard(wanted)
    assert node.ledger.upkeep.requeue(wanted, actor=ADA) == 2
    assert node.analyse() == 2
    assert node.ledger.upkeep.matching(wanted).number == 0


def test_undeliverable_reports_are_selected_by_study(node: Node) -> None:
    for number in (1, 2):
        node.receive(f"{number}", study=f"1.2.{number}", patient_key=f"key {number}", priority=Priority.STAT)
    node.analyse()
    while node.report():
        pass
    assert node.ledger.problems.overview().undeliverable.number == 2
    one = WorkSelection(trouble=Trouble.UNDELIVERABLE, study_uid="1.2.1")
    assert node.ledger.upkeep.matching(one).number == 1
    assert node.ledger.upkeep.requeue(one, actor=ADA) == 1
    assert node.ledger.upkeep.discard(WorkSelection(trouble=Trouble.UNDELIVERABLE, study_uid="1.2.2"), actor=ADA) == 1
    assert [row.detail["by"] for row in node.ledger.audit.events("1.2.2") if row.kind == "discarded"] == ["ada"]


def test_the_overview_names_each_problem_with_reason_number_and_age(node: Node) -> None:
    began = node.clock()
    gave_up(node)
    node.ledger.deliveries.destination_failed("pacs", detail="refused", enough=1, pause=lambda _: timedelta(minutes=1))
    node.clock.advance(minutes=30)
    node.receive("9", study="1.2.9", sop_instance_uid="1.2.9.1", patient_key="key 9")
    node.receive("10", study="1.2.9", sop_instance_uid="1.2.9.1", patient_key="key 9")
    node.ledger.intake.record_unregistrable(
        UnregistrableFile(spool_path="a/b.dcm", reason="not DICOM", received_at=node.clock(), calling_ae="CR7")
    )
    found = node.ledger.problems.overview()
    groups = {(each.kind, each.destination, each.reason): (each.number, each.since) for each in found.given_up}
    assert groups == {
        (QueueKind.DELIVER, "archive", "refused"): (3, began),
        (QueueKind.DELIVER, "pacs", "refused"): (2, began),
        (QueueKind.DELIVER, "pacs", "too old"): (1, began),
    }
    [paused] = found.paused
    assert (paused.name, paused.failures, paused.reason, paused.since) == ("pacs", 1, "refused", began)
    [conflict] = found.conflicts
    assert (conflict.sop_instance_uid, conflict.number, found.conflict_number) == ("1.2.9.1", 1, 1)
    [file] = found.unregistrable
    assert (file.path, file.reason, file.calling_ae, found.unregistrable_number) == ("a/b.dcm", "not DICOM", "CR7", 1)
    assert [each.kind for each in found.errors] == ["unregistrable", *["delivery-dead"] * 6]
    assert (found.errors[1].destination, found.errors[1].reason, found.errors[1].study_uid) == (
        "archive",
        "refused",
        "1.2.3",
    )
    only = node.ledger.problems.overview(WorkSelection(destination="archive"))
    assert [each.destination for each in only.given_up] == ["archive"]
    assert [(each.calling_ae, each.number) for each in node.ledger.problems.senders()] == [("CR1", 4), ("CR2", 1)]
    assert node.ledger.problems.destinations() == ["archive", "pacs"]


def test_the_age_of_a_queue_is_that_of_its_oldest_due_work(node: Node) -> None:
    assert node.ledger.problems.depths() == []
    study(node, 1)
    node.clock.advance(minutes=5)
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    node.ledger.deliveries.retry(task, status=None, detail="away", pause=timedelta(hours=1))
    node.receive("2", study="1.2.2", patient_key="key 2")
    node.analyse()  # its report waits until the study is quiet
    node.clock.advance(seconds=2)
    ages = {
        (each.kind.value, each.destination): (
            each.waiting,
            each.oldest and (node.clock() - each.oldest).total_seconds(),
        )
        for each in node.ledger.problems.depths()
    }
    assert ages == {("deliver", "archive"): (1, 302), ("deliver", "pacs"): (1, 302), ("report", ""): (1, None)}
    node.ledger.upkeep.sweep(MODEL)
    bury(node, "archive")
    node.ledger.upkeep.requeue()
    again = next(each for each in node.ledger.problems.depths() if each.destination == "archive")
    assert again.oldest == node.clock(), "what a person has put back does not wait since it was made"


def test_processes_at_work_are_named_by_role_and_gone_ones_are_not(node: Node) -> None:
    processes = node.ledger.processes
    processes.enter("host-a:12:worker:0a1b2c3d", {})
    processes.enter("killed", {})
    assert [(each.role, each.host, each.number) for each in processes.at_work()] == [
        ("", "killed", 0),
        ("worker", "host-a", 12),
    ]
    node.clock.advance(seconds=19)
    assert processes.renew("host-a:12:worker:0a1b2c3d")
    node.clock.advance(seconds=2)
    assert [each.role for each in processes.at_work()] == ["worker"]
    assert not processes.renew("host-a:99:worker:0a1b2c3d")


def test_what_is_done_is_never_read_for_it(sqlite_node: Node) -> None:
    """Every question about work is answered by an index of the rows of one state, however many rows are done."""
    gave_up(sqlite_node)
    plans: list[str] = []

    @event.listens_for(sqlite_node.engine, "before_cursor_execute")
    def _explain(connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if re.search(r"FROM (work|instance)\b", statement) and not statement.startswith(("EXPLAIN", "UPDATE")):
            rows = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in rows if re.match(r"(SCAN|SEARCH) work\b|SCAN instance\b", row[3]))

    sqlite_node.ledger.problems.overview()
    for selection in (
        WorkSelection(destination="pacs", kind=QueueKind.DELIVER),
        WorkSelection(kind=QueueKind.ANALYSE),
        WorkSelection(calling_ae="CR1"),
        WorkSelection(study_uid="1.2.3", reason="refused"),
    ):
        sqlite_node.ledger.upkeep.matching(selection)
        sqlite_node.ledger.problems.overview(selection)
    event.remove(sqlite_node.engine, "before_cursor_execute", _explain)
    assert len(plans) > 20
    by_state = r"(SCAN|SEARCH) work USING (COVERING )?INDEX ix_work_(ready|ready_oldest|leased|delayed|dead)\b.*"
    of_one_row = r"SEARCH work USING (COVERING )?INDEX \w+ \(queue=\? AND ref_id=\?\)"  # of one image
    in_conflict = r"SCAN instance USING (COVERING )?INDEX ix_instance_conflict"
    assert [plan for plan in plans if not re.fullmatch(f"{by_state}|{of_one_row}|{in_conflict}", plan)] == []
