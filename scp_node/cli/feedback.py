"""`scp-node feedback`: what readers say of results."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from scp_node.cli.console import ConfigOption, UsageError, out, settings_of
from scp_node.domain import Actor
from scp_node.ledger import Answer, FeedbackError, FeedbackRow, Ledger, LineProblem, Opinion, Subject
from scp_node.opening import open_ledger
from scp_node.truth_file import MOST_BYTES, MOST_PROBLEMS, TruthFileError, read_truths, written_rows


def feedback(
    study_uid: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Study Instance UID.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    opinion: Annotated[
        Opinion | None, typer.Option(help="What the reader says of the result. Without it: show what was said.")
    ] = None,
    reader: Annotated[str | None, typer.Option(help="Who says it. Default: you.", show_default=False)] = None,
    comment: Annotated[str, typer.Option(help="At most 2,000 characters.")] = "",
    patient: Annotated[str | None, typer.Option(help="Patient ID, where the study names several patients.")] = None,
    import_: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="Take the truth of many studies from this CSV file."),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the import would do.")] = False,
    export: Annotated[bool, typer.Option("--export", help="Write all answers to standard output, as CSV.")] = False,
) -> None:
    """Say whether a result is right, show what readers said, or import the truth of many studies.

    Each reader has one answer for each patient's study; a new one replaces it, and both stay in the audit. A file has a
    line for each study: accession or study_uid, truth (positive or negative), and reader and comment if wanted.
    Everything in it is taken, or nothing.
    """
    if sum((study_uid is not None, import_ is not None, export)) != 1:
        raise UsageError("feedback: give a STUDY, --import FILE or --export")
    if (opinion is None or study_uid is None) and (reader or comment):
        raise UsageError("feedback: --reader and --comment go with a STUDY and --opinion")
    if dry_run and import_ is None:
        raise UsageError("feedback: --dry-run goes with --import")
    user = getpass.getuser()
    actor = Actor(name=f"{user}@{socket.gethostname()}", address="")
    content = None if import_ is None else _content(import_)
    with closing(open_ledger(settings_of(config))) as ledger:
        if export:
            sys.stdout.writelines(written_rows(ledger.feedback.all()))
        elif content is not None:
            _import(ledger, content, actor, dry_run=dry_run)
        elif study_uid is not None and opinion is None:
            _show(_subjects(ledger, study_uid), ledger.feedback.of_study(study_uid))
        elif study_uid is not None:
            try:
                answer = Answer(opinion=opinion, comment=comment)
                row = ledger.feedback.give(_chosen(ledger, study_uid, patient).id, reader or user, answer, actor=actor)
            except FeedbackError as error:
                raise UsageError(f"feedback: {error}") from None
            out.print(
                f"{row.reader}: {row.opinion} with '{row.verdict}' of report version {row.report_version}",
                highlight=False,
                markup=False,
            )


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MOST_BYTES + 1)  # one more than may be, so that a larger file is seen


def _import(ledger: Ledger, content: bytes, actor: Actor, *, dry_run: bool) -> None:
    try:
        truths, problems = read_truths(content)
    except TruthFileError as error:
        raise UsageError(f"feedback: {error}") from None
    _refuse(problems)
    done = ledger.feedback.import_truths(truths, actor=actor, most_problems=MOST_PROBLEMS, dry_run=dry_run)
    _refuse(done.problems)
    would = "would be " if dry_run else ""
    out.print(f"{would}new: {done.new}, {would}changed: {done.changed}, the same as before: {done.same}")


def _refuse(problems: Sequence[LineProblem]) -> None:
    for problem in problems:
        out.print(str(problem), highlight=False, markup=False)
    if problems:
        known = f"at least {len(problems)}" if len(problems) >= MOST_PROBLEMS else str(len(problems))
        raise UsageError(f"feedback: nothing was imported: {known} lines cannot be taken")


def _subjects(ledger: Ledger, study_uid: str) -> list[Subject]:
    subjects = ledger.feedback.subjects(study_uid)
    if not subjects:
        raise UsageError(f"feedback: no image of study {study_uid} was received")
    return subjects


def _chosen(ledger: Ledger, study_uid: str, patient: str | None) -> Subject:
    subjects = _subjects(ledger, study_uid)
    chosen = [each for each in subjects if patient in {None, each.patient_id}]
    if not chosen:
        raise UsageError(f"feedback: study {study_uid} names no such patient")
    if len(chosen) > 1:
        raise UsageError(f"feedback: study {study_uid} names {len(subjects)} patients: say which with --patient")
    return chosen[0]


def _show(subjects: Sequence[Subject], rows: Sequence[FeedbackRow]) -> None:
    table = Table("patient", "reader", "opinion", "truth", "comment", "about", "source", "when")
    names = {each.id: each.patient_id for each in subjects}
    for row in rows:
        cells = (
            names[row.subject_id],
            row.reader,
            row.opinion,
            row.truth,
            row.comment,
            f"version {row.report_version}: {row.verdict}",
            row.source,
            row.at.astimezone().isoformat(sep=" ", timespec="seconds"),
        )
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    out.print(table if rows else "no reader has said anything", highlight=False)
