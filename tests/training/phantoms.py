"""Generated chests, some with an opacity planted in a lung: what a network that learns at all must learn."""

from __future__ import annotations

from functools import cache
from typing import Final

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_model.preprocessing import INPUT_SIDE
from pneumonia_training.films.prepare import PreparedFilms

LUNGS: Final = (0.32, 0.68)


@cache  # tests draw the same ones again and again
def phantom(seed: int, *, opacity: bool) -> tuple[NDArray[np.uint8], list[float]]:
    """Return a chest of 224 x 224, 8 bits, and the opacity's box in 1/1024 as [x, y, width, height], or none."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:INPUT_SIDE, 0:INPUT_SIDE] / INPUT_SIDE
    tilt, wide = random.uniform(-0.04, 0.04), random.uniform(0.9, 1.1)

    def ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> NDArray[np.float64]:
        distance = np.hypot((x - centre[0] - tilt * (y - 0.5)) / (radii[0] * wide), (y - centre[1]) / radii[1])
        return np.asarray(np.clip((1.15 - distance) / 0.3, 0, 1), dtype=np.float64)

    picture = 0.7 * ellipse((0.5, 0.65), (0.47, 0.62))
    for lung in LUNGS:
        picture -= random.uniform(0.4, 0.5) * ellipse((lung, 0.46), (0.15, 0.3))
    picture += 0.25 * ellipse((0.57, 0.63), (0.15, 0.16))
    box: list[float] = []
    if opacity:
        centre = (float(random.choice(LUNGS)) + random.uniform(-0.04, 0.04), random.uniform(0.35, 0.65))
        radii = (random.uniform(0.06, 0.1), random.uniform(0.07, 0.12))
        picture += random.uniform(0.25, 0.4) * ellipse(centre, radii)
        box = [1024 * (centre[0] - radii[0]), 1024 * (centre[1] - radii[1]), 2048 * radii[0], 2048 * radii[1]]
    picture = picture * random.uniform(0.85, 1.15) + random.uniform(-0.05, 0.05)
    picture += cv2.GaussianBlur(random.normal(0, 0.15, picture.shape), (0, 0), 1.5)
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8), box


def phantoms(count: int, *, seed: int = 0) -> PreparedFilms:
    """Return prepared phantoms of as many patients, every other one with an opacity."""
    drawn = [phantom(seed + number, opacity=number % 2 == 1) for number in range(count)]
    labels = [int(bool(box)) for _, box in drawn]
    films = pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(count)],
            "label": labels,
            "group": [f"patient-{number}" for number in range(count)],
            "fold": [number // 2 % 10 for number in range(count)],
            "subset": "phantoms",
            "negative_class": ["Lung Opacity" if label else "Normal" for label in labels],
            "view": "PA",
            "age": "",
            "sex": "",
            "image_id": "",
            "boxes": [str([box]) if box else "" for _, box in drawn],
            "findings": "",
        }
    )
    return PreparedFilms(
        images=np.stack([picture for picture, _ in drawn]), films=films, digest=f"phantoms {count} {seed}"
    )
