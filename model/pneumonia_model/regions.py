"""The places of opacities in a film, which a bundle may find in addition to its classifier.

Like `bundle`, this module loads no runtime.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pneumonia_model.bundle import Bundle, BundleError

DETECTOR_WEIGHTS: Final = "detector.safetensors"
SECTION: Final = "detector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """Boxes in one film, highest score first.

    Attributes:
        boxes: shape (n, 4): left, top, right, bottom, as shares of the film's width and height, 0 to 1.
        scores: shape (n,), 0 to 1; not calibrated and not probabilities.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]

    def above(self, threshold: float) -> "Regions":
        """Return the regions whose score reaches the threshold."""
        kept = self.scores >= threshold
        return Regions(boxes=self.boxes[kept], scores=self.scores[kept])


NO_REGIONS: Final = Regions(boxes=np.empty((0, 4)), scores=np.empty(0))


class Detector(Protocol):
    """A loaded detector."""

    def detect(self, inputs: NDArray[np.float32]) -> list[Regions]:
        """Return the regions of each input of shape (n, 224, 224), even those with a low score.

        Raises:
            BackendError: the inputs have another shape, or an output is not finite.
        """


def has_detector(bundle: Bundle) -> bool:
    """Return whether the bundle has a detector."""
    return SECTION in bundle.manifest


def detector_threshold(bundle: Bundle) -> float:
    """Return the lowest score of a reported region.

    Raises:
        BundleError: the bundle has no detector, or its threshold is not between 0 and 1.
    """
    threshold = float(detector_section(bundle)["threshold"])
    if not 0 < threshold < 1:
        raise BundleError(f"{bundle.path}: the detector's threshold is {threshold}")
    return threshold


def detector_section(bundle: Bundle) -> dict[str, Any]:
    """Return the detector's section of the manifest.

    Raises:
        BundleError: the section is not valid, or the manifest does not list the weights that it needs.
    """
    return bundle.section(SECTION, keys=("architecture", "side", "threshold", "golden"), file=DETECTOR_WEIGHTS)
