"""The trail as people read it: by person, kind, study and time, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import pytest
from sqlalchemy import Engine, event, text

from scp_node.domain import Actor
from scp_node.ledger import ANY_PERSON, JournalEvent, JournalQuery
from tests.scp_node.ledger_node import Node

ADA: Final = Actor(name="ada", address="192.0.2.1")
BOB: Final = Actor(name="bob", address="192.0.2.2")
QUERIES: Final = {
    "all": (JournalQuery(), 8),
    "of any person": (JournalQuery(person=ANY_PERSON), 6),
    "of one": (JournalQuery(person="ada"), 4),
    "of one, of a kind": (JournalQuery(person="ada", kind="web-viewed"), 3),
    "of a kind": (JournalQuery(kind="web-viewed"), 5),
    "of a study": (JournalQuery(study_uid="1.2.3"), 6),
    "of nobody": (JournalQuery(person="eve"), 0),
}


@pytest.fixture
def told(sqlite_engine: Engine) -> Node:
    return tell(Node(sqlite_engine))


def tell(node: Node) -> Node:
    """Two images, then visits, a minute between two of them."""
    node.receive("1")
    node.clock.advance(seconds=60)
    node.receive("2", study="4.5.6")
    for actor, study in ((ADA, "1.2.3"), (BOB, "1.2.3"), (ADA, "1.2.3"), (ADA, "4.5.6"), (BOB, "1.2.3")):
        node.clock.advance(seconds=60)
        node.ledger.visits.note("web-viewed", actor, study_uid=study)
    node.ledger.visits.note("web-exported", ADA, study_uid="1.2.3", detail={"rows": 7})
    return node


@pytest.mark.parametrize("name", QUERIES)
def test_each_question_is_answered_newest_first_on_pages_without_gaps(told: Node, name: str) -> None:
    query, number = QUERIES[name]
    whole = told.ledger.journal.page(query).events
    assert len(whole) == number
    assert [each.id for each in whole] == sorted((each.id for each in whole), reverse=True)
    paged: list[JournalEvent] = []
    before: tuple[datetime, int] | None = None
    while True:
        page = told.ledger.journal.page(query, before=before, most=1)
        paged += page.events
        if page.next_key is None:
            break
        before = page.next_key
    assert tuple(paged) == whole


def test_an_event_says_who_where_and_what(told: Node) -> None:
    newest = told.ledger.journal.page(JournalQuery()).events[0]
    assert (newest.kind, newest.person, newest.address, newest.details) == (
        "web-exported",
        "ada",
        "192.0.2.1",
        (("rows", "7"),),
    )
    assert len(newest.hash) == 64


def test_both_databases_answer(engine: Engine) -> None:
    journal = tell(Node(engine)).ledger.journal
    for query, number in QUERIES.values():
        first = journal.page(query, most=2)
        rest = journal.page(query, before=first.next_key).events if first.next_key else ()
        assert len(first.events) + len(rest) == number, query
    assert [each.times for each in journal.visitors("1.2.3")] == [2, 2]
    assert len(journal.kinds()) == 3


def test_a_time_is_a_question_too(told: Node) -> None:
    now = told.clock.now
    since = told.ledger.journal.page(JournalQuery(since=now - timedelta(seconds=60))).events
    until = told.ledger.journal.page(JournalQuery(until=now - timedelta(seconds=60))).events
    assert (len(since), len(until)) == (3, 5)


def test_who_saw_a_study_is_known(told: Node) -> None:
    found = told.ledger.journal.visitors("1.2.3")
    assert [(each.person, each.times) for each in found] == [("bob", 2), ("ada", 2)]
    assert found[1].last_at - found[1].first_at == timedelta(seconds=120)
    assert told.ledger.journal.visitors("7.8.9") == []


def test_the_kinds_are_those_that_there_are(told: Node) -> None:
    assert told.ledger.journal.kinds() == ["received", "web-exported", "web-viewed"]


def test_the_column_that_is_searched_cannot_be_edited_without_a_trace(told: Node) -> None:
    with told.engine.begin() as connection:
        connection.execute(text("UPDATE event SET actor = 'eve' WHERE id = 3"))
    [problem] = told.ledger.verifier.verify().problems
    assert problem == "event 3 was edited: its column actor is not who its contents name"


@pytest.fixture
def statements(sqlite_engine: Engine) -> Iterator[list[tuple[str, object]]]:
    seen: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        seen.append((statement, parameters))

    event.listen(sqlite_engine, "before_cursor_execute", note)
    yield seen
    event.remove(sqlite_engine, "before_cursor_execute", note)


@pytest.mark.parametrize("name", QUERIES)
def test_each_question_has_its_index_and_sorts_no_more_than_a_study(
    sqlite_engine: Engine, statements: list[tuple[str, object]], name: str
) -> None:
    node = Node(sqlite_engine)
    statements.clear()
    node.ledger.journal.page(QUERIES[name][0], before=(node.clock.now, 7))
    [(statement, parameters)] = [each for each in statements if each[0].startswith("SELECT")]
    with sqlite_engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()  # type: ignore[arg-type]
    steps = " ".join(str(row[-1]) for row in plan)
    assert "USING INDEX ix_event_" in steps, steps
    assert ("TEMP B-TREE" in steps) == (QUERIES[name][0].study_uid != ""), steps
