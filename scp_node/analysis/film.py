"""A film for a viewer: its values in 16 bits, and how they are shown.

It is read by the same rules as for the network, so that a person sees what the model saw: `Film.greys` makes of the
values, at full size, exactly the picture that the network's input is made of.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pneumonia_model.attributes import MalformedAttribute, decimals
from pneumonia_model.decoding import UnreadablePixels, decode, pixel_layout
from pneumonia_model.preprocessing import GreyScale, grey_scale
from pydicom.dataset import Dataset

from scp_node.analysis.answers import FILM_SIDE, LEVELS, Film, FilmView
from scp_node.analysis.refusals import refusal
from scp_node.domain import NotAnalysed

_PERCENTILES: Final = (0.01, 0.99)
_BLACK: Final = 2  # greys at either end that count as black and white
_FARTHEST: Final = 1e9  # levels; a window may lie anywhere
_SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing")  # PS3.3 10.7.1.1: the first is corrected or calibrated
_SMALLEST_PIXEL: Final = 0.005  # mm
_LARGEST_PIXEL: Final = 5.0


def film(image: Dataset, *, full: bool) -> Film | NotAnalysed:
    """Return the film, its long side at most FILM_SIDE by area averaging unless `full`, or why it cannot be read.

    Raises:
        MemoryError: the process may not use the memory that this image needs.
    """
    try:
        layout = pixel_layout(image)
        stored = decode(image, layout)
        scale = grey_scale(image, layout, stored)
    except UnreadablePixels as unreadable:
        return refusal(unreadable)
    levels = _Levels(scale)
    values = np.take(levels.of_words, stored.words)
    longest = max(values.shape)
    if not full and longest > FILM_SIDE:
        rows, columns = (max(1, round(side * FILM_SIDE / longest)) for side in values.shape)
        values = cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.uint16, copy=False)
    greys = levels.greys()
    black, white = levels.window(greys)
    spacing, spacing_from = _spacing(image)
    view = FilmView(
        centre=(black + white) / 2,
        width=max(white - black, 1.0),
        has_own_view=scale.has_own_view,
        base=levels.base,
        step=levels.step,
        rows=layout.rows,
        columns=layout.columns,
        spacing=spacing,
        spacing_from=spacing_from,
    )
    return Film(values=values, greys=greys, view=view)


class _Levels:
    """The 65,536 levels of a film: equal steps of its values behind the modality transformation.

    These are whole steps of a slope or entries of a table of 16 bits, so no two share a level, except where padding
    takes the lowest of 65,536.
    """

    def __init__(self, scale: GreyScale) -> None:
        self._scale = scale
        occurring = scale.counts > 0
        self._film = occurring & ~scale.padding if (occurring & ~scale.padding).any() else occurring
        values = scale.values if _has_steps(scale.values, self._film) else scale.greys.astype(np.float64)
        self._values = values
        present = values[self._film]
        lowest, highest = float(present.min()), float(present.max())
        brightness = scale.greys[self._film]
        turned = brightness[present.argmax()] < brightness[present.argmin()]
        step = _step(values)
        first = int((occurring & scale.padding).any())  # level 0 is for padding
        self.step = -step if turned else step
        self.base = (highest if turned else lowest) - first * self.step
        levels = np.rint((values - self.base) / self.step)
        levels = np.clip(levels, first, LEVELS - 1)
        levels[scale.padding] = 0
        self.of_words = levels.astype(np.uint16)

    def greys(self) -> NDArray[np.uint8]:
        """Return the grey of each level up to the highest; one between two levels of the film lies between theirs."""
        occurring = self._scale.counts > 0
        levels, first = np.unique(self.of_words[occurring], return_index=True)
        greys = self._scale.greys[occurring][first]
        every = np.arange(int(levels[-1]) + 1)
        return np.rint(np.interp(every, levels, greys)).astype(np.uint8)

    def window(self, greys: NDArray[np.uint8]) -> tuple[float, float]:
        """Return the levels, black and white, between which the film's window lies, or else most of its values."""
        if self._scale.window is not None and self._values is self._scale.values:
            ends = sorted((end - self.base) / self.step for end in self._scale.window)
            black, white = (min(max(end, -_FARTHEST), _FARTHEST) for end in ends)
            return black, white
        if self._scale.has_own_view:
            grey = np.flatnonzero((greys > _BLACK) & (greys < 255 - _BLACK))
            return (float(grey[0]), float(grey[-1])) if grey.size else (0.0, float(len(greys) - 1))
        order = np.argsort(self.of_words[self._film], kind="stable")
        shares = np.cumsum(self._scale.counts[self._film][order], dtype=np.float64)
        ends = np.searchsorted(shares, np.asarray(_PERCENTILES) * shares[-1])
        black, white = (float(self.of_words[self._film][order][end]) for end in ends)
        return black, white


def _has_steps(values: NDArray[np.float64], film: NDArray[np.bool_]) -> bool:
    """Return whether the film's values can be counted in steps: a hostile slope may make them infinite, or all one."""
    present = values[film]
    return bool(np.isfinite(values).all()) and bool(np.ptp(present) > 0 or present.size == 1)


def _step(values: NDArray[np.float64]) -> float:
    """Return the distance between neighbouring values that words of this film can have."""
    known = np.unique(values)
    span = float(known[-1] - known[0])
    if span < LEVELS and bool((known == np.rint(known)).all()):
        return 1.0
    return span / (len(known) - 1) if len(known) > 1 else 1.0


def _spacing(image: Dataset) -> tuple[tuple[float, float] | None, str]:
    """Return the distances of rows and columns in millimetres, and the attribute that they are from."""
    for keyword in _SPACINGS:
        try:
            found = decimals(image, keyword)
        except MalformedAttribute:
            continue
        if len(found) == 2 and found[0] is not None and found[1] is not None and all(map(_is_spacing, found)):
            return (found[0], found[1]), keyword
    return None, ""


def _is_spacing(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and _SMALLEST_PIXEL <= value <= _LARGEST_PIXEL
