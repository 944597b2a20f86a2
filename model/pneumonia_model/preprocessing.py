"""Turns an image into the network's input; node and training share this one preprocessing.

Stored words -> Modality LUT -> VOI LUT or window -> inversion -> padding to air. These five steps depend only on the
word of each pixel, so they are computed once for each of the 256 or 65,536 possible words and looked up (PS3.3 C.11.1,
C.11.2, PS3.4 N.2). Then comes one resize.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from pneumonia_model.decoding import PixelDefect, PixelLayout, StoredWords, UnreadablePixels, decode, pixel_layout

__all__ = ["INPUT_SIDE", "PREPROCESSING", "UnreadablePixels", "input_from_display", "to_display", "to_input"]

INPUT_SIDE: Final = 224
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


def to_display(image: Dataset) -> NDArray[np.uint8]:
    """Return the image as a viewer first shows it, shape (Rows, Columns), 0 to 255, air dark.

    A colour image with three equal channels is shown as one channel.

    Raises:
        UnreadablePixels: the pixel data is missing, damaged, or not one grayscale frame.
    """
    layout = pixel_layout(image)
    stored = decode(image, layout)
    if layout.samples == 3:
        return stored.words.astype(np.uint8)
    try:
        table = _display_table(image, layout, stored)
    except UnreadablePixels:
        raise
    except Exception as error:  # pydicom may raise anything for malformed attributes and LUTs
        raise UnreadablePixels(PixelDefect.DISPLAY) from error
    return np.asarray(np.take(table, stored.words))


def _display_table(image: Dataset, layout: PixelLayout, stored: StoredWords) -> NDArray[np.uint8]:
    """Return the display value of every word that the container can hold."""
    values = _stored_values(stored, layout)
    padding = _padding(image, values)
    modality = _modality(image, values)
    if image.get("VOILUTSequence"):
        shown = _voi_lut(image, modality)
    elif image.get("WindowCenter") is not None and image.get("WindowWidth") is not None:
        shown = _window(image, modality)
    else:
        shown = _full_range(image, layout, modality, values, _occurring(stored.words) & ~padding)
    if not np.isfinite(shown).all():
        raise UnreadablePixels(PixelDefect.DISPLAY)
    if image.PhotometricInterpretation == "MONOCHROME1" or image.get("PresentationLUTShape") == "INVERSE":
        shown = 1 - shown
    shown[padding] = 0
    return np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)


def _stored_values(stored: StoredWords, layout: PixelLayout) -> NDArray[np.int64]:
    """Return the stored value of every word, clipped to the stored range: cutting its bits would make it wrap."""
    words = np.arange(1 << (8 * stored.words.dtype.itemsize), dtype=np.int64)
    values = (words >> stored.low_bit) & ((1 << stored.bits) - 1)
    if layout.signed:
        values = np.where(values >= 1 << (stored.bits - 1), values - (1 << stored.bits), values)
    lowest, highest = _stored_range(layout.bits_stored, signed=layout.signed)
    return np.asarray(np.clip(values, lowest, highest), dtype=np.int64)


def _stored_range(bits: int, *, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _modality(image: Dataset, values: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(apply_modality_lut(values, image), dtype=np.float64)


def _padding(image: Dataset, values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the values that are padding (PS3.3 C.7.5.1.1.2)."""
    if image.get("PixelPaddingValue") is None:
        return np.zeros(values.shape, dtype=np.bool_)
    bounds = [int(image.PixelPaddingValue), int(image.get("PixelPaddingRangeLimit", image.PixelPaddingValue))]
    return (values >= min(bounds)) & (values <= max(bounds))


def _occurring(words: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.bool_]:
    seen = np.zeros(1 << (8 * words.dtype.itemsize), dtype=np.bool_)
    seen[words] = True
    return seen


def _voi_lut(image: Dataset, modality: NDArray[np.float64]) -> NDArray[np.float64]:
    bits = int(image.VOILUTSequence[0].LUTDescriptor[2])  # PS3.3 C.11.2.1.1: bits of each entry
    looked_up: NDArray[np.float64] = apply_voi(np.rint(modality).astype(np.int64), image).astype(np.float64)
    return looked_up / ((1 << bits) - 1)


def _window(image: Dataset, modality: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values under the first window, 0 to 1 (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    center, width = float(_first(image.WindowCenter)), float(_first(image.WindowWidth))
    function = image.get("VOILUTFunction") or "LINEAR"
    if function == "LINEAR" and width >= 1:
        offset = modality - (center - 0.5)
        span = width - 1
    elif function in {"LINEAR_EXACT", "SIGMOID"} and width > 0:
        offset = modality - center
        span = width
    else:
        raise UnreadablePixels(PixelDefect.DISPLAY)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * offset / span, -700, 700)))
    if span == 0:
        return (offset > 0).astype(np.float64)
    return np.clip(offset / span + 0.5, 0, 1)


def _full_range(
    image: Dataset,
    layout: PixelLayout,
    modality: NDArray[np.float64],
    values: NDArray[np.int64],
    occurring: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return the values as shares of a range of 8 or more bits, the fewest that hold all occurring values.

    So the brightest and the darkest pixel do not set the contrast, as they would in a stretch from minimum to maximum,
    and an image with 12 bits in a declared 16 is not shown nearly black. Bits below the upper 8 are cut: a film
    that was shifted up into more bits then gives exactly the same picture.
    """
    if image.get("ModalityLUTSequence"):
        return modality / ((1 << int(image.ModalityLUTSequence[0].LUTDescriptor[2])) - 1)
    present = values[occurring] if occurring.any() else values
    bits = min(8, layout.bits_stored)
    while bits < layout.bits_stored and not _holds(bits, present, signed=layout.signed):
        bits += 1
    ends = np.asarray(_stored_range(bits, signed=layout.signed), dtype=np.int64)
    low, high = (float(end) for end in sorted(_modality(image, ends)))
    if not high > low:
        raise UnreadablePixels(PixelDefect.DISPLAY)
    shares = (modality - low) / (high - low)
    return shares if bits <= 8 else np.floor(shares * ((1 << bits) - 1) / (1 << (bits - 8)) + 1e-6) / 255


def _holds(bits: int, present: NDArray[np.int64], *, signed: bool) -> bool:
    lowest, highest = _stored_range(bits, signed=signed)
    return bool(lowest <= present.min() and present.max() <= highest)


def _first(value: object) -> str:
    return str(value[0] if isinstance(value, MultiValue) else value)
