"""Decodes the one frame of an image to stored words, and refuses beforehand an image that cannot be a radiograph.

A peer controls every tag and every byte. So sizes are limited and compared with the compressed stream's header before a
decoder allocates memory, and each transfer syntax has one decoder, whatever else is installed.
"""

from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.encaps import get_frame, parse_basic_offsets
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from pneumonia_model.codestream import Codestream, DamagedCodestream, read_jpeg, read_jpeg2000

MAX_SIDE: Final = 8192
"""Largest Rows or Columns decoded: twice the widest detector on the market."""

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

_SINGLE_SAMPLE: Final = {"MONOCHROME1", "MONOCHROME2"}
_THREE_SAMPLES: Final = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}


class PixelDefect(StrEnum):
    """Why the pixels of an image cannot be shown; the text quotes nothing from the image."""

    MISSING = "no pixel data"
    NOT_ONE_FRAME = "more than one frame"
    COLOUR = "colour image"
    SIZE = "rows or columns missing or out of bounds"
    DEPTH = "bit depth missing or not supported"
    SYNTAX = "transfer syntax missing or not supported"
    LENGTH = "length of pixel data does not match rows and columns"
    DAMAGED = "compressed pixel data damaged or incomplete"
    MISMATCH = "compressed image does not match the attributes"
    DISPLAY = "display attributes invalid"


class UnreadablePixels(Exception):  # noqa: N818 - a finding about an image, not an error of the program
    """The pixel data is missing, damaged, or not one grayscale frame."""

    def __init__(self, defect: PixelDefect) -> None:
        super().__init__(defect.value)
        self.defect = defect


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """How the pixel data is stored (PS3.3 C.7.6.3)."""

    transfer_syntax: UID
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def encapsulated(self) -> bool:
        return self.transfer_syntax in DECODERS


