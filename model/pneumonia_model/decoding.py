"""Decodes the one frame of an image to stored words, and refuses beforehand an image that cannot be a radiograph.

A peer controls every tag and every byte. So sizes are limited and compared with the compressed stream's header before a
decoder allocates memory, and each transfer syntax has one decoder, whatever else is installed.
"""

import re
import struct
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from itertools import islice
from typing import Final

import gdcm
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate, generate_fragments, get_frame, parse_basic_offsets
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from pneumonia_model.attributes import MalformedAttribute, text, whole
from pneumonia_model.codestream import Codestream, DamagedCodestream, read_jpeg
from pneumonia_model.jpeg2000 import read_jpeg2000
from pneumonia_model.plausibility import Words, has_other_columns
from pneumonia_model.run_lengths import decoded_length, rle_segments
from pneumonia_model.sizes import MAX_SAMPLES, MAX_SIDE

NATIVE: Final = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
# pydicom's name of the plug-in for each compressed syntax, so that the installed packages do not decide.
DECODERS: Final = {
    uid.JPEGBaseline8Bit: "gdcm",
    uid.JPEGExtended12Bit: "gdcm",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.RLELossless: "pydicom",
}
DECODED_TRANSFER_SYNTAXES: Final = NATIVE | DECODERS.keys()

GRAYSCALE: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
_CONVERTIBLE: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
# PS3.3 C.7.6.3.1.2, also its retired terms
_OTHER: Final = frozenset({"PALETTE COLOR", "HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB"})
SEPARATORS: Final = re.compile("[ _-]+")
_PHOTOMETRIC: Final = {SEPARATORS.sub("", term): term for term in GRAYSCALE | _CONVERTIBLE | _OTHER}

# of a stream: JPEG and JPEG-LS; JPEG 2000; RLE, whose header has 1 to 3 segments, the first one behind it (PS3.5 G.5)
_FIRST_BYTES: Final = (
    b"\xff\xd8\xff",
    b"\xff\x4f\xff\x51",
    *(bytes((segments, 0, 0, 0, 64, 0, 0, 0)) for segments in (1, 2, 3)),
)
_MOST_FRAGMENTS: Final = 65_536  # 4 KiB each for the largest file that the node takes


class PixelDefect(StrEnum):
    """Why the pixels of an image cannot be shown; the text quotes nothing from the image."""

    MISSING = "no pixel data"
    ATTRIBUTE = "attribute missing or unreadable"
    NOT_ONE_FRAME = "more than one frame"
    COLOUR = "channels differ"
    FORM = "photometric interpretation or samples per pixel not supported"
    SIZE = "rows or columns out of bounds"
    DEPTH = "bit depth not supported"
    SYNTAX = "transfer syntax missing or not supported"
    LENGTH = "length of pixel data does not match rows and columns"
    DAMAGED = "pixel data damaged or incomplete"
    MISMATCH = "compressed image does not match the attributes"
    BITS = "pixel values do not fit bits stored"
    DISPLAY = "display attributes invalid"


class Mended(StrEnum):
    """What is not as the standard says, and was read in the one way that it can be meant."""

    FRAMES = "number of frames is 0"
    PADDING = "pixel data longer than the image"
    NUMBERS = "window or rescale values"
    TABLE = "lookup table scaled by its largest entry"


class UnreadablePixels(Exception):  # noqa: N818 - a finding about an image, not an error of the program
    """The pixel data is missing, damaged, or not one grayscale frame.

    Attributes:
        defect: the fault.
        attributes: keywords of the attributes that are at fault; () if none is.
    """

    def __init__(self, defect: PixelDefect, *attributes: str) -> None:
        super().__init__(defect.value)
        self.defect = defect
        self.attributes = attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """How the pixel data is stored (PS3.3 C.7.6.3)."""

    transfer_syntax: UID
    rows: int
    columns: int
    samples: int
    photometric: str  # the defined term
    planes: int | None  # Planar Configuration, 0 where it does not matter; None if it is missing
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    mended: frozenset[Mended] = frozenset()

    @property
    def low_bit(self) -> int:
        """Return the number of the stored value's lowest bit in its word."""
        return self.high_bit + 1 - self.bits_stored

    @property
    def encapsulated(self) -> bool:
        return self.transfer_syntax in DECODERS

    @property
    def native_bytes(self) -> int:
        """Return the length of uncompressed pixel data, with its padding to an even length (PS3.5 8.1.1)."""
        # PS3.3 C.7.6.3.1.2: two pixels share the two colour samples
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        needed = self.rows * self.columns * samples * self.bits_allocated // 8
        return needed + needed % 2


