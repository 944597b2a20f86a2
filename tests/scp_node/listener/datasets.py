"""Encoded datasets made in code, sound and damaged."""

from __future__ import annotations

import struct
from typing import Any, Final

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.scp_node.listener.peer import DX

MISSING: Final = None  # as an attribute: leave it out
STUDY: Final = "1.2.3.1"
SERIES: Final = "1.2.3.2"


def radiograph(*, implicit: bool = False, **attributes: Any) -> bytes:
    """Return a tiny radiograph, little endian; attributes replace the usual ones, None leaves one out."""
    return encoded(radiograph_dataset(**attributes), implicit=implicit)


def radiograph_dataset(**attributes: Any) -> Dataset:
    """Return a tiny radiograph."""
    usual = {
        "SOPClassUID": DX,
        "SOPInstanceUID": "1.2.3",
        "AccessionNumber": "A-1",
        "Modality": "DX",
        "PatientName": "Canary^Patient",
        "PatientID": "CANARY-ID",
        "PatientBirthDate": "19010203",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 8,
        "Columns": 8,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": bytes(128),
    }
    image = Dataset()
    for keyword, value in {**usual, **attributes}.items():
        if value is not MISSING:
            setattr(image, keyword, value)
    return image


def encoded(dataset: Dataset, *, implicit: bool = False) -> bytes:
    """Return the dataset as bytes, without file meta."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = implicit
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def without_pixels(data: bytes) -> bytes:
    """Return an Explicit VR dataset up to its pixel data."""
    return data[: data.index(b"\xe0\x7f\x10\x00")]


def encapsulated(*fragments: bytes) -> bytes:
    """Return encapsulated Pixel Data in Explicit VR, with an empty offset table."""
    items = b"".join(_item(fragment) for fragment in (b"", *fragments))
    return b"\xe0\x7f\x10\x00OB\0\0" + b"\xff" * 4 + items + b"\xfe\xff\xdd\xe0" + bytes(4)


def nested(depth: int) -> bytes:
    """Return a private sequence that holds itself `depth` times, in Explicit VR with undefined lengths."""
    head = b"\x09\x00\x10\x10SQ\0\0" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4
    tail = b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)
    return head * depth + tail * depth


def with_nested(depth: int) -> bytes:
    """Return a radiograph with sequences nested `depth` deep."""
    data = radiograph()
    place = data.index(struct.pack("<HH", 0x0010, 0x0010))
    return data[:place] + nested(depth) + data[place:]


def _item(data: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<L", len(data)) + data
