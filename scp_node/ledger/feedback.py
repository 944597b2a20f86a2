"""Keeps what readers say of results: one answer of each reader, and every change of it in the audit trail."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, exists, select, update

from scp_node.domain import Actor, Verdict
from scp_node.ledger.database.schema import Use, feedback, instance, result, study_patient
from scp_node.ledger.feedback_rows import (
    Answer,
    FeedbackError,
    FeedbackRow,
    Imported,
    ImportedTruth,
    LineProblem,
    Opinion,
    Source,
    Subject,
    Truth,
    reader_name,
)
from scp_node.ledger.selecting import chunks
from scp_node.ledger.statements import subjects_of
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import of_report_file
from scp_node.ledger.transactions import Transactions, insert_row

GIVEN: Final = "web-feedback"  # event: a reader answered, or changed an answer
CONTRADICTORY: Final = "contradictory"
_PAGE: Final = 500
SAID: Final = ("opinion", "truth", "comment", "source", "blind", "report_version", "bundle_digest", "verdict")


class Feedback:
    """The answers of readers about patients' studies."""

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def subjects(self, study_uid: str) -> list[Subject]:
        """Return the patients that a study names, each with what its newest report says; none for an unknown study."""
        chosen = select(study_patient.c.id).where(study_patient.c.study_uid == study_uid)
        with self._transactions.reading() as (connection, _now):
            return subjects_of(connection, chosen)

    def subject(self, subject_id: int) -> Subject | None:
        """Return one patient's study, or None if there is no such one."""
        with self._transactions.reading() as (connection, _now):
            found = subjects_of(connection, select(study_patient.c.id).where(study_patient.c.id == subject_id))
        return found[0] if found else None

    def films(self, subject_id: int) -> list[int]:
        """Return the ids of the films that a patient's study is read by, in the order in which they came."""
        read = (instance.c.study_patient_id == subject_id) & (instance.c.use == Use.READ)
        with_result = exists().where(result.c.instance_id == instance.c.id, result.c.verdict.is_not(None))
        with self._transactions.reading() as (connection, _now):
            return list(connection.scalars(select(instance.c.id).where(read, with_result).order_by(instance.c.id)))

    def of_subject(self, subject_id: int) -> list[FeedbackRow]:
        """Return what readers say now of one patient's study, in the order of their first answers."""
        with self._transactions.reading() as (connection, _now):
            return _rows(connection, feedback.c.study_patient_id == subject_id)

    def of_study(self, study_uid: str) -> list[FeedbackRow]:
        """Return what readers say now of a study, in the order of their first answers."""
        with self._transactions.reading() as (connection, _now):
            return _rows(connection, study_patient.c.study_uid == study_uid)

    def page(self, *, after: int = 0, most: int = _PAGE) -> tuple[list[FeedbackRow], int | None]:
        """Return up to `most` answers behind the key `after`, and the key of the next page, None after the last."""
        with self._transactions.reading() as (connection, _now):
            keys = select(feedback.c.id).where(feedback.c.id > after).order_by(feedback.c.id).limit(most)
            ids = connection.scalars(keys).all()
            rows = _rows(connection, feedback.c.id.in_(ids)) if ids else []
        return rows, ids[-1] if len(ids) == most else None

    def all(self) -> Iterator[FeedbackRow]:
        """Yield all answers, in the order in which they were first given."""
        after: int | None = 0
        while after is not None:
            rows, after = self.page(after=after)
            yield from rows

    def give(
        self, subject_id: int, reader: str, answer: Answer, *, actor: Actor, source: Source = Source.READER
    ) -> FeedbackRow:
        """Keep a reader's answer in place of their earlier one, and return it; the same answer changes nothing.

        Raises:
            FeedbackError: the subject is unknown, its report says nothing that one could judge, or the name is wrong.
        """
        name = reader_name(reader)
        with self._transactions.writing() as (connection, now):
            found = subjects_of(connection, select(study_patient.c.id).where(study_patient.c.id == subject_id))
            if not found:
                raise FeedbackError("no such study")
            _lock(connection, [subject_id])
            before = _known(connection, [(subject_id, name)]).get((subject_id, name))
            values = _values(found[0], answer, source)
            _write(connection, found[0], name, values, before=before, actor=actor, now=now)
            return _rows(connection, feedback.c.study_patient_id == subject_id, feedback.c.reader == name)[0]

    def import_truths(
        self, truths: Sequence[ImportedTruth], *, actor: Actor, most_problems: int, dry_run: bool = False
    ) -> Imported:
        """Keep the truth that a file states: every line of it, or nothing where one cannot be taken.

        Args:
            truths: the lines.
            actor: who brought the file.
            most_problems: the number after which it is not read further.
            dry_run: only say what would be done.
        """
        with self._transactions.writing() as (connection, now):
            resolved, problems = _resolved(connection, truths, most_problems)
            if problems:
                return Imported(problems=tuple(problems))
            _lock(connection, sorted({subject.id for _, subject in resolved}))
            known = _known(connection, [(subject.id, truth.reader) for truth, subject in resolved])
            counts: Counter[str] = Counter()
            for truth, subject in resolved:
                answer = Answer(truth=truth.truth, comment=truth.comment)
                values = _values(subject, answer, Source.IMPORT)
                before = known.get((subject.id, truth.reader))
                counts["new" if before is None else "same" if _says(before, values) else "changed"] += 1
                if not dry_run:
                    _write(connection, subject, truth.reader, values, before=before, actor=actor, now=now)
        return Imported(new=counts["new"], changed=counts["changed"], same=counts["same"])


