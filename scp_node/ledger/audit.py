"""Answers what the model said about an image, when, to whom, and whether it arrived."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, ScalarSelect, Select, exists, false, func, or_, select, union

from scp_node.domain import Completion, Verdict
from scp_node.ledger.audit_rows import AuditDelivery, AuditEvent, AuditPage, AuditRow, DeliveryState, ImageState
from scp_node.ledger.database.schema import (
    WITHOUT_HEADER,
    Use,
    companion,
    delivery,
    event,
    instance,
    report,
    report_result,
    result,
    study,
    work,
)
from scp_node.ledger.queue import WorkState
from scp_node.ledger.queue_kinds import ANALYSE, in_queue
from scp_node.ledger.snapshots import UNREAD
from scp_node.ledger.trail.provenance import status_text
from scp_node.ledger.transactions import Transactions
from scp_node.ledger.unregistrable import count_unregistrable, unregistrable

PAGE: Final = 500  # rows, unless told otherwise
_WILDCARD: Final = re.compile(r"[*?]")
_LAST_CHARACTER: Final = "\U0010ffff"  # of Unicode; no text holds it
_EARLIER: Final = "it had a result before: see the events of its study, and the reports that named it"
_STATES_OF_OUTCOMES: Final = {
    "finding": ImageState.ANALYSED,
    Completion.NOT_ATTEMPTED.value: ImageState.NOT_ANALYSED,
    Completion.FAILED.value: ImageState.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Selects images; every condition that is set must hold.

    In `accession` and `patient_id` "*" stands for any characters and "?" for one (PS3.4 section C.2.2.2.4). Accession
    numbers are in an index: SQLite reads only those that begin as `accession` does up to its first wildcard, PostgreSQL
    too where its database has the collation C; elsewhere it reads every one. Patient IDs are in no index: such a query
    reads every image that the other conditions leave.
    """

    since: datetime | None = None  # received at or after
    until: datetime | None = None  # received before
    study_uid: str | None = None
    accession: str | None = None
    patient_id: str | None = None
    sop_instance_uid: str | None = None  # of the image, of a report of it, or of what went with a report
    state: ImageState | DeliveryState | None = None  # of the image, or of any of its deliveries


