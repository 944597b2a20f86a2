"""Draws the reading sample of each day, and reads what is known of it.

Readers answer what was flagged, so that their answers alone cannot tell how much was missed. For that, some studies of
each day are drawn for them to read, whatever the result says.

The draw is made once, when a day is over, and kept. While a day goes on, the smallest hashes so far change with each
study that comes: a study that was in the sample in the morning is not in the evening, and the answers that were given
meanwhile would be a sample of the mornings. A threshold on the hash would be stable at once, but then the number drawn
varies with the day, 0 among few positives.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, exists, func, select, text, union

from scp_node.dicom.view import view_position
from scp_node.domain import Verdict
from scp_node.ledger.database.schema import feedback, instance, reading_day, reading_frame, report, study_patient
from scp_node.ledger.feedback import truths_of
from scp_node.ledger.feedback_rows import Statement, Truth, consensus
from scp_node.ledger.selecting import chunks
from scp_node.ledger.statements import statements, subjects_of
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

DRAWN: Final = "sample-drawn"  # event: the sample of a day
SETTLED_AFTER: Final = timedelta(hours=1)  # from the end of a day: until then a report of it may still be written
_DAY: Final = timedelta(days=1)
_LOCK: Final = 0x5C9_5A3  # any constant: one process at a time draws
_PREFIX: Final = "scp-node reading sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The sample of one day."""

    day: date  # in UTC
    positive: int  # studies drawn
    negative: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingTask:
    """A drawn study that waits for a reader."""

    subject_id: int
    study_uid: str
    patient_id: str
    accession: str
    day: date
    readers: int  # that have answered


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleQuery:
    """Selects studies of the days that are over; every condition that is set must hold."""

    first: date | None = None  # day of the first report, in UTC
    last: date | None = None
    calling_ae: str | None = None
    view: str | None = None
    bundle: str | None = None  # name and version


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledStudy:
    """A drawn study, and what readers say of it."""

    subject_id: int
    is_positive: bool  # by the result: the stratum that it was drawn from
    weight: float  # inverse of the rate at which it was drawn
    probability: float  # 0..1
    threshold: float
    truth: Truth  # of most readers
    readers: int  # that have answered at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What two readers say of one study that both know."""

    first: str
    second: str
    truths: tuple[Truth, Truth]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleData:
    """All that figures of quality are made from."""

    days: int  # that are over and have studies
    positive: int  # studies with a result, by what it says
    negative: int
    undetermined: int  # of the negative ones
    bundles: tuple[str, ...]  # that the results are by, sorted
    sample: tuple[SampledStudy, ...]
    positives_right: int  # of all positive studies, drawn or not, those whose truth is known
    positives_wrong: int
    positives_unclear: int  # answered, but unsure or contradictory
    pairs: tuple[Pair, ...]