def feedback_of(connection: Connection, study_patient_ids: Sequence[int]) -> Mapping[int, str]:
    """Return one word for the answers about each of these subjects that has some.

    It is the opinion that all share who are not unsure, "unsure" where all are, or "contradictory".
    """
    given: dict[int, set[Opinion]] = defaultdict(set)
    for chunk in chunks(study_patient_ids):
        columns = select(feedback.c.study_patient_id, feedback.c.opinion)
        for row in connection.execute(columns.where(feedback.c.study_patient_id.in_(chunk))):
            given[row.study_patient_id].add(Opinion(row.opinion))
    return {subject: _summary(opinions) for subject, opinions in given.items()}


def truths_of(connection: Connection, study_patient_ids: Sequence[int]) -> dict[int, dict[str, Truth]]:
    """Return the truth of these subjects as each reader says it, by subject and reader."""
    found: dict[int, dict[str, Truth]] = defaultdict(dict)
    for chunk in chunks(study_patient_ids):
        columns = select(feedback.c.study_patient_id, feedback.c.reader, feedback.c.truth).order_by(feedback.c.id)
        for row in connection.execute(columns.where(feedback.c.study_patient_id.in_(chunk))):
            found[row.study_patient_id][row.reader] = Truth(row.truth)
    return found


def _summary(opinions: set[Opinion]) -> str:
    sure = sorted(opinions - {Opinion.UNSURE})
    if not sure:
        return Opinion.UNSURE
    return sure[0] if len(sure) == 1 else CONTRADICTORY


def _lock(connection: Connection, study_patient_ids: Sequence[int]) -> None:
    """Let one transaction at a time answer about these: two first answers of one reader would both be inserted."""
    for chunk in chunks(study_patient_ids):
        locked = select(study_patient.c.id).where(study_patient.c.id.in_(chunk)).order_by(study_patient.c.id)
        connection.execute(locked.with_for_update()).all()


def _values(subject: Subject, answer: Answer, source: Source) -> dict[str, Any]:
    statement = subject.statement
    if statement is None:
        raise FeedbackError(NOTHING_TO_JUDGE)
    opinion, truth = answer.about(statement.verdict)
    return {
        "opinion": opinion.value,
        "truth": truth.value,
        "comment": answer.comment,
        "source": source.value,
        "blind": answer.blind,
        "report_version": statement.report_version,
        "bundle_digest": statement.bundle_digest,
        "verdict": statement.verdict.value,
    }


NOTHING_TO_JUDGE: Final = "no report of this study has a result: there is nothing to agree or disagree with"


def _says(row: Row[Any], values: Mapping[str, Any]) -> bool:
    return all(getattr(row, name) == values[name] for name in SAID)


def _write(
    connection: Connection,
    subject: Subject,
    reader: str,
    values: Mapping[str, Any],
    *,
    before: Row[Any] | None,
    actor: Actor,
    now: datetime,
) -> None:
    """Write an answer and its event, which names what it replaces."""
    if before is not None and _says(before, values):
        return
    number = 1 if before is None else before.number + 1
    row = {**values, "number": number, "at": now}
    if before is None:
        insert_row(connection, feedback, study_patient_id=subject.id, reader=reader, **row)
    else:
        connection.execute(update(feedback).where(feedback.c.id == before.id).values(**row))
    report_id = subject.statement.report_id if subject.statement else 0
    detail = {
        **of_report_file(connection, report_id),
        **actor.detail,
        "subject": subject.id,
        "reader": reader,
        "number": number,
        "new": dict(values),
        "old": None if before is None else {name: getattr(before, name) for name in SAID},
    }
    record_event(connection, now, GIVEN, study_uid=subject.study_uid, detail=detail)


