"""What readers say: one answer of each, every change in the trail, and the truth that follows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine

from scp_node.domain import Actor, Finding, NotAnalysed, Outcome, Reason, Verdict
from scp_node.ledger import (
    Answer,
    Assessment,
    FeedbackError,
    ImportedTruth,
    Opinion,
    Source,
    Truth,
    WorklistQuery,
)
from scp_node.ledger.feedback import feedback_of
from scp_node.ledger.feedback_rows import consensus, truth_of
from tests.scp_node.ledger.projecting import followed
from tests.scp_node.ledger_node import MODEL, Node, ledger_engine

ACTOR: Final = Actor(name="dr-a", address="10.0.0.1")
POSITIVE: Final = Finding(probability=0.9, logit=2.0, threshold=0.5)
NEGATIVE: Final = Finding(probability=0.1, logit=-2.0, threshold=0.5)
UNDETERMINED: Final = Finding(probability=0.5, logit=0.0, threshold=0.5, grey_zone=0.1)
AGREE: Final = Answer(opinion=Opinion.AGREE)
OTHER: Final[dict[str, Any]] = {"patient_id": "P2", "patient_key": "key of P2"}
_FRESH: Final = count(1)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One ledger for all tests, each with studies that no other has used."""
    with ledger_engine(tmp_path_factory.mktemp("ledger") / "ledger.sqlite3") as engine:
        yield Node(engine)


@pytest.fixture
def both(engine: Engine) -> Node:
    """A fresh ledger on each database."""
    return Node(engine)


@pytest.fixture
def uid() -> str:
    return f"1.2.3.{next(_FRESH)}"


def receive(node: Node, study: str, name: str = "1", **changes: Any) -> None:
    """Receive one film of a study."""
    own = f"{study}.7.{name}"
    node.receive(own, study=study, sop_instance_uid=own, sha256=f"{abs(hash(own)):0>64}", **changes)


def reported(node: Node, study: str, outcome: Outcome = POSITIVE, name: str = "1", **changes: Any) -> int:
    """Report a study with one film; return its subject."""
    receive(node, study, name, **changes)
    node.analyse(outcome)
    node.clock.advance(seconds=node.policy.quiet.total_seconds())
    while node.report("pacs"):
        pass
    return node.ledger.feedback.subjects(study)[-1].id


def _change(node: Node, statement: str) -> None:
    """Do what somebody with the database's password can do."""
    with node.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def given(node: Node, study: str) -> list[dict[str, Any]]:
    return [dict(each.detail) for each in node.ledger.audit.events(study) if each.kind == "web-feedback"]


def test_an_answer_is_kept_with_the_report_that_it_is_about(node: Node, uid: str) -> None:
    subject = reported(node, uid)
    row = node.ledger.feedback.give(
        subject, " Dr-A ", Answer(opinion=Opinion.DISAGREE, comment="a nipple, <b>ä</b>"), actor=ACTOR
    )
    assert (row.reader, row.opinion, row.truth, row.comment) == ("dr-a", "disagree", "negative", "a nipple, <b>ä</b>")
    assert (row.report_version, row.bundle_digest, row.verdict) == (1, MODEL.digest, Verdict.PRESENT)
    assert (row.source, row.accession, row.patient_id, row.at) == (Source.READER, "A1", "P1", node.clock())
    assert node.ledger.feedback.of_study(uid) == [row]
    assert node.ledger.verifier.verify().problems == ()


