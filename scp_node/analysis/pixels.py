"""Turns pixel data into the network's input, and refuses pictures that no radiograph looks like.

A decoder with a damaged stream often paints something and reports success, so the picture itself is checked. Each limit
lies between the most extreme of 9,782 real chest films (RSNA, NIH, Kermany, Hannover) and the effect of damage on a
film: cut streams, zeroed tails, swapped bytes, noise. Both values stand beside the limit. A stream with a few wrong
bytes in its middle stays within all limits: only a checksum by the sender could reveal that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pneumonia_model.decoding import PixelDefect
from pneumonia_model.preprocessing import (
    Display,
    UnreadablePixels,
    input_from_display,
    read_display,
    to_display,
)
from pydicom.dataset import Dataset

from scp_node.analysis.answers import PICTURE_SIDE, Picture, Prepared
from scp_node.analysis.polarity import polarity
from scp_node.analysis.refusals import NOTES, refusal, refused
from scp_node.domain import NotAnalysed, Note, Reason

LEAST_CONTRAST: Final = 0.10  # films from 0.28
LARGEST_DARKEST: Final = 0.85  # films up to 0.65; a cut stream that became black, from 0.95
LARGEST_BRIGHTEST: Final = 0.85  # films up to 0.13
LARGEST_ONE_GREY: Final = 0.35  # films up to 0.18; half a film painted over, 0.50
LARGEST_FLAT_ROWS: Final = 0.10  # films up to 0.03; a tenth of a film painted over, 0.10
LARGEST_BLANK_END: Final = 0.45  # films up to 0.32; half a film never written, 0.50
LEAST_SMOOTHNESS: Final = 0.88  # films from 0.94; swapped bytes up to 0.82, noise up to 0.20
LEAST_POLARITY: Final = -0.10  # films from 0.06, an upside-down one -0.09; negatives of films: 99.93 % lower

_SAME_GREY: Final = 2  # display values that count as equal, since lossy compression causes ripples


def picture(image: Dataset) -> Picture | NotAnalysed:
    """Return the image as a viewer first shows it; a large one is made smaller, and its aspect ratio kept.

    Raises:
        MemoryError: the process may not use the memory that this image needs.
    """
    try:
        display = to_display(image)
    except UnreadablePixels as unreadable:
        return refusal(unreadable)
    rows, columns = display.shape
    scale = PICTURE_SIDE / max(rows, columns)
    if scale < 1:
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        display = cv2.resize(display, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return Picture(display=display)


def prepare(image: Dataset) -> Prepared | NotAnalysed:
    """Return the network's input, or the reason why the picture cannot be one; assess the header first.

    Raises:
        MemoryError: the process may not use the memory that this image needs.
    """
    try:
        read = read_display(image)
    except UnreadablePixels as unreadable:
        return refusal(unreadable)
    display = read.greys
    if read.one_value:
        return NotAnalysed(reason=Reason.EMPTY_PIXELS, detail="all pixels have one value")
    if read.shaped_by and display.min() == display.max():
        return refused(PixelDefect.DISPLAY, *read.shaped_by)
    inputs = input_from_display(display)
    stats = describe(read, inputs)
    if strange := implausible(stats):
        return NotAnalysed(reason=Reason.IMPLAUSIBLE_PIXELS, detail=strange)
    notes = {NOTES[mended] for mended in read.mended} | ({Note.COLOUR_CONVERTED} if read.samples == 3 else set())
    return Prepared(inputs=inputs, notes=tuple(note for note in Note if note in notes), input_stats=stats)


def describe(read: Display, inputs: NDArray[np.float32]) -> dict[str, float]:
    """Return a description of a picture in a few numbers, kept with each result to show when the input drifts.

        mean, std: of the inputs
        contrast: distance between the darkest and the brightest 0.5 % of the pixels
        darkest, brightest: share of pixels at either end of the values that occur
        one_grey: largest share of a single grey between the ends
        flat_rows: share of rows that consist of one such grey
        blank_end: share of rows that consist of one grey each, at the lower end of the picture
        smoothness: correlation of neighbours in the inputs
        sharpness: root mean square difference of neighbours in the inputs
        polarity: correlation with the mean chest film; that of its negative has the other sign

    `smoothness` and `polarity` are in [-1, 1], all others in [0, 1].
    """
    shares = read.shares
    low, high = np.flatnonzero(shares)[[0, -1]]
    occurring_low, occurring_high = np.searchsorted(np.cumsum(shares), (0.005, 0.995))
    stats = {
        "mean": inputs.mean(),
        "std": inputs.std(),
        "contrast": (occurring_high - occurring_low) / 255,
        "darkest": shares[: low + _SAME_GREY + 1].sum(),
        "brightest": shares[max(high - _SAME_GREY, 0) :].sum(),
        "one_grey": shares[low + _SAME_GREY + 1 : max(high - _SAME_GREY, 0)].max(initial=0),
        **_blank_rows(read.greys, low, high),
        "smoothness": _smoothness(inputs),
        "sharpness": _sharpness(inputs),
        "polarity": polarity(inputs),
    }
    return {name: float(value) for name, value in stats.items()}


def implausible(stats: Mapping[str, float]) -> str:
    """Return the numbers that no radiograph has, or "" if all are plausible."""
    checks = {
        "contrast": stats["contrast"] < LEAST_CONTRAST,
        "darkest": stats["darkest"] > LARGEST_DARKEST,
        "brightest": stats["brightest"] > LARGEST_BRIGHTEST,
        "one_grey": stats["one_grey"] > LARGEST_ONE_GREY,
        "flat_rows": stats["flat_rows"] > LARGEST_FLAT_ROWS,
        "blank_end": stats["blank_end"] > LARGEST_BLANK_END,
        "smoothness": stats["smoothness"] < LEAST_SMOOTHNESS,
        "polarity": stats["polarity"] < LEAST_POLARITY,
    }
    return ", ".join(f"{name} {stats[name]:.2f}" for name, failed in checks.items() if failed)


def _blank_rows(display: NDArray[np.uint8], low: int, high: int) -> dict[str, float]:
    darkest, brightest = display.min(axis=1), display.max(axis=1)
    between_the_ends = (darkest > low + _SAME_GREY) & (brightest < high - _SAME_GREY)  # black borders are usual
    filled = np.flatnonzero(brightest - darkest > _SAME_GREY)
    last = filled[-1] if filled.size else -1
    return {
        "flat_rows": float(np.mean(between_the_ends & (darkest == brightest))),
        "blank_end": float(1 - (last + 1) / len(display)),
    }


def _smoothness(inputs: NDArray[np.float32]) -> float:
    deviations = inputs - inputs.mean()
    variance = float(np.mean(deviations**2)) or 1.0
    across = np.mean(deviations[:, 1:] * deviations[:, :-1])
    down = np.mean(deviations[1:] * deviations[:-1])
    return float(across + down) / 2 / variance


def _sharpness(inputs: NDArray[np.float32]) -> float:
    across, down = np.diff(inputs, axis=1), np.diff(inputs, axis=0)
    return float(np.sqrt(np.mean(across**2) + np.mean(down**2)))
