"""Turns an image into the network's input; node and training share this one preprocessing.

Stored words -> Modality LUT -> VOI LUT or window -> inversion -> padding to air. These five steps depend only on the
word of each pixel, so they are computed once for each of the 256 or 65,536 possible words and looked up (PS3.3 C.11.1,
C.11.2, PS3.4 N.2). Then comes one resize.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence

from pneumonia_model.attributes import (
    MalformedAttribute,
    decimals,
    first_pair,
    has_comma,
    is_little_endian,
    text,
    whole,
)
from pneumonia_model.decoding import (
    SEPARATORS,
    Mended,
    PixelDefect,
    PixelLayout,
    StoredWords,
    UnreadablePixels,
    decode,
    pixel_layout,
)
from pneumonia_model.lookup import MalformedTable, read_table
from pneumonia_model.plausibility import Words, continues_above
from pneumonia_model.sizes import INPUT_SIDE

__all__ = [
    "INPUT_SIDE",
    "PREPROCESSING",
    "Display",
    "GreyScale",
    "UnreadablePixels",
    "display_words",
    "grey_scale",
    "input_from_display",
    "read_display",
    "to_display",
    "to_input",
]

PREPROCESSING: Final = {
    "version": 1,
    "photometric": "modality LUT, first VOI LUT or window, else full range of the bits that the values need; air dark",
    "padding": "air",
    "size": [INPUT_SIDE, INPUT_SIDE],
    "aspect_ratio": "not kept",
    "interpolation": "cv2.INTER_AREA on 8 bits",
    "scale": 1 / 255,
    "mean": 0.0,
    "std": 1.0,
}
"""What a bundle records of these rules; a bundle made under another version is not loaded."""

_FARTHEST: Final = 2.0**40  # rescaled values beyond it are at either end of any lookup table
_OVERSHOOT: Final = 1 / 8  # of the stored range: a lossy stream may be as far beyond it at an edge
_MOST_BEYOND: Final = 0.01  # of the pixels of a lossy stream farther beyond it
_FUNCTIONS: Final = {"": "LINEAR", "LINEAR": "LINEAR", "LINEAREXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}


def to_input(image: Dataset) -> NDArray[np.float32]:
    """Return the image as the network's input, shape (224, 224), values in [0, 1], air dark.

    Raises:
        UnreadablePixels: the pixel data is missing, damaged, or not one grayscale frame.
    """
    return input_from_display(to_display(image))


def input_from_display(display: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return 8-bit display values, air dark, as the network's input; the aspect ratio is not kept."""
    resized = cv2.resize(display, (INPUT_SIDE, INPUT_SIDE), interpolation=cv2.INTER_AREA)
    return resized.astype(np.float32) / np.float32(255)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Display:
    """An image as a viewer first shows it.

    Attributes:
        greys: shape (Rows, Columns), 0 to 255, air dark.
        shares: of the pixels, those that have each grey, shape (256,).
        samples: Samples per Pixel of the image, 1 or 3.
        one_value: whether all stored values are equal.
        shaped_by: keywords of the attributes that make greys of the stored values; () if these, without padding, are
            all equal.
        mended: what is not as the standard says, and was read in the one way that it can be meant.
    """

    greys: NDArray[np.uint8]
    shares: NDArray[np.float64]
    samples: int
    one_value: bool
    shaped_by: tuple[str, ...]
    mended: frozenset[Mended]


def to_display(image: Dataset) -> NDArray[np.uint8]:
    """Return the image as a viewer first shows it, shape (Rows, Columns), 0 to 255, air dark.

    A colour image with three equal channels is shown as one channel.

    Raises:
        UnreadablePixels: the pixel data is missing, damaged, or not one grayscale frame.
    """
    return read_display(image).greys


def read_display(image: Dataset) -> Display:
    """Return what `to_display` returns, and how it came about.

    Raises:
        UnreadablePixels: the pixel data is missing, damaged, or not one grayscale frame.
    """
    layout = pixel_layout(image)
    return display_words(image, layout, decode(image, layout))


