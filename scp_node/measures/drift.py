"""How far a distribution has moved from its reference, and how far chance alone moves it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np

LEAST_LIMIT: Final = 0.1  # PSI below which a change is called small (Siddiqi, Credit Risk Scorecards, 2006)
QUANTILE: Final = 0.999  # of what chance alone exceeds once in a thousand windows
_STEPS: Final = 200  # of a bisection: far beyond the precision of a float
_TERMS: Final = 10_000


def psi(reference: Sequence[float], now: Sequence[float]) -> float | None:
    """Return the population stability index, sum (q - p) ln(q / p), of two histograms over the same bins.

    Half an observation is added to each bin of both, so that an empty bin costs something finite which shrinks as the
    samples grow. 0 for equal shares. None where either has no observation.

    Raises:
        ValueError: the numbers of bins differ or are below two, or a number is negative or not finite.
    """
    counts = (np.asarray(reference, dtype=np.float64), np.asarray(now, dtype=np.float64))
    if len(counts[0]) != len(counts[1]) or len(counts[0]) < 2:
        raise ValueError(f"histograms with {len(counts[0])} and {len(counts[1])} bins")
    if any(not np.isfinite(each).all() or (each < 0).any() for each in counts):
        raise ValueError("a histogram has finite numbers that are not negative")
    if any(each.sum() == 0 for each in counts):
        return None
    p, q = ((each + 0.5) / (each + 0.5).sum() for each in counts)
    return float(((q - p) * np.log(q / p)).sum())


def psi_limit(reference_size: float, size: float, *, bins: int = 10) -> float:
    """Return the PSI above which a change is more than chance: max(0.1, chi2(.999, bins - 1) (1/n_ref + 1/n)).

    Without a change PSI / (1/n_ref + 1/n) is distributed as chi-squared with one degree of freedom less than there are
    bins (Yurdakul and Naranjo, J Risk Model Validation 2020), so that a small sample exceeds any fixed limit by chance.

    Raises:
        ValueError: a size is not positive.
    """
    if not (reference_size > 0 and size > 0):
        raise ValueError("a limit needs two samples with observations")
    return max(LEAST_LIMIT, chi2_quantile(QUANTILE, bins - 1) * (1 / reference_size + 1 / size))


@cache
def chi2_quantile(probability: float, degrees: int) -> float:
    """Return the value that chi-squared with these degrees of freedom stays below with this probability, 0..1.

    Raises:
        ValueError: the probability is not between 0 and 1, or there is no degree of freedom.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError("give a probability between 0 and 1, and at least one degree of freedom")
    low, high = 0.0, 1.0
    while _chi2_below(high, degrees) < probability:
        high *= 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _chi2_below(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _chi2_below(value: float, degrees: int) -> float:
    """Return P(X < value): the regularised lower incomplete gamma function by its series (NIST DLMF 8.7.1)."""
    shape, x = degrees / 2, value / 2
    if x == 0:
        return 0.0
    term = total = math.exp(shape * math.log(x) - x - math.lgamma(shape + 1))
    for n in range(1, _TERMS):
        term *= x / (shape + n)
        total += term
        if term < total * 1e-17:
            break
    return min(1.0, total)
