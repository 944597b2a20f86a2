"""Figures of merit with intervals, over plain arrays of scores and labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]
Figure = Callable[[Scores, Labels], float]

REPLICATES: Final = 1000
ECE_BINS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval; `None` if it cannot be computed from the films."""

    value: float | None
    low: float | None
    high: float | None

    def as_list(self) -> list[float | None]:
        """Return value, low and high, rounded for publication."""
        return [None if part is None else round(part, 4) for part in (self.value, self.low, self.high)]


UNKNOWN: Final = Estimate(value=None, low=None, high=None)


def bootstrap(figure: Figure, scores: Scores, labels: Labels, groups: NDArray[np.str_], *, seed: int = 0) -> Estimate:
    """Return the figure with a percentile interval over resampled patients, whose films are not independent.

    `scores` may have shape (n, k) for a figure that compares k scores of each film. All k are resampled together, so
    the interval of a difference is a paired one.
    """
    (estimate,) = bootstrap_each(lambda *drawn: np.array([figure(*drawn)]), scores, labels, groups, seed=seed)
    return estimate


def bootstrap_each(
    figures: Callable[[Scores, Labels], NDArray[np.float64]],
    scores: Scores,
    labels: Labels,
    groups: NDArray[np.str_],
    *,
    seed: int = 0,
) -> list[Estimate]:
    """Return several figures, computed together on the same resampled patients (Efron 1979, percentile intervals)."""
    values = figures(scores, labels)
    if not len(labels):
        return [UNKNOWN] * len(values)
    _, members, films = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(members, kind="stable")
    starts = np.cumsum(films) - films
    random = np.random.default_rng(seed)
    replicates = np.empty((REPLICATES, len(values)))
    for replicate in replicates:
        drawn = random.integers(0, len(films), size=len(films))
        sizes = films[drawn]
        place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = order[np.repeat(starts[drawn], sizes) + place]
        replicate[:] = figures(scores[rows], labels[rows])
    return [_estimate(value, column) for value, column in zip(values, replicates.T, strict=True)]


def _estimate(value: float, replicates: NDArray[np.float64]) -> Estimate:
    """Return a figure with its interval; None if it or half of its replicates cannot be computed."""
    finite = replicates[np.isfinite(replicates)]
    if not np.isfinite(value) or len(finite) < REPLICATES // 2:
        return UNKNOWN
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(value=float(value), low=float(low), high=float(high))


def difference(figure: Figure) -> Figure:
    """Return the figure of the first column of scores minus that of the second."""
    return lambda pair, labels: figure(pair[:, 0], labels) - figure(pair[:, 1], labels)


def of_both_classes(figure: Figure) -> Figure:
    """Return the figure, or NaN where all films are positive or all negative: it would say nothing there."""
    return lambda scores, labels: figure(scores, labels) if labels.any() and not labels.all() else float("nan")


def auc(scores: Scores, labels: Labels) -> float:
    """Return the area under the ROC curve: how often a positive scores above a negative, a tie counting half."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((middle_rank[inverse][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: Scores, labels: Labels) -> float:
    """Return the precision averaged over the steps of recall, without interpolation; tied films enter together."""
    if not labels.any() or labels.all():
        return float("nan")
    recall, precision = precision_recall_curve(scores, labels)
    return float(np.sum(np.diff(recall) * precision[1:]))


def roc_curve(scores: Scores, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false and true positive rates from (0, 0) to (1, 1), one point for each different score."""
    true, false = _counts_from_the_top(scores, labels)
    return np.append(0, false / false[-1]), np.append(0, true / true[-1])