class Audit:
    """Reads the ledger; changes nothing."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def instances(self, query: AuditQuery) -> Iterator[AuditRow]:
        """Yield one row for each image, in the order of arrival; what has no row in the ledger comes last."""
        after: int | None = 0
        while after is not None:
            page = self.page(query, after=after)
            yield from page.rows
            after = page.next_key
        if query.accession is None and query.patient_id is None:  # of what is not registered neither is known
            if query.state in {None, ImageState.REJECTED}:
                yield from self._rejected(query)
            if query.state in {None, ImageState.FAILED}:
                yield from self._unregistrable(query)

    def page(self, query: AuditQuery, *, after: int = 0, most: int = PAGE) -> AuditPage:
        """Return up to `most` registered images behind the key `after`, in the order of arrival.

        A page costs the same wherever it lies.
        """
        with self._transactions.reading() as (connection, _now):
            conditions = _conditions(query, connection.dialect.name)
            chosen = select(instance.c.id).where(instance.c.id > after, *conditions)
            ids = connection.scalars(chosen.order_by(instance.c.id).limit(most)).all()
            rows = described(connection, ids)
        return AuditPage(rows=tuple(rows), next_key=ids[-1] if len(ids) == most else None)

    def unregistrable(self) -> int:
        """Return how many received files could not be registered."""
        with self._transactions.reading() as (connection, _now):
            return count_unregistrable(connection)

    def knows(self, name: str) -> bool:
        """Return whether `name` is a work id, or the UID of an image, a study, a report or what went with one."""
        uids = (
            select(instance.c.id).where(instance.c.sop_instance_uid == name),
            select(instance.c.id).where(instance.c.study_uid == name),
            select(report.c.id).where(or_(report.c.sop_instance_uid == name, report.c.study_uid == name)),
            select(companion.c.id).where(companion.c.sop_instance_uid == name),
            select(work.c.id).where(work.c.id == int(name) if name.isdecimal() and len(name) < 18 else false()),
        )
        with self._transactions.reading() as (connection, _now):
            return any(connection.execute(found.limit(1)).first() for found in uids)

    def knows_study(self, study_uid: str) -> bool:
        """Return whether an image of this study is registered."""
        found = select(instance.c.id).where(instance.c.study_uid == study_uid).limit(1)
        with self._transactions.reading() as (connection, _now):
            return connection.execute(found).first() is not None

    def knows_model(self, name: str) -> bool:
        """Return whether a result is by this bundle, given as "name-version" or as its digest."""
        found = select(result.c.id).where(or_(result.c.bundle == name, result.c.bundle_digest == name)).limit(1)
        with self._transactions.reading() as (connection, _now):
            return connection.execute(found).first() is not None

    def events(self, study_uid: str) -> list[AuditEvent]:
        """Return the trail of one study, oldest first."""
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(select(event).where(event.c.study_uid == study_uid).order_by(event.c.id)).all()
        return [
            AuditEvent(at=row.at, kind=row.kind, sop_instance_uid=row.sop_instance_uid, detail=row.detail)
            for row in rows
        ]

    def _unregistrable(self, query: AuditQuery) -> Iterator[AuditRow]:
        with self._transactions.reading() as (connection, _now):
            rows = unregistrable(connection)
        for row in rows:
            received_at = datetime.fromisoformat(row.detail["received_at"])
            within = (query.since or received_at) <= received_at and not (query.until and received_at >= query.until)
            named = query.sop_instance_uid in {None, row.sop_instance_uid} and query.study_uid in {None, row.study_uid}
            if within and named:
                yield AuditRow(
                    sop_instance_uid=row.sop_instance_uid or None,
                    study_uid=row.study_uid or None,
                    calling_ae=row.detail["calling_ae"] or None,
                    peer=row.detail["peer"] or None,
                    sha256=row.detail["sha256"] or None,
                    received_at=received_at,
                    state=ImageState.FAILED,
                    reason="unregistrable",
                    detail=f"{row.detail['path']}: {row.detail['reason']}",
                )

    def _rejected(self, query: AuditQuery) -> Iterator[AuditRow]:
        if query.study_uid:
            return
        conditions: list[ColumnElement[bool]] = [event.c.kind == "rejected"]
        if query.since:
            conditions.append(event.c.at >= query.since)
        if query.until:
            conditions.append(event.c.at < query.until)
        if query.sop_instance_uid:
            conditions.append(event.c.sop_instance_uid == query.sop_instance_uid)
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(select(event).where(*conditions).order_by(event.c.id)).all()
        for row in rows:
            yield AuditRow(
                sop_instance_uid=row.sop_instance_uid,
                calling_ae=row.detail.get("calling_ae"),
                peer=row.detail.get("peer"),
                received_at=row.at,
                state=ImageState.REJECTED,
                reason=row.detail.get("reason"),
                detail=_refusal(str(row.detail.get("status")), unsaid=int(row.detail.get("unsaid", 0))),
            )


def _refusal(status: str, *, unsaid: int) -> str:
    return f"{status}, the last of {unsaid} more like it" if unsaid else status


def _conditions(query: AuditQuery, dialect: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.since:
        conditions.append(instance.c.received_at >= query.since)
    if query.until:
        conditions.append(instance.c.received_at < query.until)
    if query.study_uid is not None:
        conditions.append(instance.c.study_uid == query.study_uid)
    if query.sop_instance_uid is not None:
        conditions.append(instance.c.id.in_(_about(query.sop_instance_uid)))
    if query.accession is not None:
        conditions += _with_accession(query.accession, dialect)
    if query.patient_id is not None:
        conditions += _matches(instance.c.patient_id, query.patient_id, dialect)
    if isinstance(query.state, ImageState):
        conditions.append(_is_in(query.state))
    elif query.state is not None:
        conditions.append(exists().where(delivery.c.report_id == _newest_report(), delivery.c.state == query.state))
    return conditions


def _about(uid: str) -> ColumnElement[Any]:
    """Return the ids of the images that have this SOP Instance UID, or whose report or companion has it."""
    reports = union(
        select(report.c.id).where(report.c.sop_instance_uid == uid),
        select(companion.c.report_id).where(companion.c.sop_instance_uid == uid),
    ).scalar_subquery()
    image = instance.alias()
    own = select(image.c.id).where(image.c.sop_instance_uid == uid)
    reported = select(result.c.instance_id).join(report_result, report_result.c.result_id == result.c.id)
    return union(own, reported.where(report_result.c.report_id.in_(reports))).scalar_subquery()


def _with_accession(value: str, dialect: str) -> list[ColumnElement[bool]]:
    if not _WILDCARD.search(value):
        return [instance.c.accession == value]
    image = instance.alias()  # in a query of its own the index is used; beside the order by id it would not be
    conditions = _matches(image.c.accession, value, dialect)
    return [instance.c.id.in_(select(image.c.id).where(*conditions))] if conditions else []


def _matches(column: ColumnElement[Any], value: str, dialect: str) -> list[ColumnElement[bool]]:
    """Return the SQL conditions that a column has a value, in which "*" and "?" may stand; none where any value has."""
    if not value.strip("*"):
        return [] if value else [column == value]
    head = _WILDCARD.split(value, maxsplit=1)[0]
    if head == value:
        return [column == value]
    if dialect == "postgresql":
        literal = re.sub(r"[\\%_]", r"\\\g<0>", value)
        return [column.like(literal.replace("*", "%").replace("?", "_"), escape="\\")]
    conditions: list[ColumnElement[bool]] = [
        column.bool_op("GLOB")(value.replace("[", "[[]"))
    ]  # LIKE would not tell a from A
    # Text is in the order of its code points: what begins with `head` lies between it and what follows all of that.
    return [*conditions, column >= head, column < head + _LAST_CHARACTER] if head else conditions


def _is_in(state: ImageState) -> ColumnElement[bool]:
    """Return the SQL condition that an image is in this state."""
    outcome = _newest_result(result.c.outcome)
    waits = outcome.is_(None) & (instance.c.use == Use.READ)
    is_leased = exists().where(in_queue(ANALYSE), work.c.ref_id == instance.c.id, work.c.state == WorkState.LEASED)
    match state:
        case ImageState.RECEIVED:
            return waits & ~is_leased
        case ImageState.ANALYSING:
            return waits & is_leased
        case ImageState.CONFLICT | ImageState.SET_ASIDE | ImageState.DUPLICATE:
            return instance.c.use == state.value
        case _:  # none is registered as rejected
            ended = outcome.in_([name for name, ends in _STATES_OF_OUTCOMES.items() if ends is state])
            return (instance.c.use == Use.READ) & ended


def _newest_result(column: ColumnElement[Any]) -> ScalarSelect[Any]:
    newest = select(column).where(result.c.instance_id == instance.c.id).order_by(result.c.id.desc()).limit(1)
    return newest.correlate(instance).scalar_subquery()


def _newest_report() -> ScalarSelect[Any]:
    """Return the newest report that holds the newest result of an image."""
    linked = select(report.c.id).join(report_result, report_result.c.report_id == report.c.id)
    newest = linked.where(report_result.c.result_id == _newest_result(result.c.id))
    return newest.order_by(report.c.version.desc()).limit(1).correlate(instance).scalar_subquery()


def described(connection: Connection, ids: Sequence[int]) -> list[AuditRow]:
    """Return the rows of these images, each with its newest result, that result's report and its deliveries."""
    chosen = select(result).where(result.c.id.in_(newest_results(ids)))
    results = {row.instance_id: row for row in _rows(connection, chosen)}
    reports = _newest_reports(connection, [row.id for row in results.values()])
    deliveries = described_deliveries(connection, [row.id for row in reports.values()])
    in_work = select(work.c.ref_id).where(in_queue(ANALYSE), work.c.ref_id.in_(ids), work.c.state == WorkState.LEASED)
    leased = set(connection.scalars(in_work))
    images = select(*WITHOUT_HEADER, study.c.interrupted).outerjoin(study, study.c.study_uid == instance.c.study_uid)
    audited_rows = []
    for row in _rows(connection, images.where(instance.c.id.in_(ids)).order_by(instance.c.id)):
        audited = _received(row, analysing=row.id in leased)
        found = results.get(row.id)
        if found and row.use == Use.READ:
            audited = _with_result(audited, found)
            if sent := reports.get(found.id):
                audited = _with_report(audited, sent, deliveries.get(sent.id, []))
        elif found:
            audited = replace(audited, detail=_EARLIER)
        audited_rows.append(audited)
    return audited_rows