def test_a_changed_answer_replaces_the_old_one_and_both_are_in_the_trail(both: Node, uid: str) -> None:
    subject = reported(both, uid)
    both.ledger.feedback.give(subject, "dr-a", AGREE, actor=ACTOR)
    both.clock.advance(minutes=5)
    row = both.ledger.feedback.give(
        subject, "DR-A", Answer(opinion=Opinion.UNSURE, comment="see CT"), actor=replace(ACTOR, address="10.0.0.2")
    )
    assert (row.number, row.opinion, row.truth) == (2, Opinion.UNSURE, Truth.UNKNOWN)
    first, second = given(both, uid)
    assert (first["old"], first["new"]["opinion"], first["number"]) == (None, "agree", 1)
    assert (second["old"]["opinion"], second["old"]["comment"]) == ("agree", "")
    assert (second["new"]["opinion"], second["new"]["comment"]) == ("unsure", "see CT")
    assert (second["by"], second["address"], second["reader"]) == ("dr-a", "10.0.0.2", "dr-a")
    assert second["report_sha256"] == first["report_sha256"]
    both.ledger.seal()
    assert both.ledger.verifier.verify().problems == ()


def test_the_same_answer_again_is_no_change(node: Node, uid: str) -> None:
    subject = reported(node, uid)
    first = node.ledger.feedback.give(subject, "dr-a", AGREE, actor=ACTOR)
    node.clock.advance(minutes=5)
    assert node.ledger.feedback.give(subject, "dr-a", AGREE, actor=ACTOR) == first
    assert len(given(node, uid)) == 1


def test_the_patients_of_one_study_are_judged_apart(node: Node, uid: str) -> None:
    first = reported(node, uid)
    second = reported(node, uid, NEGATIVE, name="2", **OTHER)
    one, other = node.ledger.feedback.subjects(uid)
    assert [one.id, other.id] == [first, second]
    assert one.statement is not None
    assert other.statement is not None
    assert [one.statement.verdict, other.statement.verdict] == [Verdict.PRESENT, Verdict.NOT_DETECTED]
    node.ledger.feedback.give(second, "dr-a", AGREE, actor=ACTOR)
    assert [(row.subject_id, row.truth) for row in node.ledger.feedback.of_study(uid)] == [(second, Truth.NEGATIVE)]


def test_a_study_speaks_by_its_most_telling_film(node: Node, uid: str) -> None:
    for name, probability in (("1", 0.2), ("2", 0.8), ("3", 0.7)):
        receive(node, uid, name)
        node.analyse(Finding(probability=probability, logit=0.0, threshold=0.5))
    node.clock.advance(seconds=10)
    node.report("pacs")
    [subject] = node.ledger.feedback.subjects(uid)
    assert subject.statement is not None
    assert (subject.statement.probability, subject.statement.verdict) == (0.8, Verdict.PRESENT)


def test_an_answer_stays_with_the_version_it_was_given_about(node: Node, uid: str) -> None:
    subject = reported(node, uid, NEGATIVE)
    node.ledger.feedback.give(subject, "dr-a", AGREE, actor=ACTOR)
    reported(node, uid, POSITIVE, name="later")
    [row] = node.ledger.feedback.of_study(uid)
    assert (row.report_version, row.truth) == (1, Truth.NEGATIVE)
    again = node.ledger.feedback.give(subject, "dr-a", AGREE, actor=ACTOR)
    assert (again.report_version, again.truth, again.number) == (2, Truth.POSITIVE, 2)


@pytest.mark.parametrize("outcome", [NotAnalysed(reason=Reason.VIEW), None])
def test_without_a_result_there_is_nothing_to_judge(node: Node, uid: str, outcome: NotAnalysed | None) -> None:
    if outcome:
        reported(node, uid, outcome)
    else:
        receive(node, uid)
    [subject] = node.ledger.feedback.subjects(uid)
    assert subject.statement is None
    with pytest.raises(FeedbackError, match="nothing to agree or disagree with"):
        node.ledger.feedback.give(subject.id, "dr-a", AGREE, actor=ACTOR)
    assert given(node, uid) == []


