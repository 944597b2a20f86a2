"""Checks that the ledger still says what was recorded: the chain of events, and the rows that they describe."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Table, func, select

from scp_node.ledger.database.schema import (
    companion,
    feedback,
    instance,
    reading_frame,
    report,
    result,
    shadow_result,
    study_patient,
)
from scp_node.ledger.feedback import GIVEN, SAID
from scp_node.ledger.reading_sample import DRAWN
from scp_node.ledger.reports import COMPANIONS_MADE
from scp_node.ledger.trail.chain import BrokenChainError, ChainEnd, TrailEvent, chain_end, holds, walk, walk_unsealed
from scp_node.ledger.trail.sealer import Unsealed, unsealed
from scp_node.ledger.transactions import Transactions

MOST_PROBLEMS: Final = 20  # that are named: a person has to look at a ledger with more anyway
SEALED_WITHIN: Final = timedelta(seconds=60)  # an event that waits longer for its place in the chain is a problem
_WITH_REPORTS: Final = "companions"
_FIRST_ANSWERS: Final = "first answers"
_FRAMED: Final = "framed"
_FILES: Final = 8  # stored files in memory at once: a picture has megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of a check; without problems, the ledger says what was recorded."""

    events: int  # in the chain
    head: str  # hash of the last one
    unsealed: int = 0  # events that wait for their place in the chain
    files: int  # reports and companions whose bytes were read
    problems: tuple[str, ...]


class Verifier:
    """Reads the ledger and compares; it changes nothing and blocks nobody."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def end(self) -> ChainEnd:
        """Return the present end of the chain.

        Raises:
            BrokenChainError: its row is gone.
        """
        with self._transactions.reading() as (connection, _now):
            return chain_end(connection)

    def unsealed(self) -> Unsealed:
        """Return the events that wait for their place in the chain."""
        with self._transactions.reading() as (connection, now):
            return unsealed(connection, at=now)

    def verify(self, *, noted: str | None = None, quick: bool = False) -> Verification:
        """Check the chain, the rows that its events describe, and unless `quick` the bytes of every report.

        Args:
            noted: hash of an event that was once the last one; it must still be in the chain.
            quick: do not read the bytes of reports and their companions.
        """
        with self._transactions.reading() as (_connection, now):
            pass  # a snapshot has no time
        with self._transactions.snapshot() as connection:
            verification = verify(connection, at=now, noted=noted)
        files, altered = (0, []) if quick else self._files()
        return replace(verification, files=files, problems=(*verification.problems, *altered[:MOST_PROBLEMS]))

    def _files(self) -> tuple[int, list[str]]:
        """Return the number of stored files, and a problem for each whose bytes have changed."""
        number, altered = 0, []
        for table in (report, companion):
            last = 0
            while rows := self._some_files(table, last):
                last, number = rows[-1].id, number + len(rows)
                wrong = [row for row in rows if hashlib.sha256(row.file).hexdigest() != row.sha256]
                altered += [f"{table.name} {row.sop_instance_uid}: its bytes were edited" for row in wrong]
        return number, altered

    def _some_files(self, table: Table, after: int) -> Sequence[Any]:
        columns = select(table.c.id, table.c.sop_instance_uid, table.c.sha256, table.c.file)
        with self._transactions.reading() as (connection, _now):  # rows of these tables are added, never changed
            return connection.execute(columns.where(table.c.id > after).order_by(table.c.id).limit(_FILES)).all()


def verify(connection: Connection, *, at: datetime, noted: str | None = None) -> Verification:
    """Check the chain and the rows that its events describe, in the one state that this transaction sees at `at`."""
    problems: list[str] = []
    counts: Counter[str] = Counter()
    events, waiting, end = 0, _Waiting(), ChainEnd(length=0, head="")
    try:
        end = chain_end(connection)
        for batch in walk(connection):
            events += len(batch)
            counts += _counted(batch)
            problems += _contradictions(connection, batch)
        for batch in walk_unsealed(connection):
            waiting = waiting.plus(batch)
            counts += _counted(batch)
            problems += _contradictions(connection, batch)
        problems += waiting.problems(at)
        problems += _unaccounted(connection, counts)
    except BrokenChainError as error:
        problems.append(str(error))
    if noted is not None and not holds(connection, noted):
        problems.append(f"no event has the hash {noted}: the history was written anew, or cut before that event")
    problems = problems[:MOST_PROBLEMS]
    return Verification(events=events, head=end.head, unsealed=waiting.events, files=0, problems=tuple(problems))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The events that wait for their place in the chain, and the one that waits longest."""

    events: int = 0
    oldest: TrailEvent | None = None

    def plus(self, batch: Sequence[TrailEvent]) -> _Waiting:
        oldest = min([*batch, self.oldest or batch[0]], key=lambda each: each.at)
        return _Waiting(self.events + len(batch), oldest)

    def problems(self, at: datetime) -> Iterator[str]:
        """Yield a problem where one waits longer than it does for a node that runs."""
        if self.oldest and (age := at - self.oldest.at) > SEALED_WITHIN:
            yield (
                f"{self.events} events have no place in the chain yet, event {self.oldest.id} for "
                f"{age.total_seconds():.0f} s: start the node, whose sender and web page seal them, or run "
                "`scp-node db upgrade`"
            )


