"""Hands the sealed events to a process that sends them elsewhere: in the order of the chain, each at least once.

The row of `audit_feed` names the last event that the other side has. It moves on when the other side has taken more,
so that nothing is lost while it is away: the trail itself is the buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, select, union_all, update

from scp_node.ledger.database.schema import audit_feed, chain, companion, event, instance, report, study_patient
from scp_node.ledger.following import is_free
from scp_node.ledger.trail.sealer import unsealed
from scp_node.ledger.transactions import Transactions

LEASE: Final = timedelta(seconds=120)  # longer than it takes to send a batch
BATCH: Final = 200  # events


@dataclass(frozen=True, slots=True, kw_only=True)
class FedPatient:
    """A patient whom an event is about."""

    patient_id: str
    header: bytes | None  # of one of their images, where it was asked for
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FedEvent:
    """One event of the trail, and what the ledger knows of its subject."""

    id: int
    seq: int  # its place in the chain
    at: datetime
    kind: str
    study_uid: str
    sop_instance_uid: str
    detail: Mapping[str, Any]
    hash: str
    sop_class_uid: str  # of the image, or of the object that was sent; "" where the event is about neither
    patients: tuple[FedPatient, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What the other side has not got."""

    events: int
    oldest_at: datetime | None


class Feed:
    """The events behind the one that the other side has."""

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def next(self, owner: str, *, with_headers: bool = False) -> list[FedEvent]:
        """Return the next events, and keep other processes from sending them for `LEASE`.

        There are none where the other side has them all, or where another process sends them.
        """
        with self._transactions.reading() as (connection, _now):
            position = select(audit_feed.c.position).scalar_subquery()
            if connection.execute(select(event.c.id).where(event.c.seq > position).limit(1)).first() is None:
                return []
        with self._transactions.writing() as (connection, now):
            free = is_free(audit_feed, owner, at=now, lease=LEASE)
            if not connection.execute(
                update(audit_feed).where(free).values(owner=owner, lease_until=now + LEASE)
            ).rowcount:
                return []
        with self._transactions.snapshot() as connection:
            behind = select(event).where(event.c.seq > select(audit_feed.c.position).scalar_subquery())
            rows = connection.execute(behind.order_by(event.c.seq).limit(BATCH)).all()
            return [_fed(connection, row, with_headers=with_headers) for row in rows]

    def taken(self, owner: str, events: list[FedEvent]) -> bool:
        """Note that the other side has these events; return False where another process sends them by now."""
        before = audit_feed.c.position < events[0].seq
        mine = (audit_feed.c.owner == owner) & before
        values = {"position": events[-1].seq, "taken": audit_feed.c.taken + len(events)}
        with self._transactions.writing() as (connection, _now):
            return connection.execute(update(audit_feed).where(mine).values(**values)).rowcount == 1

    def release(self, owner: str) -> None:
        """Let another process send at once."""
        with self._transactions.writing() as (connection, _now):
            mine = audit_feed.c.owner == owner
            connection.execute(update(audit_feed).where(mine).values(owner=None, lease_until=None))

    def backlog(self) -> Backlog:
        """Return what the other side has not got."""
        with self._transactions.reading() as (connection, now):
            position = select(audit_feed.c.position).scalar_subquery()
            oldest = select(event.c.at).where(event.c.seq > position).order_by(event.c.seq).limit(1)
            oldest_at = connection.scalar(oldest) or unsealed(connection, at=now).oldest_at
            return Backlog(events=count_waiting(connection), oldest_at=oldest_at)


def count_waiting(connection: Connection) -> int:
    """Return how many events the other side has not got."""
    taken = select(audit_feed.c.taken).scalar_subquery()
    not_sealed = select(func.count()).where(event.c.seq.is_(None)).scalar_subquery()
    return int(connection.execute(select(chain.c.length + not_sealed - taken)).scalar_one())


def _fed(connection: Connection, row: Row[Any], *, with_headers: bool) -> FedEvent:
    return FedEvent(
        id=row.id,
        seq=row.seq,
        at=row.at,
        kind=row.kind,
        study_uid=row.study_uid,
        sop_instance_uid=row.sop_instance_uid,
        detail=row.detail,
        hash=row.hash,
        sop_class_uid=_sop_class(connection, row),
        patients=tuple(
            _patient(connection, each, with_header=with_headers)
            for each in connection.execute(_concerned(row).order_by(study_patient.c.id))
        ),
    )


def _concerned(row: Row[Any]) -> Select[Any]:
    """Return the query for the patients whom an event is about: of its report, of its image, or of its study."""
    columns = select(study_patient.c.id, study_patient.c.patient_id)
    if report_uid := row.detail.get("report_uid"):
        ids = select(report.c.study_patient_id).where(report.c.sop_instance_uid == str(report_uid))
    elif row.sop_instance_uid and row.study_uid:  # a refused object has no study, and may name any image
        ids = select(instance.c.study_patient_id).where(_is_image(row))
    else:
        return columns.where(study_patient.c.study_uid == row.study_uid)
    return columns.where(study_patient.c.id.in_(ids))


def _is_image(row: Row[Any]) -> ColumnElement[bool]:
    """Return the condition for the image that an event names; several may have one SOP Instance UID."""
    named: ColumnElement[bool] = instance.c.sop_instance_uid == row.sop_instance_uid
    digests = row.detail.get("input_sha256")
    return and_(named, instance.c.sha256.in_(digests)) if isinstance(digests, list) and digests else named


def _sop_class(connection: Connection, row: Row[Any]) -> str:
    if sent := row.detail.get("sent_uid"):
        made = (
            select(each.c.sop_class_uid).where(each.c.sop_instance_uid == str(sent)) for each in (report, companion)
        )
        return connection.scalar(union_all(*made)) or ""
    if row.sop_instance_uid and row.study_uid:
        return connection.scalar(select(func.max(instance.c.sop_class_uid)).where(_is_image(row))) or ""
    return ""


def _patient(connection: Connection, row: Row[Any], *, with_header: bool) -> FedPatient:
    found = None
    if with_header:
        images = select(instance.c.header, instance.c.transfer_syntax).where(instance.c.study_patient_id == row.id)
        found = connection.execute(images.order_by(instance.c.id.desc()).limit(1)).first()
    return FedPatient(
        patient_id=row.patient_id,
        header=found.header if found else None,
        transfer_syntax=found.transfer_syntax if found else "",
    )