def display_words(image: Dataset, layout: PixelLayout, stored: StoredWords) -> Display:
    """Return what `read_display` returns, of an image that is decoded already.

    Raises:
        UnreadablePixels: the attributes do not say how the words are shown.
    """
    scale = grey_scale(image, layout, stored)
    return Display(
        greys=np.asarray(cv2.LUT(stored.words, scale.greys), dtype=np.uint8),
        shares=np.bincount(scale.greys, weights=scale.counts, minlength=256) / stored.words.size,
        samples=layout.samples,
        one_value=int((scale.counts > 0).sum()) == 1,
        shaped_by=scale.shaped_by,
        mended=stored.mended | scale.mended,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GreyScale:
    """What an image makes of each word that its container can hold; every array has one place for each word.

    Attributes:
        greys: as a viewer first shows the word, 0 to 255, air dark.
        values: behind the modality transformation.
        counts: how many pixels have the word.
        padding: whether the word stands for places without film.
        has_own_view: whether the image says itself how it is first shown, by a VOI LUT or a window.
        window: values behind the modality transformation between which its window lies; None without a window.
        shaped_by, mended: as in `Display`; `mended` without what was mended in the stored words.
    """

    greys: NDArray[np.uint8]
    values: NDArray[np.float64]
    counts: NDArray[np.float32]
    padding: NDArray[np.bool_]
    has_own_view: bool
    window: tuple[float, float] | None
    shaped_by: tuple[str, ...]
    mended: frozenset[Mended]


def grey_scale(image: Dataset, layout: PixelLayout, stored: StoredWords) -> GreyScale:
    """Return how the words of a decoded image are shown.

    Raises:
        UnreadablePixels: the attributes do not say it.
    """
    counts = _counts(stored.words)
    if layout.samples == 3:
        return _of_one_channel(counts)
    values = _stored_values(stored, layout)
    if int((counts > 0).sum()) > 1 and np.ptp(values[counts > 0]) == 0:
        raise UnreadablePixels(PixelDefect.BITS, "BitsStored")
    try:
        padding = _padding(image, layout, values)
        scale = _scale_of_words(image, layout, values, counts, padding)
    except UnreadablePixels:
        raise
    except MalformedAttribute as error:
        raise UnreadablePixels(PixelDefect.DISPLAY, error.keyword) from error
    except Exception as error:  # pydicom may raise anything for malformed sequences
        raise UnreadablePixels(PixelDefect.DISPLAY) from error
    if _exceeds_bits_stored(stored, layout, values, counts, padding):
        signed = ("PixelRepresentation",) if layout.signed else ()
        raise UnreadablePixels(PixelDefect.BITS, "BitsStored", *signed)
    return scale


def _of_one_channel(counts: NDArray[np.float32]) -> GreyScale:
    """Return the scale of an image in colour with equal channels of 8 bits: its words are the greys."""
    words = np.arange(counts.size)
    return GreyScale(
        greys=words.astype(np.uint8),
        values=words.astype(np.float64),
        counts=counts,
        padding=np.zeros(counts.shape, dtype=np.bool_),
        has_own_view=False,
        window=None,
        shaped_by=(),
        mended=frozenset(),
    )


def _scale_of_words(
    image: Dataset,
    layout: PixelLayout,
    values: NDArray[np.int64],
    counts: NDArray[np.float32],
    padding: NDArray[np.bool_],
) -> GreyScale:
    occurring = counts > 0
    film = occurring & ~padding if (occurring & ~padding).any() else occurring
    pixels = np.where(film, counts, 0)
    modality = _modality(image, layout, values, pixels)
    voi, window = None, None
    if image.get("VOILUTSequence"):
        inputs = np.rint(np.clip(modality.values, -_FARTHEST, _FARTHEST)).astype(np.int64)
        voi = _lut(image, "VOILUTSequence", layout, inputs, pixels)
        shown = voi.values / voi.white
    elif (window := first_pair(image, "WindowCenter", "WindowWidth")) is not None:
        shown = _windowed(image, modality.values, *window)
    elif modality.white:
        shown = modality.values / modality.white
    else:
        shown = _full_range(image, layout, modality.values, values[film])
    if not np.isfinite(shown).all():
        raise UnreadablePixels(PixelDefect.DISPLAY)
    if layout.photometric == "MONOCHROME1" or text(image, "PresentationLUTShape") == "INVERSE":
        shown = 1 - shown
    shown[padding] = 0
    windowed = () if window is None else ("WindowCenter", "WindowWidth")
    commas = has_comma(image, *windowed, *(() if modality.white else ("RescaleSlope", "RescaleIntercept")))
    mended = modality.mended if voi is None and window is None else modality.mended - {Mended.TABLE}
    shaped_by = (
        *modality.shaped_by,
        *(voi.shaped_by if voi else ()),
        *windowed,
        *(("PixelPaddingValue",) if (padding & occurring).any() else ()),
    )
    return GreyScale(
        greys=np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8),
        values=modality.values,
        counts=counts,
        padding=padding,
        has_own_view=voi is not None or window is not None,
        window=None if window is None else _window_ends(image, *window),
        shaped_by=shaped_by if np.ptp(values[film]) else (),
        mended=mended | (voi.mended if voi else set()) | ({Mended.NUMBERS} if commas else set()),
    )


