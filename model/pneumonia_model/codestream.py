"""Reads the headers of compressed streams and walks them to their end, without decoding.

A decoder that gets half a film paints the rest in one grey and reports success. These checks refuse a stream that is
provably not whole: it stops before its end marker, holds a marker in an impossible place, or holds a run of zero bytes
that codes more samples than the image has.
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
_NEXT_MARKER: Final = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
# ISO 14495-1 9.1: a stuffed bit is 0
_NEXT_MARKER_JPEG_LS: Final = re.compile(rb"\xff+([\x80-\xcf\xd8-\xfe])", re.DOTALL)


def read_jpeg(stream: bytes) -> Codestream:
    """Return the frame header of a JPEG or JPEG-LS stream, after a walk to its end marker.

    Raises:
        DamagedCodestream: a marker is missing or out of place, or the stream codes more samples than one image has.
    """
    if stream[:2] != bytes((0xFF, _SOI)):
        raise DamagedCodestream("no start of image")
    header: Codestream | None = None
    exact = True
    process, position = 0, 2
    while True:
        marker, start, end = _segment(stream, position)
        if marker == _EOI:
            break
        if marker in _FRAME_HEADERS and header is None:
            header, process = _frame_header(stream[start:end]), marker
        elif marker == _SOS and header is not None:
            exact = exact and _is_exact(stream[start:end], process)
            end = _end_of_scan(stream, end, process)
        elif marker not in _SKIPPED:
            raise DamagedCodestream("marker out of place")
        position = end
    behind = stream[end:].rstrip(b"\0")  # some encoders pad to an even length with another byte than zero
    if header is None or (len(behind) > 1 and behind.strip(b"\xff")):
        raise DamagedCodestream("no frame, or data after the end of image")
    _refuse_impossible_run(stream, header, process)
    return replace(header, lossless=exact)


def _segment(stream: bytes, position: int) -> tuple[int, int, int]:
    """Return a marker, and the start and end of its segment's content."""
    if stream[position : position + 1] != b"\xff":
        raise DamagedCodestream("no marker where one is due")
    while stream[position : position + 1] == b"\xff":  # ISO 10918-1 B.1.1.2: fill bytes may precede a marker
        position += 1
    if position >= len(stream):
        raise DamagedCodestream("ends before the end of image")
    marker = stream[position]
    start = position + 1
    if marker == _EOI:
        return marker, start, start
    if start + 2 > len(stream):
        raise DamagedCodestream("ends within a segment")
    length = int.from_bytes(stream[start : start + 2])
    if length < 2 or start + length > len(stream):
        raise DamagedCodestream("ends within a segment")
    return marker, start + 2, start + length


def _frame_header(content: bytes) -> Codestream:
    if len(content) < 6:
        raise DamagedCodestream("frame header too short")
    precision, rows, columns, samples = struct.unpack_from(">BHHB", content)
    return Codestream(rows=rows, columns=columns, samples=samples, precision=precision)


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
    """Refuse zero bytes that code more than the whole image: a zeroed tail whose end marker was put back.

    A code has at least one bit. A block of 8 x 8 samples needs two codes (its mean and its end), a lossless sample one.
    """
    if process == _SOF_JPEG_LS:
        return
    if process == _SOF_LOSSLESS:
        shortest = header.rows * header.columns * header.samples // 8
    else:
        shortest = -(-header.rows // 8) * -(-header.columns // 8) * header.samples // 4
    slack = 64  # the longest run of zero bytes in tables and headers
    if len(stream) > shortest + slack and bytes(shortest + slack) in stream:
        raise DamagedCodestream("zero bytes that code more than the image")


# ISO 15444-1 Table A.2
_J2K_SOC_SIZ: Final = b"\xff\x4f\xff\x51"
_J2K_SOT: Final = 0xFF90
_J2K_EOC: Final = b"\xff\xd9"
_J2K_SIZ_BYTES: Final = 47  # up to and including the first component
# ISO 15444-1 A.6.1, A.6.2: the wavelet of a component, 0 is 9/7 (irreversible) and 1 is 5/3 (reversible)
_J2K_COD: Final = 0xFF52
_J2K_COC: Final = 0xFF53
_J2K_WAVELET: Final = 13  # its byte in COD, from the marker
_J2K_5_3: Final = 1


def read_jpeg2000(stream: bytes) -> Codestream:
    """Return the image size of a JPEG 2000 codestream, after a walk along its tile-parts to its end marker.

    It counts as lossless if its main header names the reversible wavelet only.

    Raises:
        DamagedCodestream: the stream does not start with its size, or its tile-parts do not lead to its end.
    """
    if not stream.startswith(_J2K_SOC_SIZ) or len(stream) < _J2K_SIZ_BYTES:
        raise DamagedCodestream("no image size at the start")
    width, height, left, top = struct.unpack_from(">4I", stream, 8)
    samples, depth, *steps = struct.unpack_from(">HBBB", stream, 40)
    if steps != [1, 1]:
        raise DamagedCodestream("subsampled component")
    whole = stream.rstrip(b"\0")
    if whole[-3:-1] == _J2K_EOC:  # one byte of padding to an even length (PS3.5 A.4)
        whole = whole[:-1]
    wavelets = _follow_tile_parts(whole, samples)
    return Codestream(
        rows=height - top,
        columns=width - left,
        samples=samples,
        precision=(depth & 0x7F) + 1,
        lossless=wavelets == {_J2K_5_3},
    )


def _follow_tile_parts(stream: bytes, samples: int) -> set[int]:
    """Walk along the tile-parts, and return the wavelets that the main header names."""
    position, tile_parts, wavelets = 2, 0, set[int]()
    while stream[position:] != _J2K_EOC:
        if position + 10 > len(stream):
            raise DamagedCodestream("ends before the end of codestream")
        marker, length, _, tile_part_bytes = struct.unpack_from(">HHHI", stream, position)
        if marker == _J2K_SOT:
            tile_parts += 1
            step = tile_part_bytes or len(stream) - len(_J2K_EOC) - position  # A.4.2: 0 means up to the end
        elif tile_parts == 0 and marker >= 0xFF50:
            step = 2 + length
            if marker in {_J2K_COD, _J2K_COC}:
                component = 1 if samples < 257 else 2  # bytes of the number of the component
                at = _J2K_WAVELET if marker == _J2K_COD else 9 + component
                wavelets |= set(stream[position + at : position + at + 1])
        else:
            raise DamagedCodestream("no marker where one is due")
        if step < 4:
            raise DamagedCodestream("segment of no length")
        position += step
    if tile_parts == 0:
        raise DamagedCodestream("no tile")
    return wavelets
