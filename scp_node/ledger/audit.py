"""Answers what the model said about an image, when, to whom, and whether it arrived."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, select

from scp_node.domain import Reason
from scp_node.ledger.database.schema import (
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
from scp_node.ledger.queue import ANALYSE, WorkState
from scp_node.ledger.trail.provenance import status_text
from scp_node.ledger.transactions import Transactions
from scp_node.ledger.unregistrable import count_unregistrable, unregistrable

STATES: Final = ("received", "analysing", "analysed", "not-analysed", "failed", "conflict", "rejected")
DELIVERY_STATES: Final = ("waiting", "delivered", "committed", "found", "dead", "discarded")
_OUTCOME_STATES: Final = {"finding": "analysed", "not-attempted": "not-analysed", "failed": "failed"}
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Selects images; every condition that is set must hold."""

    since: datetime | None = None  # received at or after
    until: datetime | None = None  # received before
    study_uid: str | None = None
    accession: str | None = None
    sop_instance_uid: str | None = None
    state: str | None = None  # one of STATES, or one of DELIVERY_STATES for any of its deliveries


class Audit:
    """Reads the ledger; changes nothing."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def instances(self, query: AuditQuery) -> Iterator[dict[str, Any]]:
        """Yield one JSON-ready object for each image in the order of arrival; images without a row come last."""
        with self._transactions.reading() as (connection, _now):
            ids = connection.scalars(select(instance.c.id).where(*_conditions(query)).order_by(instance.c.id)).all()
        for chunk in _chunks(ids):
            with self._transactions.reading() as (connection, _now):
                rows = _described(connection, chunk)
            yield from (row for row in rows if _wanted(row, query.state))
        if query.state in {None, "rejected"} and query.accession is None:
            yield from self._rejected(query)
        if query.state in {None, "failed"} and query.accession is None:
            yield from self._unregistrable(query)

    def unregistrable(self) -> int:
        """Return how many received files could not be registered."""
        with self._transactions.reading() as (connection, _now):
            return count_unregistrable(connection)

    def _unregistrable(self, query: AuditQuery) -> Iterator[dict[str, Any]]:
        with self._transactions.reading() as (connection, _now):
            rows = unregistrable(connection)
        for row in rows:
            received_at = datetime.fromisoformat(row.detail["received_at"])
            within = (query.since or received_at) <= received_at and not (query.until and received_at >= query.until)
            named = query.sop_instance_uid in {None, row.sop_instance_uid} and query.study_uid in {None, row.study_uid}
            if not (within and named):
                continue
            details = {name: row.detail[name] or None for name in ("calling_ae", "peer", "sha256", "received_at")}
            yield {
                **_EMPTY,
                **details,
                "sop_instance_uid": row.sop_instance_uid or None,
                "study_uid": row.study_uid or None,
                "state": "failed",
                "reason": "unregistrable",
                "detail": f"{row.detail['path']}: {row.detail['reason']}",
            }

    def _rejected(self, query: AuditQuery) -> Iterator[dict[str, Any]]:
        conditions: list[ColumnElement[bool]] = [event.c.kind == "rejected"]
        if query.since:
            conditions.append(event.c.at >= query.since)
        if query.until:
            conditions.append(event.c.at < query.until)
        if query.sop_instance_uid:
            conditions.append(event.c.sop_instance_uid == query.sop_instance_uid)
        if query.study_uid:
            return
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(select(event).where(*conditions).order_by(event.c.id)).all()
        for row in rows:
            yield {
                **_EMPTY,
                "sop_instance_uid": row.sop_instance_uid,
                "calling_ae": row.detail.get("calling_ae"),
                "peer": row.detail.get("peer"),
                "received_at": row.at.isoformat(),
                "state": "rejected",
                "reason": row.detail.get("reason"),
                "detail": row.detail.get("status"),
            }

    def events(self, study_uid: str) -> list[dict[str, Any]]:
        """Return the trail of one study, oldest first."""
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(select(event).where(event.c.study_uid == study_uid).order_by(event.c.id)).all()
        return [
            {"at": row.at.isoformat(), "kind": row.kind, "sop_instance_uid": row.sop_instance_uid, **row.detail}
            for row in rows
        ]


_EMPTY: Final[dict[str, Any]] = {
    "sop_instance_uid": None,
    "study_uid": None,
    "series_uid": None,
    "accession": None,
    "patient_id": None,
    "interrupted": False,
    "purged_at": None,
    "calling_ae": None,
    "peer": None,
    "sha256": None,
    "received_at": None,
    "state": None,
    "reason": None,
    "detail": None,
    "notes": [],
    "probability": None,
    "threshold": None,
    "grey_zone": None,
    "verdict": None,
    "regions": [],
    "bundle": None,
    "bundle_digest": None,
    "calibration": None,
    "registered_at": None,
    "analysis_started_at": None,
    "analysed_at": None,
    "timings": {},
    "report_uid": None,
    "report_version": None,
    "reported_at": None,
    "deliveries": [],
}


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield `ids` in chunks that fit into one IN list."""
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]


