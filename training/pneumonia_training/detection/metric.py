"""The figure of the RSNA Pneumonia Detection Challenge 2018 (Shih et al. 2019): mean precision over eight overlaps."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.regions import Regions

from pneumonia_training.intervals import Estimate, bootstrap

Corners = NDArray[np.float64]
"""Boxes, shape (n, 4): left, top, right, bottom, in any unit that all boxes of a film share."""

OVERLAPS: Final = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75)


def intersection_over_union(boxes: Corners, others: Corners) -> NDArray[np.float64]:
    """Return the intersection of each pair divided by its union, shape (n, m); 0 for boxes without area."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    joint = _areas(boxes)[:, None] + _areas(others)[None] - common
    return np.asarray(np.divide(common, joint, out=np.zeros_like(common), where=joint > 0), dtype=np.float64)


def _areas(boxes: Corners) -> NDArray[np.float64]:
    return np.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), dtype=np.float64)


def film_score(predicted: Regions, truth: Corners) -> float:
    """Return one film's precision TP / (TP + FP + FN), averaged over the overlaps.

    A film without an opacity scores 0 if it has any box; without a box its score is NaN, which leaves it out of every
    mean.
    """
    if not len(truth):
        return 0.0 if len(predicted.boxes) else float("nan")
    order = np.argsort(-predicted.scores, kind="stable")
    overlaps = intersection_over_union(predicted.boxes[order], truth)
    precisions = []
    for least in OVERLAPS:
        hits = _hits(overlaps, least)
        precisions.append(hits / (len(predicted.boxes) + len(truth) - hits))
    return float(np.mean(precisions))


def _hits(overlaps: NDArray[np.float64], least: float) -> int:
    """Return how many predictions, highest score first, match a true box with an overlap above `least`.

    Each prediction takes the free box that it overlaps most.
    """
    free = np.ones(overlaps.shape[1], dtype=np.bool_)
    for row in overlaps:
        candidates = np.where(free, row, -1.0)
        best = int(np.argmax(candidates))
        if candidates[best] > least:
            free[best] = False
    return int((~free).sum())


def film_scores(predicted: Sequence[Regions], truths: Sequence[Corners]) -> NDArray[np.float64]:
    """Return each film's score, shape (n,), NaN for a film that is left out."""
    return np.array([film_score(*pair) for pair in zip(predicted, truths, strict=True)], dtype=np.float64)


def mean_score(scores: NDArray[np.float64]) -> float:
    """Return the mean over the films that are not left out; NaN if all are."""
    counted = scores[~np.isnan(scores)]
    return float(counted.mean()) if len(counted) else float("nan")


def mean_average_precision(scores: NDArray[np.float64], groups: NDArray[np.str_]) -> Estimate:
    """Return the challenge's figure of films with these scores, with its interval over resampled patients."""
    return bootstrap(lambda drawn, _: mean_score(drawn), scores, np.isfinite(scores), groups)
