"""Where in a film an opacity lies: what a bundle may have beside its classifier.

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
    """Boxes in one film, the surest first.

    Attributes:
        boxes: shape (n, 4): left, top, right, bottom, as shares of the film's width and height, 0 to 1.
        scores: shape (n,), 0 to 1; not calibrated, and no probability.
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
        """Return the regions of each input of shape (n, 224, 224), however unsure they are.

        Raises:
            BackendError: the inputs have another shape, or an output is not finite.
        """


def has_detector(bundle: Bundle) -> bool:
    """Return whether the bundle says where an opacity lies."""
    return SECTION in bundle.manifest


def detector_threshold(bundle: Bundle) -> float:
    """Return the score from which a region is reported.

    Raises:
        BundleError: the bundle has no detector, or its threshold is no share.
    """
    threshold = float(detector_section(bundle)["threshold"])
    if not 0 < threshold < 1:
        raise BundleError(f"{bundle.path}: the detector's threshold is {threshold}")
    return threshold


def detector_section(bundle: Bundle) -> dict[str, Any]:
    """Return what the manifest says of the detector.

    Raises:
        BundleError: it is not a detector's section, or the weights that it needs are not listed.
    """
    section = bundle.manifest.get(SECTION)
    if not isinstance(section, dict) or not {"architecture", "side", "threshold", "golden"} <= section.keys():
        raise BundleError(f"{bundle.path}: not a detector's section")
    if DETECTOR_WEIGHTS not in bundle.manifest["files"]:
        raise BundleError(f"{bundle.path}: no {DETECTOR_WEIGHTS}")
    return section
