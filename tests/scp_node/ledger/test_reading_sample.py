"""The reading sample: drawn once a day, by nothing that knows the result, and weighted so that figures are unbiased."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any, Final

import numpy as np
import pytest

from scp_node.domain import Actor, Finding, NotAnalysed, Reason
from scp_node.ledger import Answer, Drawn, SampleQuery, Truth
from scp_node.ledger.reading_sample import rank
from tests.scp_node.ledger.test_feedback import AGREE, NEGATIVE, POSITIVE, UNDETERMINED, receive
from tests.scp_node.ledger_node import FakeClock, Node, ledger_engine

DAY: Final = date(2026, 3, 1)
ACTOR: Final = Actor(name="dr-a", address="")
_FRESH: Final = count(1)


def at(node: Node, day: int, hour: float = 12) -> None:
    node.clock.now = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=day - 1, hours=hour)


def day_of(node: Node, day: int, *outcomes: Finding | NotAnalysed, **changes: Any) -> list[str]:
    """Report studies with these outcomes on a day of March; return their UIDs."""
    at(node, day)
    uids = [f"1.2.9.{next(_FRESH)}" for _ in outcomes]
    for uid, outcome in zip(uids, outcomes, strict=True):
        receive(node, uid, **changes)
        node.analyse(outcome)
    node.clock.advance(seconds=10)
    while node.report("pacs"):
        pass
    return uids


def draw(node: Node, positive: int = 2, negative: int = 3) -> list[Drawn]:
    drawn = []
    while day := node.ledger.reading_sample.draw(positive=positive, negative=negative):
        drawn.append(day)
    return drawn


def answer(node: Node, uid: str, truth: Truth, reader: str = "dr-a") -> None:
    [subject] = node.ledger.feedback.subjects(uid)
    node.ledger.feedback.give(subject.id, reader, Answer(truth=truth), actor=ACTOR)


@pytest.fixture
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A fresh ledger on SQLite."""
    with ledger_engine(tmp_path_factory.mktemp("ledger") / "ledger.sqlite3") as engine:
        yield Node(engine, FakeClock(datetime(2026, 3, 1, tzinfo=UTC)))


def drawn_uids(node: Node) -> set[str]:
    rows = node.rows(
        "SELECT study_uid FROM study_patient p JOIN reading_frame f ON f.study_patient_id = p.id"
        " WHERE weight IS NOT NULL"
    )
    return {uid for (uid,) in rows}


def test_the_smallest_hashes_of_each_stratum_are_drawn_when_the_day_is_over(node: Node) -> None:
    positive = day_of(node, 1, *[POSITIVE] * 4)
    negative = day_of(node, 1, *[NEGATIVE] * 5, UNDETERMINED)
    none = day_of(node, 1, NotAnalysed(reason=Reason.VIEW))
    assert draw(node) == []
    at(node, 2, 0.99)
    assert draw(node) == []  # a report of the evening may still be on its way
    at(node, 2, 1)
    assert draw(node) == [Drawn(day=DAY, positive=2, negative=3)]
    assert draw(node) == []
    expected = {*sorted(positive, key=_rank)[:2], *sorted(negative, key=_rank)[:3]}
    assert drawn_uids(node) == expected
    rows = node.rows("SELECT weight FROM reading_frame WHERE weight IS NOT NULL ORDER BY weight")
    assert [weight for (weight,) in rows] == [2, 2, 2, 2, 2]
    data = node.ledger.reading_sample.data(SampleQuery())
    assert (data.days, data.positive, data.negative, data.undetermined) == (1, 4, 6, 1)
    assert node.rows("SELECT positive, negative, without_result FROM reading_day") == [(4, 6, len(none))]
    node.ledger.seal()
    assert node.ledger.verifier.verify().problems == ()


def _rank(uid: str) -> str:
    return rank(uid, "key of P1")


def test_a_hash_is_the_same_on_every_host_and_in_every_release() -> None:
    assert rank("1.2.3", "key of P1") == "809d6eb9ce3bb888cd5f3e77653fe76803f9b368bc275f8b21f02e7eda3de2db"
    assert rank("1.2.3", "key of P2") != rank("1.2.3", "key of P1")


def test_days_are_drawn_in_their_order_and_days_without_reports_are_passed(lone: Node) -> None:
    day_of(lone, 1, POSITIVE)
    day_of(lone, 4, NEGATIVE, NEGATIVE)
    at(lone, 9)
    assert draw(lone) == [
        Drawn(day=DAY, positive=1, negative=0),
        Drawn(day=date(2026, 3, 4), positive=0, negative=2),
    ]


