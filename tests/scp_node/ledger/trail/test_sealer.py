"""Events on PostgreSQL get their place in the chain after they were written: none is left out, none gets two."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from scp_node.domain import Priority
from scp_node.ledger import create_ledger_engine, upgrade
from scp_node.ledger.trail.chain import BrokenChainError
from scp_node.ledger.trail.events import record_event, recording
from scp_node.ledger.trail.sealer import LEASE
from tests.scp_node.ledger.projecting import follow, projector
from tests.scp_node.ledger_node import Node, ledger_engine, migrate


@pytest.fixture
def node(postgres_ledger: str) -> Iterator[Node]:
    """A ledger on PostgreSQL."""
    with ledger_engine(postgres_ledger) as engine:
        yield Node(engine)


def places(node: Node) -> list[Any]:
    """Return id and place of every event, by id."""
    return node.rows("SELECT id, seq FROM event ORDER BY id")


@contextmanager
def uncommitted(node: Node, study_uid: str) -> Iterator[Connection]:
    """Write an event in a transaction that commits at the end of the block."""
    with node.engine.begin() as connection:
        with recording(connection):
            record_event(connection, node.clock(), "rejected", study_uid=study_uid)
        yield connection


def test_an_event_waits_for_its_place_and_gets_it_from_the_sealer(node: Node) -> None:
    node.receive("1", "2")
    assert [place for _, place in places(node)] == [None, None]
    waiting = node.ledger.verifier.verify()
    assert (waiting.events, waiting.unsealed, waiting.head, waiting.problems) == (0, 2, "", ())
    assert not node.ledger.sealer(owner="one").step(), "fewer than a whole batch"
    assert places(node) == [(1, 1), (2, 2)]
    sealed = node.ledger.verifier.verify()
    assert (sealed.events, sealed.unsealed, sealed.problems) == (2, 0, ())


def test_an_event_whose_transaction_commits_after_a_higher_id_was_sealed_and_read_is_not_lost(node: Node) -> None:
    following, sealer = projector(node), node.ledger.sealer(owner="one")
    follow(following)
    with uncommitted(node, "1.early"):
        node.receive("2", study="1.late")
        sealer.step()
        assert places(node) == [(2, 1)]
        assert [each.study_uid for each in node.ledger.feed.next("collector")] == ["1.late"]
        assert following.step()
        start = node.ledger.figures.start().position
    assert not following.step()
    sealer.step()
    assert places(node) == [(1, 2), (2, 1)]
    assert following.step()
    fed = node.ledger.feed.next("collector")
    assert [each.study_uid for each in fed] == ["1.late", "1.early"]
    assert node.ledger.feed.taken("collector", fed)
    assert (node.ledger.feed.next("collector"), node.ledger.feed.backlog().events) == ([], 0)
    assert node.ledger.figures.happened(start).position == 2
    assert node.ledger.verifier.verify().problems == ()


def test_an_event_that_follows_from_another_one_stands_behind_it(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    node.report("pacs")
    node.ledger.seal()
    assert node.rows("SELECT kind FROM event ORDER BY seq") == [("received",), ("analysed",), ("reported",)]


def test_many_sealers_at_once_give_each_event_one_place(node: Node) -> None:
    def work(number: int) -> None:
        for image in range(6):
            node.receive(f"{number}.{image}", study=f"1.{number}")
            node.ledger.seal()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert sorted(place for _, place in places(node)) == list(range(1, 37))
    assert node.ledger.verifier.verify().problems == ()


def test_one_seals_at_a_time_and_another_goes_on_when_it_is_silent(node: Node) -> None:
    first, second = node.ledger.sealer(owner="first"), node.ledger.sealer(owner="second")
    node.receive("1")
    first.step()
    node.receive("2")
    second.step()
    assert places(node) == [(1, 1), (2, None)]
    node.clock.advance(seconds=LEASE.total_seconds())
    second.step()
    node.receive("3")
    first.step()
    assert places(node) == [(1, 1), (2, 2), (3, None)]


@pytest.mark.parametrize("statement", ["UPDATE event", "UPDATE chain"])
def test_a_sealer_that_ends_between_two_statements_leaves_nothing_half_done(node: Node, statement: str) -> None:
    node.receive("1", "2")

    def end(connection: Any, _cursor: object, said: str, *_: object) -> None:
        if said.startswith(statement):
            connection.connection.driver_connection.pgconn.finish()  # the server sees what it sees of a killed process

    event.listen(node.engine, "before_cursor_execute", end)
    with suppress(Exception):
        node.ledger.sealer(owner="killed").step()
    event.remove(node.engine, "before_cursor_execute", end)
    assert places(node) == [(1, None), (2, None)]
    node.ledger.sealer(owner="next").step()
    assert places(node) == [(1, 1), (2, 2)]
    assert node.ledger.verifier.verify().problems == ()


def test_a_process_that_ends_seals_what_is_left_whoever_has_the_lease(node: Node) -> None:
    node.receive("1")
    node.ledger.sealer(owner="another").step()
    node.receive("2")
    Node(node.engine, node.clock).ledger.close()
    assert places(node) == [(1, 1), (2, None)], "one that wrote nothing changes nothing"
    node.ledger.close()
    assert places(node) == [(1, 1), (2, 2)]


def test_an_event_that_waits_longer_than_a_minute_is_a_problem(node: Node) -> None:
    node.receive("1")
    node.clock.advance(seconds=60)
    assert node.ledger.verifier.verify().problems == ()
    node.clock.advance(seconds=1)
    [problem] = node.ledger.verifier.verify().problems
    assert problem.startswith("1 events have no place in the chain yet, event 1 for 61 s: start the node")
    assert node.ledger.verifier.unsealed().seconds == 61
    assert node.ledger.figures.state(idle=LEASE).unsealed.events == 1
    node.ledger.seal()
    assert node.ledger.verifier.verify().problems == ()


def test_what_an_unsealed_event_speaks_of_is_compared_too(node: Node) -> None:
    node.receive("1")
    node.rows("UPDATE instance SET study_uid = 'x' RETURNING id")
    assert node.ledger.verifier.verify().problems == ("image 1.2.3.1: its row is not what event 1 says",)
    node.rows("DELETE FROM event RETURNING id")
    assert node.ledger.verifier.verify().problems == ("table instance has 1 rows, the events speak of 0",)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("detail = '7'", "event 1 was edited before it was sealed: it cannot be read"),
        ("hash = 'abc'", "event 1 has a hash and no place in the chain"),
    ],
)
def test_what_this_program_did_not_write_is_not_sealed(node: Node, change: str, named: str) -> None:
    node.receive("1")
    node.rows(f"UPDATE event SET {change} RETURNING id")  # noqa: S608 - ours
    with pytest.raises(BrokenChainError, match=named):
        node.ledger.sealer(owner="one").step()
    assert node.ledger.verifier.verify().problems[0].startswith(named)
    node.ledger.close()  # says nothing: it is not the place for it


def test_results_whose_events_are_not_sealed_yet_are_counted_once(node: Node) -> None:
    node.receive("1")
    node.analyse()
    start = node.ledger.figures.start()
    assert sum(start.results.values()) == 0
    node.ledger.seal()
    assert sum(node.ledger.figures.happened(start.position).results.values()) == 1


def test_people_see_events_that_are_not_sealed_yet(node: Node) -> None:
    node.receive("1")
    assert [each.kind for each in node.ledger.audit.events("1.2.3")] == ["received"]
    assert node.ledger.worklist.standing().behind_seconds == 0
    node.clock.advance(seconds=2)
    assert node.ledger.worklist.standing().behind_seconds == 2


def test_an_upgrade_gives_old_events_their_places_and_keeps_the_positions_of_who_follows(postgres: str) -> None:
    upgraded(create_ledger_engine(postgres))


def test_an_upgrade_does_the_same_on_sqlite(tmp_path: Any) -> None:
    (tmp_path / "old.sqlite3").touch()
    upgraded(create_ledger_engine(f"sqlite:///{tmp_path / 'old.sqlite3'}"))


def upgraded(engine: Engine) -> None:
    """Upgrade a ledger with the events 10, 20 and 30, of which the list has two and a collector one."""
    migrate(engine, "0012")
    with engine.begin() as connection:
        written = text(
            "INSERT INTO event (id, at, kind, study_uid, sop_instance_uid, detail, hash)"
            " VALUES (:id, '2026-01-02 03:04:05', 'rejected', '', '', '{}', :hash)"
        )
        connection.execute(written, [{"id": number, "hash": f"h{number}"} for number in (10, 20, 30)])
        connection.execute(text("UPDATE chain SET length = 3, head = 'h30'"))
        connection.execute(text('UPDATE projection SET "position" = 25'))
        connection.execute(text('UPDATE audit_feed SET "position" = 10, taken = 1'))
    upgrade(engine)
    node = Node(engine)
    assert places(node) == [(10, 1), (20, 2), (30, 3)]
    assert node.rows('SELECT "position" FROM projection') == [(2,)]
    assert [each.id for each in node.ledger.feed.next("collector")] == [20, 30]
    assert node.ledger.feed.backlog().events == 2
    engine.dispose()
