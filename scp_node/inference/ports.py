"""The protocols through which the loops use the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.gate import Appearance

from scp_node.domain import ModelIdentity, Region


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What the network says of a batch.

    Attributes:
        logits: shape (n,).
        unlikeness: how unlike the films that the network knows each input is, shape (n,), as a multiple of the limit
            of the bundle's gate; None where the bundle has no gate.
        maps: returns the class activation maps of these rows, at least one, shape (rows, 14, 14), in logit units; it
            continues the pass of the network that gave the logits.
    """

    logits: NDArray[np.float32]
    maps: Callable[[Sequence[int]], NDArray[np.float32]]
    unlikeness: NDArray[np.float64] | None = None


class Network(Protocol):
    """The network of the model."""

    identity: ModelIdentity

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        """Return the scores of inputs of shape (n, 224, 224) in [0, 1]."""

    def appearance(self, picture: NDArray[np.float32]) -> Appearance:
        """Return what an input that the gate refused, shape (224, 224), looks like."""

    def probability(self, logit: float) -> float:
        """Return the calibrated probability, 0..1, or NaN for a logit that is not finite."""

    def regions(self, inputs: NDArray[np.float32]) -> list[tuple[Region, ...]]:
        """Return the regions of each of the inputs, shape (n, 224, 224) in [0, 1]; a model may find none in any."""

    def verify(self) -> None:
        """Run inputs with known answers; raise any exception if the answers differ or do not come."""
