"""Intervals of 95 %: of a share, of a share in a weighted sample, and by resampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Z: Final = NormalDist().inv_cdf(0.975)  # of a two-sided interval of 95 %
REPLICATES: Final = 500  # of a bootstrap; its percentiles then vary by about a tenth of the interval's half-width


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its interval of 95 %; None where the numbers cannot tell."""

    value: float | None
    low: float | None
    high: float | None
    size: float = 0.0  # observations that it rests on; of a weighted sample the effective number

    @property
    def is_known(self) -> bool:
        """Return whether there is a value."""
        return self.value is not None


UNKNOWN: Final = Estimate(value=None, low=None, high=None)


def wilson(share: float, size: float) -> Estimate:
    """Return a share 0..1 of `size` observations with its score interval (Wilson, JASA 1927; Brown et al. 2001).

    `size` may be the effective number of a weighted sample (see `effective_size`), so it need not be whole. Without
    observations nothing is known.

    Raises:
        ValueError: the share is outside 0..1, or the size is negative or not finite.
    """
    if not (math.isfinite(size) and size >= 0):
        raise ValueError(f"a number of observations is finite and not negative, not {size}")
    if size == 0:
        return UNKNOWN
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not at {share}")
    part = Z**2 / size
    middle = (share + part / 2) / (1 + part)
    half = Z * math.sqrt(share * (1 - share) / size + part / (4 * size)) / (1 + part)
    low = 0.0 if share == 0 else max(0.0, middle - half)  # exact there; rounding would leave 1e-17
    high = 1.0 if share == 1 else min(1.0, middle + half)
    return Estimate(value=share, low=low, high=high, size=size)


def effective_size(weights: Floats) -> float:
    """Return the number of equally weighted observations that would vary as much: (sum w)^2 / sum w^2 (Kish 1965).

    Raises:
        ValueError: a weight is negative or not finite.
    """
    _require_weights(weights)
    total = float(weights.sum())
    return total**2 / float(np.square(weights).sum()) if total else 0.0


def weighted_share(holds: Bools, weights: Floats) -> Estimate:
    """Return the weighted share of observations for which something holds, by `wilson` on the effective size."""
    size = effective_size(weights)
    if size == 0:
        return UNKNOWN
    share = float(weights[holds].sum()) / float(weights.sum())
    return wilson(min(1.0, share), size)


def bootstrap(
    figure: Callable[[Floats], float | None],
    weights: Floats,
    strata: NDArray[np.int64],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Return a figure with its percentile interval (Efron 1979), resampled within each stratum as it was drawn.

    Args:
        figure: takes the weights of the observations, shape (n,), and returns the figure, None where it is unknown. An
            observation that is drawn twice has twice its weight, one that is not drawn has 0.
        weights: shape (n,).
        strata: the stratum of each observation, shape (n,).
        replicates: number of resamples.
        seed: makes the interval repeatable.
    """
    _require_weights(weights)
    value = figure(weights) if len(weights) else None
    if value is None:
        return UNKNOWN
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    found = []
    for _ in range(replicates):
        counts = np.zeros(len(weights))
        for rows in members:
            counts[rows] = np.bincount(random.integers(0, len(rows), len(rows)), minlength=len(rows))
        replicate = figure(weights * counts)
        if replicate is not None:
            found.append(replicate)
    if len(found) < replicates // 2:  # most resamples lack a class: the interval would be that of the others only
        return Estimate(value=value, low=None, high=None, size=effective_size(weights))
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high), size=effective_size(weights))


def _require_weights(weights: Floats) -> None:
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("weights are finite and not negative")
