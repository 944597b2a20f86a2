"""The values of one study's page: its patients, their images and reports, and the events of the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from scp_node.ledger.audit_rows import AuditDelivery, AuditRow


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyImage:
    """One received image."""

    id: int
    row: AuditRow
    sop_class_uid: str
    transfer_syntax: str
    size: int  # bytes of the dataset
    removing_at: datetime | None  # start of the removal of its file: from then on nothing reads it
    has_attention: bool  # its newest result has an activation map


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyObject:
    """A stored object: a report, or what went with one."""

    kind: str  # "report", or the word of a companion
    sop_instance_uid: str
    sha256: str
    size: int  # bytes of the Part 10 file


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDelivery:
    """One object on its way to one destination, and whether a person can have it sent again."""

    id: int
    sent: AuditDelivery
    can_send_again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReport:
    """One version of a patient's report."""

    id: int
    version: int
    supersedes: int | None  # the version before
    at: datetime
    bundle_digest: str
    report: StudyObject
    file: bytes
    companions: tuple[StudyObject, ...]
    deliveries: tuple[StudyDelivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPatient:
    """What a study holds of one patient that it names."""

    id: int | None  # None: images that came before a study could name several patients
    patient_id: str
    issuer: str
    images: tuple[StudyImage, ...]  # in order of arrival
    reports: tuple[StudyReport, ...]  # newest first


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEvent:
    """One event of the trail, with its place in the chain."""

    id: int
    at: datetime
    kind: str
    sop_instance_uid: str
    detail: Mapping[str, object]
    hash: str
    previous_hash: str


Arrivals = Mapping[tuple[str, str], datetime]
"""When an object was first delivered, by its SOP Instance UID and its destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPage:
    """Everything that is shown of a study; instants are aware, in UTC."""

    study_uid: str
    patients: tuple[StudyPatient, ...]  # in order of arrival
    events: tuple[StudyEvent, ...]  # newest first
    first_deliveries: Arrivals
    more_images: int  # that are not among these
    more_events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """Where an image lies."""

    sop_instance_uid: str
    spool_path: str
    removing_at: datetime | None
    purged_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A report or a companion, as it was sent."""

    kind: str
    sop_instance_uid: str
    file: bytes
