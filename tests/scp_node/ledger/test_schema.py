"""The schema: what migrations make is what the program expects."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from scp_node.ledger import LedgerError, check_revision, create_ledger_engine, upgrade
from scp_node.ledger import engine as engine_module
from scp_node.ledger.schema import metadata


def test_the_migrations_make_exactly_the_tables_of_the_program(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


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
    engine = create_ledger_engine(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    with engine.connect() as connection:
        names = ("journal_mode", "synchronous")
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


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
