"""The words of the node: what it receives, finds and reports.

This module holds values only, and needs the standard library only. Everything in it is frozen: a step takes values and
returns values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Final

Clock = Callable[[], datetime]
"""Returns the current instant as an aware UTC datetime."""

# Storage commitment, PS3.4 Annex J
LARGEST_REQUEST: Final = 50  # instances in one transaction; the answer of a correct peer names no more than that
LARGEST_REPORT: Final = 1 << 16  # bytes; fifty references take about ten thousand
# Failure Reasons (0008,1197) for which it is useless to send again, PS3.3 section C.14.1.1
CLASS_NOT_SUPPORTED: Final = 0x0122  # the destination never commits itself to this SOP class
DUPLICATE_TRANSACTION_UID: Final = 0x0131  # the fault is in the request, not in the instance


def utc_now() -> datetime:
    """Return the current instant, aware, in UTC: the default `Clock`."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The person who does something, as the audit trail names them."""

    name: str
    address: str  # IP address; "" on the command line

    @property
    def detail(self) -> dict[str, str]:
        """Return the keys that every event of a person has."""
        return {"by": self.name, "address": self.address}


class NodeError(Exception):
    """An error that an operator can fix; the message says how."""


class Priority(IntEnum):
    """The order in which queues are emptied: the lower value first."""

    STAT = 0
    HIGH = 5
    ROUTINE = 10


class Completion(StrEnum):
    """How an analysis ended, in the terms of DICOM CID 6042 Status of Results."""

    SUCCEEDED = "succeeded"  # the network gave a probability
    NOT_ATTEMPTED = "not-attempted"  # the image is outside the intended use
    FAILED = "failed"  # the image is or may be inside the intended use, but could not be analysed


class Verdict(StrEnum):
    """The model's statement at its operating point."""

    PRESENT = "present"  # probability >= threshold, or the upper end of the grey zone
    NOT_DETECTED = "not-detected"  # probability < threshold, or the lower end
    UNDETERMINED = "undetermined"  # within a grey zone that a site has set


class Reason(StrEnum):
    """Why an image got no score: a closed list. The value is stored, and `sentence` is shown."""

    # outside the intended use: Completion.NOT_ATTEMPTED
    MODALITY = "modality"
    SPECIES = "species"
    BODY_PART = "body-part"
    VIEW = "view"
    TURNED = "turned"
    NOT_A_PLAIN_FILM = "not-a-plain-film"
    UNLIKE_A_FRONTAL_CHEST_FILM = "unlike-a-frontal-chest-film"
    PATIENT_AGE = "patient-age"
    AGE_CONTRADICTORY = "age-contradictory"
    FOR_PROCESSING = "for-processing"
    NOT_AN_IMAGE = "not-an-image"
    MULTI_FRAME = "multi-frame"
    COLOUR = "colour"
    PIXEL_FORM = "pixel-form"
    IMAGE_SIZE = "image-size"
    EMPTY_PIXELS = "empty-pixels"
    OWN_OBJECT = "own-object"
    SET_ASIDE = "set-aside"
    # inside the intended use, or possibly so, but not analysable: Completion.FAILED
    UNREADABLE_HEADER = "unreadable-header"
    UNREADABLE_PIXELS = "unreadable-pixels"
    DISPLAY_ATTRIBUTES = "display-attributes"
    IMPLAUSIBLE_PIXELS = "implausible-pixels"
    INFERENCE = "inference"
    ABANDONED = "abandoned"
    ORIGINAL_REMOVED = "original-removed"
    CONFLICTING_INSTANCE = "conflicting-instance"

    @property
    def completion(self) -> Completion:
        """Return whether the analysis was not attempted or failed."""
        return Completion.FAILED if self in _FAILED else Completion.NOT_ATTEMPTED

    @property
    def sentence(self) -> str:
        """Return the reason as a clause that follows "NOT ANALYSED: " in a report."""
        return _SENTENCES[self]

    @property
    def names_attributes(self) -> bool:
        """Return whether the detail of such an outcome names the attributes at fault."""
        return self in _NAMED

    @property
    def tells_detail(self) -> bool:
        """Return whether a report gives the detail of such an outcome."""
        return self.names_attributes or self is Reason.UNLIKE_A_FRONTAL_CHEST_FILM


