"""Reads a CSV file with the truth of studies, such as an export of a RIS, and writes the answers of readers as one.

A spreadsheet has often been at such a file. A value that it has spoilt is an error that says so; nothing is guessed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from scp_node.cells import FORMULA_BEGINS, harmless_cell, text_of
from scp_node.ledger import FeedbackError, FeedbackRow, ImportedTruth, LineProblem, Truth
from scp_node.ledger.feedback_rows import Answer, reader_name

MOST_BYTES: Final = 5 * 2**20
MOST_PROBLEMS: Final = 20
COLUMNS: Final = ("study_uid", "accession", "patient_id", "truth", "reader", "comment")
EXPORTED: Final = (
    "study_uid",
    "accession",
    "patient_id",
    "truth",
    "reader",
    "comment",
    "opinion",
    "source",
    "blind",
    "verdict",
    "report_version",
    "bundle_digest",
    "number",
    "at",
)
_READER: Final = "ris"  # where a file names none
_DELIMITERS: Final = (",", ";", "\t")
_TRUTHS: Final = {"positive": Truth.POSITIVE, "negative": Truth.NEGATIVE}
_ROUNDED: Final = re.compile(r"[0-9]+[.,]?[0-9]*E\+?[0-9]+", re.IGNORECASE)
_OTHER_ENCODINGS: Final = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a workbook (.xlsx)"}


class TruthFileError(ValueError):
    """A file that cannot be read as a whole; the message says why."""


def read_truths(content: bytes) -> tuple[list[ImportedTruth], list[LineProblem]]:
    """Return the lines of a file, and what is wrong with others: at most `MOST_PROBLEMS`.

    The first line names the columns: `truth`, and `study_uid` or `accession`, and any of `patient_id`, `reader` and
    `comment`. Commas, semicolons or tabs part them. The text is UTF-8, with or without a byte order mark.

    Raises:
        TruthFileError: it is too large, not text in UTF-8, empty, or its first line does not name the columns.
    """
    if len(content) > MOST_BYTES:
        raise TruthFileError(f"the file has {len(content):,} bytes, more than {MOST_BYTES:,}: give it in parts")
    lines = csv.reader(io.StringIO(_text(content), newline=""), delimiter=_delimiter(content), strict=True)
    try:
        head = [_folded(name) for name in next(lines, [])]
    except csv.Error as error:
        raise TruthFileError(f"line 1: not CSV: {error}") from None
    _check_head(head)
    truths: list[ImportedTruth] = []
    problems: list[LineProblem] = []
    for line, cells in _rows(lines, problems):
        try:
            truths.append(_truth(line, _named(head, cells)))
        except FeedbackError as error:
            problems.append(LineProblem(line=line, problem=str(error)))
        if len(problems) >= MOST_PROBLEMS:
            break
    if not truths and not problems:
        raise TruthFileError("the file has no line below its head")
    return truths, problems


def written_rows(rows: Iterable[FeedbackRow]) -> Iterator[str]:
    """Yield the lines of a CSV file with the answers of readers, its head first; no cell is run as a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(EXPORTED)
    for row in rows:
        yield _taken(text)
        values = [getattr(row, name) for name in EXPORTED[:-1]]
        writer.writerow([*map(harmless_cell, values), row.at.isoformat()])
    yield _taken(text)


def _taken(text: io.StringIO) -> str:
    line = text.getvalue()
    text.seek(0)
    text.truncate()
    return line


def _text(content: bytes) -> str:
    for mark, name in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            raise TruthFileError(f'the file is {name}: save it as "CSV UTF-8"')
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TruthFileError(f'line {line}: the text is not UTF-8: save it as "CSV UTF-8"') from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise TruthFileError(f"line {line}: a NUL character: this is no text file")
    return text


def _delimiter(content: bytes) -> str:
    head = content.split(b"\n", 1)[0].decode("utf-8", "replace")
    return max(_DELIMITERS, key=head.count)


def _folded(name: str) -> str:
    return name.strip().casefold().replace(" ", "_")


def _check_head(head: list[str]) -> None:
    unknown = [name for name in head if name not in {*COLUMNS, *EXPORTED}]
    if "truth" not in head or not {"study_uid", "accession"} & set(head):
        raise TruthFileError(
            "line 1: it names the columns: truth, and study_uid or accession; patient_id, reader and comment may follow"
        )
    if unknown:
        raise TruthFileError(f"line 1: no such column: {unknown[0][:40]!r}; there are {', '.join(COLUMNS)}")
    if len(set(head)) < len(head):
        raise TruthFileError("line 1: a column is named twice")


def _rows(lines: Iterator[list[str]], problems: list[LineProblem]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line that is not empty; a line that is not CSV ends the file."""
    reader = lines
    while True:
        line = getattr(reader, "line_num", 0) + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.append(LineProblem(line=line, problem=f"not CSV from here on: {error}"))
            return
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _named(head: list[str], cells: list[str]) -> Mapping[str, str]:
    if len(cells) != len(head):
        raise FeedbackError(f"{len(cells)} cells, but the first line names {len(head)} columns")
    return {name: _cell(name, value) for name, value in zip(head, cells, strict=True) if name in COLUMNS}


def _cell(name: str, value: str) -> str:
    text = value.strip()
    if (exported := text_of(text)) != text:
        return exported
    if text[:1] in FORMULA_BEGINS - {"-"}:
        raise FeedbackError(f"{name} begins with {text[0]!r}, as a formula does: give the value itself")
    if name in {"study_uid", "accession", "patient_id"} and _ROUNDED.fullmatch(text):
        raise FeedbackError(f"{name} is {text[:40]}: a spreadsheet has rounded it; make its column text before")
    return text


def _truth(line: int, values: Mapping[str, str]) -> ImportedTruth:
    study_uid, accession = values.get("study_uid", ""), values.get("accession", "")
    if not (study_uid or accession):
        raise FeedbackError("neither study_uid nor accession names the study")
    if (truth := _TRUTHS.get(values["truth"].casefold())) is None:
        raise FeedbackError(f"truth is {values['truth'][:40]!r}: give positive or negative")
    answer = Answer(truth=truth, comment=values.get("comment", ""))
    return ImportedTruth(
        line=line,
        study_uid=study_uid,
        accession=accession,
        patient_id=values.get("patient_id", ""),
        truth=truth,
        reader=reader_name(values.get("reader", "") or _READER),
        comment=answer.comment,
    )
