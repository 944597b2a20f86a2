"""The values of the list of studies: its rows, and what selects them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Final

from scp_node.domain import Verdict
from scp_node.ledger.audit_rows import DeliveryState


class StudyState(StrEnum):
    """How far one patient's images of a study have come; the first of these that holds, from `CONFLICT` on."""

    CONFLICT = "conflict"  # two images have one SOP Instance UID: a person decides
    GIVEN_UP = "given-up"  # the report could not be made, or an object of it could not be delivered
    UNDELIVERABLE = "undeliverable"  # no destination was to get the report
    RECEIVED = "received"  # an image waits for its analysis
    ANALYSED = "analysed"  # waits for its report
    REPORTED = "reported"  # waits for a destination to take the report
    DISCARDED = "discarded"  # a person closed a delivery
    FAILED = "failed"  # delivered; an image is inside the intended use and could not be analysed
    NOT_ANALYSED = "not-analysed"  # delivered; every image is outside the intended use
    DELIVERED = "delivered"  # every destination has the report


class Opinions(StrEnum):
    """Whether a reader has judged a study, beside the opinions themselves."""

    NONE = "none"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """The place of a row in the list, which is in the order of `newest_at` and then `id`, newest first."""

    newest_at: datetime
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistRow:
    """One patient's images of a study. The fields are the columns of the table; instants are aware, in UTC."""

    id: int
    study_uid: str
    patient_key: str
    patient_id: str
    patient_name: str
    accession: str
    sex: str
    age: str
    views: str
    calling_ae: str
    images: int
    interrupted: bool
    newest_at: datetime
    received_at: datetime
    state: StudyState
    reason: str | None
    detail: str
    verdict: Verdict | None
    probability: float | None
    threshold: float | None
    grey_zone: float | None
    bundle: str | None
    bundle_digest: str | None
    report_version: int | None
    delivery_state: DeliveryState | None
    waiting_since: datetime | None
    reported_at: datetime | None
    delivered_at: datetime | None
    committed_at: datetime | None
    feedback: str | None

    @property
    def key(self) -> Key:
        """Return the place of this row in the list."""
        return Key(newest_at=self.newest_at, id=self.id)

    def document(self) -> dict[str, str | int | float | bool | None]:
        """Return the row ready for JSON, instants in ISO 8601, without what only the database needs."""
        return {name: _plain(getattr(self, name)) for name in WORKLIST_FIELDS}


WORKLIST_FIELDS: Final = tuple(each.name for each in fields(WorklistRow) if each.name not in {"id", "patient_key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistQuery:
    """Selects rows; every condition that is set must hold."""

    since: datetime | None = None  # newest image received at or after
    until: datetime | None = None  # newest image received before
    state: StudyState | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    calling_ae: str | None = None
    bundle: str | None = None  # "name-version"
    feedback: str | None = None  # an opinion, or one of `Opinions`
    search: str = ""  # words; a UID of a study, an image or a report


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistPage:
    """Some rows, newest first, and whether others come before and behind."""

    rows: tuple[WorklistRow, ...]
    has_newer: bool
    has_older: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A number of rows, counted up to a limit."""

    number: int
    is_capped: bool  # there are more than `number`


@dataclass(frozen=True, slots=True, kw_only=True)
class Menus:
    """The values that occur, for the menus of the filters."""

    calling_aes: tuple[str, ...]
    bundles: tuple[str, ...]
    reasons: tuple[str, ...]
    opinions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far the list is behind the ledger."""

    now: datetime  # by the ledger's clock
    is_followed: bool  # a process follows the events now
    is_complete: bool  # False: it is being made from nothing, the newest studies first
    behind_seconds: float  # age of the oldest event that is not in the list; 0: none
    position: int  # number of the last event that is in the list


def _plain(value: object) -> str | int | float | bool | None:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, StrEnum):
        return value.value
    return value if isinstance(value, str | int | float | bool) else None
