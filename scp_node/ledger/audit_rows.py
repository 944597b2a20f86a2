"""What the audit answers: one row for each image, with its deliveries, and one for each event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum

from scp_node.domain import Verdict


class ImageState(StrEnum):
    """How far an image has come."""

    RECEIVED = "received"  # on disk, waits for its analysis
    ANALYSING = "analysing"
    ANALYSED = "analysed"  # has a probability and a verdict
    NOT_ANALYSED = "not-analysed"  # outside the intended use
    FAILED = "failed"  # inside it, but could not be analysed or registered
    CONFLICT = "conflict"  # another image has its SOP Instance UID and came first: a person decides
    SET_ASIDE = "set-aside"  # another image of its SOP Instance UID was chosen
    DUPLICATE = "duplicate"  # the same image as another of its SOP Instance UID, in another encoding
    REJECTED = "rejected"  # not accepted at all


class DeliveryState(StrEnum):
    """How far an object has come on its way to one destination."""

    WAITING = "waiting"
    UNDELIVERABLE = "undeliverable"  # a report that no destination is to get, by the settings of its time
    DELIVERED = "delivered"  # the destination answered Success
    COMMITTED = "committed"  # it has promised to keep it
    FOUND = "found"  # it was asked by C-FIND, and shows it
    DEAD = "dead"  # given up
    DISCARDED = "discarded"  # a person closed it


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditDelivery:
    """One object on its way to one destination."""

    destination: str
    kind: str  # "report", or the kind of its companion
    sop_instance_uid: str
    state: DeliveryState
    status: str | None  # DIMSE status of the last try, such as "0xA700"
    at: datetime | None  # delivered, or last tried
    committed_at: datetime | None
    attempts: int
    detail: str
    sop_class_uid: str | None  # as it was sent


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One image: who sent it, what was said of it, and where the report went.

    A field without a value is None. Instants are aware, in UTC. The fields stand in the order of the CSV.
    """

    sop_instance_uid: str | None
    study_uid: str | None = None
    series_uid: str | None = None
    accession: str | None = None
    patient_id: str | None = None
    interrupted: bool = False  # the sender of its study was cut off
    purged_at: datetime | None = None
    calling_ae: str | None = None
    peer: str | None = None
    sha256: str | None = None
    received_at: datetime | None = None
    state: ImageState
    reason: str | None = None
    detail: str | None = None
    notes: tuple[str, ...] = ()
    probability: float | None = None  # calibrated, 0..1
    threshold: float | None = None
    grey_zone: float | None = None
    verdict: Verdict | None = None
    regions: tuple[Mapping[str, float], ...] = ()  # see domain.Region
    bundle: str | None = None
    bundle_digest: str | None = None
    calibration: str | None = None
    registered_at: datetime | None = None
    analysis_started_at: datetime | None = None
    analysed_at: datetime | None = None
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds of each stage
    report_uid: str | None = None
    report_version: int | None = None
    reported_at: datetime | None = None
    deliveries: tuple[AuditDelivery, ...] = ()

    def document(self) -> dict[str, object]:
        """Return the row ready for JSON, instants in ISO 8601."""
        sent = [_document(each) for each in self.deliveries]
        return {**_document(self), "deliveries": sent}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Some rows, and where the next ones begin."""

    rows: tuple[AuditRow, ...]
    next_key: int | None  # give it to the next call as `after`; None: these were the last


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One event of the trail."""

    at: datetime
    kind: str
    sop_instance_uid: str
    detail: Mapping[str, object]  # docs/decisions/0009-a-hash-chain.md lists the keys


def _document(value: AuditRow | AuditDelivery) -> dict[str, object]:
    return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
