"""In which numbers a network computes, and how far that may move its answers.

This module needs only the standard library.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Precision = Literal["float32", "tf32", "float16", "bfloat16"]
"""The numbers that convolutions multiply.

float32 is IEEE 754 single precision. tf32 is NVIDIA's, which rounds factors to 10 bits of fraction; float16 and
bfloat16 have 10 and 7, and store what is between two layers as well. Normalisation and the last layer stay in float32.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far answers to a bundle's golden inputs may lie from the released ones.

    Attributes:
        logit: largest difference of a logit.
        unlikeness: largest difference of the gate's figure, as a share of it.
    """

    logit: float
    unlikeness: float


BOUNDS: Final[Mapping[Precision, Bounds]] = {
    "float32": Bounds(logit=1e-4, unlikeness=1e-3),
    "tf32": Bounds(logit=5e-3, unlikeness=1e-3),
    "float16": Bounds(logit=5e-3, unlikeness=1e-3),
    "bfloat16": Bounds(logit=1.5e-2, unlikeness=1e-2),
}
"""Measured of the shipped bundle: below 1e-5 of a logit in float32, 1.8e-3 in tf32 and float16, 3.1e-3 in bfloat16; of
the gate's figure 3.2e-4 in tf32 and float16, 3.2e-3 in bfloat16. Films move further: see docs/performance.md."""
