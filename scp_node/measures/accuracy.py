"""Sensitivity, specificity and predictive values from a sample that was drawn by the result of the test.

Positives are few and negatives many, so each sign is drawn at a separate rate. The sample then tells directly how often
a positive and a negative result is right; sensitivity and specificity follow from both and from the numbers of all
results (Begg and Greenes, Biometrics 1983).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scp_node.measures.intervals import UNKNOWN, Bools, Estimate, Floats, weighted_share, wilson

Limits = tuple[float, float, float]  # value, low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """All results of one sign, positive or negative, and those among them whose truth is known.

    Attributes:
        total: results of this sign, of which the known ones are a sample.
        truth: whether the finding is there, shape (n,).
        weights: shape (n,), each the inverse of the rate at which it was drawn; only their ratios count.
    """

    total: int
    truth: Bools
    weights: Floats

    def __post_init__(self) -> None:
        """Refuse a sample that does not belong to its total.

        Raises:
            ValueError: the lengths differ, or more are known than there are.
        """
        if len(self.truth) != len(self.weights):
            raise ValueError(f"{len(self.truth)} truths and {len(self.weights)} weights")
        if len(self.truth) > self.total:
            raise ValueError(f"{len(self.truth)} results are known of {self.total}")

    @property
    def present(self) -> Estimate:
        """Return the share of its results in which the finding is there."""
        return weighted_share(self.truth, self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """The four rates of a test, and how frequent the finding is; each with its interval of 95 %."""

    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    prevalence: float | None


def accuracy(positive: Stratum, negative: Stratum) -> Accuracy:
    """Return the rates of a test whose positive and negative results were sampled at different rates.

    PPV and NPV are shares of one stratum: Wilson on the effective size. Sensitivity and specificity are functions of
    the ratio of two independent shares: their intervals come from the Wilson intervals of both (MOVER for a ratio,
    Donner and Zou, Stat Methods Med Res 2012). So a sample in which no missed finding was seen still says how many may
    have been missed; Wilson on the pooled effective size would not.
    """
    ppv, missed = positive.present, negative.present
    npv, false = _complement(missed), _complement(ppv)
    return Accuracy(
        sensitivity=_share_of_sum(positive, ppv, negative, missed),
        specificity=_share_of_sum(negative, npv, positive, false),
        ppv=ppv,
        npv=npv,
        prevalence=_prevalence(positive, ppv, negative, missed),
    )


def _complement(share: Estimate) -> Estimate:
    if share.value is None or share.low is None or share.high is None:
        return UNKNOWN
    return Estimate(value=1 - share.value, low=1 - share.high, high=1 - share.low, size=share.size)


def _share_of_sum(own: Stratum, part: Estimate, other: Stratum, rest: Estimate) -> Estimate:
    """Return N_own part / (N_own part + N_other rest); unknown where a share is that it needs."""
    if own.total == 0 or other.total == 0:
        return _of_one_stratum(own, part, rest)
    if part.value is None or rest.value is None:
        return UNKNOWN
    counted, missed = own.total * part.value, other.total * rest.value
    if counted + missed == 0:
        return UNKNOWN
    low, high = _ratio_interval(_limits(rest), _limits(part))
    odds = other.total / own.total
    return Estimate(
        value=counted / (counted + missed),
        low=1 / (1 + odds * high),
        high=1 / (1 + odds * low),
        size=part.size + rest.size,
    )


def _of_one_stratum(own: Stratum, part: Estimate, rest: Estimate) -> Estimate:
    """Return the share where all results have one sign: 1 or 0 of those that have the property at all."""
    known, share = (part, 1.0) if own.total else (rest, 0.0)
    return UNKNOWN if not known.value else wilson(share, known.value * known.size)


def _ratio_interval(upper: Limits, lower: Limits) -> tuple[float, float]:
    """Return the limits of upper / lower, two independent shares, from their own limits; infinity where unbounded."""
    a, a_low, a_high = upper
    b, b_low, b_high = lower
    product = a * b
    least, most = a_low * (2 * a - a_low), a_high * (2 * a - a_high)
    wide, narrow = b_high * (2 * b - b_high), b_low * (2 * b - b_low)
    below = product + math.sqrt(max(0.0, product**2 - least * wide))
    above = product + math.sqrt(max(0.0, product**2 - most * narrow))
    return (least / below if below else 0.0), (above / narrow if narrow else math.inf)


def _limits(share: Estimate) -> Limits:
    """Return value, low and high of a share that is known."""
    low, high = share.low, share.high
    return share.value or 0.0, 0.0 if low is None else low, 1.0 if high is None else high


def _prevalence(positive: Stratum, ppv: Estimate, negative: Stratum, missed: Estimate) -> float | None:
    total = positive.total + negative.total
    if not total or (positive.total and ppv.value is None) or (negative.total and missed.value is None):
        return None
    return (positive.total * (ppv.value or 0) + negative.total * (missed.value or 0)) / total