def pixel_layout(image: Dataset) -> PixelLayout:
    """Return the layout that the attributes declare.

    Raises:
        UnreadablePixels: the attributes do not describe one frame that this package decodes.
    """
    syntax = getattr(getattr(image, "file_meta", None), "TransferSyntaxUID", None)
    if not isinstance(syntax, str) or syntax not in DECODED_TRANSFER_SYNTAXES:
        raise UnreadablePixels(PixelDefect.SYNTAX)
    if "PixelData" not in image or not image.PixelData:
        floating = next((name for name in ("FloatPixelData", "DoubleFloatPixelData") if name in image), None)
        raise UnreadablePixels(PixelDefect.DEPTH, floating) if floating else UnreadablePixels(PixelDefect.MISSING)
    mended = one_frame(image)
    rows, columns = (_required(image, keyword) for keyword in ("Rows", "Columns"))
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise UnreadablePixels(PixelDefect.SIZE, "Rows", "Columns")
    photometric, samples = pixel_form(image)
    if rows * columns * samples > MAX_SAMPLES:
        raise UnreadablePixels(PixelDefect.SIZE, "Rows", "Columns")
    allocated, stored, high_bit, representation = (
        _required(image, keyword) for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    )
    if allocated not in {8, 16} or not 0 < stored <= high_bit + 1 <= allocated or representation not in {0, 1}:
        raise UnreadablePixels(PixelDefect.DEPTH)
    if samples == 3 and (allocated, stored, representation) != (8, 8, 0):
        raise UnreadablePixels(PixelDefect.DEPTH)
    return PixelLayout(
        transfer_syntax=UID(syntax),
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=photometric,
        planes=_planes(image, samples, native=syntax in NATIVE),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=representation == 1,
        mended=mended,
    )


def one_frame(image: Dataset) -> frozenset[Mended]:
    """Return what had to be mended in the number of frames, which is 1: 0 can only mean one frame, as no value does.

    Raises:
        UnreadablePixels: there are more frames, or their number cannot be read.
    """
    number = _number(image, "NumberOfFrames")
    if number is not None and number < 0:
        raise UnreadablePixels(PixelDefect.ATTRIBUTE, "NumberOfFrames")
    if number is not None and number > 1:
        raise UnreadablePixels(PixelDefect.NOT_ONE_FRAME, "NumberOfFrames")
    return frozenset({Mended.FRAMES}) if number == 0 else frozenset()


def pixel_form(image: Dataset) -> tuple[str, int]:
    """Return the defined term of the Photometric Interpretation, in whatever case it is written, and the samples.

    Raises:
        UnreadablePixels: either cannot be read, or an image of this form is not shown in grey.
    """
    written = _text(image, "PhotometricInterpretation")
    photometric = _PHOTOMETRIC.get(SEPARATORS.sub("", written))
    if photometric is None:
        raise UnreadablePixels(PixelDefect.ATTRIBUTE, "PhotometricInterpretation")
    samples = _number(image, "SamplesPerPixel")
    if (samples is None and photometric not in GRAYSCALE) or (samples is not None and samples < 1):
        raise UnreadablePixels(PixelDefect.ATTRIBUTE, "SamplesPerPixel")
    if photometric in _OTHER:
        raise UnreadablePixels(PixelDefect.FORM, "PhotometricInterpretation")
    expected = 1 if photometric in GRAYSCALE else 3
    if samples not in {None, expected}:
        raise UnreadablePixels(PixelDefect.FORM, "SamplesPerPixel")
    return photometric, expected


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredWords:
    """The containers of the stored values, and the bits that hold each value.

    Attributes:
        words: shape (rows, columns).
        bits: number of the value's bits, with the sign. The other bits of words that are coded exactly may hold
            anything (formerly overlays); a lossy stream may have more than BitsStored, and overshoot the stored range.
        low_bit: number of the value's lowest bit.
        coded_bits: number of bits that each word can have.
        mended: what is not as the standard says.
    """

    words: Words
    bits: int
    low_bit: int
    coded_bits: int
    mended: frozenset[Mended] = frozenset()

    def values(self) -> Words:
        """Return the bits of each value, without its sign and without other bits, shape (rows, columns)."""
        return _value_bits(self.words, self.low_bit, self.bits)


