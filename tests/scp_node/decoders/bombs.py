"""Small files that want to be large images: each says somewhere that there is much more to decode than it holds."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from scp_node.decoders import DecoderPool
from tests.model import images
from tests.scp_node.analysis.films import picture, radiograph

SEED: Final = 20_240_102
_SOI: Final = b"\xff\xd8"
_EOI: Final = b"\xff\xd9"  # and the end of a JPEG 2000 codestream
_SIDE: Final = 512  # Rows and Columns of the film that each bomb says it is


def _film(syntax: str, frames: bytes | list[bytes], **attributes: Any) -> Dataset:
    """Return a film whose encapsulated pixel data are these frames, or these bytes as they are."""
    image = radiograph(**attributes)
    image.PixelData = encapsulate(frames) if isinstance(frames, list) else frames
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    image.file_meta.TransferSyntaxUID = UID(syntax)
    return image


@cache
def _jpeg(colour: bool = False) -> bytes:
    grey = picture().astype(np.uint8)
    return images.jpeg_stream(np.dstack([grey] * 3) if colour else grey)


@cache
def _jpeg2000() -> bytes:
    return get_frame(images.jpeg2000(picture().astype(np.uint8)).PixelData, 0, number_of_frames=1).rstrip(b"\0")


@cache
def _jpeg_ls() -> bytes:
    return get_frame(images.jpeg_ls(picture().astype(np.uint8)).PixelData, 0, number_of_frames=1)


@cache
def _jpeg_lossless() -> bytes:
    stream = images.jpeg_lossless_words(np.array(picture(largest=4095)), bits=12).PixelData
    return get_frame(stream, 0, number_of_frames=1)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _frame_header(marker: int, rows: int, columns: int, *, precision: int = 8, samples: int = 1) -> bytes:
    components = b"".join(bytes((number % 256, 0x11, 0)) for number in range(1, samples + 1))
    return _segment(marker, struct.pack(">BHHB", precision, rows, columns, samples) + components)


def _with_frame_header(stream: bytes, header: bytes, *, instead: bool = True) -> bytes:
    """Return a stream with another frame header, in the place of its own or in front of it."""
    at = min(place for kind in (0xC0, 0xC1, 0xC3, 0xF7) if (place := stream.find(bytes((0xFF, kind)))) > 0)
    end = at + 2 + int.from_bytes(stream[at + 2 : at + 4]) if instead else at
    return stream[:at] + header + stream[end:]


def _sof(marker: int, rows: int, columns: int, syntax: str = JPEGBaseline8Bit, **header: int) -> Dataset:
    return _film(syntax, [_with_frame_header(_jpeg(), _frame_header(marker, rows, columns, **header))])


def _agreeing_sof(rows: int, columns: int) -> Dataset:
    """Return a film whose attributes and frame header agree on a size that its few bytes cannot code."""
    stream = _with_frame_header(_jpeg(), _frame_header(0xC0, rows, columns))
    return _film(JPEGBaseline8Bit, [stream], Rows=rows, Columns=columns)


def _agreeing_lossless(rows: int, columns: int) -> Dataset:
    header = _frame_header(0xC3, rows, columns, precision=16)
    stream = _with_frame_header(_jpeg_lossless(), header)
    deep = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    return _film(JPEGLosslessSV1, [stream], Rows=rows, Columns=columns, **deep)


def _two_frame_headers(rng: Random) -> Dataset:
    second = _frame_header(0xC0, rng.randint(30_000, 65_500), 65_500)
    return _film(JPEGBaseline8Bit, [_with_frame_header(_jpeg(), second, instead=False)])


def _many_frame_headers(rng: Random) -> Dataset:
    more = b"".join(_frame_header(0xC0, rng.randint(1, 65_500), 65_500) for _ in range(2_000))
    return _film(JPEGBaseline8Bit, [_with_frame_header(_jpeg(), more, instead=False)])


def _many_scans(number: int) -> Dataset:
    """Return a film in colour whose scans of one component are repeated: each costs a pass over the whole image."""
    stream = _with_frame_header(_jpeg(colour=True), _frame_header(0xC0, 4_096, 4_096, samples=3))
    begin = stream.index(b"\xff\xda")
    scan = _segment(0xDA, bytes((1, 1, 0, 0, 63, 0))) + bytes(2)
    tables = stream[:begin]
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    return _film(
        JPEGBaseline8Bit, [tables + number * scan + bytes(100_000) + _EOI], Rows=4_096, Columns=4_096, **colour
    )


def _lines_afterwards(rng: Random) -> Dataset:
    """Return a film whose number of lines comes behind its first scan (DNL)."""
    stream = _with_frame_header(_jpeg(), _frame_header(0xC0, 0, _SIDE))
    lines = _segment(0xDC, struct.pack(">H", rng.randint(40_000, 65_535)))
    return _film(JPEGBaseline8Bit, [stream[:-2] + lines + _EOI])


def _in_the_scan(stream: bytes, octets: bytes, syntax: str = JPEGBaseline8Bit) -> Dataset:
    """Return a film with these bytes at the end of its scan."""
    return _film(syntax, [stream.rstrip(b"\0")[:-2] + octets + _EOI])


def _many_fragments(number: int) -> bytes:
    """Return one frame in front of empty fragments."""
    octets = encapsulate([_jpeg()])
    return octets + number * struct.pack("<HHI", 0xFFFE, 0xE000, 0)


def _many_coding_styles(number: int) -> Dataset:
    """Return a film of 4,096 tiles whose coding style is stated again and again."""
    stream = _siz(_jpeg2000(), tile_width=8, tile_height=8)
    at = stream.index(b"\xff\x52")
    return _j2k(stream[:at] + number * _cod(levels=32) + stream[at:])


def _many_tile_parts_of_one(number: int) -> Dataset:
    """Return a film whose tile goes on in tile-parts that hold nothing."""
    part = struct.pack(">HHHIBBH", 0xFF90, 10, 0, 14, 0, 1, 0xFF93)
    return _j2k(_jpeg2000()[:-2] + number * part + _EOI)


def _jpeg_ls_oversize(rng: Random) -> Dataset:
    """Return a JPEG-LS film that states a second size (ISO 14495-1 C.2.4.1.4)."""
    oversize = _segment(0xF8, struct.pack(">BBII", 4, 4, rng.randint(2**20, 2**31), 2**20))
    stream = _jpeg_ls()
    begin = stream.index(b"\xff\xda")
    return _film(JPEGLSLossless, [stream[:begin] + oversize + stream[begin:]])


def _siz(stream: bytes, **fields: int) -> bytes:
    """Return a JPEG 2000 stream whose SIZ has other values."""
    places = {"width": 8, "height": 12, "left": 16, "top": 20, "tile_width": 24, "tile_height": 28}
    changed = bytearray(stream)
    for name, value in fields.items():
        struct.pack_into(">I", changed, places[name], value)
    return bytes(changed)


def _j2k(stream: bytes, **attributes: Any) -> Dataset:
    return _film(JPEG2000Lossless, [stream], **attributes)


def _many_tile_parts(side: int) -> Dataset:
    """Return a film of tiles of `side` pixels, each of which has an empty tile-part."""
    stream = _siz(_jpeg2000(), tile_width=side, tile_height=side)
    header = stream[: stream.index(b"\xff\x90")]
    number = (_SIDE // side) ** 2
    parts = b"".join(struct.pack(">HHHIBBH", 0xFF90, 10, tile % 65_536, 14, 0, 1, 0xFF93) for tile in range(number))
    return _j2k(header + parts + _EOI)


def _cod(*, layers: int = 1, levels: int = 5, precincts: bytes = b"") -> bytes:
    content = struct.pack(">BBHBBBBBB", bool(precincts), 0, layers, 0, levels, 4, 4, 0, 1) + precincts
    return _segment(0x52, content)


def _colour(side: int) -> Dataset:
    """Return a black film in three colours: its kilobyte of JPEG 2000 is as true as it is large."""
    black = images.jpeg2000(np.zeros((64, 64, 3), np.uint8))
    stream = get_frame(black.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    size = _siz(stream, width=side, height=side, tile_width=side, tile_height=side)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_RCT", "PlanarConfiguration": 0}
    return _j2k(size, Rows=side, Columns=side, **colour)


def _with_cod(cod: bytes, *, side: int = _SIDE) -> Dataset:
    stream = _siz(_jpeg2000(), width=side, height=side, tile_width=side, tile_height=side)
    at = stream.index(b"\xff\x52")
    end = at + 2 + int.from_bytes(stream[at + 2 : at + 4])
    return _j2k(stream[:at] + cod + stream[end:], Rows=side, Columns=side)


def _many_components(number: int) -> Dataset:
    stream = _jpeg2000()
    siz = stream[4:40] + struct.pack(">H", number) + number * bytes((7, 1, 1))
    siz = struct.pack(">H", len(siz)) + siz[2:]
    return _j2k(stream[:4] + siz + stream[4 + int.from_bytes(stream[4:6]) :])


def _coarse_component() -> Dataset:
    """Return a film with a second component that is said to be as deep as 38 bits and sampled at each 255th pixel."""
    stream = _jpeg2000()
    siz = stream[4:40] + struct.pack(">H", 2) + bytes((7, 1, 1)) + bytes((37, 255, 255))
    siz = struct.pack(">H", len(siz)) + siz[2:]
    return _j2k(stream[:4] + siz + stream[4 + int.from_bytes(stream[4:6]) :])


def _rle(
    segments: list[bytes], *, offsets: list[int] | None = None, number: int | None = None, **attributes: Any
) -> Dataset:
    if offsets is None:
        offsets, at = [], 64
        for segment in segments:
            offsets.append(at)
            at += len(segment)
    count = len(segments) if number is None else number
    header = struct.pack("<16I", count, *(offsets + 15 * [0])[:15])
    return _film(RLELossless, [header + b"".join(segments)], **attributes)


_RUN: Final = b"\x81\x00"  # 128 bytes of 0
_WHOLE: Final = _SIDE * _SIDE // 128 * _RUN


def _nested(depth: int) -> bytes:
    """Return fragments within a fragment within a fragment ..., the innermost of which is a whole stream."""
    inner = _jpeg()
    for _ in range(depth):
        inner = encapsulate([inner])
    return inner


def _false_offsets(rng: Random, number: int) -> bytes:
    """Return one frame behind an offset table of frames that are not there."""
    table = struct.pack(f"<{number}I", 0, *sorted(rng.randrange(0, 2**32, 2) for _ in range(number - 1)))
    stream = _jpeg() + bytes(len(_jpeg()) % 2)
    return (
        struct.pack("<HHI", 0xFFFE, 0xE000, len(table))
        + table
        + struct.pack("<HHI", 0xFFFE, 0xE000, len(stream))
        + stream
        + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )


def _long_table(rng: Random) -> bytes:
    """Return a frame behind an offset table that says that it is longer than the file."""
    octets = bytearray(encapsulate([_jpeg()]))
    struct.pack_into("<I", octets, 4, rng.randrange(2**24, 2**32 - 2, 2))
    return bytes(octets)


def _many_frames(number: int) -> bytes:
    return encapsulate(number * [_SOI + b"\xff\xe0\x00\x02" + _EOI], has_bot=False)


def _lookup_table(rng: Random) -> Dataset:
    """Return a film whose Modality LUT says that it has more entries than its 2 bytes hold."""
    table = images.stored_table(b"\1\2", count=rng.randint(60_000, 65_535), bits=16)
    return radiograph(ModalityLUTSequence=[table])


BOMBS: Final[dict[str, Callable[[Random], Dataset]]] = {
    "JPEG: SOF of 65500": lambda _: _sof(0xC0, 65_500, 65_500),
    "JPEG: SOF of about 8192": lambda rng: _sof(0xC0, rng.randint(8_000, 8_192), 8_192),
    "JPEG: one row more": lambda _: _sof(0xC0, _SIDE + 1, _SIDE),
    "JPEG: SOF and attributes of 8192": lambda _: _agreeing_sof(8_192, 8_192),
    "JPEG: SOF and attributes of 65500": lambda _: _agreeing_sof(65_500, 65_500),
    "JPEG: two frame headers": _two_frame_headers,
    "JPEG: 2,000 frame headers": _many_frame_headers,
    "JPEG: extended, 65500": lambda _: _sof(0xC1, 65_500, 65_500, JPEGExtended12Bit, precision=12),
    "JPEG: progressive": lambda rng: _sof(0xC2, rng.randint(8_000, 65_500), 65_500),
    "JPEG: lossless, 65500": lambda _: _sof(0xC3, 65_500, 65_500, JPEGLosslessSV1, precision=16),
    "JPEG: lossless, SOF and attributes of 8192": lambda _: _agreeing_lossless(8_192, 8_192),
    "JPEG: hierarchical": lambda _: _sof(0xC5, 65_500, 65_500),
    "JPEG: arithmetic": lambda _: _sof(0xC9, 65_500, 65_500),
    "JPEG: 255 components": lambda _: _sof(0xC0, _SIDE, _SIDE, samples=255),
    "JPEG: more bits than a word has": lambda _: _sof(0xC0, _SIDE, _SIDE, precision=255),
    "JPEG: 5,000 scans": lambda _: _many_scans(5_000),
    "JPEG: number of lines behind the scan": _lines_afterwards,
    "JPEG: 2 million comments": lambda _: _film(
        JPEGBaseline8Bit, [_with_frame_header(_jpeg(), 2_000_000 * _segment(0xFE, b""), instead=False)]
    ),
    "JPEG-LS: 1 MiB of fill bytes in the scan": lambda _: _in_the_scan(
        _jpeg_ls(), 2**20 * b"\xff" + b"\0", JPEGLSLossless
    ),
    "JPEG-LS: SOF of 65535": lambda _: _film(
        JPEGLSLossless, [_with_frame_header(_jpeg_ls(), _frame_header(0xF7, 65_535, 65_535))]
    ),
    "JPEG-LS: a second size": _jpeg_ls_oversize,
    "JPEG-LS: 255 components": lambda _: _film(
        JPEGLSLossless, [_with_frame_header(_jpeg_ls(), _frame_header(0xF7, _SIDE, _SIDE, samples=255))]
    ),
    "JPEG 2000: SIZ of 65500": lambda _: _j2k(_siz(_jpeg2000(), width=65_500, height=65_500)),
    "JPEG 2000: SIZ of 4 billion": lambda _: _j2k(_siz(_jpeg2000(), width=2**32 - 1, height=2**32 - 1)),
    "JPEG 2000: far from the origin": lambda rng: _j2k(
        _siz(_jpeg2000(), width=2**31 + _SIDE, left=2**31, height=_SIDE, tile_width=rng.randint(1, 9))
    ),
    "JPEG 2000: origin beyond the size": lambda _: _j2k(_siz(_jpeg2000(), left=2**32 - _SIDE, top=2**31)),
    "JPEG 2000: 65,536 tiles": lambda _: _j2k(_siz(_jpeg2000(), tile_width=2, tile_height=2)),
    "JPEG 2000: 262,144 tiles": lambda _: _j2k(_siz(_jpeg2000(), tile_width=1, tile_height=1)),
    "JPEG 2000: 16,384 tiles, each with a tile-part": lambda _: _many_tile_parts(4),
    "JPEG 2000: 65,536 tiles, each with a tile-part": lambda _: _many_tile_parts(2),
    "JPEG 2000: 10,000 coding styles": lambda _: _many_coding_styles(10_000),
    "JPEG 2000: 2 million comments": lambda _: _j2k(
        _jpeg2000().replace(b"\xff\x52", 2_000_000 * _segment(0x64, b"") + b"\xff\x52", 1)
    ),
    "JPEG 2000: a million tile-parts of one tile": lambda _: _many_tile_parts_of_one(1_000_000),
    "JPEG 2000: tiles of no size": lambda _: _j2k(_siz(_jpeg2000(), tile_width=0, tile_height=0)),
    "JPEG 2000: 16,384 components": lambda _: _many_components(16_384),
    "JPEG 2000: a component of another form": lambda _: _coarse_component(),
    "JPEG 2000: 65,535 layers": lambda _: _with_cod(_cod(layers=65_535)),
    "JPEG 2000: precincts of one pixel": lambda _: _with_cod(_cod(precincts=bytes(6)), side=4_096),
    "JPEG 2000: layers and precincts": lambda _: _with_cod(_cod(layers=4_096, precincts=6 * b"\x22"), side=2_048),
    "JPEG 2000: 8192 x 8192 in three colours": lambda _: _colour(8_192),
    "JPEG 2000: SIZ and attributes of 8192": lambda _: _film(
        JPEG2000,
        [_siz(_jpeg2000(), width=8_192, height=8_192, tile_width=8_192, tile_height=8_192)],
        Rows=8_192,
        Columns=8_192,
    ),
    "RLE: 30000 x 30000": lambda _: _rle([30_000 * 30_000 // 128 * _RUN]),
    "RLE: 30000 x 30000, and attributes": lambda _: _rle([30_000 * 30_000 // 128 * _RUN], Rows=30_000, Columns=30_000),
    "RLE: one row more": lambda _: _rle([_WHOLE + _SIDE // 128 * _RUN]),
    "RLE: 15 segments": lambda _: _rle(15 * [_WHOLE]),
    "RLE: one segment 15 times": lambda _: _rle([_WHOLE], offsets=15 * [64], number=15),
    "RLE: a segment beyond the end": lambda rng: _rle([_WHOLE], offsets=[rng.randint(10_000, 2**32 - 1)]),
    "RLE: offsets backwards": lambda _: _rle(
        2 * [_WHOLE], offsets=[64 + len(_WHOLE), 64], BitsAllocated=16, BitsStored=12, HighBit=11
    ),
    "RLE: 4 billion segments": lambda _: _rle([_WHOLE], number=2**32 - 1),
    "RLE: 16 MiB of nothing": lambda _: _rle([2**24 * b"\x80"]),
    "RLE: attributes of 8192": lambda _: _rle([_WHOLE], Rows=8_192, Columns=8_192),
    "2 billion frames": lambda _: _film(JPEGBaseline8Bit, [_jpeg()], NumberOfFrames=2**31 - 1),
    "100,000 frames without a table": lambda _: _film(JPEGBaseline8Bit, _many_frames(100_000)),
    "2 million empty fragments": lambda _: _film(JPEGBaseline8Bit, _many_fragments(2_000_000)),
    "nested 100 deep": lambda rng: _film(JPEGBaseline8Bit, _nested(100 + rng.randint(1, 9))),
    "a lookup table of 65,000 entries in 2 bytes": _lookup_table,
    "a million false offsets": lambda rng: _film(
        JPEGBaseline8Bit, _false_offsets(rng, 1_000_000), NumberOfFrames=10**6
    ),
    "an offset table longer than the file": lambda rng: _film(JPEGBaseline8Bit, _long_table(rng)),
    "native: 65535 x 65535": lambda _: radiograph(Rows=65_535, Columns=65_535),
    "native: 8192 x 8192": lambda _: radiograph(Rows=8_192, Columns=8_192),
    "native: 2 billion frames": lambda _: radiograph(NumberOfFrames=2**31 - 1),
}


def decoder_process(pool: DecoderPool) -> int:
    """Return the process of a pool that has one."""
    [process] = pool._processes
    return process._process.pid


def peak_mib(process: int) -> int:
    """Return the most memory that a process has had, MiB (VmHWM)."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1_024


# Whole films with a burden: what is too much of them stands where a decoder passes over it.
BURDENED: Final[dict[str, Callable[[Random], Dataset]]] = {
    "JPEG: 1 MiB of fill bytes in the scan": lambda _: _in_the_scan(_jpeg(), 2**20 * b"\xff" + b"\0"),
    "JPEG: 32 MiB of fill bytes": lambda _: _film(
        JPEGBaseline8Bit, [_with_frame_header(_jpeg(), 2**25 * b"\xff", instead=False)]
    ),
    "a table of 100,000 false offsets": lambda rng: _film(JPEGBaseline8Bit, _false_offsets(rng, 100_000)),
}


def bomb(name: str) -> Dataset:
    """Return a bomb, or a burdened film, the same one each time."""
    return (BOMBS | BURDENED)[name](Random(f"{SEED} {name}"))