def newest_results(ids: Sequence[int]) -> Select[Any]:
    """Return the query for the id of the newest result of each of these images."""
    return select(func.max(result.c.id)).where(result.c.instance_id.in_(ids)).group_by(result.c.instance_id)


def _rows(connection: Connection, statement: Select[Any]) -> Sequence[Row[Any]]:
    return connection.execute(statement).all()


def _newest_reports(connection: Connection, result_ids: Sequence[int]) -> dict[int, Row[Any]]:
    """Return the newest report that holds each result."""
    columns = (report_result.c.result_id, report.c.id, report.c.sop_instance_uid, report.c.version, report.c.at)
    joined = select(*columns).join(report, report.c.id == report_result.c.report_id)
    chosen = joined.where(report_result.c.result_id.in_(result_ids)).order_by(report.c.version)
    return {row.result_id: row for row in _rows(connection, chosen)}


def described_deliveries(
    connection: Connection, report_ids: Sequence[int]
) -> dict[int, list[tuple[int, AuditDelivery]]]:
    """Return the deliveries of each of these reports and its companions, with their ids."""
    table: dict[int, list[tuple[int, AuditDelivery]]] = {}
    sent = func.coalesce(companion.c.sop_instance_uid, report.c.sop_instance_uid).label("sop_instance_uid")
    columns = select(delivery, sent, func.coalesce(companion.c.kind, "report").label("kind"))
    joined = columns.join(report, report.c.id == delivery.c.report_id)
    joined = joined.outerjoin(companion, companion.c.id == delivery.c.companion_id)
    chosen = joined.where(delivery.c.report_id.in_(report_ids)).order_by(delivery.c.id)
    for row in _rows(connection, chosen):
        sent_there = AuditDelivery(
            destination=row.destination,
            kind=row.kind,
            sop_instance_uid=row.sop_instance_uid,
            state=DeliveryState(row.state),
            status=status_text(row.dimse_status),
            at=row.delivered_at or row.last_attempt_at,
            committed_at=row.committed_at,
            attempts=row.attempts,
            detail=row.detail,
            sop_class_uid=row.sop_class_uid,
        )
        table.setdefault(row.report_id, []).append((row.id, sent_there))
    return table


