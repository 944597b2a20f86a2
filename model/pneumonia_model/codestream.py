"""Reads the headers of JPEG and JPEG-LS streams and walks them to their end, without decoding.

A decoder that gets half a film paints the rest in one grey and reports success. These checks refuse a stream that is
provably not whole: it stops before its end marker, holds a marker in an impossible place, holds a run of zero bytes
that codes more samples than the image has, or has fewer bytes than the image needs.
"""

import re
import struct
from dataclasses import dataclass, replace
from typing import Final


class DamagedCodestream(Exception):  # noqa: N818 - a finding about the stream, always translated by the caller
    """The compressed stream is not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codestream:
    """The header of a compressed image."""

    rows: int
    columns: int
    samples: int
    precision: int
    fewest_bytes: int  # no stream of such an image is shorter
    lossless: bool = False  # whether every sample is coded exactly, or by a JPEG 2000 transform that may be exact


_SOI: Final = 0xD8
_EOI: Final = 0xD9
_SOS: Final = 0xDA
# ISO 10918-1 B.1.1.3, ISO 14495-1
_SOF_BASELINE: Final = 0xC0
_SOF_EXTENDED: Final = 0xC1
_SOF_LOSSLESS: Final = 0xC3
_SOF_JPEG_LS: Final = 0xF7
_FRAME_HEADERS: Final = {_SOF_BASELINE, _SOF_EXTENDED, _SOF_LOSSLESS, _SOF_JPEG_LS}
# DHT, DNL, DQT, DRI, APPn, COM, and JPEG-LS's LSE: segments to skip
_SKIPPED: Final = {0xC4, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE, 0xF8}
# neither a stuffed byte nor a restart marker
_NEXT_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
# ISO 14495-1 9.1: a stuffed bit is 0
_NEXT_MARKER_JPEG_LS: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]", re.DOTALL)
_NO_FILL: Final = re.compile(rb"[^\xff]", re.DOTALL)  # ISO 10918-1 B.1.1.2: bytes of this value may precede a marker
_MOST_SEGMENTS: Final = 10_000  # each is a step of the walk, and a stream can hold millions
# ISO 14495-1 C.2.4.1: the kind of an LSE segment that states the size once more
_LSE: Final = 0xF8
_LSE_OVERSIZE: Final = b"\x04"


def read_jpeg(stream: bytes) -> Codestream:
    """Return the frame header of a JPEG or JPEG-LS stream, after a walk to its end marker.

    Raises:
        DamagedCodestream: a marker is missing or out of place, or the stream codes more samples than one image has.
    """
    if stream[:2] != bytes((0xFF, _SOI)):
        raise DamagedCodestream("no start of image")
    header: Codestream | None = None
    exact, scans = True, 0
    process, position = 0, 2
    for _ in range(_MOST_SEGMENTS):
        marker, start, end = _segment(stream, position)
        if marker == _EOI:
            break
        if marker in _FRAME_HEADERS and header is None:
            header, process = _frame_header(stream[start:end], marker), marker
        elif marker == _SOS and header is not None and scans < header.samples:  # ISO 10918-1 A.2: one for a component
            scans += 1
            exact = exact and _is_exact(stream[start:end], process)
            end = _end_of_scan(stream, end, process)
        elif marker not in _SKIPPED or (marker == _LSE and stream.startswith(_LSE_OVERSIZE, start)):
            raise DamagedCodestream("marker out of place")
        position = end
    else:
        raise DamagedCodestream("more segments than any film has")
    behind = stream[end:].rstrip(b"\0")  # some encoders pad to an even length with another byte than zero
    if header is None or (len(behind) > 1 and behind.strip(b"\xff")):
        raise DamagedCodestream("no frame, or data after the end of image")
    _refuse_impossible_run(stream, header, process)
    return replace(header, lossless=exact)


def _segment(stream: bytes, position: int) -> tuple[int, int, int]:
    """Return a marker, and the start and end of its segment's content."""
    if stream[position : position + 1] != b"\xff":
        raise DamagedCodestream("no marker where one is due")
    found = _NO_FILL.search(stream, position)
    if found is None:
        raise DamagedCodestream("ends before the end of image")
    marker, start = found.group()[0], found.end()
    if marker == _EOI:
        return marker, start, start
    if start + 2 > len(stream):
        raise DamagedCodestream("ends within a segment")
    length = int.from_bytes(stream[start : start + 2])
    if length < 2 or start + length > len(stream):
        raise DamagedCodestream("ends within a segment")
    return marker, start + 2, start + length


def _frame_header(content: bytes, process: int) -> Codestream:
    if len(content) < 6:
        raise DamagedCodestream("frame header too short")
    precision, rows, columns, samples = struct.unpack_from(">BHHB", content)
    fewest = _fewest_bytes(rows, columns, process) * (samples if process == _SOF_LOSSLESS else 1)
    return Codestream(rows=rows, columns=columns, samples=samples, precision=precision, fewest_bytes=fewest)


def _fewest_bytes(rows: int, columns: int, process: int) -> int:
    """Return how many bytes code one component that is as large as the image.

    A code has at least one bit. A block of 8 x 8 samples needs two codes (its mean and its end), a lossless sample one;
    JPEG-LS codes a run of any length in a few bits.
    """
    if process == _SOF_JPEG_LS:
        return 0
    if process == _SOF_LOSSLESS:
        return rows * columns // 8
    return -(-rows // 8) * -(-columns // 8) // 4


def _is_exact(scan_header: bytes, process: int) -> bool:
    """Return whether a scan codes its samples exactly: JPEG lossless, or JPEG-LS with NEAR 0 (ISO 14495-1 C.2.3)."""
    if process != _SOF_JPEG_LS:
        return process == _SOF_LOSSLESS
    near = 1 + 2 * scan_header[0] if scan_header else 0
    return len(scan_header) > near > 0 and scan_header[near] == 0


def _end_of_scan(stream: bytes, start: int, process: int) -> int:
    pattern = _NEXT_MARKER_JPEG_LS if process == _SOF_JPEG_LS else _NEXT_MARKER
    following = pattern.search(stream, start)
    if following is None:
        raise DamagedCodestream("no end of image")
    return following.start()


def _refuse_impossible_run(stream: bytes, header: Codestream, process: int) -> None:
    """Refuse zero bytes that code more than the whole image: a zeroed tail whose end marker was put back."""
    if process == _SOF_JPEG_LS:
        return
    shortest = _fewest_bytes(header.rows, header.columns, process) * header.samples
    slack = 64  # the longest run of zero bytes in tables and headers
    if len(stream) > shortest + slack and bytes(shortest + slack) in stream:
        raise DamagedCodestream("zero bytes that code more than the image")