def pixel_layout(image: Dataset) -> PixelLayout:
    """Return the layout that the attributes declare.

    Raises:
        UnreadablePixels: the attributes do not describe one frame that this package decodes.
    """
    syntax = getattr(getattr(image, "file_meta", None), "TransferSyntaxUID", None)
    if syntax not in DECODED_TRANSFER_SYNTAXES:
        raise UnreadablePixels(PixelDefect.SYNTAX)
    if "PixelData" not in image or not image.PixelData:
        raise UnreadablePixels(PixelDefect.MISSING)
    if _integer(image, "NumberOfFrames", PixelDefect.NOT_ONE_FRAME, default=1) != 1:
        raise UnreadablePixels(PixelDefect.NOT_ONE_FRAME)
    rows, columns = (_integer(image, keyword, PixelDefect.SIZE) for keyword in ("Rows", "Columns"))
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise UnreadablePixels(PixelDefect.SIZE)
    samples = _samples(image)
    allocated, stored, high_bit = (
        _integer(image, keyword, PixelDefect.DEPTH) for keyword in ("BitsAllocated", "BitsStored", "HighBit")
    )
    representation = _integer(image, "PixelRepresentation", PixelDefect.DEPTH)
    if allocated not in {8, 16} or not 0 < stored <= high_bit + 1 <= allocated or representation not in {0, 1}:
        raise UnreadablePixels(PixelDefect.DEPTH)
    if samples == 3 and (allocated, stored, representation) != (8, 8, 0):
        raise UnreadablePixels(PixelDefect.COLOUR)
    return PixelLayout(
        transfer_syntax=UID(syntax),
        rows=rows,
        columns=columns,
        samples=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=representation == 1,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredWords:
    """The containers of the stored values, and the bits that hold each value.

    Attributes:
        words: shape (rows, columns).
        bits: number of the value's bits, with the sign. The other bits of native words may hold anything (formerly
            overlays); a lossy stream may have more than BitsStored, and overshoot the stored range.
        low_bit: number of the value's lowest bit.
    """

    words: NDArray[np.uint8] | NDArray[np.uint16]
    bits: int
    low_bit: int


def decode(image: Dataset, layout: PixelLayout) -> StoredWords:
    """Return the stored words; for a colour image with three equal channels, those of one channel.

    Raises:
        UnreadablePixels: the pixel data is damaged, does not match the layout, or is coloured.
    """
    bits, low_bit = layout.bits_stored, layout.high_bit + 1 - layout.bits_stored
    if layout.encapsulated:
        stream = _check_encapsulated(image, layout)
        bits = stream.precision if stream else bits
    else:
        _check_native_length(image, layout)
    try:
        decoded = _decode_checked(image, layout)
    except Exception as error:  # decoders may raise anything; it always means that the pixels cannot be read
        raise UnreadablePixels(PixelDefect.DAMAGED) from error
    return StoredWords(words=_words(decoded, layout), bits=bits, low_bit=low_bit)


def _decode_checked(image: Dataset, layout: PixelLayout) -> NDArray[np.generic]:
    if layout.transfer_syntax == uid.JPEGExtended12Bit and layout.bits_allocated == 16:
        return _decode_extended_jpeg(image, layout)
    array, _ = get_decoder(layout.transfer_syntax).as_array(
        _with_samples(image, layout),
        index=0,
        raw=layout.samples == 1,
        decoding_plugin=DECODERS.get(layout.transfer_syntax, ""),
        # The correction would ignore HighBit, and wrap values that overshoot the stored range.
        correct_unused_bits=False,  # type: ignore[arg-type] # pydicom's annotation lacks Unpack
    )
    return array


def _with_samples(image: Dataset, layout: PixelLayout) -> Dataset:
    """Return the image with Samples per Pixel, which pydicom asks for and some senders leave out."""
    if image.get("SamplesPerPixel") is not None:
        return image
    stated = copy(image)
    stated.SamplesPerPixel = layout.samples
    return stated


def _words(decoded: NDArray[np.generic], layout: PixelLayout) -> NDArray[np.uint8] | NDArray[np.uint16]:
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


def _check_native_length(image: Dataset, layout: PixelLayout) -> None:
    expected = layout.rows * layout.columns * layout.samples * layout.bits_allocated // 8
    if len(image.PixelData) != expected + expected % 2:  # PS3.5 8.1.1: padded to even length
        raise UnreadablePixels(PixelDefect.LENGTH)


def _check_encapsulated(image: Dataset, layout: PixelLayout) -> Codestream | None:
    """Compare the stream's header with the attributes, check that the stream ends at its end, and return the header.

    For RLE return None, since its stream does not state its size: the decoder checks the length of each segment.
    """
    if layout.high_bit != layout.bits_stored - 1:
        raise UnreadablePixels(PixelDefect.DEPTH)
    try:
        if len(parse_basic_offsets(image.PixelData)) > 1:
            raise UnreadablePixels(PixelDefect.NOT_ONE_FRAME)
        frame = get_frame(image.PixelData, 0, number_of_frames=1)
        stream = _codestream(frame, layout.transfer_syntax)
    except (DamagedCodestream, ValueError, EOFError, IndexError) as error:
        raise UnreadablePixels(PixelDefect.DAMAGED) from error
    if stream is None:
        return None
    declared = (layout.rows, layout.columns, layout.samples)
    if (stream.rows, stream.columns, stream.samples) != declared or stream.precision > layout.bits_allocated:
        raise UnreadablePixels(PixelDefect.MISMATCH)
    return stream


def _codestream(frame: bytes, syntax: UID) -> Codestream | None:
    if syntax in {uid.JPEG2000, uid.JPEG2000Lossless}:
        return read_jpeg2000(frame)
    if syntax == uid.RLELossless:
        return None
    return read_jpeg(frame)


def _decode_extended_jpeg(image: Dataset, layout: PixelLayout) -> NDArray[np.generic]:
    """Return 12-bit JPEG samples: GDCM can decode them, but pydicom's plug-in for GDCM refuses."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(get_frame(image.PixelData, 0, number_of_frames=1))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    picture = gdcm.Image()
    picture.SetNumberOfDimensions(2)
    picture.SetDimensions((layout.columns, layout.rows, 1))
    picture.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType(str(image.PhotometricInterpretation))
    picture.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    picture.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(layout.transfer_syntax))))
    picture.SetPixelFormat(
        gdcm.PixelFormat(1, layout.bits_allocated, layout.bits_stored, layout.high_bit, int(layout.signed))
    )
    octets = picture.GetBuffer().encode("utf-8", "surrogateescape")  # the binding returns char* as str
    return np.frombuffer(octets, dtype=np.uint16).reshape(layout.rows, layout.columns)


def _samples(image: Dataset) -> int:
    samples = _integer(image, "SamplesPerPixel", PixelDefect.COLOUR, default=1)
    photometric = image.get("PhotometricInterpretation")
    if (samples == 1 and photometric in _SINGLE_SAMPLE) or (samples == 3 and photometric in _THREE_SAMPLES):
        return samples
    raise UnreadablePixels(PixelDefect.COLOUR)


def _integer(image: Dataset, keyword: str, defect: PixelDefect, *, default: int | None = None) -> int:
    try:
        value = image.get(keyword)
        return int(default if value is None and default is not None else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadablePixels(defect) from error