def decode(image: Dataset, layout: PixelLayout) -> StoredWords:
    """Return the stored words; for a colour image with three equal channels, those of one channel.

    Raises:
        UnreadablePixels: the pixel data is damaged, does not match the layout, or is coloured.
    """
    if layout.encapsulated:
        octets, stored = _check_encapsulated(image.PixelData, layout)
    else:
        octets = _without_padding(image.PixelData, layout)
        stored = _Stored(
            bits=layout.bits_stored, low_bit=layout.low_bit, coded=layout.bits_allocated, exact=layout.bits_stored
        )
    words = _decoded_words(octets, layout, image["PixelData"].VR, stored.exact)
    surplus = 0 if layout.encapsulated else len(image.PixelData) - len(octets)
    if surplus and has_other_columns(_ordered(words, layout), surplus * 8 // layout.bits_allocated // layout.samples):
        raise UnreadablePixels(PixelDefect.LENGTH)
    return StoredWords(
        words=words,
        bits=stored.bits,
        low_bit=stored.low_bit,
        coded_bits=stored.coded,
        mended=layout.mended | ({Mended.PADDING} if surplus else set()),
    )


def _decoded_words(octets: bytes, layout: PixelLayout, vr: str, exact: int) -> Words:
    """Return the words, for three samples those of one channel.

    Planar Configuration tells channels that are stored by pixel from those stored by plane. Where it is missing or
    wrong, only one of the two gives three equal channels.
    """
    shared = layout.photometric == "YBR_FULL_422"  # PS3.3 C.7.6.3.1.3: by pixel
    if layout.samples == 1 or layout.encapsulated or shared:
        return _words(_decode_by(octets, layout, vr, exact, layout.planes or 0), layout)
    stated = layout.planes or 0
    try:
        return _words(_decode_by(octets, layout, vr, exact, stated), layout)
    except UnreadablePixels as unreadable:
        if unreadable.defect is not PixelDefect.COLOUR:
            raise
    return _words(_decode_by(octets, layout, vr, exact, 1 - stated), layout)


def _decode_by(octets: bytes, layout: PixelLayout, vr: str, exact: int, planes: int) -> NDArray[np.generic]:
    try:
        return _decode_checked(octets, layout, vr, exact, planes)
    except Exception as error:  # decoders may raise anything; it always means that the pixels cannot be read
        raise UnreadablePixels(PixelDefect.DAMAGED) from error


def _value_bits(words: Words, low_bit: int, bits: int) -> Words:
    kind = words.dtype.type
    return (words >> kind(low_bit)) & kind((1 << bits) - 1)


def _ordered(words: Words, layout: PixelLayout) -> Words:
    """Return the stored values without other bits, in their order: the lowest one is 0."""
    ordered = _value_bits(words, layout.low_bit, layout.bits_stored)
    return ordered ^ words.dtype.type(1 << (layout.bits_stored - 1)) if layout.signed else ordered


def _decode_checked(octets: bytes, layout: PixelLayout, vr: str, coded_bits: int, planes: int) -> NDArray[np.generic]:
    if layout.transfer_syntax == uid.JPEGExtended12Bit and layout.bits_allocated == 16:
        return _decode_extended_jpeg(octets, layout)
    if _is_usual_jpeg(layout) and (greys := _decode_usual_jpeg(octets)) is not None:
        return greys
    options = {
        "pixel_keyword": "PixelData",
        "pixel_vr": vr,
        "number_of_frames": 1,
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "planar_configuration": planes,
        "bits_allocated": layout.bits_allocated,
        # GDCM clears the other bits of JPEG lossless, also those that HighBit says are the value's
        "bits_stored": max(coded_bits, layout.bits_stored),
        "pixel_representation": int(layout.signed),
        "correct_unused_bits": False,  # it would ignore HighBit, and wrap values that overshoot the stored range
    }
    array, _ = get_decoder(layout.transfer_syntax).as_array(
        octets,
        index=0,
        raw=layout.samples == 1,
        decoding_plugin=DECODERS.get(layout.transfer_syntax, ""),
        **options,  # type: ignore[arg-type] # pydicom's annotation lacks Unpack
    )
    return array


def _words(decoded: NDArray[np.generic], layout: PixelLayout) -> Words:
    if decoded.dtype.kind not in "iu" or decoded.dtype.itemsize > 2:
        raise UnreadablePixels(PixelDefect.DEPTH)
    if decoded.shape[:2] != (layout.rows, layout.columns):
        raise UnreadablePixels(PixelDefect.MISMATCH)
    if decoded.ndim == 3:
        if not (np.array_equal(decoded[..., 0], decoded[..., 1]) and np.array_equal(decoded[..., 0], decoded[..., 2])):
            raise UnreadablePixels(PixelDefect.COLOUR)
        decoded = np.ascontiguousarray(decoded[..., 0])
    native_order = decoded.astype(decoded.dtype.newbyteorder("="), copy=False)
    return native_order.view(np.uint8) if decoded.dtype.itemsize == 1 else native_order.view(np.uint16)


def _without_padding(octets: bytes, layout: PixelLayout) -> bytes:
    """Return uncompressed pixel data without what follows the image.

    PS3.5 8.1.1 warns receivers of senders that fill up by more than one byte. The filling has one value throughout:
    other bytes could be pixels of a film whose rows or columns are not as stated.
    """
    surplus = octets[layout.native_bytes :]
    if len(octets) < layout.native_bytes or len(surplus) >= layout.native_bytes or surplus.strip(surplus[:1]):
        raise UnreadablePixels(PixelDefect.LENGTH)
    return octets[: layout.native_bytes] if surplus else octets


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """Bits of a word: the number of the value's, the lowest of them; how many are coded, and how many exactly."""

    bits: int
    low_bit: int
    coded: int
    exact: int


def _check_encapsulated(octets: bytes, layout: PixelLayout) -> tuple[bytes, _Stored]:
    """Compare the stream's header with the attributes, and check that the stream ends at its end.

    Returns:
        The encapsulated frame, and the bits of its words.
    """
    try:
        frame, octets = _only_frame(octets)
        stream = _codestream(frame, layout)
    except (DamagedCodestream, ValueError, EOFError, IndexError, struct.error) as error:
        raise UnreadablePixels(PixelDefect.DAMAGED) from error
    if stream is not None:
        declared = (layout.rows, layout.columns, layout.samples)
        if (stream.rows, stream.columns, stream.samples) != declared or stream.precision > layout.bits_allocated:
            raise UnreadablePixels(PixelDefect.MISMATCH)
        if len(frame) < stream.fewest_bytes:
            raise UnreadablePixels(PixelDefect.DAMAGED)
    exact = stream is None or stream.lossless or layout.transfer_syntax == uid.JPEG2000Lossless
    precision = stream.precision if stream else layout.bits_allocated
    if layout.high_bit != layout.bits_stored - 1 and not (exact and layout.high_bit < precision):
        raise UnreadablePixels(PixelDefect.DEPTH, "HighBit")
    bits = min(precision, layout.bits_stored) if exact else precision
    return octets, _Stored(
        bits=bits,
        low_bit=layout.low_bit,
        coded=precision,
        exact=precision if exact else layout.bits_stored,
    )


def _only_frame(octets: bytes) -> tuple[bytes, bytes]:
    """Return the stream of the only frame, and its encapsulated form.

    An offset table may count the fragments of one frame as if they were frames, and two frames may come without a
    table. What counts is how many fragments begin as a stream does.
    """
    buffer = BytesIO(octets)
    offsets = parse_basic_offsets(buffer)
    fragments = islice(generate_fragments(buffer), _MOST_FRAGMENTS + 1)
    begins = [fragment.startswith(_FIRST_BYTES) for fragment in fragments]
    if sum(begins) > 1:
        raise UnreadablePixels(PixelDefect.NOT_ONE_FRAME, "PixelData")
    if len(begins) > _MOST_FRAGMENTS:
        raise UnreadablePixels(PixelDefect.DAMAGED)
    if len(offsets) <= 1:
        return get_frame(octets, 0, number_of_frames=1), octets
    buffer.seek(0)
    parse_basic_offsets(buffer)
    frame = b"".join(generate_fragments(buffer))
    return frame, encapsulate([frame])


def _codestream(frame: bytes, layout: PixelLayout) -> Codestream | None:
    """Return the header of the stream; None for RLE, which has none and is measured instead."""
    if layout.transfer_syntax in {uid.JPEG2000, uid.JPEG2000Lossless}:
        return read_jpeg2000(frame)
    if layout.transfer_syntax == uid.RLELossless:
        _measure_rle(frame, layout)
        return None
    return read_jpeg(frame)


def _measure_rle(frame: bytes, layout: PixelLayout) -> None:
    """Compare the segments with the attributes: pydicom would decode all that they hold, and cut off what is too much.

    A surplus of less than a row and a column is let pass, as pydicom does: no film whose size is stated wrongly has it.
    """
    segments = rle_segments(frame)
    if len(segments) != layout.samples * layout.bits_allocated // 8:
        raise UnreadablePixels(PixelDefect.MISMATCH)
    pixels = layout.rows * layout.columns
    most = pixels + min(layout.rows, layout.columns) - 1
    for segment in segments:
        length = decoded_length(segment, most)
        if length < pixels:
            raise UnreadablePixels(PixelDefect.DAMAGED)
        if length > most:
            raise UnreadablePixels(PixelDefect.MISMATCH)


def _is_usual_jpeg(layout: PixelLayout) -> bool:
    bits = (layout.bits_allocated, layout.bits_stored)
    return (
        layout.transfer_syntax == uid.JPEGBaseline8Bit and layout.samples == 1 and bits == (8, 8) and not layout.signed
    )


def _decode_usual_jpeg(octets: bytes) -> NDArray[np.uint8] | None:
    """Return the greys of a baseline JPEG by libjpeg-turbo: those of GDCM to the last bit, in a sixth of its time.

    None for a stream of which libjpeg-turbo says that anything is wrong: what is made of it stays GDCM's.
    """
    frame = get_frame(octets, 0, number_of_frames=1)
    try:
        return np.asarray(simplejpeg.decode_jpeg(frame, colorspace="GRAY", strict=True)[..., 0])
    except ValueError:
        return None


def _decode_extended_jpeg(octets: bytes, layout: PixelLayout) -> NDArray[np.generic]:
    """Return 12-bit JPEG samples: GDCM can decode them, but pydicom's plug-in for GDCM refuses."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(get_frame(octets, 0, number_of_frames=1))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    picture = gdcm.Image()
    picture.SetNumberOfDimensions(2)
    picture.SetDimensions((layout.columns, layout.rows, 1))
    picture.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType(layout.photometric)
    picture.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    picture.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(layout.transfer_syntax))))
    picture.SetPixelFormat(
        gdcm.PixelFormat(1, layout.bits_allocated, layout.bits_stored, layout.high_bit, int(layout.signed))
    )
    decoded = picture.GetBuffer().encode("utf-8", "surrogateescape")  # the binding returns char* as str
    return np.frombuffer(decoded, dtype=np.uint16).reshape(layout.rows, layout.columns)


def _planes(image: Dataset, samples: int, *, native: bool) -> int | None:
    """Return Planar Configuration, None if it is missing; the stream of a compressed image says how it is coded."""
    if samples == 1:
        return 0
    planes = _number(image, "PlanarConfiguration")
    if planes not in {0, 1, None}:
        if native:
            raise UnreadablePixels(PixelDefect.ATTRIBUTE, "PlanarConfiguration")
        return 0
    return planes


def _required(image: Dataset, keyword: str) -> int:
    number = _number(image, keyword)
    if number is None:
        raise UnreadablePixels(PixelDefect.ATTRIBUTE, keyword)
    return number


def _number(image: Dataset, keyword: str) -> int | None:
    try:
        return whole(image, keyword)
    except MalformedAttribute as error:
        raise UnreadablePixels(PixelDefect.ATTRIBUTE, keyword) from error


def _text(image: Dataset, keyword: str) -> str:
    try:
        return text(image, keyword)
    except MalformedAttribute as error:
        raise UnreadablePixels(PixelDefect.ATTRIBUTE, keyword) from error