_FAILED: Final = frozenset(
    {
        Reason.UNREADABLE_HEADER,
        Reason.UNREADABLE_PIXELS,
        Reason.DISPLAY_ATTRIBUTES,
        Reason.IMPLAUSIBLE_PIXELS,
        Reason.INFERENCE,
        Reason.ABANDONED,
        Reason.ORIGINAL_REMOVED,
        Reason.CONFLICTING_INSTANCE,
    }
)

_NAMED: Final = frozenset({Reason.UNREADABLE_HEADER, Reason.PIXEL_FORM, Reason.DISPLAY_ATTRIBUTES})

_SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.MODALITY: "modality or SOP class is outside the intended use",
    Reason.SPECIES: "patient is not human",
    Reason.BODY_PART: "body part is not the chest",
    Reason.VIEW: "view is outside the intended use (frontal views only)",
    Reason.TURNED: "image is turned: it lies on its side or head down",
    Reason.NOT_A_PLAIN_FILM: (
        "image is not a plain film (subtraction, slice, localizer, composition, capture, or result of another program)"
    ),
    Reason.UNLIKE_A_FRONTAL_CHEST_FILM: "picture does not look like a frontal chest film",
    Reason.PATIENT_AGE: "patient is younger than the intended use",
    Reason.AGE_CONTRADICTORY: "statements of the patient's age contradict each other: adult by one, child by another",
    Reason.FOR_PROCESSING: "image is for processing, not for presentation",
    Reason.NOT_AN_IMAGE: "object has no pixel data",
    Reason.MULTI_FRAME: "image has more than one frame, or is of a multi-frame class",
    Reason.COLOUR: "image is in colour",
    Reason.PIXEL_FORM: "Photometric Interpretation or Samples per Pixel is not supported",
    Reason.IMAGE_SIZE: "image size is out of bounds",
    Reason.EMPTY_PIXELS: "image is empty: all pixels have one value",
    Reason.OWN_OBJECT: "object was made by this node",
    Reason.SET_ASIDE: "another image with the same SOP Instance UID was chosen",
    Reason.CONFLICTING_INSTANCE: "another image with the same SOP Instance UID came before",
    Reason.UNREADABLE_HEADER: "header, or an attribute in it, is missing or cannot be read",
    Reason.UNREADABLE_PIXELS: "pixel data cannot be read",
    Reason.DISPLAY_ATTRIBUTES: "display attributes (rescale, window, lookup table, padding) are invalid",
    Reason.IMPLAUSIBLE_PIXELS: "picture is not plausible for a radiograph",
    Reason.INFERENCE: "the network gave no usable value",
    Reason.ABANDONED: "the analysis did not finish after several tries",
    Reason.ORIGINAL_REMOVED: "original image is no longer kept by this node",
}


class Note(StrEnum):
    """A remark on an analysed image, shown in the report beside the result."""

    VIEW_MISSING = "view-missing"
    MIRRORED = "mirrored"
    BODY_PART_MISSING = "body-part-missing"
    AGE_MISSING = "age-missing"
    AGE_IMPLAUSIBLE = "age-implausible"
    AGE_CONTRADICTORY = "age-contradictory"
    COLOUR_CONVERTED = "colour-converted"
    BURNED_IN_ANNOTATION = "burned-in-annotation"
    NO_FRAMES = "no-frames"
    PIXELS_PADDED = "pixels-padded"
    DISPLAY_MENDED = "display-mended"
    TABLE_SCALED = "table-scaled"
    UNLIKE_A_FRONTAL_CHEST_FILM = "unlike-a-frontal-chest-film"

    @property
    def sentence(self) -> str:
        """Return the note as one sentence of a report."""
        return _NOTES[self]


