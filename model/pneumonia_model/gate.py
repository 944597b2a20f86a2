"""Refuses pictures unlike the films that the network knows, before anybody believes their score.

A bundle may have a gate: a description of the frontal chest films that it was fitted on, in the terms of the network's
own second stage. A picture far from all of them may be a lateral view, another body part, or a film that is turned or
inverted; the network gives it a score like any other. The distance is that of Mahalanobis (1936) along the principal
axes of the fitted films.

Like `bundle`, this module loads no runtime.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from pneumonia_model.bundle import Bundle, BundleError
from pneumonia_model.prediction import STAGE_FEATURES

GATE_WEIGHTS: Final = "gate.safetensors"
SECTION: Final = "gate"
_ROWS: Final = {"mean": (STAGE_FEATURES,), "scale": (STAGE_FEATURES,)}


class Appearance(StrEnum):
    """What a refused picture looks like."""

    TURNED_LEFT = "turned-left"  # by 90 degrees: its top lies on the left
    UPSIDE_DOWN = "upside-down"
    TURNED_RIGHT = "turned-right"
    INVERTED = "inverted"  # what is dark should be bright
    UNKNOWN = "unknown"  # none of these


CHANGES: Final[Mapping[Appearance, Callable[[NDArray[np.float32]], NDArray[np.float32]]]] = {
    Appearance.TURNED_LEFT: lambda films: np.rot90(films, 1, (1, 2)),
    Appearance.UPSIDE_DOWN: lambda films: np.rot90(films, 2, (1, 2)),
    Appearance.TURNED_RIGHT: lambda films: np.rot90(films, -1, (1, 2)),
    Appearance.INVERTED: lambda films: 1 - films,
}
"""How films of shape (n, 224, 224) come to look so."""

_UNDONE_BY: Final = {  # the others undo themselves
    Appearance.TURNED_LEFT: Appearance.TURNED_RIGHT,
    Appearance.TURNED_RIGHT: Appearance.TURNED_LEFT,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gate:
    """A description of the films that a network knows.

    Attributes:
        mean, scale: of each feature over the fitted films, shape (STAGE_FEATURES,).
        axes: principal axes of the standardised features, shape (k, STAGE_FEATURES).
        deviations: standard deviations along them, shape (k,), all above 0.
        limit: the largest distance of a picture that is let through, above 0.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]
    deviations: NDArray[np.float64]
    limit: float

    def unlikeness(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return how unlike the fitted films pictures are, shape (n,): the distance as a multiple of the limit.

        A picture with more than 1 is refused. `features` has the shape (n, STAGE_FEATURES).
        """
        # One by one, so that a picture's value is the same to the last bit whatever others came with it; and without
        # BLAS, whose threads would go on turning for longer than the product takes.
        standard = (features.astype(np.float64) - self.mean) / self.scale
        along = (np.einsum("af,f->a", self.axes, each) / self.deviations for each in standard)
        return np.array([np.linalg.norm(distances) for distances in along]) / self.limit


def appearance(
    picture: NDArray[np.float32], unlikeness: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> Appearance:
    """Return what a refused picture, shape (224, 224), looks like: what would have to be undone to let it through.

    `unlikeness` gives the figure of `Gate.unlikeness` for inputs of shape (n, 224, 224).
    """
    films = picture[None]
    found = unlikeness(np.concatenate([CHANGES[_UNDONE_BY.get(name, name)](films) for name in CHANGES]))
    best = int(found.argmin())
    return list(CHANGES)[best] if found[best] <= 1 else Appearance.UNKNOWN


def load_gate(bundle: Bundle) -> Gate | None:
    """Return the bundle's gate; None if it has none.

    Raises:
        BundleError: the section of the manifest or the file is not as this version expects.
    """
    if SECTION not in bundle.manifest:
        return None
    limit = float(gate_section(bundle)["limit"])
    file = bundle.path / GATE_WEIGHTS
    try:
        parts = {name: part.astype(np.float64) for name, part in load(bundle.content(GATE_WEIGHTS)).items()}
    except SafetensorError as error:
        raise BundleError(f"{file}: cannot be read: {error}") from error
    axes = len(parts.get("deviations", ()))
    shapes = {**_ROWS, "axes": (axes, STAGE_FEATURES), "deviations": (axes,)}
    found = {name: part.shape for name, part in parts.items()}
    if found != shapes or not axes:
        raise BundleError(f"{file}: holds {found}, expected are {shapes}")
    usable = all(np.isfinite(part).all() for part in parts.values())
    if not (usable and (parts["scale"] > 0).all() and (parts["deviations"] > 0).all() and 0 < limit < np.inf):
        raise BundleError(f"{file}: a number is not finite, or a deviation or the limit is not above 0")
    return Gate(**parts, limit=limit)


def gate_section(bundle: Bundle) -> dict[str, Any]:
    """Return the gate's section of the manifest.

    Raises:
        BundleError: the section is not valid, or the manifest does not list the file that it needs.
    """
    return bundle.section(SECTION, keys=("features", "films", "limit", "golden"), file=GATE_WEIGHTS)
