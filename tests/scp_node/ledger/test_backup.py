"""A copy of an SQLite ledger on disk: whole, checked, and taken while others write."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import text

from scp_node.ledger import LedgerError, WorklistQuery, create_ledger_engine, upgrade
from scp_node.ledger.backup import backup_ledger
from tests.scp_node.ledger.projecting import followed
from tests.scp_node.ledger_node import Node
from tests.waiting import wait_until


@pytest.fixture
def embedded(tmp_path: Path) -> Node:
    engine = create_ledger_engine(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    upgrade(engine)
    return Node(engine)


def restored(file: Path) -> Node:
    return Node(create_ledger_engine(f"sqlite:///{file}"))


def test_a_backup_holds_what_was_there_and_is_one_private_file(embedded: Node, tmp_path: Path) -> None:
    embedded.receive("1", "2")
    listed = followed(embedded)
    (tmp_path / "to").mkdir()
    file = tmp_path / "to" / "backup.sqlite3"
    verification = backup_ledger(embedded.engine, file)
    assert (verification.events, verification.problems) == (2, ())
    assert [path.name for path in file.parent.iterdir()] == ["backup.sqlite3"]
    assert file.stat().st_mode & 0o777 == 0o600
    copy = restored(file)
    assert copy.audit() == embedded.audit()
    assert list(copy.ledger.worklist.rows(WorklistQuery(search="a1"))) == listed
    assert copy.analyse() == 2
    copy.engine.dispose()
    embedded.engine.dispose()


def test_writers_are_not_held_up_and_the_copy_is_one_state_of_the_ledger(embedded: Node, tmp_path: Path) -> None:
    stop = threading.Event()
    numbers = count()

    def write() -> None:
        while not stop.is_set():
            name = str(next(numbers))
            embedded.receive(name, study=f"1.{name}", header=200_000 * b"h")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: next(numbers) > 20)
        found = [backup_ledger(embedded.engine, tmp_path / f"{number}.sqlite3") for number in range(3)]
    finally:
        stop.set()
        writer.join()
    assert [each.problems for each in found] == [(), (), ()]
    assert 0 < found[0].events <= found[1].events <= found[2].events
    for number, verification in enumerate(found):
        copy = restored(tmp_path / f"{number}.sqlite3")
        assert len(copy.audit()) == verification.events
        copy.engine.dispose()
    embedded.engine.dispose()


def test_a_file_that_is_there_is_kept_and_the_database_itself_is_never_replaced(embedded: Node, tmp_path: Path) -> None:
    file = tmp_path / "backup.sqlite3"
    file.write_text("precious")
    with pytest.raises(LedgerError, match=r"backup\.sqlite3 is there already"):
        backup_ledger(embedded.engine, file)
    assert file.read_text() == "precious"
    assert backup_ledger(embedded.engine, file, overwrite=True).problems == ()
    with pytest.raises(LedgerError, match=r"ledger\.sqlite3 is there already"):
        backup_ledger(embedded.engine, tmp_path / "ledger.sqlite3", overwrite=True)
    embedded.engine.dispose()


def test_what_cannot_be_written_leaves_nothing(embedded: Node, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="not written"):
        backup_ledger(embedded.engine, tmp_path / "nowhere" / "backup.sqlite3")
    embedded.engine.dispose()


def test_the_backup_of_a_ledger_that_was_altered_says_so_and_is_kept(embedded: Node, tmp_path: Path) -> None:
    embedded.receive("1", "2")
    with embedded.engine.begin() as connection:
        connection.execute(text("UPDATE event SET kind = 'x' WHERE id = 2"))
    [problem] = backup_ledger(embedded.engine, tmp_path / "backup.sqlite3").problems
    assert problem.startswith("event 2 was edited")
    assert (tmp_path / "backup.sqlite3").exists()
    embedded.engine.dispose()


def test_a_damaged_database_gives_no_backup(embedded: Node, tmp_path: Path) -> None:
    embedded.receive("1", header=500_000 * b"h")
    with embedded.engine.begin() as connection:  # an index that does not hold all rows, as a broken disk leaves it
        connection.execute(text("PRAGMA writable_schema = ON"))
        connection.execute(
            text(
                "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE"
                " name = 'ix_event_study_uid') WHERE name = 'ix_instance_study_uid'"
            )
        )
    embedded.engine.dispose()
    with pytest.raises(LedgerError, match=r"damaged|malformed"):
        backup_ledger(embedded.engine, tmp_path / "backup.sqlite3")
    assert not list(tmp_path.glob("*backup*"))
    embedded.engine.dispose()


def test_a_postgresql_site_is_told_which_command_to_use(postgres: str, tmp_path: Path) -> None:
    engine = create_ledger_engine(postgres.replace("postgres@", "postgres:secret@"))
    with pytest.raises(LedgerError, match=r"pg_dump --format=custom --host=127\.0\.0\.1") as raised:
        backup_ledger(engine, tmp_path / "backup.dump")
    assert "secret" not in str(raised.value)
    engine.dispose()
