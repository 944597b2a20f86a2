"""Chooses calibration and operating points on some films, to apply them to others."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.bundle import Bundle

from pneumonia_training.intervals import Labels, logistic, platt, threshold_for_recall
from pneumonia_training.intervals import Scores as Values

CHOSEN_RECALL: Final = 0.90
DEFAULT_POINT: Final = "recall-0.90"
FIXED_POINTS: Final = {"half": 0.5, "quarter": 0.25}


class CalibrationError(Exception):
    """The films do not allow a choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The model's statements about each film.

    Attributes:
        probabilities: calibrated.
        calls: for each operating point, which films count as positive.
        thresholds: the operating points' thresholds of probability, as released.
    """

    logits: Values
    probabilities: Values
    calls: Mapping[str, Labels]
    thresholds: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Calibration (Platt's) and thresholds of probability; the first threshold is the default operating point."""

    slope: float
    intercept: float
    thresholds: Mapping[str, float]

    def probabilities(self, logits: Values) -> Values:
        return logistic(self.slope * logits + self.intercept)

    def applied(self, logits: Values) -> Scores:
        """Return the statements about films with these logits."""
        probabilities = self.probabilities(logits)
        calls = {name: probabilities >= threshold for name, threshold in self.thresholds.items()}
        return Scores(logits=logits, probabilities=probabilities, calls=calls, thresholds=self.thresholds)


def choose(logits: Values, labels: Labels) -> Chosen:
    """Return calibration and operating points chosen on these films, which must not measure them as well.

    Raises:
        CalibrationError: the films are all of one class, or the logits do not separate the classes.
    """
    if not labels.any() or labels.all():
        raise CalibrationError(
            f"{len(labels)} films, {int(labels.sum())} positive: a choice needs films of both classes"
        )
    try:
        slope, intercept = platt(logits, labels)
    except ValueError as error:
        raise CalibrationError(f"nothing to calibrate: {error}") from error
    threshold = threshold_for_recall(logistic(slope * logits + intercept), labels, CHOSEN_RECALL)
    if threshold <= 0:
        raise CalibrationError(f"only a threshold of 0 finds {CHOSEN_RECALL:.0%} of the positive films")
    return Chosen(slope=slope, intercept=intercept, thresholds={DEFAULT_POINT: threshold, **FIXED_POINTS})


def cross_fitted(logits: Values, labels: Labels, folds: NDArray[np.int64]) -> Scores:
    """Return the scores of each film, with calibration and thresholds chosen on the films of the other folds.

    The returned thresholds are those chosen on all films, which are released.
    """
    chosen = choose(logits, labels)
    probabilities = np.empty(len(logits))
    calls = {name: np.zeros(len(logits), dtype=np.bool_) for name in chosen.thresholds}
    for fold in np.unique(folds):
        here = folds == fold
        scores_here = choose(logits[~here], labels[~here]).applied(logits[here])
        probabilities[here] = scores_here.probabilities
        for name, call in scores_here.calls.items():
            calls[name][here] = call
    return Scores(logits=logits, probabilities=probabilities, calls=calls, thresholds=chosen.thresholds)


def chosen_in(bundle: Bundle) -> Chosen:
    """Return a released bundle's calibration and thresholds, the default threshold first."""
    default = bundle.manifest["default_operating_point"]
    points = {str(point["name"]): float(point["threshold"]) for point in bundle.manifest["operating_points"]}
    return Chosen(**asdict(bundle.calibration), thresholds={default: points[default], **points})
