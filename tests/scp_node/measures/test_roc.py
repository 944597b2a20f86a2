"""ROC curves and areas: against scipy, against all pairs, and against the published example of DeLong's paper."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from scp_node.measures import auc, compare_auc, delong, roc_curve

# Ovarian cancer patients: albumin, total protein, K-G score, benefit of surgery (DeLong et al. 1988; 43 complete rows)
OVARIAN: Final = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
Z: Final = 1.959964


@pytest.fixture(scope="module")
def ovarian() -> NDArray[np.float64]:
    """Shape (43, 4)."""
    table = np.array(OVARIAN.split(), dtype=np.float64).reshape(-1, 4)
    table[:, 2] = 10 - table[:, 2]
    return table


def drawn(seed: int, n: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return two models' scores with many ties, and the truth."""
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.4
    return (
        np.round(random.normal(truth * 0.8), 1),
        np.round(random.normal(truth * 0.5), 1),
        truth,
    )


@pytest.mark.parametrize(("column", "area", "error"), [(0, 0.7366, 0.0927), (1, 0.6478, 0.1000), (2, 0.7258, 0.1028)])
def test_the_published_areas_and_errors_are_found(
    ovarian: NDArray[np.float64], column: int, area: float, error: float
) -> None:
    found = delong(ovarian[:, column], ovarian[:, 3] == 1)
    assert found.value == pytest.approx(area, abs=5e-5)
    assert found.low is not None
    assert (area - found.low) / Z == pytest.approx(error, abs=1e-4)


def test_the_published_comparison_is_found(ovarian: NDArray[np.float64]) -> None:
    truth = ovarian[:, 3] == 1
    protein, albumin = (compare_auc(ovarian[:, column], ovarian[:, 2], truth) for column in (1, 0))
    assert (protein.difference.value, protein.p) == pytest.approx((-0.0780, 0.4561), abs=1e-4)
    assert (albumin.difference.value, albumin.p) == pytest.approx((0.0108, 0.9102), abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_an_area_is_that_of_the_rank_sum_test_with_ties(seed: int) -> None:
    scores, _, truth = drawn(seed)
    statistic = mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert auc(scores, truth) == pytest.approx(statistic / (truth.sum() * (~truth).sum()))


@pytest.mark.parametrize("seed", range(5))
def test_the_variance_is_that_of_all_pairs_with_ties(seed: int) -> None:
    first, second, truth = drawn(seed)
    components = []
    for scores in (first, second):
        over = scores[truth][:, None] - scores[~truth][None, :]
        components.append((over > 0) + 0.5 * (over == 0))
    by_positive = np.cov([pairs.mean(axis=1) for pairs in components]) / truth.sum()
    by_negative = np.cov([pairs.mean(axis=0) for pairs in components]) / (~truth).sum()
    covariance = by_positive + by_negative
    found = compare_auc(first, second, truth)
    gain = components[0].mean() - components[1].mean()
    deviation = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.difference.value == pytest.approx(gain)
    assert found.difference.low == pytest.approx(gain - Z * deviation, abs=1e-6)
    assert found.p == pytest.approx(math.erfc(abs(gain) / deviation / math.sqrt(2)))


def test_a_model_does_not_differ_from_itself() -> None:
    scores, _, truth = drawn(1)
    same = compare_auc(scores, scores, truth)
    assert (same.difference.value, same.difference.low, same.p) == (0, None, None)


def test_all_scores_alike_are_worth_a_coin() -> None:
    truth = np.array([True, True, False, False, False])
    assert auc(np.zeros(5), truth) == 0.5
    assert delong(np.zeros(5), truth).low is None  # no variance, so no interval


def test_full_separation_has_an_area_and_no_interval() -> None:
    found = delong(np.array([1.0, 2, 3, 4]), np.array([False, False, True, True]))
    assert (found.value, found.low, found.high) == (1, None, None)


@pytest.mark.parametrize("truth", [[], [True, True, True], [False, False, False]])
def test_one_class_alone_has_no_area_and_no_curve(truth: list[bool]) -> None:
    scores, labels = np.arange(len(truth), dtype=float), np.array(truth, dtype=bool)
    assert auc(scores, labels) is None
    assert roc_curve(scores, labels) == ()
    assert delong(scores, labels).value is None
    assert compare_auc(scores, scores, labels).p is None


def test_one_positive_has_an_area_and_no_interval() -> None:
    found = delong(np.array([1.0, 2, 3]), np.array([False, True, False]))
    assert (found.value, found.low) == (0.5, None)


def test_a_weight_of_two_is_the_same_observation_twice() -> None:
    scores, _, truth = drawn(2)
    weights = np.ones(len(scores))
    weights[::3] = 2
    twice = np.concatenate([np.arange(len(scores)), np.arange(0, len(scores), 3)])
    assert auc(scores, truth, weights) == pytest.approx(auc(scores[twice], truth[twice]))
    one, two = roc_curve(scores, truth, weights), roc_curve(scores[twice], truth[twice])
    assert [each.true_positive_rate for each in one] == pytest.approx([each.true_positive_rate for each in two])


def test_the_curve_has_one_point_for_each_score_and_the_area_below_it() -> None:
    scores, _, truth = drawn(3)
    curve = roc_curve(scores, truth)
    assert len(curve) == 1 + len(set(scores))
    x, y = [each.false_positive_rate for each in curve], [each.true_positive_rate for each in curve]
    assert [x[0], y[0], x[-1], y[-1]] == pytest.approx([0, 0, 1, 1])
    assert np.trapezoid(y, x) == pytest.approx(auc(scores, truth))
    at = next(each for each in curve if each.threshold == scores[7])
    assert at.true_positive_rate == pytest.approx((scores[truth] >= scores[7]).mean())


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        auc(np.array([1.0, math.nan]), np.array([True, False]))