def _counted(batch: Sequence[TrailEvent]) -> Counter[str]:
    """Return how many rows of each table these events speak of."""
    counts = Counter(event.kind for event in batch)
    counts[_WITH_REPORTS] += sum(len(event.detail.get("companions", ())) for event in batch)
    counts[_FIRST_ANSWERS] += sum(each.detail["number"] == 1 for each in _of_kind(batch, GIVEN))
    counts[_FRAMED] += sum(each.detail["positive"] + each.detail["negative"] for each in _of_kind(batch, DRAWN))
    return counts


def _contradictions(connection: Connection, batch: Sequence[TrailEvent]) -> Iterator[str]:
    yield from _images(connection, _of_kind(batch, "received", "conflict"))
    yield from _results(connection, _of_kind(batch, "analysed"))
    yield from _shadow_results(connection, _of_kind(batch, "shadow-analysed"))
    yield from _reports(connection, _of_kind(batch, "reported", COMPANIONS_MADE))
    yield from _answers(connection, _of_kind(batch, GIVEN))
    yield from _samples(connection, _of_kind(batch, DRAWN))


def _of_kind(batch: Sequence[TrailEvent], *kinds: str) -> list[TrailEvent]:
    return [event for event in batch if event.kind in kinds]


def _images(connection: Connection, events: Sequence[TrailEvent]) -> Iterator[str]:
    columns = select(instance.c.sop_instance_uid, instance.c.sha256, instance.c.study_uid, instance.c.conflict)
    uids = {event.sop_instance_uid for event in events}
    kept = set(map(tuple, connection.execute(columns.where(instance.c.sop_instance_uid.in_(uids)))))
    for event in events:
        digest = event.detail.get("sha256") or "".join(event.detail.get("input_sha256", []))
        if (event.sop_instance_uid, digest, event.study_uid, event.kind == "conflict") not in kept:
            yield f"image {event.sop_instance_uid}: its row is not what event {event.id} says"


def _results(connection: Connection, events: Sequence[TrailEvent]) -> Iterator[str]:
    said = ("outcome", "verdict", "probability", "reason")
    columns = [instance.c.sop_instance_uid, result.c.bundle_digest, result.c.run, *(result.c[name] for name in said)]
    joined = select(*columns).join(instance, instance.c.id == result.c.instance_id)
    uids = {event.sop_instance_uid for event in events}
    kept = set(map(tuple, connection.execute(joined.where(instance.c.sop_instance_uid.in_(uids)))))
    for event in events:
        detail = event.detail
        row = (event.sop_instance_uid, detail["bundle_digest"], detail["run"], *(detail[name] for name in said))
        if row not in kept:
            yield f"result {detail['run']} of image {event.sop_instance_uid}: its row is not what event {event.id} says"


