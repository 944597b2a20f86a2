"""The schema: what migrations make is what the program expects."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, make_url, select, text
from sqlalchemy.exc import OperationalError

from scp_node.ledger import (
    LedgerError,
    LedgerGoneError,
    LedgerUnreachableError,
    WorklistQuery,
    check_revision,
    create_ledger_engine,
    is_begun,
    upgrade,
)
from scp_node.ledger.database import engine as engine_module
from scp_node.ledger.database import migrations
from scp_node.ledger.database.schema import metadata, result
from scp_node.ledger.search import ensure_index
from tests import servers
from tests.scp_node.ledger.projecting import followed
from tests.scp_node.ledger_node import Node

SEARCH_INDEX: Final = ("worklist_search", "ix_worklist_search")  # of SQLite, of PostgreSQL: SQLAlchemy knows neither


def test_the_migrations_make_exactly_the_tables_of_the_program(engine: Engine) -> None:
    with engine.connect() as connection:
        only_of_the_program = {"include_object": lambda _item, name, *_: not str(name).startswith(SEARCH_INDEX)}
        assert compare_metadata(MigrationContext.configure(connection, opts=only_of_the_program), metadata) == []


def test_the_search_has_an_index_of_trigrams_on_either_database(engine: Engine) -> None:
    with engine.connect() as connection:
        names = set(inspect(connection).get_table_names())
        indexes = {index["name"] for index in inspect(connection).get_indexes("worklist")}
    assert ("worklist_search" in names) != ("ix_worklist_search" in indexes)


def test_a_user_who_may_not_have_an_extension_gets_the_list_without_an_index(
    running_postgres: servers.Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    with running_postgres.database() as url:
        database = make_url(url).database or ""
        running_postgres.execute(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'plain') THEN CREATE ROLE plain LOGIN;"
            " END IF; END $$"
        )
        running_postgres.execute("CREATE SCHEMA own AUTHORIZATION plain", database)
        running_postgres.execute(f"ALTER ROLE plain IN DATABASE {database} SET search_path = own")
        engine = create_ledger_engine(url.replace("postgres@", "plain@"))
        upgrade(engine)
        with engine.begin() as connection:
            assert not ensure_index(connection)
        node = Node(engine)
        node.receive("1", patient_id="P77")
        [row] = followed(node, WorklistQuery(search="p77"))
        assert row.patient_id == "P77"
        engine.dispose()
    assert "search of studies has no index" in caplog.text


def test_a_second_upgrade_changes_nothing(engine: Engine) -> None:
    upgrade(engine)
    check_revision(engine)


def test_a_database_without_a_schema_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    engine = create_ledger_engine(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    with pytest.raises(LedgerError, match="db upgrade"):
        check_revision(engine)
    engine.dispose()


def test_a_schema_of_a_newer_program_is_not_touched(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match="newer than this program"):
        upgrade(engine)


def test_sqlite_keeps_every_commit_through_a_power_cut(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").touch()
    engine = create_ledger_engine(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    with engine.connect() as connection:
        names = ("journal_mode", "synchronous")
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_a_file_that_is_gone_is_not_made_anew_and_one_that_took_its_place_is_not_written_to(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite3"
    engine = create_ledger_engine(f"sqlite:///{file}")
    upgrade(engine)
    file.rename(tmp_path / "away.sqlite3")
    with pytest.raises(LedgerGoneError, match="is gone"):
        upgrade(engine, begin=False)
    with pytest.raises(OperationalError), engine.begin() as connection:
        connection.execute(text("UPDATE clock SET jumps = 1"))
    assert not file.exists()
    file.touch()  # another, empty database
    with pytest.raises(OperationalError, match="no such table"), engine.begin() as connection:
        connection.execute(text("UPDATE clock SET jumps = 1"))
    with pytest.raises(LedgerGoneError, match="is empty"):
        upgrade(engine, begin=False)
    engine.dispose()


def test_to_look_for_a_database_makes_no_folder_and_to_upgrade_it_does(tmp_path: Path) -> None:
    engine = create_ledger_engine(f"sqlite:///{tmp_path}/new/ledger.sqlite3")
    assert not is_begun(engine)
    with pytest.raises(LedgerError, match="is not there"):
        check_revision(engine)
    assert list(tmp_path.iterdir()) == []
    upgrade(engine)
    assert is_begun(engine)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    engine.dispose()


def test_an_empty_file_is_no_ledger_yet(engine: Engine, tmp_path: Path) -> None:
    assert is_begun(engine)
    (tmp_path / "empty.sqlite3").touch()
    empty = create_ledger_engine(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    assert not is_begun(empty)
    empty.dispose()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = create_ledger_engine(f"sqlite:///{tmp_path}/file/ledger.sqlite3")
    with pytest.raises(LedgerUnreachableError, match=r"ledger\.sqlite3 cannot be made: .*/file is not a folder"):
        upgrade(engine)


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://user:sec/ret@host:1/x", "postgresql+psycopg://user@host:secret/x"]
)
def test_a_password_that_is_taken_for_a_port_is_not_printed(url: str) -> None:
    with pytest.raises(LedgerError) as raised:
        upgrade(create_ledger_engine(url))
    assert "ret" not in str(raised.value).replace("server", "")


@pytest.mark.parametrize("url", ["mysql://localhost/x", "no url at all", "postgresql+nodriver://localhost/x"])
def test_a_database_that_cannot_be_used_is_named_by_its_key(url: str) -> None:
    with pytest.raises(LedgerError, match=r"database\.url"):
        create_ledger_engine(url)


def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_file_system", lambda _folder: "nfs4")
    with pytest.raises(LedgerError, match="nfs4"):
        create_ledger_engine(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")


def test_an_unreachable_server_is_an_error_without_the_password() -> None:
    engine = create_ledger_engine("postgresql+psycopg://user:secret@127.0.0.1:1/x")
    with pytest.raises(LedgerError) as raised:
        upgrade(engine)
    assert "secret" not in str(raised.value)


def test_results_from_before_there_were_regions_have_none(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    path.touch()
    engine = create_ledger_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with closing(sqlite3.connect(path)) as old, old:  # foreign keys are not enforced here: no other row is needed
        old.execute(
            "INSERT INTO result (instance_id, run, bundle, bundle_digest, outcome, detail, notes, input_stats, timings,"
            " at) VALUES (1, 1, 'model', 'sha256:0', 'finding', '', '[]', '{}', '{}', '2026-01-02 03:04:05')"
        )
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(select(result.c.regions)).scalars().all() == [[]]
    engine.dispose()
