"""Computed pictures that check a bundle's runtimes at every start; they contain no patient's pixels."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.preprocessing import INPUT_SIDE

GOLDEN_COUNT: Final = 6


def golden_pictures() -> NDArray[np.uint8]:
    """Return the pictures, shape (6, 224, 224): chests with more and more opacity, and one of noise.

    The bundle stores them, since another machine's arithmetic may give other bytes.
    """
    chests = [_chest(opacity=0.09 * number, side=0.32 if number % 2 else 0.68) for number in range(GOLDEN_COUNT - 1)]
    noise = np.random.default_rng(20250301).integers(0, 256, size=(INPUT_SIDE, INPUT_SIDE), dtype=np.uint8)
    return np.stack([*chests, noise])


def golden_inputs() -> NDArray[np.float32]:
    """Return the pictures as inputs of the network."""
    return golden_pictures().astype(np.float32) / np.float32(255)


def _chest(*, opacity: float, side: float) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:INPUT_SIDE, 0:INPUT_SIDE] / INPUT_SIDE
    picture = 0.75 * _disc(x, y, (0.5, 0.65), (0.47, 0.62))
    for lung in (0.32, 0.68):
        picture -= 0.5 * _disc(x, y, (lung, 0.46), (0.15, 0.3))
    picture += 0.28 * _disc(x, y, (0.57, 0.63), (0.15, 0.16))
    picture += 0.04 * np.sin(40 * (y + 0.4 * (x - 0.5) ** 2)) * (picture > 0.1)
    picture += opacity * _disc(x, y, (side, 0.6), (0.12, 0.13))
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _disc(
    x: NDArray[np.float64], y: NDArray[np.float64], centre: tuple[float, float], radii: tuple[float, float]
) -> NDArray[np.float64]:
    """Return 1 inside an ellipse, 0 outside, with a soft edge."""
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    return np.asarray(np.clip((1.15 - distance) / 0.3, 0, 1), dtype=np.float64)