def _conditions(query: AuditQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.since:
        conditions.append(instance.c.received_at >= query.since)
    if query.until:
        conditions.append(instance.c.received_at < query.until)
    exact = {name: getattr(query, name) for name in ("study_uid", "accession", "sop_instance_uid")}
    return conditions + [instance.c[name] == value for name, value in exact.items() if value is not None]


def _wanted(row: dict[str, Any], state: str | None) -> bool:
    return state is None or row["state"] == state or any(sent["state"] == state for sent in row["deliveries"])


def _described(connection: Connection, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return one object for each image, with its newest result, the report of that result and the deliveries."""
    newest_results = select(func.max(result.c.id)).where(result.c.instance_id.in_(ids)).group_by(result.c.instance_id)
    results = {row.instance_id: row for row in _rows(connection, select(result).where(result.c.id.in_(newest_results)))}
    reports = _newest_reports(connection, [row.id for row in results.values()])
    deliveries = _deliveries(connection, [row.id for row in reports.values()])
    leased = set(
        connection.scalars(
            select(work.c.ref_id).where(
                and_(work.c.queue == ANALYSE, work.c.ref_id.in_(ids), work.c.state == WorkState.LEASED)
            )
        )
    )
    columns = [column for column in instance.c if column.name != "header"]
    described = []
    images = select(*columns, study.c.interrupted).outerjoin(study, study.c.study_uid == instance.c.study_uid)
    for row in _rows(connection, images.where(instance.c.id.in_(ids)).order_by(instance.c.id)):
        found = results.get(row.id)
        sent = reports.get(found.id) if found else None
        described.append(
            {
                **_EMPTY,
                **_instance_part(row),
                **(_result_part(found) if found else _waiting_part(row, analysing=row.id in leased)),
                **(_report_part(sent, deliveries.get(sent.id, [])) if sent else {}),
            }
        )
    return described


def _rows(connection: Connection, statement: Select[Any]) -> Sequence[Row[Any]]:
    return connection.execute(statement).all()


def _newest_reports(connection: Connection, result_ids: Sequence[int]) -> dict[int, Row[Any]]:
    """Return the newest report that holds each result."""
    columns = (report_result.c.result_id, report.c.id, report.c.sop_instance_uid, report.c.version, report.c.at)
    joined = select(*columns).join(report, report.c.id == report_result.c.report_id)
    chosen = joined.where(report_result.c.result_id.in_(result_ids)).order_by(report.c.version)
    return {row.result_id: row for row in _rows(connection, chosen)}


def _deliveries(connection: Connection, report_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    table: dict[int, list[dict[str, Any]]] = {}
    sent = func.coalesce(companion.c.sop_instance_uid, report.c.sop_instance_uid).label("sop_instance_uid")
    described = select(delivery, sent, func.coalesce(companion.c.kind, "report").label("kind"))
    joined = described.join(report, report.c.id == delivery.c.report_id)
    joined = joined.outerjoin(companion, companion.c.id == delivery.c.companion_id)
    chosen = joined.where(delivery.c.report_id.in_(report_ids)).order_by(delivery.c.id)
    for row in _rows(connection, chosen):
        table.setdefault(row.report_id, []).append(
            {
                "destination": row.destination,
                "kind": row.kind,
                "sop_instance_uid": row.sop_instance_uid,
                "state": row.state,
                "status": status_text(row.dimse_status),
                "at": _iso(row.delivered_at or row.last_attempt_at),
                "committed_at": _iso(row.committed_at),
                "attempts": row.attempts,
                "detail": row.detail,
                "sop_class_uid": row.sop_class_uid,
            }
        )
    return table


def _instance_part(row: Row[Any]) -> dict[str, Any]:
    same = ("sop_instance_uid", "study_uid", "accession", "patient_id", "calling_ae", "peer", "sha256")
    part = {name: getattr(row, name) for name in (*same, "series_uid")}
    instants = {name: _iso(getattr(row, name)) for name in ("received_at", "registered_at", "purged_at")}
    return {**part, **instants, "interrupted": bool(row.interrupted)}


def _waiting_part(row: Row[Any], *, analysing: bool) -> dict[str, Any]:
    if row.conflict:
        return {"state": "conflict", "reason": Reason.CONFLICTING_INSTANCE.value}
    return {"state": "analysing" if analysing else "received"}


def _result_part(row: Row[Any]) -> dict[str, Any]:
    same = (
        "reason",
        "detail",
        "notes",
        "probability",
        "threshold",
        "grey_zone",
        "verdict",
        "regions",
        "bundle",
        "bundle_digest",
        "calibration",
        "timings",
    )
    return {
        **{name: getattr(row, name) for name in same},
        "state": _OUTCOME_STATES[row.outcome],
        "analysis_started_at": _iso(row.started_at),
        "analysed_at": _iso(row.at),
    }


def _report_part(row: Row[Any], deliveries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "report_uid": row.sop_instance_uid,
        "report_version": row.version,
        "reported_at": _iso(row.at),
        "deliveries": deliveries,
    }


def _iso(instant: datetime | None) -> str | None:
    return instant.isoformat() if instant else None
