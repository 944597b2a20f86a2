"""Walks an encoded dataset (PS3.5 section 7), checks bounds and nesting, and decodes no value.

It uses a list instead of recursion, so that the depth is a number to compare and never causes a crash.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

MAXIMUM_DEPTH: Final = 64  # sequences within sequences; the deepest known object has 40
MAXIMUM_ELEMENTS: Final = 20_000  # a radiograph has a few hundred; each is looked at under the interpreter's lock
FIRST_GROUP: Final = 0x0008  # lower groups belong to commands, file meta and DICOMDIR, PS3.5 section 7.8
UNDEFINED_LENGTH: Final = 0xFFFF_FFFF
PIXEL_DATA: Final = (0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010)  # Float, Double Float, Pixel Data

_ITEM: Final = 0xFFFE_E000
_ITEM_END: Final = 0xFFFE_E00D
_SEQUENCE_END: Final = 0xFFFE_E0DD
_SHORT_VR: Final = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VR: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_NO_VR: Final = frozenset((bytes(2), b"  ", b"??", b"--"))  # what senders write for a VR that they do not know
_FRAGMENTED_VR: Final = frozenset((b"OB", b"OW"))  # PS3.5 A.4
_SHORT_HEADER: Final = struct.Struct("<HH2sH")
_LONG_HEADER: Final = struct.Struct("<HH2s2xL")
_IMPLICIT_HEADER: Final = struct.Struct("<HHL")


class DamagedError(ValueError):
    """The bytes are not a complete, well-formed dataset; the message does not quote them."""


class Element(NamedTuple):
    """The place of one data element in the bytes."""

    tag: int
    vr: bytes  # empty in Implicit VR
    start: int  # offset of its tag
    value: int  # offset of its value
    length: int  # declared length of its value, may be UNDEFINED_LENGTH
    end: int  # offset after it and its delimiters


@dataclass(slots=True)
class _Frame:
    is_sequence: bool  # holds items; otherwise it is an item and holds elements
    limit: int  # offset that its contents may not pass
    delimited: bool  # ends with a delimiter, not at `limit`
    implicit: bool


@lru_cache(maxsize=4096)
def _dictionary_vr(tag: int) -> bytes:
    """Return the VR that the data dictionary knows, the first of several; b"" for a tag that it does not know."""
    from pydicom.datadict import dictionary_VR  # noqa: PLC0415 - 50 MiB, which a process that reads no film saves

    try:
        return dictionary_VR(tag)[:2].encode()
    except KeyError:
        return b""


class Walker:
    """One pass over the bytes of a dataset in a little-endian transfer syntax.

    A lenient walker reads two oddities of senders, and is strict otherwise. A VR of two NULs, spaces, question marks or
    hyphens in Explicit VR stands for that of the dictionary, or for an unknown one. An element of a group below 0008 is
    in the encoding that its own bytes show: command sets are in Implicit VR, file meta information in Explicit VR.
    """

    def __init__(
        self, data: memoryview, *, implicit: bool, maximum_depth: int = MAXIMUM_DEPTH, lenient: bool = False
    ) -> None:
        self._data = data
        self._implicit = implicit
        self._maximum_depth = maximum_depth
        self._lenient = lenient
        self._left = MAXIMUM_ELEMENTS
        self.missing_vrs: list[tuple[int, bytes]] = []  # offset of each VR that is none, and the VR to read there

    def elements(self, offset: int = 0) -> Iterator[Element]:
        """Yield the elements of the top level in order; nested elements are checked and skipped.

        Raises:
            DamagedError: an element, item or fragment is cut off, or the nesting is wrong or too deep.
        """
        size = len(self._data)
        while offset < size:
            element = self._header(offset, size, implicit=self._implicit)
            if element.tag >> 16 == 0xFFFE:
                raise DamagedError("item outside of a sequence")
            offset = self._end(element, size)
            yield Element(element.tag, element.vr, element.start, element.value, element.length, offset)

    def fragments(self, element: Element) -> Iterator[int]:
        """Yield the length of each item of encapsulated pixel data, the Basic Offset Table first."""
        yield from (length for _, length in self._items(element.value, len(self._data)))

    def _header(self, offset: int, limit: int, *, implicit: bool) -> Element:
        self._left -= 1
        if self._left < 0:
            raise DamagedError("too many elements")
        if offset + 8 > limit:
            raise DamagedError("element header is cut off")
        group, number, vr, length = _SHORT_HEADER.unpack_from(self._data, offset)
        if self._lenient and group < FIRST_GROUP:
            implicit = vr not in _SHORT_VR and vr not in _LONG_VR
        if implicit:
            group, number, length = _IMPLICIT_HEADER.unpack_from(self._data, offset)
            return Element((group << 16) | number, b"", offset, offset + 8, length, 0)
        tag = (group << 16) | number
        if vr in _SHORT_VR or group == 0xFFFE:
            return Element(tag, vr, offset, offset + 8, length, 0)
        if self._lenient and vr in _NO_VR:
            return self._without_vr(tag, offset, limit)
        if not (vr.isalpha() and vr.isupper()):
            raise DamagedError("element without a value representation")
        if offset + 12 > limit:
            raise DamagedError("element header is cut off")
        # PS3.5 section 7.1.2: every VR outside the short list, and every future VR, has 32 bits of length
        length = _LONG_HEADER.unpack_from(self._data, offset)[3]
        return Element(tag, vr, offset, offset + 12, length, 0)

    def _without_vr(self, tag: int, offset: int, limit: int) -> Element:
        """Return an element whose VR is none: its length has 16 bits, or 32 where only then something follows."""
        known = _dictionary_vr(tag)
        length = _SHORT_HEADER.unpack_from(self._data, offset)[3]
        element = Element(tag, known if known in _SHORT_VR else b"LT", offset, offset + 8, length, 0)
        if tag in PIXEL_DATA or (length == 0 and not self._begins_element(element.value, limit, after=tag)):
            if offset + 12 > limit:
                raise DamagedError("element header is cut off")
            length = _LONG_HEADER.unpack_from(self._data, offset)[3]
            long = Element(tag, known if known in _LONG_VR else b"UN", offset, offset + 12, length, 0)
            if tag in PIXEL_DATA or length == UNDEFINED_LENGTH or self._begins_element(long.value + length, limit):
                element = long
        self.missing_vrs.append((offset + 4, element.vr))
        return element

    def _begins_element(self, offset: int, limit: int, *, after: int = 0) -> bool:
        """Return whether an element of a tag behind `after` seems to begin at `offset`, or the contents end there."""
        if offset + 8 > limit:
            return offset == limit
        group, number, vr, _ = _SHORT_HEADER.unpack_from(self._data, offset)
        is_behind = (group << 16) | number > after
        return is_behind and (group == 0xFFFE or vr in _NO_VR or vr in _SHORT_VR or vr in _LONG_VR)

    def _end(self, element: Element, limit: int) -> int:
        if _is_sequence(element):
            return self._end_of_sequence(element, limit)
        return self._end_of_value(element, limit)

    def _end_of_value(self, element: Element, limit: int) -> int:
        if element.length == UNDEFINED_LENGTH:
            if element.vr not in _FRAGMENTED_VR:
                raise DamagedError("element of undefined length that cannot have one")
            return max((end for end, _ in self._items(element.value, limit)), default=element.value) + 8
        end = element.value + element.length
        if end > limit:
            raise DamagedError("element is cut off")
        return end

    def _items(self, offset: int, limit: int) -> Iterator[tuple[int, int]]:
        """Yield (offset after it, length) of each fragment until the delimiter, PS3.5 section A.4."""
        while True:
            item = self._item_header(offset, limit)
            if item.tag == _SEQUENCE_END:
                return
            if item.tag != _ITEM or item.value + item.length > limit:
                raise DamagedError("encapsulated pixel data is cut off")
            offset = item.value + item.length
            yield offset, item.length

    def _item_header(self, offset: int, limit: int) -> Element:
        return self._header(offset, limit, implicit=True)  # an item has no VR, PS3.5 section 7.5

    def _end_of_sequence(self, element: Element, limit: int) -> int:
        offset = element.value
        stack = [self._open(element, limit, self._implicit)]
        while stack:
            frame = stack[-1]
            if not frame.delimited and offset == frame.limit:
                stack.pop()
            elif frame.is_sequence:
                offset = self._step_into_item(stack, offset)
            else:
                offset = self._step_over_element(stack, offset)
        return offset

    def _step_into_item(self, stack: list[_Frame], offset: int) -> int:
        frame = stack[-1]
        item = self._item_header(offset, frame.limit)
        if item.tag == _SEQUENCE_END and frame.delimited:
            stack.pop()
        elif item.tag == _ITEM:
            limit = self._limit(item, frame.limit)
            stack.append(_Frame(False, limit, item.length == UNDEFINED_LENGTH, frame.implicit))  # noqa: FBT003 - a field
        else:
            raise DamagedError("sequence with something else than items")
        return item.value

    def _step_over_element(self, stack: list[_Frame], offset: int) -> int:
        frame = stack[-1]
        element = self._header(offset, frame.limit, implicit=frame.implicit)
        if element.tag == _ITEM_END and frame.delimited:
            stack.pop()
            return offset + 8
        if element.tag >> 16 == 0xFFFE:
            raise DamagedError("item outside of a sequence")
        if not _is_sequence(element):
            return self._end_of_value(element, frame.limit)
        if len(stack) >= 2 * self._maximum_depth:
            raise DamagedError(f"sequences nested deeper than {self._maximum_depth}")
        stack.append(self._open(element, frame.limit, frame.implicit))
        return element.value

    def _open(self, element: Element, limit: int, implicit: bool) -> _Frame:  # noqa: FBT001 - as in _Frame
        return _Frame(
            is_sequence=True,
            limit=self._limit(element, limit),
            delimited=element.length == UNDEFINED_LENGTH,
            implicit=implicit or element.vr == b"UN",  # PS3.5 section 6.2.2
        )

    def _limit(self, element: Element, limit: int) -> int:
        if element.length == UNDEFINED_LENGTH:
            return limit
        if element.value + element.length > limit:
            raise DamagedError("sequence is cut off")
        return element.value + element.length


def _is_sequence(element: Element) -> bool:
    if element.vr:
        return element.vr == b"SQ" or (element.vr == b"UN" and element.length == UNDEFINED_LENGTH)
    return element.length == UNDEFINED_LENGTH or _dictionary_vr(element.tag) == b"SQ"
