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
    """A figure and its 95 % interval; `None` where the films do not allow it."""

    value: float | None
    low: float | None
    high: float | None

    def as_list(self) -> list[float | None]:
        """Return value, low and high, rounded as they are published."""
        return [None if part is None else round(part, 4) for part in (self.value, self.low, self.high)]


def bootstrap(figure: Figure, scores: Scores, labels: Labels, groups: NDArray[np.str_], *, seed: int = 0) -> Estimate:
    """Return the figure with a percentile interval over resampled patients: their films are not independent."""
    value = figure(scores, labels)
    _, members = np.unique(groups, return_inverse=True)
    order = np.argsort(members, kind="stable")
    starts = np.searchsorted(members[order], np.arange(members.max() + 2))
    random = np.random.default_rng(seed)
    replicates = []
    for _ in range(REPLICATES):
        drawn = random.integers(0, len(starts) - 1, size=len(starts) - 1)
        rows = np.concatenate([order[starts[group] : starts[group + 1]] for group in drawn])
        replicates.append(figure(scores[rows], labels[rows]))
    finite = np.asarray(replicates)[np.isfinite(replicates)]
    if not np.isfinite(value) or len(finite) < REPLICATES // 2:
        return Estimate(value=None, low=None, high=None)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(value=float(value), low=float(low), high=float(high))


def auc(scores: Scores, labels: Labels) -> float:
    """Return the area under the ROC curve: how often a positive scores above a negative, a tie counting half."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((middle_rank[inverse][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


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


def calibration_error(probabilities: Scores, labels: Labels) -> float:
    """Return the expected calibration error over ten bins of equal width."""
    bins = np.minimum((probabilities * ECE_BINS).astype(int), ECE_BINS - 1)
    errors = [
        abs(probabilities[bins == number].mean() - labels[bins == number].mean()) * (bins == number).mean()
        for number in np.unique(bins)
    ]
    return float(np.sum(errors))


def logistic(logits: Scores) -> Scores:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -50, 50))), dtype=np.float64)


def platt(logits: Scores, labels: Labels, *, steps: int = 50) -> tuple[float, float]:
    """Return slope and intercept that calibrate logits (Platt 1999, with his softened targets), by Newton's method.

    Raises:
        ValueError: higher logits do not mean more positives: there is nothing to calibrate.
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
