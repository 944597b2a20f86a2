"""Accuracy from a sample that was drawn by the result: unbiased, and not surer than it may be."""

from __future__ import annotations

import numpy as np
import pytest

from scp_node.measures import Accuracy, Estimate, Stratum, accuracy, wilson
from scp_node.measures.intervals import weighted_share


def stratum(total: int, present: int, absent: int, weights: list[float] | None = None) -> Stratum:
    truth = np.array([True] * present + [False] * absent)
    return Stratum(total=total, truth=truth, weights=np.array(weights) if weights else np.ones(len(truth)))


def test_the_four_rates_by_hand() -> None:
    # 200 positives, half right; 1,000 negatives, 2 of 100 read were missed: 100 found, 20 missed, 980 rightly cleared
    found = accuracy(stratum(200, 25, 25), stratum(1_000, 2, 98))
    assert found.ppv.value == pytest.approx(0.5)
    assert found.npv.value == pytest.approx(0.98)
    assert found.sensitivity.value == pytest.approx(100 / 120)
    assert found.specificity.value == pytest.approx(980 / 1_080)
    assert found.prevalence == pytest.approx(120 / 1_200)
    assert (found.ppv.low, found.ppv.high) == (wilson(0.5, 50).low, wilson(0.5, 50).high)


def test_a_sample_of_all_is_the_table_itself() -> None:
    found = accuracy(stratum(50, 40, 10), stratum(100, 5, 95))
    assert found.sensitivity.value == pytest.approx(40 / 45)
    assert found.specificity.value == pytest.approx(95 / 105)


def test_weights_of_days_count() -> None:
    found = accuracy(stratum(40, 1, 1, [3.0, 1.0]), stratum(40, 0, 2))
    assert found.ppv.value == pytest.approx(0.75)
    assert found.ppv.size == pytest.approx(1.6)


def test_no_missed_finding_among_100_of_3000_says_little() -> None:
    found = accuracy(stratum(300, 75, 75), stratum(3_000, 0, 100)).sensitivity
    assert found.value == 1
    assert found.high == 1
    assert found.low is not None
    # up to 3.7 % of 3,000 may have been missed, beside about 150 that were found: surely not above 0.9
    assert 0.5 < found.low < 0.65


def test_no_right_positive_means_no_sensitivity() -> None:
    found = accuracy(stratum(10, 0, 10), stratum(100, 5, 45)).sensitivity
    assert (found.value, found.low) == (0, 0)
    assert found.high is not None
    assert 0 < found.high < 1


def test_no_finding_at_all_leaves_sensitivity_unknown_and_specificity_known() -> None:
    found = accuracy(stratum(10, 0, 10), stratum(100, 0, 50))
    assert found.sensitivity.value is None
    assert found.prevalence == 0
    assert found.specificity.value == pytest.approx(100 / 110)


def test_findings_everywhere_leave_specificity_unknown() -> None:
    found = accuracy(stratum(10, 10, 0), stratum(100, 50, 0))
    assert found.specificity.value is None
    assert found.sensitivity.value == pytest.approx(10 / 110)


@pytest.mark.parametrize(("positive", "negative"), [((10, 0, 0), (10, 1, 4)), ((10, 3, 1), (10, 0, 0))])
def test_an_unread_stratum_leaves_both_unknown(positive: tuple[int, int, int], negative: tuple[int, int, int]) -> None:
    found = accuracy(stratum(*positive), stratum(*negative))
    assert (found.sensitivity.value, found.specificity.value, found.prevalence) == (None, None, None)
    assert (found.ppv.value is None) != (found.npv.value is None)


def test_a_test_that_never_or_always_says_positive() -> None:
    never = accuracy(stratum(0, 0, 0), stratum(100, 10, 90))
    assert (never.sensitivity.value, never.specificity.value, never.ppv.value) == (0, 1, None)
    assert never.sensitivity.high == pytest.approx(wilson(0, 10).high)
    always = accuracy(stratum(100, 10, 90), stratum(0, 0, 0))
    assert (always.sensitivity.value, always.specificity.value, always.npv.value) == (1, 0, None)


def test_nothing_is_unknown() -> None:
    found = accuracy(stratum(0, 0, 0), stratum(0, 0, 0))
    assert [found.sensitivity.value, found.specificity.value, found.ppv.value, found.npv.value, found.prevalence] == [
        None
    ] * 5


def test_a_sample_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 results are known of 2"):
        stratum(2, 2, 1)
    with pytest.raises(ValueError, match="2 truths and 1 weights"):
        stratum(9, 1, 1, [1.0])


def simulated(random: np.random.Generator, *, sensitivity: float) -> tuple[Accuracy, Estimate]:
    """Return the figures of 28 days, and the sensitivity by one interval over the pooled weights.

    Each day has about 12 positive and 110 negative results; 5 and 10 of them are read.
    """
    prevalence, specificity = 0.08, 0.95
    totals = [0, 0]
    truths: tuple[list[bool], list[bool]] = ([], [])
    weights: tuple[list[float], list[float]] = ([], [])
    for _ in range(28):
        truth = random.random(122) < prevalence
        positive = random.random(122) < np.where(truth, sensitivity, 1 - specificity)
        for sign, most in ((0, 5), (1, 10)):
            here = truth[positive if sign == 0 else ~positive]
            read = here[:most]
            totals[sign] += len(here)
            truths[sign].extend(read.tolist())
            weights[sign].extend([len(here) / len(read)] * len(read) if len(read) else [])
    strata = [
        Stratum(total=totals[sign], truth=np.array(truths[sign], bool), weights=np.array(weights[sign]))
        for sign in (0, 1)
    ]
    weighted = np.concatenate([each.weights for each in strata])
    is_true = np.concatenate([each.truth for each in strata])
    flagged = np.arange(len(is_true)) < len(strata[0].truth)
    return accuracy(*strata), weighted_share(flagged[is_true], weighted[is_true])


@pytest.mark.parametrize("sensitivity", [0.8, 0.97])
def test_the_interval_holds_the_truth_in_95_of_100_months(sensitivity: float) -> None:
    random = np.random.default_rng(7)
    inside = pooled_inside = 0
    for _ in range(300):
        found, pooled = simulated(random, sensitivity=sensitivity)
        inside += holds(found.sensitivity, sensitivity)
        pooled_inside += holds(pooled, sensitivity)
    assert inside >= 0.92 * 300
    assert pooled_inside < 0.9 * 300  # the common shortcut is too sure


def holds(estimate: Estimate, value: float) -> bool:
    """Return whether the interval holds a value."""
    return estimate.low is not None and estimate.high is not None and estimate.low <= value <= estimate.high