def _shadow_results(connection: Connection, events: Sequence[TrailEvent]) -> Iterator[str]:
    said = ("bundle_digest", "outcome", "verdict", "probability", "reason", "reported_verdict")
    beside = (result.c.bundle_digest.label("reporting_digest"), result.c.run.label("reporting_run"), result.c.verdict)
    named = (instance.c.sop_instance_uid, shadow_result.c.study_uid, *(shadow_result.c[name] for name in said))
    joined = select(*named, *beside, shadow_result.c.agrees)
    joined = joined.join(instance, instance.c.id == shadow_result.c.instance_id)
    joined = joined.join(result, result.c.id == shadow_result.c.result_id)
    uids = {event.sop_instance_uid for event in events}
    kept = set(map(tuple, connection.execute(joined.where(instance.c.sop_instance_uid.in_(uids)))))
    for event in events:
        detail = event.detail
        reported, verdict = detail["reported_verdict"], detail["verdict"]
        values = (detail[name] for name in (*said, "reporting_digest", "reporting_run"))
        agrees = None if verdict is None else verdict == reported
        if (event.sop_instance_uid, event.study_uid, *values, reported, agrees) not in kept:
            yield f"shadow result of image {event.sop_instance_uid}: its row is not what event {event.id} says"


def _reports(connection: Connection, events: Sequence[TrailEvent]) -> Iterator[str]:
    uids = {event.detail["report_uid"] for event in events}
    reports = _digests(connection, report, uids)
    companions = _digests(connection, companion, {uid for each in events for uid in each.detail.get("companions", ())})
    for event in events:
        detail = event.detail
        expected_report = {detail["report_uid"]: detail.get("report_sha256")}
        expected_companions = {uid: detail.get("companion_sha256", {}).get(uid) for uid in detail.get("companions", ())}
        for table, rows, wanted in ((report, reports, expected_report), (companion, companions, expected_companions)):
            for uid, digest in wanted.items():
                if uid not in rows or digest not in {None, rows[uid]}:
                    yield f"{table.name} {uid}: its row is not what event {event.id} says"


def _answers(connection: Connection, events: Sequence[TrailEvent]) -> Iterator[str]:
    """Compare the newest answer of each reader with its event; former answers are in events alone."""
    subjects = {event.detail["subject"] for event in events}
    rows = connection.execute(select(feedback).where(feedback.c.study_patient_id.in_(subjects)))
    kept: dict[tuple[int, str], Any] = {(row.study_patient_id, row.reader): row for row in rows}
    for event in events:
        detail = event.detail
        row = kept.get((detail["subject"], detail["reader"]))
        is_newest = row is not None and row.number == detail["number"]
        is_later = row is not None and row.number > detail["number"]
        if not (is_later or (is_newest and all(getattr(row, name) == detail["new"][name] for name in SAID))):
            yield f"answer of {detail['reader']} to study {event.study_uid}: its row is not what event {event.id} says"


def _samples(connection: Connection, events: Sequence[TrailEvent]) -> Iterator[str]:
    for event in events:
        day = date.fromisoformat(event.detail["day"])
        joined = select(study_patient.c.study_uid).join(
            reading_frame, reading_frame.c.study_patient_id == study_patient.c.id
        )
        drawn = connection.scalars(joined.where(reading_frame.c.day == day, reading_frame.c.weight.is_not(None)))
        if sorted(drawn) != sorted([*event.detail["drawn_positive"], *event.detail["drawn_negative"]]):
            yield f"reading sample of {day}: its rows are not what event {event.id} says"


def _digests(connection: Connection, table: Table, uids: set[str]) -> dict[str, str]:
    columns = select(table.c.sop_instance_uid, table.c.sha256)
    rows = connection.execute(columns.where(table.c.sop_instance_uid.in_(uids)))
    return {row.sop_instance_uid: row.sha256 for row in rows}


def _unaccounted(connection: Connection, counts: Counter[str]) -> Iterator[str]:
    """Yield each table whose number of rows differs from the number of its events: each row has one event."""
    expected = {
        instance: counts["received"] + counts["conflict"],
        result: counts["analysed"],
        shadow_result: counts["shadow-analysed"],
        report: counts["reported"],
        companion: counts[_WITH_REPORTS],
        feedback: counts[_FIRST_ANSWERS],
        reading_frame: counts[_FRAMED],
    }
    for table, events in expected.items():
        rows = connection.execute(select(func.count()).select_from(table)).scalar_one()
        if rows != events:
            yield f"table {table.name} has {rows} rows, the events speak of {events}"