def _stored_values(stored: StoredWords, layout: PixelLayout) -> NDArray[np.int64]:
    """Return the stored value of every word, clipped to the stored range: cutting its bits would make it wrap."""
    values = _values(_containers(stored) >> stored.low_bit, stored.bits, signed=layout.signed)
    lowest, highest = _stored_range(layout.bits_stored, signed=layout.signed)
    return np.asarray(np.clip(values, lowest, highest), dtype=np.int64)


def _containers(stored: StoredWords) -> NDArray[np.int64]:
    return np.arange(1 << (8 * stored.words.dtype.itemsize), dtype=np.int64)


def _values(words: NDArray[np.int64], bits: int, *, signed: bool) -> NDArray[np.int64]:
    """Return what the lower bits of words mean."""
    values = words & ((1 << bits) - 1)
    return np.asarray(np.where(values >= 1 << (bits - 1), values - (1 << bits), values) if signed else values)


def _exceeds_bits_stored(
    stored: StoredWords,
    layout: PixelLayout,
    values: NDArray[np.int64],
    counts: NDArray[np.float32],
    padding: NDArray[np.bool_],
) -> bool:
    """Return whether the picture has more bits than Bits Stored, and would wrap or be cut off at white."""
    words, coded = _containers(stored), stored.coded_bits - stored.low_bit
    whole = _values(words >> stored.low_bit, coded, signed=layout.signed)
    if stored.bits > layout.bits_stored:  # a lossy stream, of which the values are clipped
        beyond = np.abs(whole - values) > _OVERSHOOT * (1 << layout.bits_stored)
        return bool(counts[beyond & ~padding].sum() > _MOST_BEYOND * stored.words.size)
    above = (whole - values)[(counts > 0) & ~padding]
    return above.size > 0 and bool(np.ptp(above)) and continues_above(stored.words, values, whole, ~padding)