def test_what_was_drawn_stays_whatever_comes_later(lone: Node) -> None:
    [uid] = day_of(lone, 1, NEGATIVE)
    at(lone, 2)
    draw(lone)
    before = lone.rows("SELECT * FROM reading_frame")
    receive(lone, uid, "later")
    lone.analyse(POSITIVE)
    lone.clock.advance(seconds=10)
    assert lone.report("pacs") is not None
    at(lone, 3)
    assert draw(lone) == [Drawn(day=date(2026, 3, 2), positive=0, negative=0)]  # no study was new
    assert lone.rows("SELECT * FROM reading_frame") == before


def test_a_day_that_is_drawn_late_is_drawn_as_it_was(lone: Node) -> None:
    [uid] = day_of(lone, 1, NEGATIVE)
    at(lone, 2)
    receive(lone, uid, "later")
    lone.analyse(POSITIVE)
    lone.clock.advance(seconds=10)
    assert lone.report("pacs") is not None
    at(lone, 30)
    assert draw(lone)[0] == Drawn(day=DAY, positive=0, negative=1)
    assert lone.rows("SELECT verdict, report_version FROM reading_frame") == [("not-detected", 1)]


def test_the_newest_report_of_the_day_counts(lone: Node) -> None:
    [uid] = day_of(lone, 1, NEGATIVE)
    receive(lone, uid, "later")
    lone.analyse(POSITIVE)
    lone.clock.advance(seconds=10)
    assert lone.report("pacs") is not None
    at(lone, 2)
    assert draw(lone) == [Drawn(day=DAY, positive=1, negative=0)]


def test_a_midnight_parts_two_days(lone: Node) -> None:
    at(lone, 1, 23.9999)
    receive(lone, "1.2.9.1.1")
    lone.analyse(POSITIVE)
    lone.clock.now = datetime(2026, 3, 2, tzinfo=UTC)
    lone.clock.advance(seconds=10)
    assert lone.report("pacs") is not None
    at(lone, 3)
    assert [each.day for each in draw(lone)] == [date(2026, 3, 2)]  # the day of its report


def test_nobody_is_drawn_from_an_empty_stratum_and_all_from_a_small_one(lone: Node) -> None:
    day_of(lone, 1, NEGATIVE, NEGATIVE)
    at(lone, 2)
    assert draw(lone, positive=5, negative=10) == [Drawn(day=DAY, positive=0, negative=2)]
    assert lone.rows("SELECT weight FROM reading_frame") == [(1.0,), (1.0,)]


def test_a_stratum_of_which_none_are_wanted_is_counted(lone: Node) -> None:
    day_of(lone, 1, NEGATIVE, POSITIVE)
    at(lone, 2)
    assert draw(lone, positive=0, negative=0) == [Drawn(day=DAY, positive=0, negative=0)]
    data = lone.ledger.reading_sample.data(SampleQuery())
    assert (data.positive, data.negative, data.sample) == (1, 1, ())


def test_tasks_come_oldest_first_until_somebody_knows(lone: Node) -> None:
    first, second = day_of(lone, 1, POSITIVE)[0], day_of(lone, 2, NEGATIVE)[0]
    at(lone, 3)
    draw(lone)
    sample = lone.ledger.reading_sample

    def tasks(reader: str = "Dr-A", *, again: bool = False) -> list[str]:
        return [each.study_uid for each in sample.tasks(reader, since=DAY, most=10, again=again)]

    assert tasks() == [first, second]
    assert [each.study_uid for each in sample.tasks("dr-a", since=DAY, most=1)] == [first]
    assert [each.study_uid for each in sample.tasks("dr-a", since=date(2026, 3, 2), most=9)] == [second]
    answer(lone, first, Truth.UNKNOWN)
    assert (tasks(), tasks("dr-b")) == ([second], [first, second])  # unsure: another one may know
    answer(lone, first, Truth.POSITIVE, "dr-b")
    assert tasks("dr-c") == [second]
    assert tasks("dr-c", again=True) == [first, second]
    assert tasks("dr-b", again=True) == [second]
    [task] = [each for each in sample.tasks("dr-c", since=DAY, most=9, again=True) if each.study_uid == first]
    assert (task.readers, task.patient_id, task.accession, task.day) == (2, "P1", "A1", DAY)


