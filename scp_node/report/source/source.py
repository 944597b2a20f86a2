"""The header of a received image, read so that nothing in it can stop or leak.

A peer controls these bytes. pydicom's own conversion raises on some wrong values and prints others, the patient's
among them, in warnings; here the raw bytes of the few attributes that a report needs are decoded by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes, default_encoding, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import UID
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, PN_DELIMS, TEXT_VR_DELIMS

from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.foreign import foreign_bytes
from scp_node.domain import ReportedImage

UNDEFINED_LENGTH: Final = 0xFFFFFFFF  # PS3.5 Section 7.1.1
PADDING: Final = " \0"
ENCODINGS: Final = frozenset(python_encoding.values())  # of PS3.3 Section C.12.1.1.2, by Python's names


class UnreportableHeader(ValueError):  # noqa: N818  # the outcome, in the words of the report
    """A header that cannot carry a report: unreadable, or without an identifier that every report needs.

    The message is one of a few and holds nothing of the patient.
    """

    def __init__(self, why: str, sop_instance_uid: str) -> None:
        super().__init__(why)
        self.sop_instance_uid = sop_instance_uid


@dataclass(frozen=True, slots=True)
class Attributes:
    """Reads attributes of a received dataset, or of an item in it, by keyword."""

    dataset: Dataset
    encodings: Sequence[str]  # Python's names for its Specific Character Set

    def text(self, keyword: str) -> str:
        """Return the value as it is declared to be encoded, without padding; empty where it is absent."""
        element = _raw(self.dataset, keyword)
        if element is None or not element.value:
            return ""
        vr = dictionary_VR(element.tag)
        if vr not in CUSTOMIZABLE_CHARSET_VR:  # a UID, a date, a code (PS3.5 Section 6.1.2.2)
            return element.value.decode("latin-1").rstrip(PADDING)
        delimiters = PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS
        return _decode(element.value, self.encodings, delimiters).rstrip(PADDING)

    def texts(self, keyword: str) -> list[str]:
        """Return each of the values."""
        value = self.text(keyword)
        return [part.strip(PADDING) for part in value.split("\\")] if value else []

    def unsigned_short(self, keyword: str) -> int:
        """Return the value of a US attribute; 0 where it is absent."""
        element = _raw(self.dataset, keyword)
        if element is None or element.value is None or len(element.value) < 2:
            return 0
        return int.from_bytes(element.value[:2], "little" if element.is_little_endian else "big")

    def items(self, keyword: str) -> list[Attributes]:
        """Return the items of a sequence; none where it is absent or cannot be read."""
        tag = Tag(keyword)
        if tag not in self.dataset:
            return []
        try:
            with foreign_bytes(as_=DamagedError("sequence cannot be decoded")):
                found = self.dataset[tag].value
        except DamagedError:
            return []
        return [_attributes(item, self.encodings) for item in found or () if isinstance(item, Dataset)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """An image as a report refers to it."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    attributes: Attributes


def read_source(image: ReportedImage) -> SourceImage:
    """Return the image that `image.header` describes.

    Raises:
        UnreportableHeader: it cannot be decoded, or lacks an identifier.
    """
    attributes = _attributes(_parse(image), ())
    identifiers = {}
    for keyword in ("SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID"):
        identifiers[keyword] = attributes.text(keyword)
        if not identifiers[keyword]:
            raise UnreportableHeader(f"header has no {keyword}", image.sop_instance_uid)
    return SourceImage(
        sop_class_uid=identifiers["SOPClassUID"],
        sop_instance_uid=image.sop_instance_uid,
        series_instance_uid=identifiers["SeriesInstanceUID"],
        study_instance_uid=identifiers["StudyInstanceUID"],
        attributes=attributes,
    )


def header_attributes(header: bytes, transfer_syntax: str) -> Attributes:
    """Return the attributes of a received header, of one that is cut off those that are whole.

    Raises:
        DamagedError: it cannot be decoded at all.
    """
    syntax = UID(transfer_syntax)
    with foreign_bytes(as_=DamagedError("header cannot be decoded")):
        parsed = read_dataset(BytesIO(header), syntax.is_implicit_VR, syntax.is_little_endian)
    return _attributes(parsed, ())


def _parse(image: ReportedImage) -> Dataset:
    syntax = UID(image.transfer_syntax)
    with foreign_bytes(as_=UnreportableHeader("header cannot be decoded", image.sop_instance_uid)):
        # every compressed syntax has its header in Explicit VR Little Endian (PS3.5 Annex A.4)
        parsed = read_dataset(BytesIO(image.header), syntax.is_implicit_VR, syntax.is_little_endian)
    if any(_is_cut(element) for element in parsed.values()):
        raise UnreportableHeader("header is cut off", image.sop_instance_uid)
    return parsed


def _raw(dataset: Dataset, keyword: str) -> RawDataElement | None:
    """Return the element as it was received; None where it is absent, a sequence, or cut off."""
    element = dataset.get_item(Tag(keyword), keep_deferred=True)  # else pydicom converts the empty ones
    return element if isinstance(element, RawDataElement) and not _is_cut(element) else None


def _is_cut(element: object) -> bool:
    # the parser takes what is left as the value when the stream ends inside it: half a name would pass for a name
    return (
        isinstance(element, RawDataElement)
        and element.length != UNDEFINED_LENGTH
        and len(element.value or b"") != element.length
    )


def _attributes(dataset: Dataset, inherited: Sequence[str]) -> Attributes:
    declared = _raw(dataset, "SpecificCharacterSet")
    if declared is None:
        return Attributes(dataset, inherited or (default_encoding,))
    terms = (declared.value or b"").decode("ascii", errors="replace").split("\\")
    # pydicom mends what is misspelt, but takes any codec of Python for a character set, "hex" too
    encodings = convert_encodings([term.strip(PADDING) for term in terms])
    return Attributes(dataset, [each if each in ENCODINGS else default_encoding for each in encodings])


def _decode(value: bytes, encodings: Sequence[str], delimiters: set[int]) -> str:
    decoded = decode_bytes(value, encodings, delimiters)
    # wrongly declared: keep each byte as one character rather than lose it
    return value.decode("latin-1") if "\ufffd" in decoded else decoded
