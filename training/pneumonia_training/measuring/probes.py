"""Shows where a network looks: the score without the film's centre or border, and the place of its map's maximum."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_model.prediction import Backend
from pneumonia_model.preprocessing import INPUT_SIDE

from pneumonia_training.films.manifests import BOX_FRAME
from pneumonia_training.films.sampling import BOX_GRID
from pneumonia_training.intervals import auc, bootstrap, difference

BORDER: Final = 1 / 8
"""Width of the border as a share of the film's side: marks, collimation and arms, hardly any lung."""

_BATCH: Final = 32

Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class NetworkRows(NamedTuple):
    """Rows of prepared films, and the network that scores them."""

    backend: Backend
    rows: NDArray[np.intp]


def predict(
    images: NDArray[np.uint8], parts: Sequence[NetworkRows], change: Change | None = None
) -> NDArray[np.float64]:
    """Return the logits of each part's films, in the parts' order; `change` first alters the inputs."""
    logits = [
        part.backend.logits(inputs if change is None else change(inputs))
        for part in parts
        for inputs in batches(images, part.rows)
    ]
    return np.concatenate(logits).astype(np.float64)


def activation_maps(images: NDArray[np.uint8], parts: Sequence[NetworkRows]) -> NDArray[np.float32]:
    """Return the class activation maps of each part's films, in the parts' order."""
    return np.concatenate([_maps(part.backend, inputs) for part in parts for inputs in batches(images, part.rows)])


def _maps(backend: Backend, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    return backend.scores(inputs).maps(range(len(inputs)))


def batches(images: NDArray[np.uint8], rows: NDArray[np.intp]) -> Iterator[NDArray[np.float32]]:
    """Yield prepared films as inputs of a network, a few at a time."""
    for start in range(0, len(rows), _BATCH):
        yield images[rows[start : start + _BATCH]].astype(np.float32) / np.float32(255)


def border_only(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return films whose centre is replaced with their border's mean."""
    return _blanked(inputs, _centre())


def centre_only(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return films whose border is replaced with their centre's mean."""
    return _blanked(inputs, ~_centre())


def _blanked(inputs: NDArray[np.float32], region: NDArray[np.bool_]) -> NDArray[np.float32]:
    blanked = inputs.copy()
    blanked[:, region] = inputs[:, ~region].mean(axis=1, keepdims=True)
    return blanked


def _centre() -> NDArray[np.bool_]:
    width = round(BORDER * INPUT_SIDE)
    centre = np.zeros((INPUT_SIDE, INPUT_SIDE), dtype=np.bool_)
    centre[width:-width, width:-width] = True
    return centre


def shortcut_probes(
    images: NDArray[np.uint8], parts: Sequence[NetworkRows], labels: NDArray[np.bool_], patients: NDArray[np.str_]
) -> dict[str, Any]:
    """Return the AUC of the network when it sees only the border, and when it sees everything except the border."""
    probes = {
        "border only": predict(images, parts, border_only),
        "border masked": predict(images, parts, centre_only),
    }
    return {
        "border": BORDER,
        "auc": {name: bootstrap(auc, logits, labels, patients).as_list() for name, logits in probes.items()},
    }


def boxed(films: pd.DataFrame) -> NDArray[np.bool_]:
    """Return a mask of the films that are positive and have boxes."""
    return np.asarray((films["label"] == 1) & (films["boxes"] != ""), dtype=np.bool_)


def pointing_game(films: pd.DataFrame, maps: NDArray[np.float32]) -> dict[str, Any]:
    """Return how often a map is highest inside a box of its film (Zhang et al. 2016, without their tolerance).

    `films` are films with boxes, at least one. The baseline is the fixed point that lies in the most films' boxes,
    chosen on these same films, which favours the baseline.
    """
    boxes = [json.loads(text) for text in films["boxes"]]
    hits = np.array([_inside(of, *np.array(peak(of_film))) for of, of_film in zip(boxes, maps, strict=True)])
    point, fixed = best_point(boxes)
    patients, labels = films["group"].to_numpy(dtype=np.str_), np.ones(len(boxes), dtype=np.bool_)

    def rate(hit: NDArray[np.float64], _: NDArray[np.bool_]) -> float:
        return float(hit.mean())

    pair = np.stack([hits, fixed], axis=1).astype(np.float64)
    return {
        "films": len(boxes),
        "hits": bootstrap(rate, pair[:, 0], labels, patients).as_list(),
        "baseline": {"point": point, "hits": bootstrap(rate, pair[:, 1], labels, patients).as_list()},
        "difference": bootstrap(difference(rate), pair, labels, patients).as_list(),
    }


def peak(of_film: NDArray[np.float32]) -> tuple[float, float]:
    """Return the centre of the highest cell of a map as x and y, in shares of the film's width and height."""
    row, column = np.unravel_index(int(of_film.argmax()), of_film.shape)
    return (float(column) + 0.5) / of_film.shape[1], (float(row) + 0.5) / of_film.shape[0]


def best_point(boxes: Sequence[Sequence[Sequence[float]]]) -> tuple[list[float], NDArray[np.bool_]]:
    """Return the point of a 56 x 56 grid that lies in the most films' boxes, and for each film whether it does."""
    steps = (np.arange(BOX_GRID) + 0.5) / BOX_GRID
    x, y = np.meshgrid(steps, steps)
    inside = np.stack([_inside(of, x, y) for of in boxes])
    row, column = np.unravel_index(int(inside.sum(axis=0).argmax()), x.shape)
    return [round(float(steps[column]), 4), round(float(steps[row]), 4)], inside[:, row, column]


def _inside(boxes: Sequence[Sequence[float]], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether points, in shares, lie in any box, given as [x, y, width, height] in 1/1024."""
    across, down = x * BOX_FRAME, y * BOX_FRAME
    inside = [
        (left <= across) & (across <= left + width) & (top <= down) & (down <= top + height)
        for left, top, width, height in boxes
    ]
    return np.asarray(np.any(inside, axis=0), dtype=np.bool_)
