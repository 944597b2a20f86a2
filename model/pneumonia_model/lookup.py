"""Reads Modality and VOI LUTs (PS3.3 C.11.1, C.11.2), also those whose descriptor and entries disagree.

A table is read where its entries leave one meaning only. Where the pixels of the film need entries that are not there,
or that the descriptor does not count, it is refused: nobody can say how bright they are.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue

from pneumonia_model.attributes import MalformedAttribute, stored, whole_values

_DEPTHS: Final = range(8, 17)  # bits of an entry, PS3.3 C.11.2.1.1
_LEAST_ABOVE: Final = 1 / 8  # share of entries above the declared bits with which these are taken for wrong
_LARGEST_STEP: Final = 0.01  # of white: two values that are as near as that look the same
_MOST_UNCOVERED: Final = 0.05  # of the pixels, on either side of a table
_EXTREMES: Final = 1 / 8  # of the film's range at either end: air, and what is saturated


class MalformedTable(Exception):  # noqa: N818 - a finding about an image, always translated by the caller
    """The table does not say how bright the pixels are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LookupTable:
    """A lookup table.

    Attributes:
        first: input value of the first entry; smaller ones get that entry, too large ones the last.
        entries: output values, 0 to 65535.
        white: output value that is shown as white.
        mended: whether `white` is another value than the descriptor says.
    """

    first: int
    entries: NDArray[np.int64]
    white: int
    mended: bool

    def look_up(self, inputs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the output value of each input value."""
        return self.entries[np.clip(inputs - self.first, 0, len(self.entries) - 1)].astype(np.float64)


def read_table(
    item: Dataset, inputs: NDArray[np.int64], pixels: NDArray[np.float32], *, signed: bool, little_endian: bool
) -> LookupTable:
    """Return a table of a Modality or VOI LUT Sequence.

    Args:
        item: the item of the sequence.
        inputs: the values that the pixels of the film have before the table.
        pixels: how many pixels have each of them.
        signed: whether the film's stored values are signed.
        little_endian: the byte order of the film's transfer syntax.

    Raises:
        MalformedTable: descriptor or entries are missing, or do not say how bright these inputs are.
    """
    try:
        descriptor = whole_values(item, "LUTDescriptor")
    except MalformedAttribute as error:
        raise MalformedTable("LUTDescriptor") from error
    if len(descriptor) != 3 or descriptor[2] not in _DEPTHS:
        raise MalformedTable("LUTDescriptor")
    count, first, bits = (descriptor[0] & 0xFFFF) or 65536, descriptor[1], descriptor[2]
    declared_signed = first < 0 or _vr(item) == "SS" or (signed and _vr(item) != "SS")
    first = _first(first, count, inputs, signed=declared_signed)
    entries, surplus = _entries(item, count, bits, little_endian=little_endian)
    white, mended = _white(entries, bits)
    _refuse_unsaid(entries, surplus, count, int(inputs.max()) - first, white)
    _refuse_uncovered(inputs, pixels, first, len(entries) + len(surplus))
    return LookupTable(first=first, entries=entries, white=white, mended=mended)


def _vr(item: Dataset) -> str | None:
    element = stored(item, "LUTDescriptor")
    return element.VR if element is not None else None


def _first(value: int, count: int, inputs: NDArray[np.int64], *, signed: bool) -> int:
    """Return the first input value, of which senders write the sign as they like.

    The sign that the attributes state counts, unless only with the other one the table meets the film's values.
    """
    unsigned = value & 0xFFFF
    negative = unsigned - 65536 if unsigned > 32767 else unsigned
    stated, other = (negative, unsigned) if signed else (unsigned, negative)

    def meets(first: int) -> bool:
        return bool(((inputs >= first) & (inputs < first + count)).any())

    return other if meets(other) and not meets(stated) else stated


def _entries(
    item: Dataset, count: int, bits: int, *, little_endian: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the entries that the descriptor counts, as far as they are there, and those that it does not count."""
    element = stored(item, "LUTData")
    if element is None or element.value is None:
        raise MalformedTable("LUTData")
    if element.VR == "OB" and bits == 8 and isinstance(element.value, bytes) and len(element.value) < 2 * count:
        found = np.frombuffer(element.value, dtype=np.uint8).astype(np.int64)
        return found[:count], found[count + count % 2 :]
    words = _words(element, little_endian=little_endian)
    half = (count + 1) // 2
    if bits == 8 and words.size < count and (words.size == half or words.max(initial=0) > 255):
        # two entries in a word, the first one in its lower half
        found = np.column_stack((words & 0xFF, words >> 8)).ravel()
        return found[:count], found[count + count % 2 :]
    if words.size == half < count:  # entries of 8 bits, or half of the table
        raise MalformedTable("LUTData")
    return words[:count], words[count:]


def _words(element: RawDataElement | DataElement, *, little_endian: bool) -> NDArray[np.int64]:
    value = element.value
    if isinstance(value, bytes):
        little = element.is_little_endian if isinstance(element, RawDataElement) else little_endian
        octets = value + b"\0" * (len(value) % 2)
        return np.frombuffer(octets, dtype="<u2" if little else ">u2").astype(np.int64)
    numbers = list(value) if isinstance(value, MultiValue | list) else [value]
    whole = [number & 0xFFFF for number in numbers if isinstance(number, int)]
    if len(whole) < len(numbers):
        raise MalformedTable("LUTData")
    return np.asarray(whole, dtype=np.int64)


def _white(entries: NDArray[np.int64], bits: int) -> tuple[int, bool]:
    """Return the entry that is shown as white, and whether the declared bits say another one.

    Entries that leave at least the uppermost declared bit unused, or need more bits, are scaled by their largest.
    """
    largest, declared = int(entries.max(initial=0)), (1 << bits) - 1
    if largest == 0:
        raise MalformedTable("LUTData")
    if largest <= (declared + 1) // 2:
        return largest, True
    if largest <= declared + 1:  # the last entry of a ramp is often one too large
        return declared, False
    if float(np.mean(entries > declared)) < _LEAST_ABOVE:
        raise MalformedTable("LUTData")
    return largest, True


def _refuse_unsaid(entries: NDArray[np.int64], surplus: NDArray[np.int64], count: int, last: int, white: int) -> None:
    """Refuse a table whose entry for the largest input (number `last`) is missing, or there but not counted."""
    if len(entries) < count and last >= len(entries):
        raise MalformedTable("LUTData")
    uncounted = surplus[: max(0, last - count + 1)]
    if uncounted.size and np.abs(uncounted - entries[-1]).max() > _LARGEST_STEP * white:
        raise MalformedTable("LUTDescriptor")


def _refuse_uncovered(inputs: NDArray[np.int64], pixels: NDArray[np.float32], first: int, count: int) -> None:
    """Refuse a table of which the first value or the length leaves a part of the film without entries.

    Values beyond a table get its outermost entry (PS3.3 C.11.2.1.1). That is meant for air and for saturated pixels.
    """
    lowest, highest = int(inputs.min()), int(inputs.max())
    margin = (highest - lowest) * _EXTREMES
    below = (inputs < first) & (inputs > lowest + margin)
    beyond = (inputs >= first + count) & (inputs < highest - margin)
    if max(float(pixels[side].sum()) for side in (below, beyond)) > _MOST_UNCOVERED * float(pixels.sum()):
        raise MalformedTable("LUTDescriptor")
