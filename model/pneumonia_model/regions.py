"""Where in a film an opacity lies: what a bundle may have beside its classifier.

Like `bundle`, this module loads no runtime.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pneumonia_model.backends import BackendError
from pneumonia_model.bundle import Bundle, BundleError

DETECTOR_WEIGHTS: Final = "detector.safetensors"
SECTION: Final = "detector"
GOLDEN_REGIONS: Final = 3
"""So many of the surest regions of each golden input are recorded, however unsure they are."""

GOLDEN_REGION_TOLERANCE: Final = 1e-3
"""Largest difference of an edge, as a share of the film's side, or of a score, from the released ones."""


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
    threshold = float(_section(bundle)["threshold"])
    if not 0 < threshold < 1:
        raise BundleError(f"{bundle.path}: the detector's threshold is {threshold}")
    return threshold


def open_detector(
    bundle: Bundle, device: Literal["auto", "cpu", "cuda"] = "auto", *, threads: int | None = None
) -> Detector | None:
    """Load the bundle's detector and check its golden regions; None where the bundle has none.

    A node that cannot run the detector does not serve the bundle without it: two nodes with one model would then
    report differently.

    Raises:
        BundleError: the detector's section or weights are not as this version expects, or it answers differently.
        BackendError: the runtime is not installed, or the device is not there.
    """
    if not has_detector(bundle):
        return None
    if find_spec("torch") is None or find_spec("torchvision") is None:
        raise BackendError(
            f"{bundle.path}: the bundle has a detector, which runs on PyTorch alone: install the extra 'gpu', or serve "
            "a bundle without one"
        )
    from pneumonia_model.detector import TorchDetector  # noqa: PLC0415 - costs seconds and 0.5 GB

    detector = TorchDetector.of_bundle(bundle, device=device, threads=threads)
    verify_golden_regions(bundle, detector)
    return detector


def verify_golden_regions(bundle: Bundle, detector: Detector) -> None:
    """Compare the surest regions of the golden inputs with those that the bundle was released with.

    Raises:
        BundleError: an edge or a score differs by more than `GOLDEN_REGION_TOLERANCE`.
    """
    expected = np.asarray(_section(bundle)["golden"], dtype=np.float64)
    found = golden_regions(detector, bundle.golden_inputs())
    if found.shape != expected.shape:
        raise BundleError(f"{bundle.path}: golden regions are {found.shape}, the manifest states {expected.shape}")
    worst = float(np.abs(found - expected).max())
    if not worst <= GOLDEN_REGION_TOLERANCE:
        raise BundleError(
            f"{bundle.path}: golden regions differ by {worst:.2g}, allowed are {GOLDEN_REGION_TOLERANCE:g}"
        )


def golden_regions(detector: Detector, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the surest regions of each input, shape (n, `GOLDEN_REGIONS`, 5): left, top, right, bottom, score."""
    return np.stack(
        [
            np.column_stack([regions.boxes[:GOLDEN_REGIONS], regions.scores[:GOLDEN_REGIONS]])
            for regions in detector.detect(inputs)
        ]
    )


def _section(bundle: Bundle) -> dict[str, Any]:
    section = bundle.manifest.get(SECTION)
    if not isinstance(section, dict) or not {"architecture", "side", "threshold", "golden"} <= section.keys():
        raise BundleError(f"{bundle.path}: not a detector's section")
    if DETECTOR_WEIGHTS not in bundle.manifest["files"]:
        raise BundleError(f"{bundle.path}: no {DETECTOR_WEIGHTS}")
    return section
