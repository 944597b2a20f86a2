"""Intervals: against scipy, and at the ends where formulas break."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from scp_node.measures import UNKNOWN, auc, bootstrap, effective_size, wilson
from scp_node.measures.intervals import weighted_share


@pytest.mark.parametrize(("found", "of"), [(0, 1), (0, 10), (1, 10), (81, 263), (10, 10), (499, 1000)])
def test_the_interval_of_a_share_is_scipy_s(found: int, of: int) -> None:
    expected = binomtest(found, of).proportion_ci(method="wilson")
    estimate = wilson(found / of, of)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_81_of_263_is_newcombe_s_example() -> None:
    estimate = wilson(81 / 263, 263)  # Newcombe, Stat Med 1998, Table I
    assert (estimate.low, estimate.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_none_of_29_is_an_interval_that_begins_at_nothing() -> None:
    estimate = wilson(0, 29)  # Newcombe 1998
    assert estimate.low == 0
    assert estimate.high == pytest.approx(0.1170, abs=5e-5)


def test_nothing_of_nothing_is_unknown() -> None:
    assert wilson(0, 0) == UNKNOWN
    assert weighted_share(np.zeros(0, bool), np.zeros(0)) == UNKNOWN
    assert weighted_share(np.ones(2, bool), np.zeros(2)) == UNKNOWN


@pytest.mark.parametrize(("share", "size"), [(1.1, 5), (-0.1, 5), (math.nan, 5), (0.5, -1), (0.5, math.inf)])
def test_numbers_that_are_no_share_are_refused(share: float, size: float) -> None:
    with pytest.raises(ValueError, match=r"a share lies|a number of observations"):
        wilson(share, size)


def test_equal_weights_count_every_observation_and_one_heavy_weight_counts_one() -> None:
    assert effective_size(np.full(20, 7.5)) == pytest.approx(20)
    assert effective_size(np.array([1e6] + [1e-6] * 20)) == pytest.approx(1)
    assert effective_size(np.array([1.0, 3.0])) == pytest.approx(1.6)
    with pytest.raises(ValueError, match="weights"):
        effective_size(np.array([1.0, -1.0]))


def test_unequal_weights_widen_the_interval() -> None:
    holds = np.arange(40) % 2 == 0
    even, uneven = weighted_share(holds, np.ones(40)), weighted_share(holds, 1.0 + 9.0 * (np.arange(40) // 2 == 3))
    assert even.value == pytest.approx(0.5)
    assert uneven.value == pytest.approx(0.5)
    assert uneven.low is not None
    assert even.low is not None
    assert uneven.low < even.low


def test_a_bootstrap_of_a_mean_has_the_width_of_its_standard_error() -> None:
    values = np.random.default_rng(5).normal(size=400)
    estimate = bootstrap(lambda w: float((w * values).sum() / w.sum()), np.ones(400), np.zeros(400, int))
    assert estimate.low is not None
    assert estimate.high is not None
    assert (estimate.high - estimate.low) / 3.92 == pytest.approx(values.std() / 20, rel=0.12)


def test_a_bootstrap_is_repeatable_and_keeps_the_strata() -> None:
    strata = np.repeat([0, 1], [30, 3])
    seen: list[float] = []

    def note(weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        seen.append(float(weights[strata == 1].sum()))
        return float(weights[0])

    first = bootstrap(note, np.ones(33), strata, replicates=50)
    assert set(seen) == {3.0}
    assert bootstrap(note, np.ones(33), strata, replicates=50) == first


def test_a_bootstrap_that_mostly_lacks_a_class_has_no_interval() -> None:
    scores, truth = np.arange(8.0), np.arange(8) == 7
    estimate = bootstrap(lambda w: auc(scores, truth, w) if w[7] > 1 else None, np.ones(8), np.zeros(8, int))
    assert estimate == UNKNOWN
    estimate = bootstrap(lambda w: auc(scores, truth, w), np.ones(8), np.arange(8) // 4)
    assert (estimate.value, estimate.high) == (1, 1)
    estimate = bootstrap(lambda w: 1.0 if w.max() == 1 else None, np.ones(8), np.zeros(8, int))
    assert (estimate.value, estimate.low) == (1, None)


def test_a_bootstrap_of_nothing_is_unknown() -> None:
    assert bootstrap(lambda _: 1.0, np.zeros(0), np.zeros(0, int)) == UNKNOWN