class ReadingSample:
    """The studies that readers are asked to read."""

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def draw(self, *, positive: int, negative: int) -> Drawn | None:
        """Draw the sample of the oldest day that is over and not drawn yet; return None if there is no such day.

        A day in UTC takes the patients' studies that were reported for the first time in it, as their newest report of
        that day says them: `positive` of those that say "present", and `negative` of the others with a result. Drawn
        are those with the smallest SHA-256 of Study Instance UID and patient, which know nothing of the result, and are
        the same on every host.
        """
        with self._transactions.reading() as (connection, now):
            if _next_day(connection, now) is None:
                return None
        with self._transactions.writing() as (connection, now):
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            day = _next_day(connection, now)
            return None if day is None else _draw(connection, day, now, positive=positive, negative=negative)

    def tasks(self, reader: str, *, since: date, most: int, again: bool = False) -> list[ReadingTask]:
        """Return the drawn studies since a day that wait for this reader, oldest first.

        A study waits until somebody knows the truth; one at which this reader is unsure does not wait for them. With
        `again` those wait as well whose truth others know: a second reading shows how far readers agree.
        """
        mine = exists().where(
            feedback.c.study_patient_id == reading_frame.c.study_patient_id, feedback.c.reader == reader.casefold()
        )
        known = exists().where(
            feedback.c.study_patient_id == reading_frame.c.study_patient_id, feedback.c.truth != Truth.UNKNOWN
        )
        drawn = reading_frame.c.weight.is_not(None)
        open_ = select(reading_frame.c.study_patient_id, reading_frame.c.day).where(
            drawn, reading_frame.c.day >= since, ~mine
        )
        ordered = (open_ if again else open_.where(~known)).order_by(
            reading_frame.c.day, reading_frame.c.study_patient_id
        )
        with self._transactions.reading() as (connection, _now):
            days = {row.study_patient_id: row.day for row in connection.execute(ordered.limit(most))}
            answers = truths_of(connection, list(days))
            chosen = select(study_patient.c.id).where(study_patient.c.id.in_(list(days)))
            subjects = {each.id: each for each in subjects_of(connection, chosen)}
        return [
            ReadingTask(
                subject_id=key,
                study_uid=subjects[key].study_uid,
                patient_id=subjects[key].patient_id,
                accession=subjects[key].accession,
                day=day,
                readers=len(answers.get(key, {})),
            )
            for key, day in days.items()
        ]

    def is_drawn(self, subject_id: int) -> bool:
        """Return whether a patient's study is in the sample."""
        found = select(reading_frame.c.day).where(
            reading_frame.c.study_patient_id == subject_id, reading_frame.c.weight.is_not(None)
        )
        with self._transactions.reading() as (connection, _now):
            return connection.execute(found).first() is not None

    def choices(self) -> tuple[list[str], list[str], list[str]]:
        """Return the calling AE titles, views and bundles that there are, each sorted."""
        with self._transactions.reading() as (connection, _now):
            columns = (reading_frame.c.calling_ae, reading_frame.c.view, reading_frame.c.bundle)
            lists = [_values(connection, column) for column in columns]
        return lists[0], lists[1], lists[2]

    def data(self, query: SampleQuery) -> SampleData:
        """Return what is known of the studies that a query selects."""
        conditions = _conditions(query)
        groups = (reading_frame.c.day, reading_frame.c.verdict, reading_frame.c.bundle)
        counted = select(*groups, func.count().label("studies")).where(*conditions).group_by(*groups)
        answered = union(
            select(reading_frame.c.study_patient_id).where(*conditions, reading_frame.c.weight.is_not(None)),
            select(feedback.c.study_patient_id),
        )
        wanted = select(reading_frame).where(*conditions, reading_frame.c.study_patient_id.in_(answered))
        with self._transactions.reading() as (connection, _now):
            counted_rows = connection.execute(counted).all()
            rows = connection.execute(wanted.order_by(reading_frame.c.study_patient_id)).all()
            truths = truths_of(connection, [row.study_patient_id for row in rows])
        counts: Counter[Verdict] = Counter()
        for row in counted_rows:
            counts[Verdict(row.verdict)] += row.studies
        positive = counts.get(Verdict.PRESENT, 0)
        said = Counter(
            consensus(truths[row.study_patient_id].values())
            for row in rows
            if row.verdict == Verdict.PRESENT and row.study_patient_id in truths
        )
        return SampleData(
            days=len({row.day for row in counted_rows}),
            positive=positive,
            negative=counts.total() - positive,
            bundles=tuple(sorted({row.bundle for row in counted_rows})),
            undetermined=counts.get(Verdict.UNDETERMINED, 0),
            sample=tuple(
                SampledStudy(
                    subject_id=row.study_patient_id,
                    is_positive=row.verdict == Verdict.PRESENT,
                    weight=row.weight,
                    probability=row.probability,
                    threshold=row.threshold,
                    truth=consensus(truths.get(row.study_patient_id, {}).values()),
                    readers=len(truths.get(row.study_patient_id, {})),
                )
                for row in rows
                if row.weight is not None
            ),
            positives_right=said[Truth.POSITIVE],
            positives_wrong=said[Truth.NEGATIVE],
            positives_unclear=said[Truth.UNKNOWN],
            pairs=tuple(_pairs(truths.values())),
        )


def rank(study_uid: str, patient_key: str) -> str:
    """Return the number, in hexadecimal, by which a patient's study is drawn: the smallest ones are."""
    return hashlib.sha256("\0".join((_PREFIX, study_uid, patient_key)).encode()).hexdigest()


def _next_day(connection: Connection, now: datetime) -> date | None:
    """Return the oldest day with a report that is over and not drawn."""
    last = connection.execute(select(func.max(reading_day.c.day))).scalar_one()
    reported = select(report.c.at).order_by(report.c.at).limit(1)
    if last is not None:
        reported = reported.where(report.c.at >= _begin(last + _DAY))
    first = connection.execute(reported).scalar_one_or_none()
    if first is None:
        return None
    day: date = first.astimezone(UTC).date()
    return day if now >= _begin(day + _DAY) + SETTLED_AFTER else None


