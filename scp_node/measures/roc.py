"""The ROC curve and its area: of a weighted sample, with DeLong's variance, and of two models on one sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from scp_node.measures.intervals import UNKNOWN, Bools, Estimate, Floats, Z


@dataclass(frozen=True, slots=True, kw_only=True)
class RocPoint:
    """A point of the ROC curve: what is called positive from this score on."""

    threshold: float  # infinity for the first point, where nothing is
    false_positive_rate: float  # 0..1
    true_positive_rate: float  # 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedAuc:
    """The areas of two models on the same observations, and whether they differ."""

    first: Estimate
    second: Estimate
    difference: Estimate  # first minus second
    p: float | None  # two-sided; None where neither varies


def roc_curve(scores: Floats, truth: Bools, weights: Floats | None = None) -> tuple[RocPoint, ...]:
    """Return the points from (0, 0) to (1, 1), one for each different score; none where a class is missing.

    Args:
        scores: shape (n,), higher for more suspicious.
        truth: whether the finding is there, shape (n,).
        weights: shape (n,); None for equal ones.
    """
    values, positives, negatives = _tied(scores, truth, weights)
    if not (positives.sum() > 0 and negatives.sum() > 0):
        return ()
    true = np.cumsum(positives[::-1]) / positives.sum()
    false = np.cumsum(negatives[::-1]) / negatives.sum()
    points = [RocPoint(threshold=math.inf, false_positive_rate=0.0, true_positive_rate=0.0)]
    points += [
        RocPoint(threshold=float(value), false_positive_rate=float(x), true_positive_rate=float(y))
        for value, x, y in zip(values[::-1], false, true, strict=True)
    ]
    return tuple(points)


def auc(scores: Floats, truth: Bools, weights: Floats | None = None) -> float | None:
    """Return how often a positive scores above a negative, a tie counting half; None where a class is missing.

    With weights a pair counts by the product of its two weights.
    """
    return auc_of(scores, truth)(np.ones(len(scores)) if weights is None else weights)


def auc_of(scores: Floats, truth: Bools) -> Callable[[Floats], float | None]:
    """Return a function that takes weights, shape (n,), and returns the area; many times, as a bootstrap does."""
    place, number = _places(scores)

    def area(weights: Floats) -> float | None:
        positives, negatives = _sums(place, number, truth, weights)
        pairs = float(positives.sum() * negatives.sum())
        if pairs <= 0:
            return None
        below = np.cumsum(negatives) - negatives / 2
        return float((positives * below).sum()) / pairs

    return area


def delong(scores: Floats, truth: Bools) -> Estimate:
    """Return the area with its interval from DeLong's variance (DeLong, DeLong and Clarke-Pearson, Biometrics 1988).

    The interval is cut to 0..1. It needs two positives and two negatives; with fewer the area has no interval. Where
    all positives score above all negatives the variance is 0, and there is no interval either: the sample cannot tell.
    """
    value = auc(scores, truth)
    if value is None:
        return UNKNOWN
    variance = _covariance(scores[:, None], truth)
    return _with_interval(value, None if variance is None else float(variance[0, 0]), size=len(scores), low=0.0)


def compare_auc(first: Floats, second: Floats, truth: Bools) -> PairedAuc:
    """Return the areas of two models on the same observations, with DeLong's paired test (as `delong`, 1988)."""
    both = np.stack([first, second], axis=1)
    areas = (auc(first, truth), auc(second, truth))
    covariance = _covariance(both, truth)
    if areas[0] is None or areas[1] is None or covariance is None:
        return PairedAuc(first=delong(first, truth), second=delong(second, truth), difference=UNKNOWN, p=None)
    gain = areas[0] - areas[1]
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    p = None
    if variance > np.finfo(float).eps:
        p = 2 * NormalDist().cdf(-abs(gain) / math.sqrt(variance))
    return PairedAuc(
        first=delong(first, truth),
        second=delong(second, truth),
        difference=_with_interval(gain, variance, size=len(truth), low=-1.0),
        p=p,
    )


def _tied(scores: Floats, truth: Bools, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
    """Return the different scores in rising order, and the weight of positives and of negatives at each."""
    place, number = _places(scores)
    positives, negatives = _sums(place, number, truth, np.ones(len(scores)) if weights is None else weights)
    return np.unique(scores), positives, negatives


def _places(scores: Floats) -> tuple[NDArray[np.int64], int]:
    """Return the place of each score among the different ones in rising order, and how many different ones there are.

    Raises:
        ValueError: a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores are finite")
    values, place = np.unique(scores, return_inverse=True)
    return np.asarray(place, dtype=np.int64), len(values)


def _sums(place: NDArray[np.int64], number: int, truth: Bools, weights: Floats) -> tuple[Floats, Floats]:
    """Return the weight of positives and of negatives at each place."""
    positives = np.bincount(place, weights=weights * truth, minlength=number)
    negatives = np.bincount(place, weights=weights * ~truth, minlength=number)
    return np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)


def _covariance(scores: Floats, truth: Bools) -> Floats | None:
    """Return the covariance, shape (k, k), of the areas of k models; None with fewer than two of a class.

    Scores have shape (n, k). The structural components come from ranks instead of from all pairs (Sun and Xu, IEEE
    Signal Processing Letters 2014).
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < 2:
        return None
    columns = scores.T
    of_positives = np.stack([(_ranks(c)[truth] - _ranks(c[truth])) / negatives for c in columns])
    of_negatives = np.stack([1 - (_ranks(c)[~truth] - _ranks(c[~truth])) / positives for c in columns])
    return np.atleast_2d(np.cov(of_positives)) / positives + np.atleast_2d(np.cov(of_negatives)) / negatives


def _ranks(values: Floats) -> Floats:
    """Return the ranks from 1, the middle one for ties."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return middle[place]


def _with_interval(value: float, variance: float | None, *, size: int, low: float) -> Estimate:
    if variance is None or variance <= np.finfo(float).eps:
        return Estimate(value=value, low=None, high=None, size=size)
    half = Z * math.sqrt(variance)
    return Estimate(value=value, low=max(low, value - half), high=min(1.0, value + half), size=size)
