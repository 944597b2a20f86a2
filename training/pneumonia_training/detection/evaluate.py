"""Measures a detector: the challenge's figure on test films, next to that of boxes that do not depend on the film."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_model.regions import NO_REGIONS, Detector, Regions

from pneumonia_training.detection.films import truths
from pneumonia_training.detection.fit import TrainedDetector
from pneumonia_training.detection.metric import Corners, film_scores, mean_average_precision, mean_score
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.intervals import auc, bootstrap

THRESHOLDS: Final = np.round(np.arange(0.02, 0.96, 0.01), 2)

Drawing = Callable[[Regions], Regions]
"""From what the detector says of a film, which boxes are drawn there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A detector's figures.

    Attributes:
        threshold: score from which a box counts, chosen on the validation films.
        document: all figures, ready for JSON.
    """

    threshold: float
    document: dict[str, Any]


def measure(prepared: PreparedFilms, trained: TrainedDetector) -> Measured:
    """Return the figures of a detector on the test films of its split."""
    detector, split = trained.detector(), trained.split
    films, chosen_on = prepared.films.iloc[split.test], prepared.films.iloc[split.validation]
    threshold, best = choose_threshold(_detect(detector, prepared, split.validation), truths(chosen_on))
    found, truth = _detect(detector, prepared, split.test), truths(films)
    groups, labels = films["group"].to_numpy(dtype=np.str_), (films["label"] == 1).to_numpy()
    one, two = mean_boxes(truths(prepared.films.iloc[split.train]))
    drawings: dict[str, Drawing] = {
        "detector": lambda regions: regions.above(threshold),
        "no box": lambda _: NO_REGIONS,
        "one mean box on every film": lambda _: one,
        "two mean boxes on every film": lambda _: two,
        "one mean box where the detector draws any": lambda regions: _where_any(regions, threshold, one),
        "two mean boxes where the detector draws any": lambda regions: _where_any(regions, threshold, two),
    }
    scores = {name: film_scores([draw(regions) for regions in found], truth) for name, draw in drawings.items()}
    surest = np.array([regions.scores.max(initial=0.0) for regions in found])
    document = {
        "checkpoint": trained.sha256,
        "data": prepared.digest,
        "side": trained.recipe.detector.side,
        "threshold": {"value": threshold, "chosen_on": _films(chosen_on), "map_there": round(best, 4)},
        "test": _films(films),
        "map": {name: mean_average_precision(values, groups).as_list() for name, values in scores.items()},
        "map_of_positive_films": {
            name: mean_average_precision(values[labels], groups[labels]).as_list() for name, values in scores.items()
        },
        "auc_of_the_surest_box": bootstrap(auc, surest, labels, groups).as_list(),
        "films_with_a_box": {
            "positive": int((surest >= threshold)[labels].sum()),
            "negative": int((surest >= threshold)[~labels].sum()),
        },
    }
    return Measured(threshold=threshold, document=document)


def choose_threshold(found: list[Regions], truth: list[Corners]) -> tuple[float, float]:
    """Return the threshold with the best mean over these films, the highest if several are best, and that mean."""
    means = [mean_score(film_scores([regions.above(t) for regions in found], truth)) for t in THRESHOLDS]
    best = int(len(means) - 1 - np.argmax(np.nan_to_num(means[::-1], nan=0.0)))
    return float(THRESHOLDS[best]), float(means[best])


def mean_boxes(truth: list[Corners]) -> tuple[Regions, Regions]:
    """Return the mean box of the side of the film that has more boxes, and the mean boxes of both sides."""
    boxes = np.concatenate(truth)
    left = boxes[:, 0] + boxes[:, 2] < 1
    sides = sorted((boxes[side] for side in (left, ~left) if side.any()), key=len, reverse=True)
    means = np.array([side.mean(axis=0) for side in sides])
    return _fixed(means[:1]), _fixed(means)


def _fixed(boxes: NDArray[np.float64]) -> Regions:
    return Regions(boxes=boxes, scores=np.ones(len(boxes)))


def _where_any(regions: Regions, threshold: float, fixed: Regions) -> Regions:
    return fixed if len(regions.above(threshold).scores) else NO_REGIONS


def _detect(detector: Detector, prepared: PreparedFilms, rows: NDArray[np.intp]) -> list[Regions]:
    found = []
    for row in rows:
        film = prepared.images[row].astype(np.float32) / np.float32(255)
        found += detector.detect(film[None])
    return found


def _films(films: pd.DataFrame) -> dict[str, int]:
    return {
        "films": len(films),
        "positive": int(films["label"].sum()),
        "patients": int(films["group"].nunique()),
        "boxes": sum(len(boxes) for boxes in truths(films)),
    }
