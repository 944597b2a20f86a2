"""Reads the node's part of a received dataset, without decoding its pixel data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from io import BytesIO
from typing import Final

from scp_node.dicom.encoding import FIRST_GROUP, PIXEL_DATA, UNDEFINED_LENGTH, DamagedError, Element, Walker
from scp_node.dicom.foreign import foreign_bytes
from scp_node.dicom.repairs import NONE, Repairs, end_of_data
from scp_node.dicom.syntaxes import IMPLICIT_VR_LITTLE_ENDIAN, NATIVE
from scp_node.domain import Priority, ReceivedInstance

# Leading zeros in a component break PS3.5 section 9.1, yet archives are full of them: a radiograph is not lost for one.
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_LENGTH: Final = 64

_SPECIFIC_CHARACTER_SET: Final = 0x0008_0005
_SOP_CLASS_UID: Final = 0x0008_0016
_SOP_INSTANCE_UID: Final = 0x0008_0018
_ACCESSION_NUMBER: Final = 0x0008_0050
_PATIENT_NAME: Final = 0x0010_0010
_PATIENT_ID: Final = 0x0010_0020
_ISSUER_OF_PATIENT_ID: Final = 0x0010_0021
_ISSUER_QUALIFIERS: Final = 0x0010_0024  # Issuer of Patient ID Qualifiers Sequence
_BIRTH_DATE: Final = 0x0010_0030
_STUDY_INSTANCE_UID: Final = 0x0020_000D
_SERIES_INSTANCE_UID: Final = 0x0020_000E
_SAMPLES_PER_PIXEL: Final = 0x0028_0002
_PHOTOMETRIC_INTERPRETATION: Final = 0x0028_0004
_NUMBER_OF_FRAMES: Final = 0x0028_0008
_ROWS: Final = 0x0028_0010
_COLUMNS: Final = 0x0028_0011
_BITS_ALLOCATED: Final = 0x0028_0100
_REQUESTED_PROCEDURE_PRIORITY: Final = 0x0040_1003
_WANTED: Final = frozenset(
    {
        _SPECIFIC_CHARACTER_SET,
        _SOP_CLASS_UID,
        _SOP_INSTANCE_UID,
        _ACCESSION_NUMBER,
        _PATIENT_NAME,
        _PATIENT_ID,
        _ISSUER_OF_PATIENT_ID,
        _ISSUER_QUALIFIERS,
        _BIRTH_DATE,
        _STUDY_INSTANCE_UID,
        _SERIES_INSTANCE_UID,
        _SAMPLES_PER_PIXEL,
        _PHOTOMETRIC_INTERPRETATION,
        _NUMBER_OF_FRAMES,
        _ROWS,
        _COLUMNS,
        _BITS_ALLOCATED,
        _REQUESTED_PROCEDURE_PRIORITY,
    }
)
_MOST_GARBAGE: Final = 64  # bytes behind the pixel data that need not be elements; what is cut off there is longer
_TEXT_LIMIT: Final = 256  # bytes kept of an identifier; LO and SH have at most 64 characters
_PRIORITIES: Final = {"STAT": Priority.STAT, "HIGH": Priority.HIGH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of a dataset by the association and the command, not by the dataset."""

    calling_ae: str
    called_ae: str
    peer: str  # address of the sender
    transfer_syntax: str
    priority: Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The values read from a complete dataset."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    accession: str
    patient_id: str
    issuer: str
    patient_key: str
    priority: Priority  # from Requested Procedure Priority
    header_length: int  # offset of the pixel data, or the end of the last element
    lacking: str = ""  # the first of Pixel Data, Rows and Columns that is absent; empty for a whole image
    repairs: Repairs = NONE  # what readers must not see


def is_uid(value: str) -> bool:
    """Return whether `value` has the form of a UID, PS3.5 section 9.1, with leading zeros allowed."""
    return len(value) <= _UID_LENGTH and _UID.fullmatch(value) is not None


