"""Whether two readers, or two models, say the same of the same studies."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from scp_node.measures.intervals import UNKNOWN, Estimate, Z


def kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> Estimate:
    """Return Cohen's kappa of two readers of the same studies (Cohen, Educ Psychol Meas 1960).

    -1..1: 1 for full agreement, 0 for that of chance. The interval has the large-sample variance of Fleiss, Cohen and
    Everitt (Psychol Bull 1969). Unknown without studies, and where both gave one and the same answer throughout: then
    chance alone would agree as well.

    Raises:
        ValueError: the readers did not answer for the same number of studies.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} answers and {len(second)}")
    names = list(dict.fromkeys([*first, *second]))
    table = np.zeros((len(names), len(names)))
    for one, other in zip(first, second, strict=True):
        table[names.index(one), names.index(other)] += 1
    size = len(first)
    if not size:
        return UNKNOWN
    shares = table / size
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    seen, chance = float(np.trace(shares)), float(rows @ columns)
    if math.isclose(chance, 1):
        return UNKNOWN
    value = (seen - chance) / (1 - chance)
    own = (np.diag(shares) * (1 - (rows + columns) * (1 - value)) ** 2).sum()
    crossed = shares * (columns[:, None] + rows[None, :]) ** 2
    off = (1 - value) ** 2 * (crossed.sum() - np.trace(crossed))
    variance = float(own + off - (value - chance * (1 - value)) ** 2) / (size * (1 - chance) ** 2)
    half = Z * math.sqrt(max(0.0, variance))
    return Estimate(value=value, low=max(-1.0, value - half), high=min(1.0, value + half), size=size)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of two paired classifications (McNemar, Psychometrika 1947).

    Args:
        only_first: studies for which only the first is right.
        only_second: studies for which only the second is right.

    Without such studies p is 1: nothing speaks for a difference.

    Raises:
        ValueError: a number is negative.
    """
    fewer, size = min(only_first, only_second), only_first + only_second
    if fewer < 0:
        raise ValueError("a number of studies is not negative")
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size + 1)))])  # of the factorials
    k = np.arange(fewer + 1)
    tail = np.exp(logs[size] - logs[k] - logs[size - k] - size * math.log(2)).sum()
    return min(1.0, 2 * float(tail))
