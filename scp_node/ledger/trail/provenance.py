"""Names in an event all that it is about, so that it can be read alone.

    input_sha256   the images, each by the SHA-256 of its dataset as received, in order of arrival
    bundle_digest  the model
    runtime        what computed it: runtime, device and precision
    report_uid, report_sha256   the report, by its SOP Instance UID and the SHA-256 of its stored file
    sent_uid, sent_sha256       the object that was sent: that report, or one of its companions
    destination, status         the receiver, and its DIMSE status (PS3.7 Annex C)

An event has only the keys that mean something for its kind.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from scp_node.ledger.database.schema import (
    Use,
    companion,
    delivery,
    event,
    instance,
    report,
    report_result,
    result,
    study_patient,
)
from scp_node.ledger.queue_kinds import Queue, Subject

_DELIVERED: Final = "delivered"  # kind of event


# Statements that each delivery needs are built once, as in `queue`.
_DELIVERY: Final = (
    select(
        delivery.c.report_id,
        delivery.c.destination,
        delivery.c.dimse_status,
        report.c.study_uid,
        report.c.bundle_digest,
        report.c.sop_instance_uid.label("report_uid"),
        report.c.sha256.label("report_sha256"),
        func.coalesce(companion.c.sop_instance_uid, report.c.sop_instance_uid).label("sent_uid"),
        func.coalesce(companion.c.sha256, report.c.sha256).label("sent_sha256"),
    )
    .join(report, report.c.id == delivery.c.report_id)
    .outerjoin(companion, companion.c.id == delivery.c.companion_id)
    .where(delivery.c.id == bindparam("delivery"))
)
_REPORTED: Final = (
    select(result.c.instance_id)
    .join(report_result, report_result.c.result_id == result.c.id)
    .where(report_result.c.report_id == bindparam("report"))
)
_COVERED: Final = select(instance.c.sha256).where(instance.c.id.in_(_REPORTED)).order_by(instance.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Whose trail the events about a piece of work belong to, and what they name."""

    study_uid: str
    sop_instance_uid: str = ""
    names: dict[str, Any] = field(default_factory=dict)


def status_text(status: int | None) -> str | None:
    """Return a DIMSE status in the form of events and audit, such as "0xA700"."""
    return None if status is None else f"0x{status:04X}"


def of_work(connection: Connection, queue: Queue, ref_id: int | None) -> Provenance:
    """Return the subject of a row of the table `work`."""
    match queue.kind.rules.subject:
        case Subject.STUDY:
            study_uid = select(study_patient.c.study_uid).where(study_patient.c.id == ref_id)
            names = of_study_patient(connection, ref_id)
            return Provenance(study_uid=connection.execute(study_uid).scalar_one(), names=names)
        case Subject.IMAGE:
            return _of_image(connection, ref_id)
        case Subject.DELIVERY:
            return of_delivery(connection, ref_id)


def _of_image(connection: Connection, instance_id: int | None) -> Provenance:
    columns = select(instance.c.study_uid, instance.c.sop_instance_uid, instance.c.sha256)
    row = connection.execute(columns.where(instance.c.id == instance_id)).one()
    names = {"input_sha256": [row.sha256]}
    return Provenance(study_uid=row.study_uid, sop_instance_uid=row.sop_instance_uid, names=names)


def of_study(connection: Connection, study_uid: str) -> dict[str, Any]:
    """Return the values that an event about a whole study names: the images that its reports must cover."""
    return _covered(connection, instance.c.study_uid == study_uid)


def of_study_patient(connection: Connection, study_patient_id: int | None) -> dict[str, Any]:
    """Return the values that an event about one patient's images of a study names."""
    return _covered(connection, instance.c.study_patient_id == study_patient_id)


def _covered(connection: Connection, condition: ColumnElement[bool]) -> dict[str, Any]:
    images = select(instance.c.sha256).where(condition, instance.c.use != Use.DUPLICATE)
    return {"input_sha256": list(connection.scalars(images.order_by(instance.c.id)))}


def of_report_file(connection: Connection, report_id: int) -> dict[str, Any]:
    """Return the values that an event about a stored report names."""
    columns = select(
        report.c.bundle_digest,
        report.c.sop_instance_uid.label("report_uid"),
        report.c.sha256.label("report_sha256"),
    )
    row = connection.execute(columns.where(report.c.id == report_id)).one()
    return {"input_sha256": _inputs(connection, report_id), **row._asdict()}


def of_delivery(connection: Connection, delivery_id: int | None) -> Provenance:
    """Return the subject of a delivery; the status is that of its last try."""
    row = connection.execute(_DELIVERY, {"delivery": delivery_id}).one()
    same = ("bundle_digest", "report_uid", "report_sha256", "sent_uid", "sent_sha256", "destination")
    names = {name: getattr(row, name) for name in same}
    inputs = {"input_sha256": _inputs(connection, row.report_id)}
    return Provenance(study_uid=row.study_uid, names={**inputs, **names, "status": status_text(row.dimse_status)})


def first_deliveries(connection: Connection, study_uids: Collection[str]) -> dict[tuple[str, str], datetime]:
    """Return when each object of these studies was first delivered, by its SOP Instance UID and its destination.

    A delivery's own row forgets it when the object is sent again.
    """
    chosen = select(event.c.at, event.c.detail).where(event.c.study_uid.in_(study_uids), event.c.kind == _DELIVERED)
    first: dict[tuple[str, str], datetime] = {}
    for at, detail in connection.execute(chosen.order_by(event.c.id)):
        first.setdefault((detail.get("sent_uid", ""), detail.get("destination", "")), at)
    return first


def _inputs(connection: Connection, report_id: int) -> list[str]:
    """Return the digests of the images that a report covers, each once, even if it was analysed several times."""
    return list(connection.scalars(_COVERED, {"report": report_id}))
