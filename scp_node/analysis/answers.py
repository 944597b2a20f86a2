"""What the analysis of one image starts from and gives back: values only, without the libraries that read images.

So a process that only asks, such as the one of the web page, stays small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.sizes import INPUT_SIDE, MAX_SAMPLES

from scp_node.domain import Note

INPUT_SHAPE: Final = (INPUT_SIDE, INPUT_SIDE)
PICTURE_SIDE: Final = 1024  # pixels of an overlay on the screen of a viewer
FILM_SIDE: Final = 2048  # pixels of a film on a whole screen
LARGEST_FILM: Final = MAX_SAMPLES  # pixels, one sample each
LEVELS: Final = 65_536  # values of 16 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """The manufacturer and model that an object names; here, those of this node."""

    manufacturer: str
    model_name: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """An image ready for the network."""

    inputs: NDArray[np.float32]  # shape (224, 224), values in [0, 1], air dark
    notes: tuple[Note, ...] = ()
    input_stats: Mapping[str, float] = field(default_factory=dict)  # see `pixels.describe`


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """An image for people to look at."""

    display: NDArray[np.uint8]  # shape (rows, columns), the longer side at most PICTURE_SIDE, air dark


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmView:
    """How a film is shown, and what its values mean.

    Attributes:
        centre, width: window in the film's values: black at centre - width / 2, white at centre + width / 2.
        has_own_view: whether the window is the film's; else it lies between the 1st and the 99th percentile.
        base, step: `base + step * value` is the value behind the modality transformation; `step` is negative in a film
            that was turned so that high values are bright.
        rows, columns: of the stored image.
        spacing: millimetres between the rows and between the columns of the stored image; None where it is unknown.
        spacing_from: "PixelSpacing", "ImagerPixelSpacing" (at the detector, so larger than in the patient), or "".
    """

    centre: float
    width: float
    has_own_view: bool
    base: float
    step: float
    rows: int
    columns: int
    spacing: tuple[float, float] | None = None
    spacing_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Film:
    """An image for a viewer with a window.

    Attributes:
        values: shape (rows, columns), behind the modality transformation, high is bright; 0 where there is no film.
        greys: for each value from 0 to the largest, the grey that the analysis starts from.
        view: how it is first shown.
    """

    values: NDArray[np.uint16]
    greys: NDArray[np.uint8]
    view: FilmView