_NOTES: Final[Mapping[Note, str]] = {
    Note.VIEW_MISSING: "View position is not stated: analysed as frontal.",
    Note.MIRRORED: "Patient Orientation says that the image is mirrored: analysed as it is.",
    Note.BODY_PART_MISSING: "Body part is not stated: analysed as chest.",
    Note.AGE_MISSING: "Patient age is not stated: analysed as adult.",
    Note.AGE_IMPLAUSIBLE: "Patient age is not plausible: analysed as adult.",
    Note.AGE_CONTRADICTORY: "Patient age and birth date contradict each other: analysed as adult.",
    Note.COLOUR_CONVERTED: "Image is stored in colour with equal channels: converted to grayscale.",
    Note.BURNED_IN_ANNOTATION: "Image may hold burned-in annotation.",
    Note.NO_FRAMES: "Number of Frames is 0: read as one frame.",
    Note.PIXELS_PADDED: "Pixel Data is longer than the image: what follows the image was not read.",
    Note.DISPLAY_MENDED: "A window or rescale value has a comma or lacks its counterpart: read in its only sense.",
    Note.TABLE_SCALED: "A lookup table does not fit the bits that it declares: scaled by its largest entry.",
    Note.UNLIKE_A_FRONTAL_CHEST_FILM: "Picture does not look like a frontal chest film: analysed all the same.",
}


