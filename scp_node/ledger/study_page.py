"""Reads all that the ledger knows of one study, for a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, func, literal, select, union_all

from scp_node.ledger.audit import described, described_deliveries, newest_results
from scp_node.ledger.audit_rows import AuditDelivery, AuditRow, DeliveryState
from scp_node.ledger.database.schema import (
    companion,
    event,
    instance,
    report,
    result,
    study_patient,
)
from scp_node.ledger.deliveries import REPORT_KIND
from scp_node.ledger.study_rows import (
    StoredFile,
    StoredImage,
    StudyDelivery,
    StudyEvent,
    StudyImage,
    StudyObject,
    StudyPage,
    StudyPatient,
    StudyReport,
)
from scp_node.ledger.trail.provenance import first_deliveries
from scp_node.ledger.transactions import Transactions

MOST_IMAGES: Final = 100
MOST_EVENTS: Final = 300
_AT_REST: Final = frozenset(
    {DeliveryState.DELIVERED, DeliveryState.COMMITTED, DeliveryState.FOUND, DeliveryState.DISCARDED}
)


def can_send_again(state: DeliveryState, *, is_newest: bool) -> bool:
    """Return whether a person can have an object sent again: one given up, or one of the newest version that arrived.

    A waiting one is sent anyway. An older version that arrived would come after the one that replaced it.
    """
    if state is DeliveryState.UNDELIVERABLE:
        return is_newest
    return state is DeliveryState.DEAD or (is_newest and state in _AT_REST)


class StudyPages:
    """Reads studies; changes nothing."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def page(self, study_uid: str) -> StudyPage | None:
        """Return the study; None if no image of it is registered."""
        of_study = instance.c.study_uid == study_uid
        with self._transactions.reading() as (connection, _now):
            images = _images(connection, study_uid)
            if not images:
                return None
            all_images = connection.execute(select(func.count()).where(of_study)).scalar_one()
            all_events = connection.execute(select(func.count()).where(event.c.study_uid == study_uid)).scalar_one()
            events = _events(connection, study_uid)
            patients = _patients(connection, study_uid, images)
            first = first_deliveries(connection, [study_uid])
        return StudyPage(
            study_uid=study_uid,
            patients=patients,
            events=events,
            first_deliveries=first,
            more_images=all_images - len(images),
            more_events=all_events - len(events),
        )

    def image(self, study_uid: str, image_id: int) -> StoredImage | None:
        """Return where an image of this study lies; None if the study has no such image."""
        names = ("sop_instance_uid", "spool_path", "purging_at", "purged_at")
        chosen = select(*(instance.c[name] for name in names)).where(*_is_image(study_uid, image_id))
        with self._transactions.reading() as (connection, _now):
            row = connection.execute(chosen).first()
        if row is None:
            return None
        return StoredImage(
            sop_instance_uid=row.sop_instance_uid,
            spool_path=row.spool_path,
            removing_at=row.purging_at,
            purged_at=row.purged_at,
        )

    def attention(self, study_uid: str, image_id: int) -> bytes:
        """Return the activation map of an image's newest result, see `Finding.attention`; empty without one."""
        kept = select(result.c.attention).join(instance, instance.c.id == result.c.instance_id)
        chosen = kept.where(*_is_image(study_uid, image_id), result.c.id.in_(newest_results([image_id])))
        with self._transactions.reading() as (connection, _now):
            return connection.scalar(chosen) or b""

    def file(self, study_uid: str, sop_instance_uid: str) -> StoredFile | None:
        """Return a report of this study, or what went with one; None if the study has no such object."""
        reports = select(literal(REPORT_KIND).label("kind"), report.c.sop_instance_uid, report.c.file).where(
            report.c.study_uid == study_uid, report.c.sop_instance_uid == sop_instance_uid
        )
        companions = (
            select(companion.c.kind, companion.c.sop_instance_uid, companion.c.file)
            .join(report, report.c.id == companion.c.report_id)
            .where(report.c.study_uid == study_uid, companion.c.sop_instance_uid == sop_instance_uid)
        )
        with self._transactions.reading() as (connection, _now):
            row = connection.execute(union_all(reports, companions)).first()
        return StoredFile(kind=row.kind, sop_instance_uid=row.sop_instance_uid, file=row.file) if row else None


def _is_image(study_uid: str, image_id: int) -> tuple[Any, Any]:
    return instance.c.study_uid == study_uid, instance.c.id == image_id


