"""Reads single attributes of an image as they are stored, before pydicom converts them.

pydicom refuses a whole attribute for a decimal comma or a blank, and raises whatever its converters raise. Here a value
is text without its padding, or a number; what else it holds is the caller's to judge.
"""

import math
import re
import struct
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import Tag

Value = str | int | float

_PADDING: Final = " \0\t\r\n"
_TEXT: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UT"})
_BINARY: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,12}(?:\.0*)?")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_THOUSANDS: Final = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # "4,096" is 4096 to some and 4.096 to others


class MalformedAttribute(Exception):  # noqa: N818 - a finding about an image, always translated by the caller
    """The attribute is there, but its value cannot be understood."""

    def __init__(self, keyword: str) -> None:
        super().__init__(keyword)
        self.keyword = keyword


def is_little_endian(image: Dataset) -> bool:
    """Return the byte order of the transfer syntax; little endian where none is stated."""
    syntax = getattr(getattr(image, "file_meta", None), "TransferSyntaxUID", None)
    return syntax != "1.2.840.10008.1.2.2"  # Explicit VR Big Endian


def stored(image: Dataset, keyword: str) -> RawDataElement | DataElement | None:
    """Return the element as it was read or set; None if it is missing."""
    return image.get_item(keyword) if Tag(keyword) in image else None


def values(image: Dataset, keyword: str) -> list[Value]:
    """Return the values of an attribute; [] if it is missing, or if all its values are empty.

    Raises:
        MalformedAttribute: the value has another form than the data dictionary says.
    """
    element = stored(image, keyword)
    value = element.value if element is not None else None
    if element is None or value is None:
        return []
    if isinstance(value, bytes):
        little = element.is_little_endian if isinstance(element, RawDataElement) else is_little_endian(image)
        found = _decoded(value, keyword, element.VR, "<" if little else ">")
    else:
        found = [_plain(one, keyword) for one in _several(value)]
    return found if any(one != "" for one in found) else []


def text(image: Dataset, keyword: str) -> str:
    """Return a coded value in capitals; "" if it is missing or empty. Empty values beside it do not count.

    Raises:
        MalformedAttribute: it has several values that differ.
    """
    found = {str(value).upper() for value in values(image, keyword) if value != ""}
    if len(found) > 1:
        raise MalformedAttribute(keyword)
    return found.pop() if found else ""


def whole(image: Dataset, keyword: str) -> int | None:
    """Return a whole number; None if it is missing or empty. Empty values beside it do not count.

    Raises:
        MalformedAttribute: it is not one whole number.
    """
    found = {_whole(value, keyword) for value in values(image, keyword) if value != ""}
    if len(found) > 1:
        raise MalformedAttribute(keyword)
    return found.pop() if found else None


def whole_values(image: Dataset, keyword: str) -> list[int]:
    """Return whole numbers; [] if there are none.

    Raises:
        MalformedAttribute: a value is not a whole number.
    """
    return [_whole(value, keyword) for value in values(image, keyword)]


def decimals(image: Dataset, keyword: str) -> list[float | None]:
    """Return the numbers of an attribute, None in place of an empty one; [] if there are none.

    A comma is read as the decimal point (PS3.5 Table 6.2-1 DS allows none), unless it might part thousands.

    Raises:
        MalformedAttribute: a value is not a finite number.
    """
    return [_decimal(value, keyword) for value in values(image, keyword)]


def first_pair(image: Dataset, one: str, other: str) -> tuple[float, float] | None:
    """Return the first values that two attributes have at one place; None without any. Later ones are not read.

    Raises:
        MalformedAttribute: one of these or of the values before is not a finite number.
    """
    for pair in zip_longest(values(image, one), values(image, other), fillvalue=""):
        first, second = _decimal(pair[0], one), _decimal(pair[1], other)
        if first is not None and second is not None:
            return first, second
    return None


def has_comma(image: Dataset, *keywords: str) -> bool:
    """Return whether a number of these attributes is written with a comma."""
    return any("," in str(value) for keyword in keywords for value in values(image, keyword))


def _several(value: object) -> Sequence[object]:
    return value if isinstance(value, MultiValue | list | tuple) else [value]


def _plain(value: object, keyword: str) -> Value:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        written = getattr(value, "original_string", value)  # pydicom's DS and IS keep what was written
        return written.strip(_PADDING) if isinstance(written, str) else written
    raise MalformedAttribute(keyword)


def _decoded(octets: bytes, keyword: str, vr: str | None, order: str) -> list[Value]:
    known = vr if vr in _TEXT or vr in _BINARY else dictionary_VR(keyword)
    if known in _TEXT:
        return [part.strip(_PADDING) for part in octets.decode("latin-1").split("\\")]
    code = _BINARY.get(known, "H")  # "US or SS": the caller knows which
    size = struct.calcsize(f"={code}")
    if len(octets) % size:
        raise MalformedAttribute(keyword)
    return list(struct.unpack(f"{order}{len(octets) // size}{code}", octets))


def _whole(value: Value, keyword: str) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise MalformedAttribute(keyword)


def _decimal(value: Value, keyword: str) -> float | None:
    if value == "":
        return None
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value) or _THOUSANDS.fullmatch(value):
            raise MalformedAttribute(keyword)
        value = value.replace(",", ".")
    number = float(value)
    if not math.isfinite(number):
        raise MalformedAttribute(keyword)
    return number