UNLIKENESS: Final = "unlikeness"
"""Of `Finding.input_stats`: how unlike a frontal chest film the picture is; the bundle's gate refuses above 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """The identity of a model, recorded in every row and every report."""

    name: str
    version: str
    digest: str  # "sha256:" and 64 hexadecimal digits, over the whole bundle
    status: str  # "demonstration", "research" or "cleared"
    threshold: float  # operating point on the calibrated probability, 0..1
    calibration: str  # "none" or, for example, "platt:slope=0.93,intercept=-1.2"
    input: str = "224x224 grayscale"
    manufacturer: str = ""
    grey_zone: float = 0.0  # half-width around the threshold; with 0 every finding is present or not detected
    region_threshold: float | None = None  # lowest score of a reported region; None without a detector

    @property
    def bundle(self) -> str:
        """Return name and version as one word, like the name of the bundle's folder."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A box around an opacity, as shares 0..1 of the image's width and height from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float
    score: float  # 0..1, from the detector: not calibrated and not a probability

    def __post_init__(self) -> None:
        """Refuse numbers that are not finite.

        Raises:
            ValueError: an edge or the score is not finite.
        """
        if not all(map(math.isfinite, (self.left, self.top, self.right, self.bottom, self.score))):
            raise ValueError("a region has finite places and a finite score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A finished analysis of one image."""

    probability: float  # calibrated, 0..1
    logit: float
    threshold: float  # 0..1
    grey_zone: float = 0.0  # see ModelIdentity
    notes: tuple[Note, ...] = ()
    input_stats: Mapping[str, float] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()  # only for a positive image, highest score first
    attention: bytes = b""  # class activation map: 14 x 14 float32, little-endian, in logit units; empty if not kept

    def __post_init__(self) -> None:
        """Refuse values that are not valid numbers, since nobody could tell such a finding from a real one.

        Raises:
            ValueError: probability or logit is not finite, or the probability is outside 0..1.
        """
        if not (0 <= self.probability <= 1 and math.isfinite(self.logit)):
            raise ValueError("a finding has a probability, 0..1, and a logit that is finite")

    @property
    def verdict(self) -> Verdict:
        """Return the statement at the operating point."""
        lower, upper = self.limits
        if self.probability >= upper:
            return Verdict.PRESENT
        return Verdict.NOT_DETECTED if self.probability < lower else Verdict.UNDETERMINED

    @property
    def is_positive(self) -> bool:
        """Return whether the verdict is "present"."""
        return self.verdict is Verdict.PRESENT

    @property
    def limits(self) -> tuple[float, float]:
        """Return the probability below which the verdict is "not detected", and the one from which it is "present"."""
        return max(0.0, self.threshold - self.grey_zone), min(1.0, self.threshold + self.grey_zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAnalysed:
    """An image without a score, and the reason."""

    reason: Reason
    detail: str = ""  # the cause in the image, e.g. "ViewPosition LL"; never patient data

    @property
    def sentence(self) -> str:
        """Return the reason as a clause of a report, with the detail if a reader needs it."""
        told = self.reason.tells_detail and self.detail
        return f"{self.reason.sentence} ({self.detail})" if told else self.reason.sentence

    @property
    def is_positive(self) -> bool:
        """Return False: an image without a score is not positive."""
        return False


Outcome = Finding | NotAnalysed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """One SOP instance on disk, with all that the registrar enters into the ledger."""

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    accession: str
    patient_id: str
    issuer: str  # of the Patient ID
    patient_key: str  # equal for the films of one patient; see `scp_node.dicom.inspection.patient_key`
    calling_ae: str
    called_ae: str
    peer: str  # address of the sender
    transfer_syntax: str
    sha256: str  # hexadecimal, over the dataset as received (without file meta)
    size: int  # bytes of the dataset
    spool_path: str  # relative to the spool folder
    header: bytes  # the dataset up to (0028,xxxx) pixel data, in `transfer_syntax`
    priority: Priority
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferEnded:
    """An association has stopped sending images of some studies, either complete or interrupted."""

    study_uids: tuple[str, ...]
    complete: bool  # False: the association ended without a release, and images may be missing
    calling_ae: str
    peer: str  # address of the sender
    began_at: datetime  # start of the association
    at: datetime
    cut_instance: str = ""  # SOP Instance UID of the C-STORE that was cut off, if there was one


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmDescription:
    """What the header of an image says of its patient, for the list of studies; what is absent or wrong is empty."""

    names: tuple[str, ...] = ()  # Patient's Name: alphabetic, ideographic, phonetic (PS3.5 Section 6.2.1)
    sex: str = ""  # M, F or O
    age: str = ""  # as an AS, such as "064Y"
    view: str = ""  # View Position


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedImage:
    """One image of a study with its outcome, for the report builder."""

    sop_instance_uid: str
    header: bytes  # see ReceivedInstance.header
    transfer_syntax: str
    outcome: Outcome
    sha256: str = ""  # see ReceivedInstance; tells films with one SOP Instance UID apart


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousReport:
    """The report that a new version replaces."""

    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltObject:
    """A serialised companion of a report, such as the picture of one of its images."""

    kind: str  # "overlay"
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    file: bytes  # a DICOM Part 10 file


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltReport:
    """A serialised report, stored before it is sent and never built again."""

    study_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content_digest: str  # sha256 over outcome and sources; the instance UID is made from it
    file: bytes  # a DICOM Part 10 file


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The class and UID of one sent instance, as in a request and its answer."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """A destination's report about one transaction; an instance in neither part got no answer."""

    transaction_uid: str
    committed: frozenset[Reference]
    failed: Mapping[Reference, int]  # Failure Reason by instance


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedInstance:
    """One refused C-STORE request, as the audit records it."""

    sop_instance_uid: str  # escaped unless it is a UID
    calling_ae: str  # escaped
    peer: str
    status: int
    reason: str
    at: datetime
    unsaid: int = 0  # how many of this peer and reason it stands for as the last; 0: it is one for itself


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentAnswer:
    """A destination's report that came on an association which the destination opened."""

    report: CommitmentReport
    destinations: frozenset[str]  # names of the destinations that may have opened the association
