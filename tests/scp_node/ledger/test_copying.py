"""A ledger moves into another database: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from scp_node.domain import NotAnalysed, Reason
from scp_node.ledger import LedgerError, create_ledger_engine, upgrade
from scp_node.ledger.copying import copy_ledger
from scp_node.ledger.database.schema import RECORDS, chain
from tests import servers
from tests.scp_node.ledger.projecting import followed
from tests.scp_node.ledger.test_companions import OVERLAY, claimed, reported_with_overlay, sent
from tests.scp_node.ledger_node import LEASE, SHADOW, Node, ledger_engine


@pytest.fixture
def target(running_postgres: servers.Postgres, ledger_template: str) -> Iterator[Engine]:
    """An empty PostgreSQL database with the schema."""
    with running_postgres.database(ledger_template) as url, ledger_engine(url) as engine:
        yield engine


@pytest.fixture
def filled(node: Node) -> Node:
    """A ledger with something in every table that the paths of an image fill."""
    reported_with_overlay(node, "pacs", "archive")
    node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
    node.ledger.deliveries.bury(claimed(node, "archive"), status=0xA900, detail="não \x01")
    node.receive("2", patient_id="患者")
    node.analyse(NotAnalysed(reason=Reason.VIEW, detail="ViewPosition LL"))
    node.clock.advance(seconds=11)
    assert node.report("pacs") is not None  # a second version, which refers to the first
    node.receive("9", study="7.8.9")
    node.analyse(shadow=SHADOW)
    assert node.try_out() == 1
    node.receive("3", study="4.5.6")
    node.ledger.seal()
    return node


def contents(engine: Engine) -> dict[str, list[Any]]:
    """Return all rows of all tables, as the program reads them."""
    with engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in RECORDS
        }


def test_every_row_arrives_as_it_was_and_the_work_goes_on_there(filled: Node, target: Engine) -> None:
    before = contents(filled.engine)
    copied = copy_ledger(filled.engine, target)
    assert contents(target) == before == contents(filled.engine)
    assert {name: len(rows) for name, rows in before.items()} == copied.rows
    assert copied.rows["report"] == 2
    assert (copied.events, copied.head) == (copied.rows["event"], filled.ledger.verifier.end().head)

    moved = Node(target, filled.clock)
    moved.receive("4", study="4.5.6")  # new rows get ids after the copied ones
    assert moved.analyse() == 2
    assert [task.file for task in sent(moved, "pacs")] == [b"1-2", OVERLAY.file]  # the newer report comes first
    moved.ledger.upkeep.requeue()
    assert claimed(moved, "archive").sop_instance_uid == before["report"][0][7]
    assert moved.ledger.verifier.verify().problems == ()


def test_the_list_of_studies_is_not_copied_but_made_again(filled: Node, target: Engine) -> None:
    listed = followed(filled)
    followed(Node(target))  # a web page looked at the empty database before
    copied = copy_ledger(filled.engine, target)
    assert not {"worklist", "film", "daily", "projection"} & set(copied.rows)
    moved = Node(target, filled.clock)
    assert not moved.ledger.worklist.standing().is_complete
    assert followed(moved) == listed


def test_an_embedded_database_can_be_the_target_too(filled: Node, tmp_path: Path) -> None:
    back = create_ledger_engine(f"sqlite:///{tmp_path / 'back.sqlite3'}")
    upgrade(back)
    copy_ledger(filled.engine, back)
    assert contents(back) == contents(filled.engine)
    back.dispose()


@pytest.mark.parametrize("written", ["event", "clock"])
def test_a_database_that_was_used_is_refused(filled: Node, target: Engine, written: str) -> None:
    if written == "event":
        Node(target).ledger.deliveries.destination_failed("pacs", pause=lambda _: LEASE, enough=1, detail="down")
    else:
        with target.begin() as connection:
            connection.execute(text("UPDATE clock SET jumps = 1"))
    before = contents(target)
    with pytest.raises(LedgerError, match="of the target has rows: give an empty database"):
        copy_ledger(filled.engine, target)
    assert contents(target) == before


def test_nothing_is_copied_while_a_role_holds_work(filled: Node, target: Engine) -> None:
    filled.ledger.analyses.claim(owner="w", limit=1)
    with filled.engine.begin() as connection:  # as long as that lasts by the clock of the database, not of the test
        connection.execute(text("UPDATE work SET lease_until = '2999-01-01' WHERE state = 'leased'"))
    with pytest.raises(LedgerError, match="stop every role"):
        copy_ledger(filled.engine, target)
    assert contents(target)["event"] == []


def test_a_copy_that_breaks_off_leaves_an_empty_database_and_may_be_tried_again(filled: Node, target: Engine) -> None:
    with target.begin() as connection:
        connection.execute(text("ALTER TABLE work ALTER COLUMN queue TYPE varchar(3)"))  # the last table but two
    with pytest.raises(LedgerError, match="value too long"):
        copy_ledger(filled.engine, target)
    assert contents(target)["instance"] == contents(target)["event"] == []
    with target.begin() as connection:
        connection.execute(text("ALTER TABLE work ALTER COLUMN queue TYPE varchar(64)"))
    assert copy_ledger(filled.engine, target).rows["instance"] == len(contents(filled.engine)["instance"])


def test_a_row_that_arrives_otherwise_than_it_left_is_found(filled: Node, target: Engine) -> None:
    with target.begin() as connection:
        connection.execute(
            text("CREATE FUNCTION lie() RETURNS trigger AS 'BEGIN NEW.attempts = 7; RETURN NEW; END' LANGUAGE plpgsql")
        )
        connection.execute(text("CREATE TRIGGER lie BEFORE INSERT ON delivery FOR EACH ROW EXECUTE FUNCTION lie()"))
    with pytest.raises(LedgerError, match="table delivery arrived as 5 rows of 5, or altered"):
        copy_ledger(filled.engine, target)
    assert contents(target)["delivery"] == []


def test_a_chain_that_is_broken_is_not_carried_on(filled: Node, target: Engine) -> None:
    with filled.engine.begin() as connection:
        connection.execute(text("UPDATE event SET kind = 'x' WHERE id = 2"))
    with pytest.raises(LedgerError, match="event 2 was edited"):
        copy_ledger(filled.engine, target)
    with target.connect() as connection:
        assert connection.scalar(select(chain.c.length)) == 0
