"""Drift: the index, and a limit that chance does not exceed however small the sample is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2

from scp_node.measures import chi2_quantile, psi, psi_limit


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 30, 200])
@pytest.mark.parametrize("probability", [0.001, 0.5, 0.95, 0.999])
def test_the_quantiles_are_scipy_s(probability: float, degrees: int) -> None:
    assert chi2_quantile(probability, degrees) == pytest.approx(chi2.ppf(probability, degrees), rel=1e-9)


def test_the_limit_knows_the_sizes() -> None:
    assert psi_limit(5_000, 500) == pytest.approx(0.1)
    assert psi_limit(1_000, 100) == pytest.approx(27.877165 * (1 / 1_000 + 1 / 100))
    assert psi_limit(1_000, 100, bins=2) < psi_limit(1_000, 100)


def test_equal_shares_have_not_moved() -> None:
    assert psi([10, 20, 30], [10, 20, 30]) == 0
    assert psi([10_000, 20_000], [1_000, 2_000]) == pytest.approx(0, abs=1e-6)


def test_a_moved_share_is_the_sum_by_hand() -> None:
    found = psi([50_000, 50_000], [60_000, 40_000])
    assert found == pytest.approx(0.1 * math.log(1.2) - 0.1 * math.log(0.8), abs=1e-4)


def test_an_empty_bin_costs_something_finite() -> None:
    found = psi([100, 100, 0], [100, 0, 100])
    assert found is not None
    assert 1 < found < 10


def test_without_observations_nothing_is_known() -> None:
    assert psi([0, 0], [1, 2]) is None
    assert psi([1, 2], [0, 0]) is None


@pytest.mark.parametrize(("reference", "now"), [([1, 2], [1]), ([1], [1]), ([1, -1], [1, 1]), ([1, math.nan], [1, 1])])
def test_histograms_that_do_not_fit_are_refused(reference: list[float], now: list[float]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        psi(reference, now)


def test_a_limit_without_observations_is_refused() -> None:
    with pytest.raises(ValueError, match="observations"):
        psi_limit(100, 0)
    with pytest.raises(ValueError, match="probability"):
        chi2_quantile(1, 9)


@pytest.mark.parametrize("size", [50, 200, 1_000])
def test_chance_exceeds_the_limit_about_once_in_a_thousand_windows(size: int) -> None:
    random = np.random.default_rng(size)
    exceeded = 0
    for _ in range(2_000):
        reference, now = random.multinomial(5_000, [0.1] * 10), random.multinomial(size, [0.1] * 10)
        found = psi(reference.tolist(), now.tolist())
        exceeded += found is not None and found > psi_limit(5_000, size)
    assert exceeded <= 12  # expected 2; a fixed limit of 0.1 is exceeded by nearly all windows of 50
