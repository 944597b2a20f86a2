"""What a network says of a batch of films, and the protocol of the runtimes that compute it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pneumonia_model.errors import BackendError
from pneumonia_model.precision import Precision
from pneumonia_model.sizes import INPUT_SIDE

MAP_SIDE: Final = INPUT_SIDE // 16
"""Places of a class activation map along each side."""

STAGE_FEATURES: Final = 128 * 3 * 3
"""Numbers that describe a film after the network's second stage: 128 channels, averaged in 3 x 3 places."""

THIRD_STAGE: Final = (256, MAP_SIDE, MAP_SIDE)
"""Shape of what the network's third stage (`layer3`) makes of a film; its map is made from that."""


class NotFiniteError(BackendError):
    """The network gave NaN or an infinity."""


Maps = Callable[[Sequence[int]], NDArray[np.float32]]
"""Returns the class activation maps of these rows of a batch, at least one, shape (rows, 14, 14), in logit units.

They are on one scale for all films. The mean of every second row and column, [::2, ::2], plus the network's bias is the
film's logit; the same weights give the places in between. A map shows attention, it does not segment.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The logits of a batch, what its films look like to the network, and their maps for who wants them.

    Attributes:
        logits: shape (n,), always finite.
        features: what the network's second stage (`layer2`) makes of each film, shape (n, STAGE_FEATURES): the mean of
            each of its 128 channels in 3 x 3 places, each 10 of 28 pixels wide, channel by channel. Always finite.
        maps: continues the same pass of the network from its third stage, which a film without a map does not pay for.
            It raises BackendError if a number is not finite.
    """

    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    maps: Maps


class Backend(Protocol):
    """A loaded network."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> Precision: ...

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits, shape (n,), of inputs of shape (n, 224, 224).

        Raises:
            BackendError: the inputs have another shape, or an output is not finite.
        """

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        """Return the same logits, to the last bit, with what else the network says, which costs next to nothing.

        Raises:
            BackendError: see `logits`.
        """


def checked_inputs(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inputs; raise BackendError if they are empty or do not have the network's shape and type."""
    if (
        inputs.ndim != 3
        or not len(inputs)
        or inputs.shape[1:] != (INPUT_SIDE, INPUT_SIDE)
        or inputs.dtype != np.float32
    ):
        raise BackendError(f"inputs are {inputs.dtype} {inputs.shape}, the network takes float32 (n, 224, 224)")
    return np.ascontiguousarray(inputs)


def checked_logits(logits: NDArray[np.float32], *, count: int) -> NDArray[np.float32]:
    """Return the logits; raise BackendError unless each input has a finite one."""
    if logits.shape != (count,):
        raise BackendError(f"{count} inputs gave {logits.shape} logits")
    if not np.isfinite(logits).all():
        raise NotFiniteError("the network gave a number that is not finite")
    return logits


def checked_scores(logits: NDArray[np.float32], features: NDArray[np.float32], maps: Maps, *, count: int) -> Scores:
    """Return the outputs as scores; raise BackendError unless each input has a finite one."""
    if features.shape != (count, STAGE_FEATURES):
        raise BackendError(f"{count} inputs gave {features.shape} features")
    if not np.isfinite(features).all():
        raise NotFiniteError("the network gave a number that is not finite")
    return Scores(logits=checked_logits(logits, count=count), features=features, maps=maps)


def checked_maps(maps: NDArray[np.float32], *, count: int) -> NDArray[np.float32]:
    """Return the maps; raise BackendError unless each film that needs one has a finite one."""
    if maps.shape != (count, MAP_SIDE, MAP_SIDE):
        raise BackendError(f"{count} films gave {maps.shape} maps")
    if not np.isfinite(maps).all():
        raise NotFiniteError("the network gave a number that is not finite")
    return maps