def test_an_unknown_subject_is_refused(node: Node) -> None:
    with pytest.raises(FeedbackError, match="no such study"):
        node.ledger.feedback.give(404, "dr-a", AGREE, actor=ACTOR)
    assert node.ledger.feedback.subjects("1.2.404") == []


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "a\nb", "x" * 65, "\ud800"])
def test_a_name_that_cannot_be_kept_is_refused(node: Node, uid: str, name: str) -> None:
    with pytest.raises(FeedbackError, match="reader's name"):
        node.ledger.feedback.give(reported(node, uid), name, AGREE, actor=ACTOR)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"opinion": Opinion.AGREE, "comment": "x" * 2_001}, "at most 2,000 characters, not 2,001"),
        ({"opinion": Opinion.AGREE, "comment": "a\0b"}, "no NUL"),
        ({"opinion": Opinion.AGREE, "comment": "\udcff"}, "UTF-8"),
        ({}, "an opinion or the truth"),
        ({"opinion": Opinion.AGREE, "truth": Truth.POSITIVE}, "an opinion or the truth"),
    ],
)
def test_an_answer_that_cannot_be_kept_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(FeedbackError, match=told):
        Answer(**values)


def test_a_comment_of_2000_characters_of_any_script_is_kept(node: Node, uid: str) -> None:
    comment = "肺炎🫁" * 500 + "x" * 500
    assert len(comment) == 2_000
    row = node.ledger.feedback.give(reported(node, uid), "dr-a", replace(AGREE, comment=comment), actor=ACTOR)
    assert row.comment == comment


def test_what_each_opinion_says_of_the_truth() -> None:
    table = {(verdict, opinion): truth_of(verdict, opinion) for verdict in Verdict for opinion in Opinion}
    assert table == {
        (Verdict.PRESENT, Opinion.AGREE): Truth.POSITIVE,
        (Verdict.PRESENT, Opinion.DISAGREE): Truth.NEGATIVE,
        (Verdict.PRESENT, Opinion.UNSURE): Truth.UNKNOWN,
        (Verdict.NOT_DETECTED, Opinion.AGREE): Truth.NEGATIVE,
        (Verdict.NOT_DETECTED, Opinion.DISAGREE): Truth.POSITIVE,
        (Verdict.NOT_DETECTED, Opinion.UNSURE): Truth.UNKNOWN,
        (Verdict.UNDETERMINED, Opinion.AGREE): Truth.UNKNOWN,
        (Verdict.UNDETERMINED, Opinion.DISAGREE): Truth.UNKNOWN,
        (Verdict.UNDETERMINED, Opinion.UNSURE): Truth.UNKNOWN,
    }


@pytest.mark.parametrize(
    ("outcome", "truth", "opinion"),
    [
        (POSITIVE, Truth.POSITIVE, Opinion.AGREE),
        (POSITIVE, Truth.NEGATIVE, Opinion.DISAGREE),
        (NEGATIVE, Truth.NEGATIVE, Opinion.AGREE),
        (UNDETERMINED, Truth.POSITIVE, Opinion.DISAGREE),
        (NEGATIVE, Truth.UNKNOWN, Opinion.UNSURE),
    ],
)
def test_a_reader_who_did_not_see_the_result_says_the_truth(
    node: Node, uid: str, outcome: Finding, truth: Truth, opinion: Opinion
) -> None:
    row = node.ledger.feedback.give(reported(node, uid, outcome), "dr-a", Answer(truth=truth, blind=True), actor=ACTOR)
    assert (row.truth, row.opinion, row.blind) == (truth, opinion, True)


def test_most_readers_say_what_is_true_and_a_tie_says_nothing() -> None:
    p, n, u = Truth.POSITIVE, Truth.NEGATIVE, Truth.UNKNOWN
    assert [consensus(each) for each in ([], [u], [p], [p, u, u], [p, n], [p, n, p], [n, n, p, u])] == [
        u,
        u,
        p,
        p,
        u,
        p,
        n,
    ]