def test_a_subject_knows_whether_it_is_drawn(lone: Node) -> None:
    uids = day_of(lone, 1, *[NEGATIVE] * 4)
    at(lone, 2)
    draw(lone, negative=1)
    drawn = {uid for uid in uids if lone.ledger.reading_sample.is_drawn(lone.ledger.feedback.subjects(uid)[0].id)}
    assert drawn == drawn_uids(lone)
    assert len(drawn) == 1


def test_the_data_of_a_filter(lone: Node) -> None:
    view = b"\x18\x00\x01\x51CS\x02\x00PA"
    one = day_of(lone, 1, POSITIVE, NEGATIVE, calling_ae="CR1", header=view)
    day_of(lone, 2, POSITIVE, calling_ae="CR2")
    day_of(lone, 3, NEGATIVE, calling_ae="CR2")
    at(lone, 5)
    draw(lone)
    sample = lone.ledger.reading_sample

    def counts(**values: Any) -> tuple[int, int]:
        data = sample.data(SampleQuery(**values))
        return data.positive, data.negative

    assert counts() == (2, 2)
    assert counts(first=date(2026, 3, 2)) == (1, 1)
    assert counts(last=date(2026, 3, 2)) == (2, 1)
    assert counts(calling_ae="CR1") == (1, 1)
    assert counts(view="PA") == (1, 1)
    assert counts(bundle="test-model-1.0") == (2, 2)
    assert counts(bundle="other") == (0, 0)
    assert sample.choices() == (["CR1", "CR2"], ["PA"], ["test-model-1.0"])
    answer(lone, one[0], Truth.NEGATIVE)
    answer(lone, one[1], Truth.POSITIVE)
    answer(lone, one[1], Truth.POSITIVE, "dr-b")
    answer(lone, one[1], Truth.UNKNOWN, "dr-c")
    data = sample.data(SampleQuery(calling_ae="CR1"))
    assert (data.positives_right, data.positives_wrong, data.positives_unclear) == (0, 1, 0)
    assert [(each.is_positive, each.truth, each.readers) for each in data.sample] == [
        (True, Truth.NEGATIVE, 1),
        (False, Truth.POSITIVE, 3),
    ]
    assert [(each.first, each.second, each.truths) for each in data.pairs] == [
        ("dr-a", "dr-b", (Truth.POSITIVE, Truth.POSITIVE))
    ]
    assert (data.sample[0].probability, data.sample[0].threshold, data.sample[0].weight) == (0.9, 0.5, 1)


def test_an_answer_on_the_day_itself_counts_when_the_day_is_over(lone: Node) -> None:
    uids = day_of(lone, 1, POSITIVE, POSITIVE, POSITIVE)
    for uid in uids:
        [subject] = lone.ledger.feedback.subjects(uid)
        lone.ledger.feedback.give(subject.id, "dr-a", AGREE, actor=ACTOR)
    assert lone.ledger.reading_sample.data(SampleQuery()).positives_right == 0
    at(lone, 2)
    draw(lone)
    data = lone.ledger.reading_sample.data(SampleQuery())
    assert (data.positives_right, len(data.sample)) == (3, 2)


def test_two_hosts_draw_a_day_once(node: Node) -> None:
    day_of(node, 1, *[NEGATIVE] * 3)
    at(node, 2)
    other = Node(node.engine, clock=node.clock)
    drawn = [each.ledger.reading_sample.draw(positive=1, negative=1) for each in (node, other)]
    assert drawn == [Drawn(day=DAY, positive=0, negative=1), None]


def test_a_sample_that_was_changed_past_the_program_is_found(lone: Node) -> None:
    day_of(lone, 1, *[NEGATIVE] * 4)
    at(lone, 2)
    draw(lone, negative=2)
    with lone.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE reading_frame SET weight = 1 WHERE weight IS NULL")
    assert lone.ledger.verifier.verify().problems[0].startswith("reading sample of 2026-03-01: its rows are not what")
    with lone.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM reading_frame")
    assert "table reading_frame has 0 rows, the events speak of 4" in lone.ledger.verifier.verify().problems


def test_the_draw_favours_nobody() -> None:
    """Of many days with ten studies each, every place in the order of arrival is drawn about as often."""
    numbers = random.Random(3)
    counts = np.zeros(10)
    for _ in range(4_000):
        uids = [f"1.2.{numbers.randrange(10**12)}" for _ in range(10)]
        for uid in sorted(uids, key=_rank)[:3]:
            counts[uids.index(uid)] += 1
    assert np.abs(counts / 1_200 - 1).max() < 0.11
