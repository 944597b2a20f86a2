"""The protocols through which the loops use the model."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scp_node.domain import ModelIdentity, Region


class Network(Protocol):
    """The network of the model."""

    identity: ModelIdentity

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits, shape (n,), of inputs of shape (n, 224, 224) in [0, 1]."""

    def probability(self, logit: float) -> float:
        """Return the calibrated probability, 0..1, or NaN for a logit that is not finite."""

    def attention(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class activation maps of the same inputs, shape (n, 14, 14), in logit units."""

    def regions(self, inputs: NDArray[np.float32]) -> list[tuple[Region, ...]]:
        """Return the regions of each of the inputs, shape (n, 224, 224) in [0, 1]; a model may find none in any."""

    def verify(self) -> None:
        """Run inputs with known answers; raise any exception if the answers differ or do not come."""