def test_the_words_of_aira_have_their_opinion() -> None:
    assert {each: each.opinion for each in Assessment} == {
        Assessment.ACCEPT: Opinion.AGREE,
        Assessment.MODIFY: Opinion.UNSURE,
        Assessment.REJECT: Opinion.DISAGREE,
    }


def test_a_list_of_studies_says_in_a_word_what_readers_said(node: Node, uid: str) -> None:
    said: dict[str, list[Opinion]] = {
        "agree": [Opinion.AGREE, Opinion.UNSURE, Opinion.AGREE],
        "unsure": [Opinion.UNSURE],
        "contradictory": [Opinion.AGREE, Opinion.DISAGREE],
    }
    expected = {}
    for number, (word, opinions) in enumerate(said.items()):
        subject = reported(node, f"{uid}.{number}")
        expected[subject] = word
        for reader, opinion in enumerate(opinions):
            node.ledger.feedback.give(subject, f"dr-{reader}", Answer(opinion=opinion), actor=ACTOR)
    with node.engine.connect() as connection:
        assert feedback_of(connection, [*expected, 404]) == expected


def test_an_answer_appears_in_the_list_of_studies(tmp_path: Path) -> None:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        node = Node(engine)
        subject = reported(node, "1.2.3")
        assert [row.feedback for row in followed(node)] == [None]
        node.ledger.feedback.give(subject, "dr-a", AGREE, actor=ACTOR)
        assert [row.feedback for row in followed(node, WorklistQuery(feedback="agree"))] == ["agree"]


def test_all_answers_come_page_by_page(node: Node, uid: str) -> None:
    subject = reported(node, uid)
    for number in range(5):
        node.ledger.feedback.give(subject, f"dr-{number}", AGREE, actor=ACTOR)
    before = len(list(node.ledger.feedback.all())) - 5
    first, key = node.ledger.feedback.page(after=before, most=3)
    rest, end = node.ledger.feedback.page(after=key or 0, most=3)
    assert ([row.reader for row in [*first, *rest]], end) == ([f"dr-{number}" for number in range(5)], None)
    assert len(list(node.ledger.feedback.all())) >= 5


def test_two_first_answers_of_one_reader_at_the_same_time_are_one_row(both: Node, uid: str) -> None:
    subject = reported(both, uid)
    nodes = [Node(both.engine, clock=both.clock) for _ in range(4)]

    def answer(number: int) -> None:
        nodes[number].ledger.feedback.give(subject, "dr-a", replace(AGREE, comment=str(number)), actor=ACTOR)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(answer, range(4)))
    [row] = both.ledger.feedback.of_study(uid)
    assert row.number == 4
    assert both.ledger.verifier.verify().problems == ()


def test_an_answer_that_was_changed_past_the_program_is_found(tmp_path: Path, uid: str) -> None:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        node = Node(engine)
        subject = reported(node, uid)
        for opinion in (Opinion.AGREE, Opinion.DISAGREE):
            node.ledger.feedback.give(subject, "dr-a", Answer(opinion=opinion), actor=ACTOR)
        for change, back in (
            ("UPDATE feedback SET opinion = 'agree'", "UPDATE feedback SET opinion = 'disagree'"),
            ("UPDATE feedback SET comment = 'never said'", "UPDATE feedback SET comment = ''"),
            ("UPDATE feedback SET reader = 'dr-b'", "UPDATE feedback SET reader = 'dr-a'"),
            ("UPDATE feedback SET number = 1", "UPDATE feedback SET number = 2"),
        ):
            _change(node, change)
            [found] = node.ledger.verifier.verify().problems[-1:]
            assert found.startswith(f"answer of dr-a to study {uid}: its row is not what event"), change
            _change(node, back)
        _change(
            node,
            "INSERT INTO feedback (study_patient_id, reader, number, opinion, truth, comment, source, blind,"
            " report_version, bundle_digest, verdict, at) SELECT study_patient_id, 'dr-x', number, opinion, truth,"
            " comment, source, blind, report_version, bundle_digest, verdict, at FROM feedback",
        )
        assert node.ledger.verifier.verify().problems == ("table feedback has 2 rows, the events speak of 1",)
        _change(node, "DELETE FROM feedback")
        assert "table feedback has 0 rows, the events speak of 1" in node.ledger.verifier.verify().problems