def _stored_range(bits: int, *, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Step:
    """The values after a step of the grayscale transformation, and `white` where a lookup table sets it, else 0."""

    values: NDArray[np.float64]
    white: int = 0
    shaped_by: tuple[str, ...] = ()
    mended: frozenset[Mended] = frozenset()


def _modality(image: Dataset, layout: PixelLayout, values: NDArray[np.int64], pixels: NDArray[np.float32]) -> _Step:
    """Return the values behind the modality transformation; `pixels` is how often each one is in the film."""
    if image.get("ModalityLUTSequence"):
        return _lut(image, "ModalityLUTSequence", layout, values, pixels)
    slope, intercept = (_only(image, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope is None and intercept is None:
        return _Step(values=values.astype(np.float64))
    if slope == 0:
        raise UnreadablePixels(PixelDefect.DISPLAY, "RescaleSlope")
    rescaled = values.astype(np.float64) * (1 if slope is None else slope)
    rescaled += 0 if intercept is None else intercept
    alone = {Mended.NUMBERS} if (slope is None) != (intercept is None) else set()
    return _Step(values=rescaled, shaped_by=("RescaleSlope", "RescaleIntercept"), mended=frozenset(alone))


def _lut(
    image: Dataset, keyword: str, layout: PixelLayout, inputs: NDArray[np.int64], pixels: NDArray[np.float32]
) -> _Step:
    """Return the values behind the first table of a Modality or VOI LUT Sequence."""
    items = image[keyword].value
    if not isinstance(items, Sequence):
        raise UnreadablePixels(PixelDefect.DISPLAY, keyword)
    try:
        film = pixels > 0
        little_endian = is_little_endian(image)
        table = read_table(items[0], inputs[film], pixels[film], signed=layout.signed, little_endian=little_endian)
    except MalformedTable as error:
        raise UnreadablePixels(PixelDefect.DISPLAY, keyword) from error
    mended = frozenset({Mended.TABLE} if table.mended else ())
    return _Step(values=table.look_up(inputs), white=table.white, shaped_by=(keyword,), mended=mended)


def _only(image: Dataset, keyword: str) -> float | None:
    """Return the one number of an attribute; None if it is missing or empty."""
    numbers = {number for number in decimals(image, keyword) if number is not None}
    if len(numbers) > 1:
        raise UnreadablePixels(PixelDefect.DISPLAY, keyword)
    return numbers.pop() if numbers else None


def _padding(image: Dataset, layout: PixelLayout, values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the words that are padding (PS3.3 C.7.5.1.1.2).

    A padding value that no stored value can have is compared with the whole words: it can mean nothing else.
    """
    value, limit = (whole(image, keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return np.zeros(values.shape, dtype=np.bool_)
    bounds = [_with_sign(bound, signed=layout.signed) for bound in (value, value if limit is None else limit)]
    padding = (values >= min(bounds)) & (values <= max(bounds))
    lowest, highest = _stored_range(layout.bits_stored, signed=layout.signed)
    if min(bounds) > highest or max(bounds) < lowest:
        words = np.arange(values.size, dtype=np.int64)
        words = _values(words, layout.bits_allocated, signed=layout.signed)
        padding |= (words >= min(bounds)) & (words <= max(bounds))
    return padding


def _with_sign(value: int, *, signed: bool) -> int:
    """Return a value of 16 bits with the sign of the stored values, whichever VR the sender chose."""
    if signed:
        return value - 65536 if 32767 < value < 65536 else value
    return value + 65536 if -32769 < value < 0 else value


def _counts(words: Words) -> NDArray[np.float32]:
    """Return how many pixels have each word that the container can hold."""
    size = 1 << (8 * words.dtype.itemsize)
    # numpy's bincount would need 8 bytes per pixel
    counts = cv2.calcHist([np.ascontiguousarray(words)], [0], None, [size], [0, size])
    return counts.ravel().astype(np.float32, copy=False)


def _windowed(image: Dataset, modality: NDArray[np.float64], center: float, width: float) -> NDArray[np.float64]:
    """Return the values under a window, 0 to 1 (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    function = _window_function(image)
    if width < 1 if function == "LINEAR" else width <= 0:
        raise UnreadablePixels(PixelDefect.DISPLAY, "WindowWidth")
    offset = modality - (center - 0.5) if function == "LINEAR" else modality - center
    span = width - 1 if function == "LINEAR" else width
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * offset / span, -700, 700)))
    if span == 0:
        return (offset > 0).astype(np.float64)
    return np.clip(offset / span + 0.5, 0, 1)


def _window_ends(image: Dataset, center: float, width: float) -> tuple[float, float]:
    """Return the values that a window shows as black and as white; a sigmoid has the same slope at its centre."""
    shift = 0.5 if _window_function(image) == "LINEAR" else 0
    return center - width / 2, center + width / 2 - 2 * shift


def _window_function(image: Dataset) -> str:
    function = _FUNCTIONS.get(SEPARATORS.sub("", text(image, "VOILUTFunction")))
    if function is None:
        raise UnreadablePixels(PixelDefect.DISPLAY, "VOILUTFunction")
    return function


def _full_range(
    image: Dataset, layout: PixelLayout, modality: NDArray[np.float64], present: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the values as shares of a range of 8 or more bits, the fewest that hold all `present` values.

    So the brightest and the darkest pixel do not set the contrast, as they would in a stretch from minimum to maximum,
    and an image with 12 bits in a declared 16 is not shown nearly black. Bits below the upper 8 are cut: a film
    that was shifted up into more bits then gives exactly the same picture. A signed film without a negative value is
    shown as the unsigned film of the same words: half of its range would be empty.
    """
    signed = layout.signed and int(present.min()) < 0
    bits = min(8, layout.bits_stored)
    while bits < layout.bits_stored and not _holds(bits, present, signed=signed):
        bits += 1
    ends = np.asarray(_stored_range(bits, signed=signed), dtype=np.int64)
    everywhere = np.ones(ends.shape, dtype=np.float32)
    low, high = (float(end) for end in sorted(_modality(image, layout, ends, everywhere).values))
    shares = (modality - low) / (high - low)
    return shares if bits <= 8 else np.floor(shares * ((1 << bits) - 1) / (1 << (bits - 8)) + 1e-6) / 255


def _holds(bits: int, present: NDArray[np.int64], *, signed: bool) -> bool:
    lowest, highest = _stored_range(bits, signed=signed)
    return bool(lowest <= present.min() and present.max() <= highest)
