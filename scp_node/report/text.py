"""A Structured Report as indented text, for people at a terminal or a page.

It reads the bytes of this node's own reports without the DICOM library: a process that only shows them stays small.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from scp_node.dicom.encoding import UNDEFINED_LENGTH, DamagedError, Walker

_PREAMBLE: Final = 132  # bytes before the file meta information, with "DICM" at their end
_ITEM_HEADER: Final = struct.Struct("<HHL")

_CODE_VALUE: Final = 0x0008_0100
_CODE_MEANING: Final = 0x0008_0104
_REFERENCED_UID: Final = 0x0008_1155
_REFERENCES: Final = 0x0008_1199
_PATIENT_NAME: Final = 0x0010_0010
_PATIENT_ID: Final = 0x0010_0020
_UNITS: Final = 0x0040_08EA
_VALUE_TYPE: Final = 0x0040_A040
_CONCEPT_NAME: Final = 0x0040_A043
_DATE: Final = 0x0040_A121
_UID: Final = 0x0040_A124
_TEXT: Final = 0x0040_A160
_CONCEPT_CODE: Final = 0x0040_A168
_MEASURED: Final = 0x0040_A300
_QUALIFIER: Final = 0x0040_A301
_NUMERIC: Final = 0x0040_A30A
_CONTENT: Final = 0x0040_A730
_GRAPHIC_TYPE: Final = 0x0070_0023


class _Item:
    """The elements of one item, or of the whole report."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._elements = {element.tag: element for element in Walker(data, implicit=False).elements()}

    def text(self, tag: int) -> str:
        """Return a value as text, "" without one: reports are in ISO_IR 192."""
        if (element := self._elements.get(tag)) is None:
            return ""
        return bytes(self._data[element.value : element.end]).decode("utf-8", "replace").strip(" \0")

    def items(self, tag: int) -> Iterator[_Item]:
        """Yield the items of a sequence.

        Raises:
            DamagedError: an item has no stated length; this node writes none.
        """
        if (element := self._elements.get(tag)) is None:
            return
        if element.length == UNDEFINED_LENGTH:
            raise DamagedError("sequence without a length")
        offset = element.value
        while offset < element.end:
            _, _, length = _ITEM_HEADER.unpack_from(self._data, offset)
            if length == UNDEFINED_LENGTH:
                raise DamagedError("item without a length")
            offset += _ITEM_HEADER.size
            yield _Item(self._data[offset : offset + length])
            offset += length

    def first(self, tag: int) -> _Item | None:
        """Return the first item of a sequence."""
        return next(self.items(tag), None)


def as_text(file: bytes) -> str:
    """Return the content tree of a report's Part 10 file as lines "concept: value", children indented.

    Raises:
        DamagedError: the file is not one that this node wrote.
    """
    return "\n".join(_lines(_root(file), 0))


def conclusion_of(file: bytes) -> str:
    """Return the sentence in which a report of this node concludes.

    Raises:
        DamagedError: the file is not one that this node wrote.
    """
    containers = [item for item in _root(file).items(_CONTENT) if item.text(_VALUE_TYPE) == "CONTAINER"]
    evaluations = containers[-1].items(_CONTENT) if containers else ()
    return " ".join(item.text(_TEXT) for item in evaluations if item.text(_VALUE_TYPE) == "TEXT")


def patient_of(file: bytes) -> str:
    """Return whom a report is about: name and Patient ID, as they stand in it.

    Raises:
        DamagedError: the file is not one that this node wrote.
    """
    root = _root(file)
    return ", ".join(filter(None, (root.text(_PATIENT_NAME), root.text(_PATIENT_ID)))) or "no name and no Patient ID"


def _root(file: bytes) -> _Item:
    if file[_PREAMBLE - 4 : _PREAMBLE] != b"DICM":
        raise DamagedError("not a DICOM file")
    return _Item(memoryview(file)[_PREAMBLE:])


def _lines(item: _Item, depth: int) -> Iterator[str]:
    value_type = item.text(_VALUE_TYPE)
    show = _VALUES.get(value_type)
    name, value = _meaning(item, _CONCEPT_NAME) or value_type, show(item) if show else ""
    yield "  " * depth + ": ".join(part for part in (name, value) if part)
    for child in item.items(_CONTENT):
        yield from _lines(child, depth + 1)


def _meaning(item: _Item, tag: int) -> str:
    code = item.first(tag)
    return code.text(_CODE_MEANING) if code else ""


def _number(item: _Item) -> str:
    if (measured := item.first(_MEASURED)) is None:
        return _meaning(item, _QUALIFIER) or "no value"
    unit = measured.first(_UNITS)
    return f"{measured.text(_NUMERIC)} {unit.text(_CODE_VALUE) if unit else ''}".strip()


def _reference(item: _Item) -> str:
    reference = item.first(_REFERENCES)
    return reference.text(_REFERENCED_UID) if reference else ""


_VALUES: Final[Mapping[str, Callable[[_Item], str]]] = {  # PS3.3 Table C.17.3-7
    "TEXT": lambda item: item.text(_TEXT),
    "CODE": lambda item: _meaning(item, _CONCEPT_CODE),
    "DATE": lambda item: item.text(_DATE),
    "NUM": _number,
    "UIDREF": lambda item: item.text(_UID),
    "IMAGE": _reference,
    "COMPOSITE": _reference,
    "SCOORD": lambda item: item.text(_GRAPHIC_TYPE),
}
