"""Reads the header of a JPEG 2000 codestream and walks it to its end, without decoding.

OpenJPEG allocates memory for each tile and each precinct that a header of a few bytes names. So what the header names
is counted first, and a stream that is too short to hold it is not decoded. Clauses are those of ISO 15444-1.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pneumonia_model.codestream import Codestream, DamagedCodestream

_SOC_SIZ: Final = b"\xff\x4f\xff\x51"
_SOT: Final = 0xFF90
_SOD: Final = 0xFF93
_DELIMITED: Final = 0xFF50  # the first marker with a length behind it, Table A.2
_EOC: Final = b"\xff\xd9"
_SIZ_BYTES: Final = 38  # Lsiz without components, A.5.1
_SOT_BYTES: Final = 12  # A.4.2, with the marker
# A.6.1, A.6.2: the coding style of all components, or of one
_COD: Final = 0xFF52
_COC: Final = 0xFF53
_ALL: Final = -1  # instead of the number of a component
_5_3: Final = 1  # the reversible wavelet; 0 is 9/7
_WHOLE: Final = b"\xff"  # the exponents of a precinct without a size: 32,768 samples each way
_MOST_LEVELS: Final = 32
_MOST_TILES: Final = 4096  # tiles of 128 x 128 in the largest film
_MOST_SEGMENTS: Final = 100_000  # each is a step of the walk, and a stream can hold millions
_MOST_COMPONENTS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """One direction of the reference grid (B.2, B.3): the image and the tiles that cut it."""

    begin: int
    end: int
    tile_begin: int
    tile: int

    def __post_init__(self) -> None:
        """Refuse a tile that does not lie as B.3 says."""
        if not (self.tile_begin <= self.begin < min(self.end, self.tile_begin + self.tile)):
            raise DamagedCodestream("image or tiles of no size")

    @property
    def tiles(self) -> int:
        """Return the number of tiles in this direction."""
        return -(-(self.end - self.tile_begin) // self.tile)

    def precincts(self, tiles: Iterable[int], *, level: int, exponent: int) -> int:
        """Return the number of precincts of these tiles at a decomposition level (B.5, B.6), in this direction."""
        number = 0
        for tile in tiles:
            begin = max(self.tile_begin + tile * self.tile, self.begin)
            end = min(self.tile_begin + (tile + 1) * self.tile, self.end)
            first, last = -(-begin >> level), -(-end >> level)
            if first < last:
                number += -(-last >> exponent) - (first >> exponent)
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """The SIZ segment (A.5.1)."""

    columns: _Axis
    rows: _Axis
    samples: int
    precision: int

    @property
    def tiles(self) -> int:
        """Return the number of tiles."""
        return self.columns.tiles * self.rows.tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class _CodingStyle:
    """What COD or COC say of a tile-component: its levels from the lowest resolution on, and its wavelet."""

    components: int
    layers: int
    precincts: bytes  # one byte for each resolution: the exponents of height and width
    wavelet: int

    def packets(self, size: _Size, tile: int | None) -> int:
        """Return how many packets there are, in one tile or in all; each has at least one byte (B.9, B.10)."""
        across = range(size.columns.tiles) if tile is None else (tile % size.columns.tiles,)
        down = range(size.rows.tiles) if tile is None else (tile // size.columns.tiles,)
        number = 0
        for resolution, exponents in enumerate(self.precincts):
            level = len(self.precincts) - 1 - resolution
            number += size.columns.precincts(across, level=level, exponent=exponents & 15) * size.rows.precincts(
                down, level=level, exponent=exponents >> 4
            )
        return number * self.layers * self.components


def read_jpeg2000(stream: bytes) -> Codestream:
    """Return the image size of a JPEG 2000 codestream, after a walk along its tile-parts to its end marker.

    It counts as lossless if its main header names the reversible wavelet only.

    Raises:
        DamagedCodestream: the stream does not start with its size, its tile-parts do not lead to its end, or they are
            not those of the tiles that its header names.
    """
    whole = stream.rstrip(b"\0")
    if whole[-3:-1] == _EOC:  # one byte of padding to an even length (PS3.5 A.4)
        whole = whole[:-1]
    size = _size(whole)
    if size.tiles > _MOST_TILES:
        raise DamagedCodestream("more tiles than a film is cut into")
    walk = _Walk(whole, size)
    if walk.tiles != set(range(size.tiles)):
        raise DamagedCodestream("a tile is missing or was not announced")
    return Codestream(
        rows=size.rows.end - size.rows.begin,
        columns=size.columns.end - size.columns.begin,
        samples=size.samples,
        precision=size.precision,
        fewest_bytes=walk.fewest_packets,
        lossless=walk.wavelets == {_5_3},
    )


def _size(stream: bytes) -> _Size:
    if not stream.startswith(_SOC_SIZ) or len(stream) < 4 + _SIZ_BYTES:
        raise DamagedCodestream("no image size at the start")
    length, _, right, bottom, left, top, width, height, tile_left, tile_top, samples = struct.unpack_from(
        ">HH8IH", stream, 4
    )
    components = stream[4 + _SIZ_BYTES : 4 + length]
    if (
        not 1 <= samples <= _MOST_COMPONENTS
        or len(components) != 3 * samples
        or components != samples * components[:3]
        or components[1:3] != b"\1\1"
    ):
        raise DamagedCodestream("components that differ, are subsampled or too many")
    return _Size(
        columns=_Axis(begin=left, end=right, tile_begin=tile_left, tile=width),
        rows=_Axis(begin=top, end=bottom, tile_begin=tile_top, tile=height),
        samples=samples,
        precision=(components[0] & 0x7F) + 1,
    )


class _Walk:
    """A walk along the segments and the tile-parts of a codestream.

    Attributes:
        tiles: the numbers of the tiles that have a tile-part.
        wavelets: those that the main header names.
        fewest_packets: the stream has at least this number of packets.
    """

    def __init__(self, stream: bytes, size: _Size) -> None:
        self._stream = stream
        self._size = size
        self._left = _MOST_SEGMENTS
        self._layers: dict[int | None, int] = {None: 1}  # of all tiles, and of those that differ
        self.tiles: set[int] = set()
        self.wavelets: set[int] = set()
        self.fewest_packets = 0
        self._styles: set[tuple[int | None, int]] = set()
        if not stream.endswith(_EOC):
            raise DamagedCodestream("no end of codestream")
        position, end = self._header(2, tile=None), len(stream) - len(_EOC)
        while position != end:
            position = self._tile_part(position)

    def _tile_part(self, position: int) -> int:
        """Read the header of a tile-part, and return its end."""
        if position + _SOT_BYTES > len(self._stream):
            raise DamagedCodestream("ends before the end of codestream")
        marker, _, tile, length = struct.unpack_from(">HHHI", self._stream, position)
        # A.4.2: 0 means up to the end
        end = position + (length or len(self._stream) - len(_EOC) - position)
        if marker != _SOT or end > len(self._stream) or self._left < 0:
            raise DamagedCodestream("no marker where one is due")
        self._left -= 1
        self.tiles.add(tile)
        if self._header(position + _SOT_BYTES, tile=tile) > end:
            raise DamagedCodestream("tile-part shorter than its header")
        return end

    def _header(self, position: int, *, tile: int | None) -> int:
        """Read the segments of the main header or of a tile-part's, and return where they end."""
        last = _SOT if tile is None else _SOD
        while (marker := self._marker(position)) != last:
            content, position = self._segment(position)
            if marker in {_COD, _COC}:
                style = self._coding_style(marker, content, tile)
                if tile is None:
                    self.wavelets.add(style.wavelet)
                self.fewest_packets = max(self.fewest_packets, style.packets(self._size, tile))
        return position

    def _marker(self, position: int) -> int:
        if position + 4 > len(self._stream):
            raise DamagedCodestream("ends within a header")
        return int.from_bytes(self._stream[position : position + 2])

    def _segment(self, position: int) -> tuple[bytes, int]:
        """Return the content and the end of a segment."""
        self._left -= 1
        marker, length = struct.unpack_from(">HH", self._stream, position)
        end = position + 2 + length
        if self._left < 0 or marker < _DELIMITED or length < 2 or end > len(self._stream):
            raise DamagedCodestream("no marker where one is due, or too many")
        return self._stream[position + 4 : end], end

    def _coding_style(self, marker: int, content: bytes, tile: int | None) -> _CodingStyle:
        if marker == _COD:  # Scod, progression order, layers, transform of the components
            has_precincts, _, self._layers[tile], _ = struct.unpack_from(">BBHB", content)
            which, components, at = _ALL, self._size.samples, 5
        else:  # Ccoc, Scoc
            (which, has_precincts), components, at = content[:2], 1, 2
        if (tile, which) in self._styles or not (which == _ALL or which < self._size.samples):
            raise DamagedCodestream("coding style stated twice, or of no component")
        self._styles.add((tile, which))
        levels, wavelet, precincts = content[at], content[at + 4], content[at + 5 :]
        if not has_precincts & 1:
            precincts = _WHOLE * (levels + 1)
        if levels > _MOST_LEVELS or len(precincts) != levels + 1:
            raise DamagedCodestream("coding style of another length")
        layers = self._layers.get(tile, self._layers[None])
        return _CodingStyle(components=components, layers=layers, precincts=precincts, wavelet=wavelet)