def precision_recall_curve(scores: Scores, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return recall and precision from recall 0, where precision is set to 1; one point for each different score."""
    true, false = _counts_from_the_top(scores, labels)
    return np.append(0, true / true[-1]), np.append(1, true / (true + false))


def _counts_from_the_top(scores: Scores, labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of positives and negatives with at least each different score, highest score first."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(labels[order])[last]
    return true, last + 1 - true


def confusion(probabilities: Scores, labels: Labels, threshold: float) -> list[list[int]]:
    """Return [[true negatives, false positives], [false negatives, true positives]]: rows true, columns predicted."""
    positive = probabilities >= threshold
    return [
        [int((~labels & ~positive).sum()), int((~labels & positive).sum())],
        [int((labels & ~positive).sum()), int((labels & positive).sum())],
    ]


def rates(threshold: float) -> dict[str, Figure]:
    """Return the four rates at a threshold."""

    def rate(numerator: Callable[[Labels, Labels], Labels], denominator: Callable[[Labels, Labels], Labels]) -> Figure:
        def figure(probabilities: Scores, labels: Labels) -> float:
            positive = probabilities >= threshold
            within = int(denominator(positive, labels).sum())
            return float(numerator(positive, labels).sum()) / within if within else float("nan")

        return figure

    return {
        "accuracy": rate(lambda positive, label: positive == label, lambda _, label: np.ones_like(label)),
        "precision": rate(lambda positive, label: positive & label, lambda positive, _: positive),
        "recall": rate(lambda positive, label: positive & label, lambda _, label: label),
        "specificity": rate(lambda positive, label: ~positive & ~label, lambda _, label: ~label),
    }


def predictive_values(threshold: float, prevalence: float) -> dict[str, Figure]:
    """Return PPV and NPV at a threshold when this share of the films is positive, by Bayes' theorem."""
    of = rates(threshold)

    def ppv(probabilities: Scores, labels: Labels) -> float:
        found = of["recall"](probabilities, labels) * prevalence
        return _share(found, (1 - of["specificity"](probabilities, labels)) * (1 - prevalence))

    def npv(probabilities: Scores, labels: Labels) -> float:
        cleared = of["specificity"](probabilities, labels) * (1 - prevalence)
        return _share(cleared, (1 - of["recall"](probabilities, labels)) * prevalence)

    return {"ppv": ppv, "npv": npv}


def _share(part: float, rest: float) -> float:
    return part / (part + rest) if part + rest else float("nan")


def brier(probabilities: Scores, labels: Labels) -> float:
    """Return the mean squared error of probabilities (Brier 1950)."""
    return float(np.mean((probabilities - labels) ** 2))


def calibration_error(probabilities: Scores, labels: Labels) -> float:
    """Return the expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
    films, predicted, positive = reliability(probabilities, labels)
    filled = films > 0
    return float(np.sum(films[filled] * np.abs(predicted[filled] - positive[filled])) / films.sum())


def reliability(
    probabilities: Scores, labels: Labels
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of films, their mean probability and their share of positives, for ten bins of equal width.

    The last two are NaN for an empty bin.
    """
    bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
    films = np.bincount(bins, minlength=ECE_BINS)
    filled = np.where(films, films, np.nan)
    predicted = np.bincount(bins, weights=probabilities, minlength=ECE_BINS) / filled
    return films, predicted, np.bincount(bins, weights=labels, minlength=ECE_BINS) / filled


def logistic(logits: Scores) -> Scores:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -50, 50))), dtype=np.float64)


def platt(logits: Scores, labels: Labels, *, steps: int = 50) -> tuple[float, float]:
    """Return slope and intercept that calibrate logits (Platt 1999, with his softened targets), by Newton's method.

    Raises:
        ValueError: higher logits do not mean more positives, so calibration is impossible.
    """
    positives, negatives = labels.sum(), (~labels).sum()
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, spread = float(logits.mean()), float(logits.std()) or 1.0
    design = np.stack([(logits - centre) / spread, np.ones_like(logits)], axis=1)
    parameters = np.array([0.0, float(np.log(positives / negatives))])
    for _ in range(steps):
        expected = logistic(design @ parameters)
        curvature = design.T @ (design * (expected * (1 - expected))[:, None]) + 1e-9 * np.eye(2)
        parameters = parameters - np.linalg.solve(curvature, design.T @ (expected - targets))
    slope = float(parameters[0]) / spread
    intercept = float(parameters[1]) - slope * centre
    if not (slope > 0 and np.isfinite(intercept)):
        raise ValueError("logits do not rise with the label")
    return slope, intercept


def threshold_for_recall(probabilities: Scores, labels: Labels, recall: float) -> float:
    """Return the highest threshold, rounded down to three digits, that finds this share of the positives."""
    scores = np.sort(probabilities[labels])[::-1]
    needed = int(np.ceil(recall * len(scores)))
    return float(np.floor(scores[needed - 1] * 1000) / 1000)