def line(number: int, **changes: Any) -> ImportedTruth:
    values: dict[str, Any] = {
        "line": number,
        "study_uid": "",
        "accession": "",
        "patient_id": "",
        "truth": Truth.POSITIVE,
        "reader": "ris",
        "comment": "",
    }
    return ImportedTruth(**(values | changes))


def test_a_file_names_studies_by_uid_or_accession(both: Node, uid: str) -> None:
    reported(both, uid, NEGATIVE, accession=f"A-{uid}")
    reported(both, f"{uid}.0", POSITIVE)
    lines = [line(2, accession=f"A-{uid}"), line(3, study_uid=f"{uid}.0", truth=Truth.NEGATIVE, comment="CT")]
    dry = both.ledger.feedback.import_truths(lines, actor=ACTOR, most_problems=20, dry_run=True)
    assert (dry.new, dry.problems, both.ledger.feedback.of_study(uid)) == (2, (), [])
    done = both.ledger.feedback.import_truths(lines, actor=ACTOR, most_problems=20)
    assert (done.new, done.changed, done.same) == (2, 0, 0)
    [row], [other] = both.ledger.feedback.of_study(uid), both.ledger.feedback.of_study(f"{uid}.0")
    assert (row.truth, row.opinion, row.source, row.reader) == ("positive", "disagree", Source.IMPORT, "ris")
    assert (other.truth, other.opinion, other.comment) == ("negative", "disagree", "CT")
    again = both.ledger.feedback.import_truths(
        [lines[0], replace(lines[1], truth=Truth.POSITIVE)], actor=ACTOR, most_problems=20
    )
    assert (again.new, again.changed, again.same) == (0, 1, 1)
    assert both.ledger.verifier.verify().problems == ()


def test_a_file_with_one_bad_line_changes_nothing(node: Node, uid: str) -> None:
    reported(node, uid, accession=f"A-{uid}")
    reported(node, f"{uid}.0", accession=f"A-{uid}")
    reported(node, f"{uid}.1", NotAnalysed(reason=Reason.VIEW))
    reported(node, f"{uid}.2")
    reported(node, f"{uid}.2", name="2", **OTHER)
    lines = [
        line(2, study_uid=uid),
        line(3, study_uid="1.2.404"),
        line(4, accession="nowhere"),
        line(5, accession=f"A-{uid}"),
        line(6, study_uid=f"{uid}.1"),
        line(7, study_uid=f"{uid}.2"),
        line(8, study_uid=f"{uid}.2", patient_id="P3"),
        line(9, study_uid=uid),
        line(10, study_uid=uid, accession="other", reader="x"),
        line(11, study_uid=f"{uid}.2", patient_id="P2"),
    ]
    found = node.ledger.feedback.import_truths(lines, actor=ACTOR, most_problems=20)
    assert [str(each) for each in found.problems] == [
        "line 3: study 1.2.404 is not known here",
        "line 4: accession number nowhere is not known here",
        f"line 5: accession number A-{uid} stands for 2 results here: say which in the column study_uid",
        "line 6: no report of this study has a result: there is nothing to agree or disagree with",
        f"line 7: study {uid}.2 stands for 2 results here: say which in the column patient_id",
        f"line 8: study {uid}.2 names no patient P3",
        "line 9: ris has answered for this study in line 2 already",
        f"line 10: study {uid} has another accession number here",
    ]
    assert node.ledger.feedback.of_study(uid) == []
    few = node.ledger.feedback.import_truths(lines, actor=ACTOR, most_problems=2)
    assert len(few.problems) == 2
