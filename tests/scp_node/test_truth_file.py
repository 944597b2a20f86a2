"""Files with the truth: what spreadsheets make of them is read, or refused with what to do."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from scp_node.domain import Verdict
from scp_node.ledger import FeedbackRow, Opinion, Source, Truth
from scp_node.truth_file import MOST_BYTES, TruthFileError, read_truths, written_rows

ROW: Final = FeedbackRow(
    subject_id=1,
    study_uid="1.2.3",
    patient_id="P1",
    accession="A1",
    reader="dr-a",
    opinion=Opinion.AGREE,
    truth=Truth.POSITIVE,
    comment="",
    source=Source.READER,
    blind=False,
    number=1,
    report_version=1,
    bundle_digest="sha256:0",
    verdict=Verdict.PRESENT,
    at=datetime(2026, 3, 1, tzinfo=UTC),
)


def problems(text: str) -> list[str]:
    truths, found = read_truths(text.encode())
    assert found, truths
    return [str(each) for each in found]


def test_a_plain_file() -> None:
    truths, found = read_truths(b"accession,truth\nA1,positive\nA2,Negative\n")
    assert found == []
    assert [(each.line, each.accession, each.truth, each.reader) for each in truths] == [
        (2, "A1", Truth.POSITIVE, "ris"),
        (3, "A2", Truth.NEGATIVE, "ris"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "study_uid;truth;reader;comment\r\n1.2.3;positive;Dr. Ä;ein; Satz\r\n".replace("ein; Satz", '"ein; Satz"'),
        '\ufeffstudy_uid;truth;reader;comment\r\n1.2.3;positive;Dr. Ä;"ein; Satz"\r\n',
        "Study UID\tTruth\tReader\tComment\n1.2.3\tpositive\tDr. Ä\tein; Satz",
        "study_uid,truth,reader,comment\n\n1.2.3 , positive,Dr. Ä,ein; Satz\n,,,\n",
    ],
    ids=["semicolons", "byte order mark", "tabs", "empty lines"],
)
def test_files_of_other_spreadsheets(text: str) -> None:
    truths, found = read_truths(text.encode())
    assert found == []
    [truth] = truths
    assert (truth.study_uid, truth.truth, truth.reader, truth.comment) == (
        "1.2.3",
        Truth.POSITIVE,
        "dr. ä",
        "ein; Satz",
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "line 1: it names the columns"),
        (b"accession;truth\r\n", "no line below its head"),
        (b"A1,positive\n", "line 1: it names the columns"),
        (b"accession,result\nA1,positive\n", "line 1: it names the columns"),
        (b"accession,truth,colour\nA1,positive,red\n", "no such column: 'colour'"),
        (b"accession,truth,truth\nA1,positive,negative\n", "named twice"),
        (
            "accession,truth,comment\nA1,positive,\nA2,positive,Übersicht".encode("latin-1"),
            "line 3: the text is not UTF-8",
        ),
        ("accession,truth\nA1,positive".encode("utf-16"), "the file is UTF-16"),
        (b"PK\x03\x04workbook", "the file is a workbook"),
        (b"accession,truth\nA1,pos\0itive", "line 2: a NUL character"),
        (b'"accession,truth\n', "line 1: not CSV"),
        (b"x" * (MOST_BYTES + 1), "5,242,881 bytes, more than 5,242,880"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(content: bytes, told: str) -> None:
    with pytest.raises(TruthFileError, match=told):
        read_truths(content)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("A1,maybe,,", "truth is 'maybe': give positive or negative"),
        ("A1,,,", "truth is '': give positive or negative"),
        (",positive,,", "neither study_uid nor accession names the study"),
        ("A1,positive,", "3 cells, but the first line names 4 columns"),
        ("=A2,positive,,", "accession begins with '=', as a formula does"),
        ("A1,positive,@SUM(A1),", "reader begins with '@', as a formula does"),
        ('A1,positive,,"=HYPERLINK(""http://x"")"', "comment begins with '=', as a formula does"),
        ("1.23457E+12,positive,,", "accession is 1.23457E+12: a spreadsheet has rounded it"),
        ('"1,23457E+12",positive,,', "a spreadsheet has rounded it"),
        ('A1,positive,,"' + "x" * 2_001 + '"', "at most 2,000 characters"),
        ("A1,positive," + "x" * 65 + ",", "a reader's name has 1 to 64"),
    ],
)
def test_a_line_that_cannot_be_taken_says_why(line: str, told: str) -> None:
    [found] = problems(f"accession,truth,reader,comment\nA0,positive,,\n{line}\n")
    assert found.startswith("line 3: ")
    assert told in found


def test_a_line_is_counted_as_an_editor_counts_it() -> None:
    [found] = problems('accession,truth,comment\nA1,positive,"two\nlines"\nA2,maybe,\n')
    assert found.startswith("line 4: ")


def test_a_quote_that_does_not_end_is_told_where_it_begins() -> None:
    [found] = problems('accession,truth,comment\nA1,positive,\nA2,positive,"no end\nA3,positive,\n')
    assert found.startswith("line 3: not CSV from here on")


def test_at_most_twenty_lines_are_told() -> None:
    assert len(problems("accession,truth\n" + "A1,maybe\n" * 50)) == 20


def test_what_is_exported_can_be_imported_and_runs_in_no_spreadsheet() -> None:
    rows = [ROW, *(_with(comment=text) for text in ("=1+1", "+4", "-2", "@x", "'quoted", "a;b,c\nd"))]
    text = "".join(written_rows(rows))
    cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    assert [cell for cell in cells if cell[:1] in {"=", "+", "-", "@", "\t", "\r"}] == []
    truths, found = read_truths(text.encode())
    assert found == []
    assert [each.comment for each in truths] == [row.comment for row in rows]
    assert {each.study_uid for each in truths} == {"1.2.3"}


def test_without_answers_there_is_a_head() -> None:
    assert "".join(written_rows([])).startswith("study_uid,accession,patient_id,truth,reader,comment,")


def _with(**changes: Any) -> FeedbackRow:
    return FeedbackRow(**({name: getattr(ROW, name) for name in FeedbackRow.__slots__} | changes))