def inspect(dataset: memoryview, transfer_syntax: str) -> Inspected:
    """Return the values that the node needs from a dataset in a little-endian transfer syntax.

    Oddities that lose nothing are let pass: elements of commands or files, a VR of two NULs, and NULs or a few bytes of
    garbage behind the end. `repairs` of the result says what readers must not see of them.

    Raises:
        DamagedError: it is cut off, not well formed, or lacks a value that its report needs.
    """
    walker = _walker(dataset, transfer_syntax)
    found: dict[int, Element] = {}
    foreign: list[tuple[int, int]] = []
    pixels: Element | None = None
    end = 0
    for element in _complete_elements(walker, dataset):
        end = element.end
        if element.tag >> 16 < FIRST_GROUP:
            foreign.append((element.start, element.end))
            continue
        is_pixels = element.tag in PIXEL_DATA
        if element.tag in found or (is_pixels and pixels):
            raise DamagedError("element occurs twice")  # readers would differ in the one they use
        if is_pixels:
            pixels = element
        elif element.tag in _WANTED and pixels is None:
            found[element.tag] = element
    values = _Values(dataset, found)
    if pixels:
        _check_pixels(values, walker, pixels, is_native=transfer_syntax in NATIVE)
    repairs = Repairs(end=end, left_out=tuple(foreign), vrs=tuple(walker.missing_vrs))
    return Inspected(
        sop_class_uid=values.uid(_SOP_CLASS_UID, "SOP Class UID"),
        sop_instance_uid=values.uid(_SOP_INSTANCE_UID, "SOP Instance UID"),
        study_uid=values.uid(_STUDY_INSTANCE_UID, "Study Instance UID"),
        series_uid=values.uid(_SERIES_INSTANCE_UID, "Series Instance UID"),
        accession=values.text(_ACCESSION_NUMBER),
        patient_id=values.text(_PATIENT_ID),
        issuer=values.text(_ISSUER_OF_PATIENT_ID),
        patient_key=patient_key(
            patient_id=values.text(_PATIENT_ID, limit=None),
            issuer=_issuer(dataset, values, is_implicit=transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN),
            name=values.text(_PATIENT_NAME, limit=None),
            birth_date=values.text(_BIRTH_DATE),
        ),
        priority=_PRIORITIES.get(values.text(_REQUESTED_PROCEDURE_PRIORITY), Priority.ROUTINE),
        header_length=pixels.start if pixels else end,
        lacking=_lacking(values, pixels),
        repairs=repairs if repairs.change(dataset) else NONE,
    )


def _issuer(dataset: memoryview, values: _Values, *, is_implicit: bool) -> str:
    issuer = values.text(_ISSUER_OF_PATIENT_ID, limit=None)
    if (element := values.element(_ISSUER_QUALIFIERS)) is None:
        return issuer
    from pydicom.filereader import read_dataset  # noqa: PLC0415 - as in `encoding`

    try:
        with foreign_bytes(as_=DamagedError("sequence cannot be decoded")):
            parsed = read_dataset(BytesIO(dataset[element.start : element.end]), is_implicit, is_little_endian=True)
            named = [str(item.get("UniversalEntityID") or "") for item in parsed[_ISSUER_QUALIFIERS].value]
    except DamagedError:
        return issuer
    return qualified_issuer(issuer, named)


def qualified_issuer(issuer: str, universal_ids: Sequence[str]) -> str:
    """Return who gave out a Patient ID: its issuer, and the universal identifiers of that (PS3.3 Table 10-18)."""
    return "\\".join([issuer, *(each.strip() for each in universal_ids if each.strip())])


def patient_key(*, patient_id: str, issuer: str, name: str, birth_date: str) -> str:
    """Return 64 hexadecimal digits that are equal for the films of one patient.

    A patient is the Patient ID together with its issuer (PS3.3 Section C.7.1.1): the same ID with another spelling of
    the name is no other patient. Without an ID only name and birth date can tell; they never equal an ID.
    """
    known = ["id", patient_id, issuer] if patient_id else ["name", folded_name(name), birth_date, issuer]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def folded_name(name: str) -> str:
    """Return a name without what nobody would take for a difference (PS3.5 Section 6.2.1).

    It is the alphabetic part, or the first other one where that is empty.
    """
    parts = (part.strip(" ^") for part in name.upper().split("="))
    components = [component.strip() for component in next(filter(None, parts), "").split("^")]
    return "^".join(components).rstrip("^")


def study_uid_of(beginning: memoryview, transfer_syntax: str) -> str:
    """Return the Study Instance UID of a dataset that may be cut off; "" if `beginning` does not hold it."""
    walker = _walker(beginning, transfer_syntax)
    with contextlib.suppress(DamagedError):  # the end of the bytes that came
        for element in walker.elements():
            if element.tag == _STUDY_INSTANCE_UID:
                return _Values(beginning, {element.tag: element}).uid(element.tag, "Study Instance UID")
    return ""


def describe(
    dataset: memoryview, inspected: Inspected, origin: Origin, *, sha256: str, spool_path: str, received_at: datetime
) -> ReceivedInstance:
    """Return the received instance, either from the network or from its file."""
    return ReceivedInstance(
        sop_instance_uid=inspected.sop_instance_uid,
        sop_class_uid=inspected.sop_class_uid,
        study_uid=inspected.study_uid,
        series_uid=inspected.series_uid,
        accession=inspected.accession,
        patient_id=inspected.patient_id,
        issuer=inspected.issuer,
        patient_key=inspected.patient_key,
        calling_ae=origin.calling_ae,
        called_ae=origin.called_ae,
        peer=origin.peer,
        transfer_syntax=origin.transfer_syntax,
        sha256=sha256,
        size=len(dataset),
        spool_path=spool_path,
        header=bytes(inspected.repairs.applied(dataset[: inspected.header_length])),
        priority=origin.priority,
        received_at=received_at,
    )


