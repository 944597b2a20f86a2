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


def without_bits_allocated(data: bytes) -> bytes:
    """Return an Explicit VR dataset without Bits Allocated (0028,0100), which pydicom does not write."""
    place = data.index(b"\x28\x00\x00\x01US")
    return data[:place] + data[place + 10 :]


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


def oddities(data: bytes) -> dict[str, bytes]:
    """Return an Explicit VR radiograph with what senders add to it or get wrong, and archives take."""
    name = data.index(b"\x10\x00\x10\x00PN")  # Patient's Name, with a length of 16 bits
    pixels = data.index(b"\xe0\x7f\x10\x00")  # with one of 32 bits
    study = data.index(b"\x20\x00\x0d\x00UI")
    other_syntax = b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.4.50"
    command = struct.pack("<HHLL", 0, 0, 4, 10) + struct.pack("<HHLH", 0, 0x0100, 2, 1)
    unknown = b"\x21\x00\x10\x10"  # a private tag, which no dictionary knows
    nested = b"\x08\x00\x15\x11SQ\0\0" + struct.pack("<L", 20) + _item(b"\x08\x00\x18\x00\0\0\x04\x001.2\0")
    code = data.index(b"\x10\x00\x10\x00PN")

    def without_vr(place: int, source: bytes = data) -> bytes:
        return source[: place + 4] + bytes(2) + source[place + 6 :]

    return {
        "file meta of another syntax in front": other_syntax + data,
        "file meta inside": data[:study] + other_syntax + data[study:],
        "command set in front": command + data,
        "command set inside": data[:study] + command + data[study:],
        "DICOMDIR element in front": b"\x04\x00\x30\x11CS\x02\x00A " + data,
        "VR of two NULs": without_vr(name),
        "VRs of two NULs in a row": without_vr(data.index(b"\x10\x00\x20\x00LO"), without_vr(name)),
        "VR of two question marks": without_vr(name).replace(b"\x10\x00\x10\x00\0\0", b"\x10\x00\x10\x00??"),
        "VR of two NULs, no value": data[:study] + unknown + bytes(4) + data[study:],
        "VR of two NULs, unknown, 16 bits": data[:study] + unknown + b"\0\0\x02\0\xff\x00" + data[study:],
        "VR of two NULs, unknown, 32 bits": data[:study] + unknown + b"\0\0\0\0\x02\0\0\0\xff\x00" + data[study:],
        "VR of two NULs for the pixels": without_vr(pixels),
        "VR of two NULs in an item": data[:code] + nested + data[code:],
        "one NUL behind the end": data + bytes(1),
        "eight NULs behind the end": data + bytes(8),
        "many NULs behind the end": data + bytes(5_000),
        "NULs behind pixels without a VR": without_vr(pixels) + bytes(512),
        "a few bytes behind the end": data + b"\r\n\x1a",
        "half a header behind the end": data + b"\xfc\xff\xfc\xffOB",
        "garbage behind the end": data + b"\xde\xad\xbe\xef" * 16,
        "NULs and garbage behind the end": data + bytes(512) + b"\xde\xad\xbe\xef",
        "an item behind the end": data + b"\xfe\xff\x00\xe0" + bytes(4),
        "all of it": command + other_syntax + without_vr(name) + bytes(512),
    }


def implicit_oddities(data: bytes) -> dict[str, bytes]:
    """Return an Implicit VR radiograph with the same."""
    study = data.index(b"\x20\x00\x0d\x00")
    meta = b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.4.50"
    command = struct.pack("<HHLL", 0, 0, 4, 10)
    return {
        "file meta in front": meta + data,
        "file meta inside": data[:study] + meta + data[study:],
        "command set in front": command + data,
        "NULs behind the end": data + bytes(512),
        "garbage behind the end": data + b"\xde\xad\xbe\xef" * 16,
    }


def _item(data: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<L", len(data)) + data