def _received(row: Row[Any], *, analysing: bool) -> AuditRow:
    """Return the row of an image without a result."""
    waiting = ImageState.ANALYSING if analysing else ImageState.RECEIVED
    is_read = row.use == Use.READ
    return AuditRow(
        sop_instance_uid=row.sop_instance_uid,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
        accession=row.accession,
        patient_id=row.patient_id,
        interrupted=bool(row.interrupted),
        purged_at=row.purged_at,
        calling_ae=row.calling_ae,
        peer=row.peer,
        sha256=row.sha256,
        received_at=row.received_at,
        registered_at=row.registered_at,
        state=waiting if is_read else ImageState(row.use),
        reason=UNREAD.get(Use(row.use)),
    )


def _with_result(audited: AuditRow, row: Row[Any]) -> AuditRow:
    return replace(
        audited,
        state=_STATES_OF_OUTCOMES[row.outcome],
        reason=row.reason,
        detail=row.detail,
        notes=tuple(row.notes),
        probability=row.probability,
        threshold=row.threshold,
        grey_zone=row.grey_zone,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        regions=tuple(row.regions),
        bundle=row.bundle,
        bundle_digest=row.bundle_digest,
        calibration=row.calibration,
        analysis_started_at=row.started_at,
        analysed_at=row.at,
        timings=row.timings,
    )


def _with_report(audited: AuditRow, row: Row[Any], deliveries: Sequence[tuple[int, AuditDelivery]]) -> AuditRow:
    return replace(
        audited,
        report_uid=row.sop_instance_uid,
        report_version=row.version,
        reported_at=row.at,
        deliveries=tuple(sent for _, sent in deliveries),
    )