def _walker(dataset: memoryview, transfer_syntax: str) -> Walker:
    return Walker(dataset, implicit=transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN, lenient=True)


def _complete_elements(walker: Walker, dataset: memoryview) -> Iterator[Element]:
    """Yield the elements until nothing but padding is left: NULs, or a few bytes behind the pixel data.

    Raises:
        DamagedError: what is left is more than that.
    """
    padding = end_of_data(dataset)
    elements = walker.elements()
    end, has_pixels = 0, False
    while end < padding:
        try:
            element = next(elements)
        except DamagedError:
            if has_pixels and len(dataset) - end <= _MOST_GARBAGE:
                return
            raise
        yield element
        end, has_pixels = element.end, has_pixels or element.tag in PIXEL_DATA
    if len(dataset) - end == 1 and not has_pixels:
        raise DamagedError("element header is cut off")  # that of an overlay begins with a NUL


class _Values:
    def __init__(self, dataset: memoryview, elements: Mapping[int, Element]) -> None:
        self._dataset = dataset
        self._elements = elements

    def raw(self, tag: int, limit: int | None = _TEXT_LIMIT) -> bytes | None:
        if (element := self._elements.get(tag)) is None:
            return None
        length = element.length if limit is None else min(element.length, limit)
        return bytes(self._dataset[element.value : element.value + length])

    def element(self, tag: int) -> Element | None:
        """Return where an element stands; None where it is absent."""
        return self._elements.get(tag)

    def uid(self, tag: int, name: str) -> str:
        value = (self.raw(tag) or b"").rstrip(b"\0 ").decode("ascii", "replace")
        if not value:
            raise DamagedError(f"{name} is missing")
        if not is_uid(value):
            raise DamagedError(f"{name} is malformed")
        return value

    def text(self, tag: int, limit: int | None = _TEXT_LIMIT) -> str:
        """Return an identifier to search by; the header keeps its exact value."""
        raw = self.raw(tag, limit) or b""
        try:
            text = raw.decode(self._codec)
        except UnicodeDecodeError:  # wrongly declared: what differs must go on differing
            text = raw.decode("latin_1")
        if not text.isprintable():
            text = "".join(character for character in text if character.isprintable())
        return text.strip()

    def number(self, tag: int) -> int | None:
        """Return a US; None where it is missing or malformed."""
        value = self.raw(tag)
        return int.from_bytes(value, "little") if value is not None and len(value) == 2 else None

    def samples(self) -> int | None:
        """Return Samples per Pixel, 1 where it is missing: grayscale is all that has been without it."""
        return 1 if self.raw(_SAMPLES_PER_PIXEL) is None else self.number(_SAMPLES_PER_PIXEL)

    def frames(self) -> int | None:
        """Return Number of Frames, 1 where it is missing; None where it is malformed."""
        if not (text := self.text(_NUMBER_OF_FRAMES)):
            return 1
        return int(text) if re.fullmatch(r"\+?[0-9]{1,12}", text) else None  # IS

    @cached_property
    def _codec(self) -> str:
        from pydicom.charset import python_encoding  # noqa: PLC0415 - as in `encoding`

        terms = (self.raw(_SPECIFIC_CHARACTER_SET) or b"").decode("ascii", "replace").split("\\")
        codec = python_encoding.get(terms[0].strip(" \0"), "latin_1")
        return codec if isinstance(codec, str) else "latin_1"


def _check_pixels(values: _Values, walker: Walker, pixels: Element, *, is_native: bool) -> None:
    if is_native != (pixels.length != UNDEFINED_LENGTH):
        raise DamagedError("pixel data does not have the form of its transfer syntax")
    if is_native and pixels.length < _needed_bytes(values):
        raise DamagedError("pixel data is shorter than the image")
    if not is_native and sum(1 for length in walker.fragments(pixels) if length) < 1:
        raise DamagedError("pixel data is empty")


def _lacking(values: _Values, pixels: Element | None) -> str:
    if pixels is None:
        return "Pixel Data"
    return next((name for tag, name in ((_ROWS, "Rows"), (_COLUMNS, "Columns")) if values.raw(tag) is None), "")


def _needed_bytes(values: _Values) -> int:
    """Return the length of the image uncompressed; 0 where an attribute is missing or wrong, as its outcome says."""
    samples = values.samples()
    if values.text(_PHOTOMETRIC_INTERPRETATION) == "YBR_FULL_422":
        samples = 2  # PS3.3 section C.7.6.3.1.2: two pixels share the two colour samples
    bits = 1
    for factor in (*map(values.number, (_ROWS, _COLUMNS, _BITS_ALLOCATED)), samples, values.frames()):
        bits *= factor or 0
    return math.ceil(bits / 8)
