"""`scp-node feedback`, as a person types it."""

from __future__ import annotations

import csv
import getpass
import io
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from scp_node.cli.commands import main
from scp_node.ledger import FeedbackRow
from scp_node.opening import open_ledger
from scp_node.settings import NodeSettings, Settings
from tests.scp_node.ledger.test_feedback import NEGATIVE, OTHER, POSITIVE, reported
from tests.scp_node.ledger_node import Node, ledger_engine

Say = Callable[..., tuple[int, str, str]]
POSITIVES: Final = [f"1.2.3.1.{number}" for number in range(6)]
NEGATIVES: Final = [f"1.2.3.2.{number}" for number in range(3)]
TWO: Final = "1.2.3.3"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with positive and negative studies, and one that names two patients; each test takes its own."""
    folder = tmp_path_factory.mktemp("data")
    with ledger_engine(folder / "ledger.sqlite3") as engine:
        node = Node(engine)
        for study in POSITIVES:
            reported(node, study, POSITIVE, accession=f"A{study}")
        for study in NEGATIVES:
            reported(node, study, NEGATIVE, accession=f"A{study}")
        reported(node, TWO)
        reported(node, TWO, name="2", **OTHER)
    return folder


@pytest.fixture
def say(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run the command and return its exit status, what it wrote, and its error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCP_NODE_NODE__DATA_DIR", str(data_dir))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scp-node", "feedback", *words])
        with pytest.raises(SystemExit) as raised:
            main()
        told = capsys.readouterr()
        return int(raised.value.code or 0), told.out, told.err

    return run


def said(data_dir: Path, study: str) -> list[FeedbackRow]:
    with closing(open_ledger(Settings(node=NodeSettings(data_dir=data_dir)))) as ledger:
        return ledger.feedback.of_study(study)


def test_an_opinion_is_kept_and_shown(say: Say, data_dir: Path) -> None:
    study = POSITIVES[0]
    words = ("--opinion", "disagree", "--reader", "Dr A", "--comment", "[red]a nipple[/red]")
    assert say(study, *words) == (0, "dr a: disagree with 'present' of report version 1\n", "")
    [row] = said(data_dir, study)
    assert (row.reader, row.opinion, row.truth, row.comment) == ("dr a", "disagree", "negative", "[red]a nipple[/red]")
    status, shown, _ = say(study)
    assert status == 0
    assert "[red]a nipple[/red]" in shown


def test_the_user_is_the_reader_where_none_is_named(say: Say, data_dir: Path) -> None:
    assert say(POSITIVES[1], "--opinion", "agree")[0] == 0
    assert said(data_dir, POSITIVES[1])[0].reader == getpass.getuser().casefold()


def test_nothing_said_is_said(say: Say) -> None:
    assert say(POSITIVES[5]) == (0, "no reader has said anything\n", "")


def test_of_several_patients_one_is_named(say: Say, data_dir: Path) -> None:
    assert say(TWO, "--opinion", "agree") == (
        2,
        "",
        f"scp-node: feedback: study {TWO} names 2 patients: say which with --patient\n",
    )
    assert say(TWO, "--opinion", "agree", "--patient", "P9")[2].endswith("names no such patient\n")
    assert say(TWO, "--opinion", "agree", "--patient", "P2")[0] == 0
    assert [row.patient_id for row in said(data_dir, TWO)] == ["P2"]


@pytest.mark.parametrize(
    ("words", "told"), [(("--comment", "x" * 2_001), "at most 2,000"), (("--reader", "\t"), "empty")]
)
def test_what_cannot_be_kept_is_refused(say: Say, words: tuple[str, ...], told: str) -> None:
    status, _, error = say(POSITIVES[5], "--opinion", "agree", *words)
    assert (status, told in error, error.count("\n")) == (2, True, 1)


def test_a_file_is_taken_whole_or_not(say: Say, data_dir: Path, tmp_path: Path) -> None:
    one, other = POSITIVES[2], NEGATIVES[0]
    file = tmp_path / "truth.csv"
    file.write_text(f"accession;truth;reader\r\nA{one};negative;Dr. Ä\r\nA{other};negative;\r\n", encoding="utf-8-sig")
    assert say("--import", "truth.csv", "--dry-run") == (
        0,
        "would be new: 2, would be changed: 0, the same as before: 0\n",
        "",
    )
    assert said(data_dir, one) == []
    assert say("--import", "truth.csv") == (0, "new: 2, changed: 0, the same as before: 0\n", "")
    assert [(row.reader, row.truth) for row in (*said(data_dir, one), *said(data_dir, other))] == [
        ("dr. ä", "negative"),
        ("ris", "negative"),
    ]
    file.write_text(f"accession,truth\nA{one},positive\nnowhere,positive\n")
    status, out, error = say("--import", "truth.csv")
    assert (status, out) == (2, "line 3: accession number nowhere is not known here\n")
    assert error == "scp-node: feedback: nothing was imported: 1 lines cannot be taken\n"
    assert len(said(data_dir, one)) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("accession,truth\n=1,positive\n", "line 2: accession begins with '='"),
        ("accession,truth\n" + "A,maybe\n" * 30, "at least 20 lines cannot be taken"),
        ("x" * 5_242_881, "more than 5,242,880"),
    ],
)
def test_a_file_that_cannot_be_taken_says_why(say: Say, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "truth.csv").write_text(content)
    status, out, error = say("--import", "truth.csv")
    assert status == 2
    assert told in out + error


def test_all_answers_are_exported(say: Say, tmp_path: Path) -> None:
    say(NEGATIVES[1], "--opinion", "agree", "--reader", "dr b", "--comment", "=1+1")
    status, out, _ = say("--export")
    assert status == 0
    rows = [row for row in csv.DictReader(io.StringIO(out)) if row["study_uid"] == NEGATIVES[1]]
    assert [(row["accession"], row["truth"], row["comment"]) for row in rows] == [
        (f"A{NEGATIVES[1]}", "negative", "'=1+1")
    ]
    (tmp_path / "back.csv").write_text("".join(out.splitlines(keepends=True)[:1]) + "")
    assert say("--import", "back.csv")[2].endswith("the file has no line below its head\n")