def _known(connection: Connection, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Row[Any]]:
    """Return the rows of these subjects and readers that there are."""
    wanted, found = set(keys), {}
    for chunk in chunks(sorted({subject for subject, _ in keys})):
        for row in connection.execute(select(feedback).where(feedback.c.study_patient_id.in_(chunk))):
            if (row.study_patient_id, row.reader) in wanted:
                found[row.study_patient_id, row.reader] = row
    return found


def _rows(connection: Connection, *conditions: ColumnElement[bool]) -> list[FeedbackRow]:
    joined = select(feedback, study_patient.c.study_uid, study_patient.c.patient_id).join(
        study_patient, study_patient.c.id == feedback.c.study_patient_id
    )
    accession = (
        select(instance.c.accession)
        .where(instance.c.study_patient_id == feedback.c.study_patient_id, instance.c.accession != "")
        .order_by(instance.c.id)
        .limit(1)
        .scalar_subquery()
    )
    rows = connection.execute(
        joined.add_columns(accession.label("accession")).where(*conditions).order_by(feedback.c.id)
    )
    return [
        FeedbackRow(
            subject_id=row.study_patient_id,
            study_uid=row.study_uid,
            patient_id=row.patient_id,
            accession=row.accession or "",
            reader=row.reader,
            opinion=Opinion(row.opinion),
            truth=Truth(row.truth),
            comment=row.comment,
            source=Source(row.source),
            blind=row.blind,
            number=row.number,
            report_version=row.report_version,
            bundle_digest=row.bundle_digest,
            verdict=Verdict(row.verdict),
            at=row.at,
        )
        for row in rows
    ]


def _resolved(
    connection: Connection, truths: Sequence[ImportedTruth], most: int
) -> tuple[list[tuple[ImportedTruth, Subject]], list[LineProblem]]:
    """Return each line with the subject that it names, and a problem for each line that names none or several."""
    by_uid = _subjects_by(connection, study_patient.c.study_uid, {each.study_uid for each in truths if each.study_uid})
    by_accession = _subjects_by(
        connection, instance.c.accession, {each.accession for each in truths if not each.study_uid}
    )
    resolved, problems = [], list[LineProblem]()
    seen: dict[tuple[int, str], int] = {}
    for truth in truths:
        found = by_uid.get(truth.study_uid, []) if truth.study_uid else by_accession.get(truth.accession, [])
        problem = _problem(truth, found)
        chosen = [each for each in found if truth.patient_id in {"", each.patient_id}]
        if problem is None:
            first = seen.setdefault((chosen[0].id, truth.reader), truth.line)
            if first != truth.line:
                problem = f"{truth.reader} has answered for this study in line {first} already"
        if problem is None:
            resolved.append((truth, chosen[0]))
        else:
            problems.append(LineProblem(line=truth.line, problem=problem))
            if len(problems) == most:
                break
    return resolved, problems


def _problem(truth: ImportedTruth, found: Sequence[Subject]) -> str | None:
    """Return why a line names no subject that can be judged; None if it names one."""
    name = f"study {truth.study_uid}" if truth.study_uid else f"accession number {truth.accession}"
    chosen = [each for each in found if truth.patient_id in {"", each.patient_id}]
    if not found:
        return f"{name} is not known here"
    if truth.study_uid and truth.accession and truth.accession not in {each.accession for each in found}:
        return f"{name} has another accession number here"
    if not chosen:
        return f"{name} names no patient {truth.patient_id}"
    if len(chosen) > 1:
        studies = len({each.study_uid for each in chosen})
        missing = "study_uid" if studies > 1 else "patient_id"
        return f"{name} stands for {len(chosen)} results here: say which in the column {missing}"
    return NOTHING_TO_JUDGE if chosen[0].statement is None else None


def _subjects_by(connection: Connection, column: ColumnElement[str], names: set[str]) -> dict[str, list[Subject]]:
    """Return the subjects with these Study Instance UIDs or accession numbers, by that name."""
    found: dict[str, list[Subject]] = defaultdict(list)
    ordered = sorted(names)
    for part in chunks(ordered):
        pairs = select(study_patient.c.id, column.label("name")).distinct()
        if column is instance.c.accession:
            pairs = pairs.join(instance, instance.c.study_patient_id == study_patient.c.id)
        named: dict[int, list[str]] = defaultdict(list)
        for row in connection.execute(pairs.where(column.in_(part))):
            named[row.id].append(row.name)
        ids = sorted(named)
        for chunk in chunks(ids):
            for subject in subjects_of(connection, select(study_patient.c.id).where(study_patient.c.id.in_(chunk))):
                for name in named[subject.id]:
                    found[name].append(subject)
    return found