def _images(connection: Connection, study_uid: str) -> list[tuple[int | None, StudyImage]]:
    """Return the first images of a study with the id of the patient that each names."""
    columns = ("id", "study_patient_id", "sop_class_uid", "transfer_syntax", "size", "purging_at")
    chosen = select(*(instance.c[name] for name in columns)).where(instance.c.study_uid == study_uid)
    rows = connection.execute(chosen.order_by(instance.c.id).limit(MOST_IMAGES)).all()
    ids = [row.id for row in rows]
    kept = (func.coalesce(func.length(result.c.attention), 0) > 0) & result.c.id.in_(newest_results(ids))
    with_map = set(connection.scalars(select(result.c.instance_id).where(kept)))
    return [
        (row.study_patient_id, _image(row, audited, has_attention=row.id in with_map))
        for row, audited in zip(rows, described(connection, ids), strict=True)
    ]


def _image(row: Any, audited: AuditRow, *, has_attention: bool) -> StudyImage:
    return StudyImage(
        id=row.id,
        row=audited,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax=row.transfer_syntax,
        size=row.size,
        removing_at=row.purging_at,
        has_attention=has_attention,
    )


def _patients(
    connection: Connection, study_uid: str, images: Sequence[tuple[int | None, StudyImage]]
) -> tuple[StudyPatient, ...]:
    named = connection.execute(select(study_patient).where(study_patient.c.study_uid == study_uid)).all()
    known = {row.id: row for row in named}
    reports = _reports(connection, study_uid)
    patients = []
    for key in dict.fromkeys(key for key, _ in images):
        of_patient = tuple(image for each, image in images if each == key)
        row = known.get(key)
        patients.append(
            StudyPatient(
                id=key,
                patient_id=row.patient_id if row else of_patient[0].row.patient_id or "",
                issuer=row.issuer if row else "",
                images=of_patient,
                reports=tuple(each for owner, each in reports if owner == key),
            )
        )
    return tuple(patients)


def _reports(connection: Connection, study_uid: str) -> list[tuple[int | None, StudyReport]]:
    """Return the reports of a study, newest first, with the id of the patient that each is about."""
    rows = connection.execute(
        select(report).where(report.c.study_uid == study_uid).order_by(report.c.version.desc())
    ).all()
    ids = [row.id for row in rows]
    versions = {row.id: row.version for row in rows}
    companions = _companions(connection, ids)
    deliveries = described_deliveries(connection, ids)
    newest: set[int | None] = set()
    found = []
    for row in rows:
        is_newest = row.study_patient_id not in newest
        newest.add(row.study_patient_id)
        sent = tuple(_delivery(*each, is_newest=is_newest) for each in deliveries.get(row.id, ()))
        own = StudyObject(
            kind=REPORT_KIND, sop_instance_uid=row.sop_instance_uid, sha256=row.sha256, size=len(row.file)
        )
        found.append(
            (
                row.study_patient_id,
                StudyReport(
                    id=row.id,
                    version=row.version,
                    supersedes=versions.get(row.supersedes),
                    at=row.at,
                    bundle_digest=row.bundle_digest,
                    report=own,
                    file=row.file,
                    companions=companions.get(row.id, ()),
                    deliveries=sent,
                ),
            )
        )
    return found


def _delivery(delivery_id: int, sent: AuditDelivery, *, is_newest: bool) -> StudyDelivery:
    return StudyDelivery(id=delivery_id, sent=sent, can_send_again=can_send_again(sent.state, is_newest=is_newest))


def _companions(connection: Connection, report_ids: Sequence[int]) -> dict[int, tuple[StudyObject, ...]]:
    names = ("report_id", "kind", "sop_instance_uid", "sha256")
    columns = (*(companion.c[name] for name in names), func.length(companion.c.file).label("size"))
    chosen = select(*columns).where(companion.c.report_id.in_(report_ids)).order_by(companion.c.id)
    table: dict[int, tuple[StudyObject, ...]] = {}
    for row in connection.execute(chosen):
        each = StudyObject(kind=row.kind, sop_instance_uid=row.sop_instance_uid, sha256=row.sha256, size=row.size)
        table[row.report_id] = (*table.get(row.report_id, ()), each)
    return table


def _events(connection: Connection, study_uid: str) -> tuple[StudyEvent, ...]:
    chosen = select(event).where(event.c.study_uid == study_uid).order_by(event.c.id.desc()).limit(MOST_EVENTS)
    return tuple(
        StudyEvent(
            id=row.id,
            at=row.at,
            kind=row.kind,
            sop_instance_uid=row.sop_instance_uid,
            detail=row.detail,
            hash=row.hash,
            previous_hash=row.previous_hash,
        )
        for row in connection.execute(chosen)
    )
