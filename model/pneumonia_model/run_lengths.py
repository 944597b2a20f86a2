"""Measures a frame in RLE, without decoding: its header (PS3.5 G.5) says nothing about rows and columns."""

import struct
from itertools import pairwise
from typing import Final

from pneumonia_model.codestream import DamagedCodestream

_HEADER: Final = struct.Struct("<16I")
_MOST_SEGMENTS: Final = 15
_NOTHING: Final = 128  # PS3.5 G.3.2: a byte that outputs nothing


def rle_segments(frame: bytes) -> list[bytes]:
    """Return the segments of a frame, as its header divides it.

    Raises:
        DamagedCodestream: their number or their offsets do not fit.
    """
    if len(frame) < _HEADER.size:
        raise DamagedCodestream("RLE header too short")
    number, *offsets = _HEADER.unpack_from(frame)
    if not 1 <= number <= _MOST_SEGMENTS:
        raise DamagedCodestream("RLE segments out of number")
    bounds = [*offsets[:number], len(frame)]
    if bounds[0] != _HEADER.size or any(begin >= end for begin, end in pairwise(bounds)):
        raise DamagedCodestream("RLE offsets out of order")
    return [frame[begin:end] for begin, end in pairwise(bounds)]


def decoded_length(segment: bytes, most: int) -> int:
    """Return how many bytes a segment decodes to (PS3.5 G.3.2); above `most`, any number above it.

    Raises:
        DamagedCodestream: the segment is longer than one that codes each of `most` bytes by itself.
    """
    end = len(segment)
    if end > 2 * most + 2:
        raise DamagedCodestream("RLE segment that outputs nothing")
    length = position = 0
    while position + 1 < end and length <= most:
        control = segment[position]
        if control > _NOTHING:
            length += 257 - control
            position += 2
        elif control < _NOTHING:
            length += min(control + 1, end - position - 1)
            position += control + 2
        else:
            position += 1
    return length
