"""A ledger that was used before is the same as one that is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest
from psycopg import OperationalError
from sqlalchemy import text

from tests import servers
from tests.lent_ledgers import LentLedgers
from tests.scp_node.ledger_node import Node, ledger_engine

Lend = Callable[[], AbstractContextManager[str]]


@pytest.fixture
def lend(running_postgres: servers.Postgres, ledger_template: str) -> Lend:
    return partial(LentLedgers(ledger_template).lend, running_postgres)


@contextmanager
def lent_node(lend: Lend) -> Iterator[Node]:
    with lend() as url, ledger_engine(url) as engine:
        yield Node(engine)


def used(lend: Lend, statement: str) -> str:
    """Have somebody use a ledger, and return its URL."""
    with lend() as url, ledger_engine(url) as engine:
        Node(engine).receive("1", "2")
        with engine.begin() as connection:
            connection.execute(text(statement))
    return url


def contents(node: Node) -> dict[str, object]:
    tables = [name for (name,) in node.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    return {name: node.rows(f"SELECT * FROM {name}") for name in tables}  # noqa: S608 - ours


def test_a_ledger_that_was_used_is_lent_again_as_a_new_one_would_be(lend: Lend) -> None:
    with lent_node(lend) as node:
        at_first, file = contents(node), node.engine.url
        node.receive("1", "2")
        node.analyse()
        node.rows("UPDATE clock SET jumps = 7 RETURNING id")
    with lent_node(lend) as node:
        assert node.engine.url == file
        assert contents(node) == at_first
        assert at_first["clock"]
        node.receive("3")
        assert node.rows("SELECT id FROM instance") == [(1,)]


def test_two_at_a_time_have_a_ledger_each(lend: Lend) -> None:
    with lend() as one, lend() as other:
        assert one != other


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE work ADD COLUMN extra integer",
        "DROP TABLE audit_feed",
        "ALTER TABLE work ALTER COLUMN queue TYPE varchar(70)",
        "CREATE INDEX more ON work (error)",
        "ALTER TABLE work RENAME TO hidden",
        "CREATE FUNCTION more() RETURNS integer AS 'SELECT 1' LANGUAGE sql",
        "CREATE SCHEMA more",
        "ALTER TABLE event ALTER COLUMN kind DROP NOT NULL",
        "ALTER TABLE work ADD CHECK (attempt < 100)",
    ],
)
def test_one_with_another_schema_is_not_lent_again(lend: Lend, change: str) -> None:
    before = used(lend, change)
    with lend() as url:
        assert url != before


def test_one_that_was_full_is_not_lent_again(lend: Lend) -> None:
    before = used(
        lend,
        "INSERT INTO event (at, kind, study_uid, sop_instance_uid, detail)"
        " SELECT now(), '', '', '', '{}' FROM generate_series(1, 20000)",
    )
    with lend() as url:
        assert url != before


def test_a_session_that_is_left_open_is_cut_off(lend: Lend, postgres_server: servers.Postgres) -> None:
    with lend() as url:
        left = postgres_server.connect(url.rpartition("/")[2])
        left.execute("BEGIN")
        left.execute("LOCK TABLE work")
    with pytest.raises(OperationalError):
        left.execute("SELECT 1")
    with lend() as again:
        assert again == url
