"""Writes datasets in Explicit VR Little Endian (PS3.5 Section 7), from plain values by their keywords.

The bytes are those that pydicom writes of the same values, as a test compares. pydicom's own way, an object for each
element and a buffer for each value, takes most of the time that a report costs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

Dataset = dict[str, Any]  # by keyword: text, a number, bytes or a view of them, or a list; of a sequence its items

_ITEM: Final = struct.pack("<HH", 0xFFFE, 0xE000)  # PS3.5 Section 7.5
_LONGEST: Final = 0xFFFF  # bytes of a value whose length has 16 bits
_LONG_VRS: Final = frozenset({"OB", "SQ", "UC", "UR", "UT"})  # with a length of 32 bits, PS3.5 Section 7.1.2
_PIXEL_DATA: Final = "OB or OW"  # in the dictionary; our pixels have 8 bits or one, so both are the same


class _Attribute(NamedTuple):
    """How an attribute is written."""

    tag: int
    prefix: bytes  # tag and VR
    has_long_length: bool
    encode: Callable[[Any], bytes | memoryview]


def encoded(dataset: Mapping[str, Any]) -> list[bytes | memoryview]:
    """Return the bytes of a dataset in parts, for the caller to join: so pixel data is copied once.

    Text is in ISO_IR 192.

    Raises:
        ValueError: a keyword is not in the data dictionary, or no attribute with its VR is written here.
        UnicodeEncodeError: a value whose VR has no character set is not in ISO 8859-1.
    """
    parts: list[bytes | memoryview] = []
    # no two attributes have one tag: the values are never compared
    for attribute, value in sorted([(_attribute(keyword), value) for keyword, value in dataset.items()]):
        data = attribute.encode(value)
        if attribute.has_long_length:
            length = struct.pack("<HL", 0, len(data))
        elif len(data) <= _LONGEST:
            length = struct.pack("<H", len(data))
        else:  # PS3.5 Section 6.2.2, Note 2: a value that is too long for its VR is of an unknown one
            parts += (attribute.prefix[:4], b"UN", struct.pack("<HL", 0, len(data)), data)
            continue
        parts += (attribute.prefix, length, data)
    return parts


@cache
def _attribute(keyword: str) -> _Attribute:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not in the data dictionary")
    vr = dictionary_VR(tag)
    if (encode := _ENCODERS.get(vr)) is None:
        raise ValueError(f"{keyword} is {vr}, which is not written here")
    vr = vr[:2]
    return _Attribute(tag, struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode(), vr in _LONG_VRS, encode)


def _items(items: Sequence[Mapping[str, Any]]) -> bytes:
    parts: list[bytes | memoryview] = []
    for item in items:
        elements = encoded(item)
        parts += (_ITEM, struct.pack("<L", sum(map(len, elements))), *elements)
    return b"".join(parts)


def _text(value: str | Sequence[str]) -> bytes:
    return _even(_several(value).encode(errors="replace"))


def _default_text(value: str | Sequence[str]) -> bytes:
    return _even(_several(value).encode("latin-1"))


def _uid(value: str | Sequence[str]) -> bytes:
    joined = "\\".join(uid.strip() for uid in _several(value).split("\\"))
    return _even(joined.encode("latin-1"), b"\0")


def _person_name(value: str | Sequence[str]) -> bytes:
    # a name ends with its last group that is not empty, PS3.5 Section 6.2.1
    return _text([name.rstrip("=") for name in _several(value).split("\\")])


def _number_text(value: str | int | Sequence[str | int]) -> bytes:
    numbers = [value] if isinstance(value, (str, int)) else value
    return _default_text([str(number).strip() for number in numbers])


def _tags(value: int) -> bytes:
    return struct.pack("<HH", value >> 16, value & 0xFFFF)


def _numbers(code: str) -> Callable[[Any], bytes]:
    def encode(value: float | Sequence[float]) -> bytes:
        numbers = [value] if isinstance(value, (int, float)) else value
        return struct.pack(f"<{len(numbers)}{code}", *numbers)

    return encode


def _several(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else "\\".join(value)


def _even(data: bytes, padding: bytes = b" ") -> bytes:
    return data + padding if len(data) % 2 else data


def _bytes(value: bytes | memoryview) -> bytes | memoryview:
    return value if len(value) % 2 == 0 else _even(bytes(value), b"\0")


_ENCODERS: Final[Mapping[str, Callable[[Any], bytes | memoryview]]] = {
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT"), _text),  # PS3.5 Section 6.1.2.2
    **dict.fromkeys(("AE", "AS", "CS", "DA", "DT", "TM", "UR"), _default_text),
    **dict.fromkeys(("DS", "IS"), _number_text),
    **dict.fromkeys(("OB", _PIXEL_DATA), _bytes),
    "AT": _tags,
    "FD": _numbers("d"),
    "FL": _numbers("f"),
    "PN": _person_name,
    "SL": _numbers("l"),
    "SQ": _items,
    "SS": _numbers("h"),
    "UI": _uid,
    "UL": _numbers("L"),
    "US": _numbers("H"),
}