def _begin(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reported:
    """A patient's study that was reported for the first time on the day."""

    id: int
    study_uid: str
    patient_key: str
    report_id: int  # of its newest report of the day


def _draw(connection: Connection, day: date, now: datetime, *, positive: int, negative: int) -> Drawn:
    reported = _first_reported(connection, day)
    said = statements(connection, [each.report_id for each in reported])
    judged = [(each, said[each.report_id]) for each in reported if each.report_id in said]
    strata = [
        [pair for pair in judged if pair[1].verdict is Verdict.PRESENT],
        [pair for pair in judged if pair[1].verdict is not Verdict.PRESENT],
    ]
    weights: dict[int, float] = {}
    chosen: list[list[_Reported]] = []
    for stratum, most in zip(strata, (positive, negative), strict=True):
        ordered = sorted((each for each, _ in stratum), key=lambda each: rank(each.study_uid, each.patient_key))
        chosen.append(ordered[:most])
        weights |= {each.id: len(stratum) / len(chosen[-1]) for each in chosen[-1]}
    _insert_frame(connection, day, judged, weights)
    counts = {
        "positive": len(strata[0]),
        "negative": len(strata[1]),
        "without_result": len(reported) - len(judged),
    }
    connection.execute(reading_day.insert().values(day=day, at=now, **counts))
    drawn = [[each.study_uid for each in part] for part in chosen]
    detail = {"day": day.isoformat(), **counts, "drawn_positive": drawn[0], "drawn_negative": drawn[1]}
    record_event(connection, now, DRAWN, detail=detail)
    return Drawn(day=day, positive=len(drawn[0]), negative=len(drawn[1]))


def _first_reported(connection: Connection, day: date) -> list[_Reported]:
    within = (report.c.at >= _begin(day)) & (report.c.at < _begin(day + _DAY))
    newest: dict[int, int] = {}
    oldest: dict[int, int] = {}
    ids = select(report.c.id, report.c.study_patient_id).where(within, report.c.study_patient_id.is_not(None))
    for row in connection.execute(ids.order_by(report.c.id)):
        newest[row.study_patient_id] = row.id
        oldest.setdefault(row.study_patient_id, row.id)
    found = []
    for chunk in chunks(sorted(newest)):
        firsts = select(report.c.study_patient_id, func.min(report.c.id).label("id"))
        of_all = firsts.where(report.c.study_patient_id.in_(chunk)).group_by(report.c.study_patient_id)
        new = {row.study_patient_id for row in connection.execute(of_all) if row.id == oldest[row.study_patient_id]}
        patients = select(study_patient).where(study_patient.c.id.in_(sorted(new))).order_by(study_patient.c.id)
        found += [
            _Reported(id=row.id, study_uid=row.study_uid, patient_key=row.patient_key, report_id=newest[row.id])
            for row in connection.execute(patients)
        ]
    return found


def _insert_frame(
    connection: Connection, day: date, judged: Sequence[tuple[_Reported, Statement]], weights: dict[int, float]
) -> None:
    films: dict[int, tuple[str, str]] = {}
    for chunk in chunks([statement.instance_id for _, statement in judged]):
        columns = (instance.c.id, instance.c.calling_ae, instance.c.header, instance.c.transfer_syntax)
        for row in connection.execute(select(*columns).where(instance.c.id.in_(chunk))):
            films[row.id] = (row.calling_ae, view_position(row.header, row.transfer_syntax))
    rows = [
        {
            "study_patient_id": each.id,
            "day": day,
            "report_version": statement.report_version,
            "bundle": statement.bundle,
            "bundle_digest": statement.bundle_digest,
            "verdict": statement.verdict.value,
            "probability": statement.probability,
            "threshold": statement.threshold,
            "calling_ae": films[statement.instance_id][0],
            "view": films[statement.instance_id][1],
            "weight": weights.get(each.id),
        }
        for each, statement in judged
    ]
    if rows:
        connection.execute(reading_frame.insert(), rows)


def _values(connection: Connection, column: ColumnElement[str]) -> list[str]:
    """Return the values of a column that an index begins with, without reading the rows between them."""
    values: list[str] = []
    value = connection.scalar(select(func.min(column)).where(column > ""))
    while value is not None:
        values.append(value)
        value = connection.scalar(select(func.min(column)).where(column > value))
    return values


def _conditions(query: SampleQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.first is not None:
        conditions.append(reading_frame.c.day >= query.first)
    if query.last is not None:
        conditions.append(reading_frame.c.day <= query.last)
    for column, value in (
        (reading_frame.c.calling_ae, query.calling_ae),
        (reading_frame.c.view, query.view),
        (reading_frame.c.bundle, query.bundle),
    ):
        if value is not None:
            conditions.append(column == value)
    return conditions


def _pairs(answers: Iterable[Mapping[str, Truth]]) -> list[Pair]:
    """Return each pair of readers that both know the truth of a study, the names in order."""
    pairs = []
    for of_subject in answers:
        known = sorted((reader, truth) for reader, truth in of_subject.items() if truth is not Truth.UNKNOWN)
        pairs += [
            Pair(first=one[0], second=other[0], truths=(one[1], other[1]))
            for number, one in enumerate(known)
            for other in known[number + 1 :]
        ]
    return pairs
