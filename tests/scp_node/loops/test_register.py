"""The registrar: what the spool holds gets its rows, whatever happens in between."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from scp_node.demo.phantom import phantom_image
from scp_node.domain import (
    CommitmentAnswer,
    CommitmentReport,
    NotAnalysed,
    Reason,
    ReceivedInstance,
    RejectedInstance,
    TransferEnded,
    utc_now,
)
from scp_node.ledger import Analysed, AuditEvent, AuditQuery, ImageState, Ledger, Policy
from scp_node.loops.purge import Purger
from scp_node.loops.register import REFUSALS, Registrar
from scp_node.spool import Spool
from tests.scp_node.ledger_node import MODEL, FakeClock, ledger_engine
from tests.scp_node.spooled import spooled
from tests.waiting import wait_until

POLICY: Final = Policy(quiet=timedelta(seconds=10), lease=timedelta(seconds=15), max_attempts=3)

REFUSED: Final = RejectedInstance(
    sop_instance_uid="1.2.3", calling_ae="CR1", peer="127.0.0.1", status=0xC000, reason="cut off", at=utc_now()
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", low_water_bytes=0)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        yield engine


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    return Ledger(engine, POLICY)


@contextmanager
def running(registrar: Registrar) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=registrar.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def states(ledger: Ledger) -> list[str]:
    return [row.state for row in ledger.audit.instances(AuditQuery())]


def test_files_that_were_stored_while_the_registrar_was_dead_get_their_rows_at_start(
    spool: Spool, ledger: Ledger
) -> None:
    for seed in range(3):
        spooled(spool, phantom_image(seed, opacity=False))
    with running(Registrar(ledger, spool)):
        wait_until(lambda: len(states(ledger)) == 3)


def test_an_instance_is_registered_as_it_arrives_and_again_only_once(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool)
    with running(registrar):
        received = spooled(spool, phantom_image(1, opacity=False))
        registrar.received(received)
        registrar.received(received)
        wait_until(lambda: states(ledger))
    assert registrar.scan(first=True) == 0
    assert states(ledger) == ["received"]


def test_a_resent_image_leaves_one_row_and_one_file(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool)
    with running(registrar):
        for _ in range(5):
            registrar.received(spooled(spool, phantom_image(1, opacity=False)))
        wait_until(lambda: states(ledger) and len(list(spool.paths())) == 1)
    assert states(ledger) == ["received"]


def test_a_duplicate_that_the_first_scan_and_its_association_name_is_told_once(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool)
    for _ in range(3):  # they wait in the queue, and the first scan finds them among the files
        registrar.received(spooled(spool, phantom_image(1, opacity=False)))
    registrar.received(spooled(spool, phantom_image(2, opacity=False)))
    with running(registrar):
        wait_until(lambda: len(states(ledger)) == 2)
    assert [event.kind for event in events(ledger)] == ["received", "duplicate", "duplicate"]
    assert len(list(spool.paths())) == 2


def test_the_same_uid_with_other_pixels_keeps_both_files_and_says_conflict(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool)
    other = phantom_image(2, opacity=True)
    other.SOPInstanceUID = phantom_image(1, opacity=False).SOPInstanceUID
    with running(registrar):
        registrar.received(spooled(spool, phantom_image(1, opacity=False)))
        registrar.received(spooled(spool, other))
        wait_until(lambda: len(states(ledger)) == 2)
    assert states(ledger) == ["received", "conflict"]
    assert len(list(spool.paths())) == 2


def test_a_duplicate_is_kept_when_the_file_that_came_first_is_lost(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool)
    first = spooled(spool, phantom_image(1, opacity=False))
    with running(registrar):
        registrar.received(first)
        wait_until(lambda: states(ledger))
        spool.remove(first.spool_path)
        again = [spooled(spool, phantom_image(1, opacity=False)) for _ in range(3)]
        for duplicate in again:
            registrar.received(duplicate)
        wait_until(lambda: ledger.intake.unregistered([first.spool_path]))
    registrar.scan(first=True)
    [left] = spool.paths()
    assert left in [duplicate.spool_path for duplicate in again]
    assert ledger.intake.unregistered([left]) == []
    assert states(ledger) == ["received"]


def test_a_duplicate_goes_after_its_original_was_removed_by_retention(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool)
    first = spooled(spool, phantom_image(1, opacity=False))
    with running(registrar):
        registrar.received(first)
        wait_until(lambda: states(ledger))
        [task] = ledger.analyses.claim(owner="w", limit=1)
        outcome = NotAnalysed(reason=Reason.OWN_OBJECT)  # opens no report
        ledger.analyses.record([Analysed(task=task, outcome=outcome, started_at=utc_now())], MODEL)
        retention = Purger(ledger=ledger, spool=spool, days=1e-9)
        while retention.step():
            pass
        assert list(spool.paths()) == []
        registrar.received(spooled(spool, phantom_image(1, opacity=False)))
        wait_until(lambda: [event.kind for event in events(ledger)][-1] == "duplicate")
    assert list(spool.paths()) == []
    assert states(ledger) == ["not-analysed"]


def test_an_interruption_is_entered_after_the_images_that_came_before_it(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool)
    received = spooled(spool, phantom_image(1, opacity=False))
    registrar.received(received)
    registrar.ended(interrupted(received.study_uid))
    with running(registrar):
        wait_until(lambda: len(events(ledger)) == 2)
    assert [event.kind for event in events(ledger)] == ["received", "association-interrupted"]


def test_an_interruption_is_not_lost_when_more_comes_than_is_remembered(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool, remembered=1)
    received = [spooled(spool, phantom_image(seed, opacity=False)) for seed in (1, 2)]
    for instance in received:
        registrar.received(instance)
    registrar.ended(interrupted(received[1].study_uid))
    with running(registrar):
        wait_until(lambda: any(row.interrupted for row in ledger.audit.instances(AuditQuery())))
    assert [row.interrupted for row in ledger.audit.instances(AuditQuery())] == [False, True]


def interrupted(study_uid: str) -> TransferEnded:
    at = utc_now()
    return TransferEnded(
        study_uids=(study_uid,), complete=False, calling_ae="CR1", peer="127.0.0.1", began_at=at, at=at
    )


def events(ledger: Ledger) -> list[AuditEvent]:
    return ledger.audit.events(phantom_image(1, opacity=False).StudyInstanceUID)


def test_while_the_database_is_away_nothing_is_lost_and_afterwards_all_is_registered(
    spool: Spool, ledger: Ledger, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE instance RENAME TO hidden"))
    registrar = Registrar(ledger, spool)
    with running(registrar):
        for seed in range(3):
            registrar.received(spooled(spool, phantom_image(seed, opacity=False)))
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE hidden RENAME TO instance"))
        wait_until(lambda: len(states(ledger)) == 3)


def test_more_than_is_remembered_while_the_database_is_away_is_registered_without_a_restart(
    spool: Spool, ledger: Ledger, engine: Engine
) -> None:
    registrar = Registrar(ledger, spool, remembered=2)
    with running(registrar):
        registrar.received(spooled(spool, phantom_image(0, opacity=False)))
        wait_until(lambda: len(states(ledger)) == 1)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE instance RENAME TO hidden"))
        for seed in range(1, 9):
            registrar.received(spooled(spool, phantom_image(seed, opacity=False)))
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE hidden RENAME TO instance"))
        wait_until(lambda: len(states(ledger)) == 9, 30)
    assert states(ledger) == ["received"] * 9


def test_only_the_instance_whose_values_the_database_refuses_is_given_up_and_that_is_told_once(
    spool: Spool, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    refused = replace(spooled(spool, phantom_image(1, opacity=False)), accession="\udc80")  # no text in any encoding
    registrar = Registrar(ledger, spool)
    for instance in (refused, spooled(spool, phantom_image(2, opacity=False)), refused):
        registrar.received(instance)
    stop = threading.Event()
    stop.set()
    registrar.run(stop)  # without a scan, which would read the file anew
    assert states(ledger) == ["received", "failed"]
    [failed] = list(ledger.audit.instances(AuditQuery(state=ImageState.FAILED)))
    assert (failed.sop_instance_uid, failed.sha256) == (refused.sop_instance_uid, refused.sha256)
    assert "the database refuses it: UnicodeEncodeError" in (failed.detail or "")
    assert caplog.text.count("file cannot be registered") == 1


def test_an_instance_that_this_program_fails_on_holds_up_no_other_and_is_seen(
    spool: Spool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    received = [spooled(spool, phantom_image(seed, opacity=False)) for seed in range(3)]
    bad = received[1]
    register, transfers_ended = ledger.intake.register, ledger.studies.transfers_ended

    def fails(instances: Sequence[ReceivedInstance], **options: Any) -> Any:
        if bad.sop_instance_uid in {instance.sop_instance_uid for instance in instances}:
            raise KeyError("a bug")
        return register(instances, **options)

    def fails_too(endings: Sequence[TransferEnded]) -> None:
        if endings[0].study_uids == (bad.study_uid,) or len(endings) > 1:
            raise KeyError("another bug")
        transfers_ended(endings)

    monkeypatch.setattr(ledger.intake, "register", fails)
    monkeypatch.setattr(ledger.studies, "transfers_ended", fails_too)
    registrar = Registrar(ledger, spool)
    for instance in received:
        registrar.received(instance)
        registrar.ended(interrupted(instance.study_uid))
    with running(registrar):
        wait_until(lambda: sum(bool(row.interrupted) for row in ledger.audit.instances(AuditQuery())) == 2)
    assert states(ledger) == ["received", "received", "failed"]
    [failed] = list(ledger.audit.instances(AuditQuery(state=ImageState.FAILED)))
    assert failed.sop_instance_uid == bad.sop_instance_uid
    assert "this program fails on it: KeyError" in (failed.detail or "")
    assert "KeyError: 'a bug'" in caplog.text, "with its traceback"
    assert bad.spool_path in list(spool.paths())


def test_what_was_given_up_is_failed_no_more_once_a_scan_could_register_it(spool: Spool, ledger: Ledger) -> None:
    refused = replace(spooled(spool, phantom_image(1, opacity=False)), accession="\udc80")
    registrar = Registrar(ledger, spool)
    registrar.received(refused)
    stop = threading.Event()
    stop.set()
    registrar.run(stop)
    assert states(ledger) == ["failed"]
    assert registrar.scan(first=True) == 1
    assert states(ledger) == ["received"]


def test_a_file_that_is_no_dicom_does_not_hold_up_the_others(tmp_path: Path, spool: Spool, ledger: Ledger) -> None:
    broken = spooled(spool, phantom_image(1, opacity=False))
    (tmp_path / "spool" / broken.spool_path).write_bytes(b"no DICOM")
    spooled(spool, phantom_image(2, opacity=False))
    with running(Registrar(ledger, spool)):
        wait_until(lambda: "received" in states(ledger))
    [failed] = list(ledger.audit.instances(AuditQuery(state=ImageState.FAILED)))
    assert failed.reason == "unregistrable"
    assert failed.detail == f"{broken.spool_path}: is damaged: not a DICOM file"
    assert failed.sha256 == hashlib.sha256(b"no DICOM").hexdigest()
    assert failed.received_at == broken.received_at
    assert len(list(spool.paths())) == 2


@pytest.mark.parametrize("days", [-30, 30])
def test_a_file_that_was_not_registered_is_found_again_although_the_clock_was_set_since(
    tmp_path: Path, ledger: Ledger, days: int
) -> None:
    clock = FakeClock()
    spool = Spool(tmp_path / "spool", low_water_bytes=0, clock=clock)
    registrar = Registrar(ledger, spool, clock=clock)
    clock.advance(days=days)
    registrar.received(spooled(spool, phantom_image(1, opacity=False)))  # no row: the loop does not run
    clock.advance(days=-days)
    assert registrar.scan() == 1
    assert registrar.scan() == 0


def test_a_file_is_found_by_a_later_scan_when_the_first_one_failed(
    tmp_path: Path, ledger: Ledger, engine: Engine
) -> None:
    clock = FakeClock()
    spool = Spool(tmp_path / "spool", low_water_bytes=0, clock=clock)
    registrar = Registrar(ledger, spool, clock=clock)
    registrar.received(spooled(spool, phantom_image(1, opacity=False)))
    clock.advance(days=30)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE instance RENAME TO hidden"))
    with pytest.raises(OperationalError):
        registrar.scan()
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE hidden RENAME TO instance"))
    assert registrar.scan() == 1


def test_a_refused_store_is_recorded(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool)
    with running(registrar):
        registrar.rejected(REFUSED)
        wait_until(lambda: states(ledger))
    assert states(ledger) == ["rejected"]


def test_of_refused_stores_beyond_a_few_the_audit_trail_holds_the_number(
    spool: Spool, engine: Engine, ledger: Ledger
) -> None:
    registrar = Registrar(ledger, spool)
    for number in range(3_000):
        registrar.rejected(replace(REFUSED, sop_instance_uid=f"1.2.{number}"))
    registrar.rejected(replace(REFUSED, peer="127.0.0.2"))
    with running(registrar):
        pass
    rows = list(ledger.audit.instances(AuditQuery()))
    assert [row.sop_instance_uid for row in rows] == [*(f"1.2.{n}" for n in range(REFUSALS)), "1.2.3", "1.2.2999"]
    assert [row.detail for row in rows[-2:]] == ["0xC000", f"0xC000, the last of {3_000 - REFUSALS} more like it"]
    with engine.connect() as connection:
        [[size]] = connection.execute(text("SELECT sum(length(detail)) FROM event"))
    assert size < 10_000  # bytes


def test_what_a_destination_reports_is_entered_and_of_an_unknown_transaction_only_said(
    spool: Spool, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    registrar = Registrar(ledger, spool)
    report = CommitmentReport(transaction_uid="2.25.7", committed=frozenset(), failed={})
    with running(registrar):
        assert registrar.committed(CommitmentAnswer(report=report, destinations=frozenset({"pacs"})))
        wait_until(lambda: "unknown transaction" in caplog.text)
    assert "transaction_uid=2.25.7 destination=pacs" in caplog.text


def test_a_report_that_finds_no_room_is_not_taken(spool: Spool, ledger: Ledger) -> None:
    registrar = Registrar(ledger, spool, remembered=3)
    report = CommitmentReport(transaction_uid="2.25.7", committed=frozenset(), failed={})
    answer = CommitmentAnswer(report=report, destinations=frozenset({"pacs"}))
    taken = [registrar.committed(answer) for _ in range(4)]
    assert taken == [True, True, True, False]


def test_lost_work_comes_back_though_no_other_role_runs(spool: Spool, engine: Engine) -> None:
    ledger = Ledger(engine, replace(POLICY, lease=timedelta(seconds=2)))
    registrar = Registrar(ledger, spool)
    registrar.received(spooled(spool, phantom_image(1, opacity=False)))
    with running(registrar):
        wait_until(lambda: ledger.analyses.claim(owner="killed", limit=1))
        wait_until(lambda: ledger.upkeep.counts()["analyse"] == {"ready": 1}, 30)
