"""The model as the loops see it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scp_node.domain import ModelIdentity, Region


class Network(Protocol):
    """The model as the worker sees it."""

    identity: ModelIdentity

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits, shape (n,), of inputs of shape (n, 224, 224) in [0, 1]."""

    def probability(self, logit: float) -> float:
        """Return the calibrated probability, 0..1, NaN for a logit that is not finite."""

    def attention(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class activation maps, shape (n, 14, 14), of the same inputs, in logit units."""

    def verify(self) -> None:
        """Have inputs answered whose answers are known; raises, whatever it is, when they differ or do not come."""


class Detector(Protocol):
    """What a model may have beside its network: where the opacities lie."""

    def regions(self, inputs: NDArray[np.float32]) -> list[tuple[Region, ...]]:
        """Return the regions of each of the inputs, shape (n, 224, 224) in [0, 1]."""
