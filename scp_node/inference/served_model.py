"""The model that the node serves: a bundle of `pneumonia_model`, for the worker and the commands."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.bundle import Bundle, load_bundle
from pneumonia_model.gate import Appearance, Gate, appearance, load_gate
from pneumonia_model.golden import verify_golden, verify_golden_gate, verify_golden_regions
from pneumonia_model.opening import open_backend, open_detector
from pneumonia_model.prediction import Backend
from pneumonia_model.regions import Detector, Regions, detector_threshold

from scp_node.domain import ModelIdentity, Region
from scp_node.inference.identity import identity_of
from scp_node.inference.ports import Scores
from scp_node.settings import InferenceSettings

_DIGITS: Final = 6  # of a share of the image, finer than a hundredth of a pixel


class ServedDetector:
    """A bundle's detector, with the threshold of that bundle."""

    def __init__(self, detector: Detector, threshold: float) -> None:
        """Report the boxes to which `detector` gives a score of `threshold` or more."""
        self._detector = detector
        self._threshold = threshold

    def regions(self, inputs: NDArray[np.float32]) -> list[tuple[Region, ...]]:
        """Return the regions in each of the inputs, shape (n, 224, 224) in [0, 1], highest score first."""
        return [_regions(found.above(self._threshold)) for found in self._detector.detect(inputs)]

    def verify(self, bundle: Bundle) -> None:
        """Compare its regions with those that `bundle` was released with.

        Raises:
            BundleError: they differ.
        """
        verify_golden_regions(bundle, self._detector)


class ServedModel:
    """An opened bundle whose network, and gate and detector if any, have answered correctly."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        identity: ModelIdentity,
        detector: ServedDetector | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Serve `bundle` through `backend` as `identity`."""
        self._bundle = bundle
        self._backend = backend
        self.identity = identity
        self.detector = detector
        self.gate = gate
        self.backend = backend.name
        self.device = backend.device
        self.precision = backend.precision

    @classmethod
    def open(cls, settings: InferenceSettings) -> ServedModel:
        """Load the bundle, open its network, gate and detector, and check them.

        Raises:
            BundleError: a file is missing or altered, or network, gate or detector do not answer as recorded.
            SettingsError: the bundle has no such operating point, or the grey zone does not fit around it.
            BackendError: the configured runtime or device is missing, or the one that the detector needs; or it does
                not compute in the configured precision.
        """
        bundle = load_bundle(settings.bundle)
        identity = identity_of(bundle, settings)
        threads = settings.threads or None
        backend = open_backend(bundle, settings.backend, settings.device, threads=threads, precision=settings.precision)
        verify_golden(bundle, backend)
        if gate := load_gate(bundle):
            verify_golden_gate(bundle, backend, gate)
        detector = open_detector(bundle, settings.device, threads=threads)
        served = None if detector is None else ServedDetector(detector, detector_threshold(bundle))
        return cls(bundle, backend, identity, served, gate)

    @property
    def runtime(self) -> str:
        """Return what computes: runtime, device and precision, such as "torch, cuda, float16"."""
        return f"{self.backend}, {self.device}, {self.precision}"

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        """Return the scores of inputs of shape (n, 224, 224) in [0, 1]."""
        found = self._backend.scores(inputs)
        unlikeness = self.gate.unlikeness(found.features) if self.gate else None
        return Scores(logits=found.logits, maps=found.maps, unlikeness=unlikeness)

    def appearance(self, picture: NDArray[np.float32]) -> Appearance:
        """Return what an input that the gate refused, shape (224, 224), looks like; unknown without a gate."""
        if (gate := self.gate) is None:
            return Appearance.UNKNOWN
        return appearance(picture, lambda inputs: gate.unlikeness(self._backend.scores(inputs).features))

    def probability(self, logit: float) -> float:
        """Return the calibrated probability, 0..1."""
        return self._bundle.probability(logit)

    def regions(self, inputs: NDArray[np.float32]) -> list[tuple[Region, ...]]:
        """Return the regions of each of the inputs, shape (n, 224, 224) in [0, 1]; empty without a detector."""
        return self.detector.regions(inputs) if self.detector else [()] * len(inputs)

    def verify(self) -> None:
        """Run the bundle's golden inputs once more.

        Raises:
            BundleError: network, gate or detector do not answer as recorded; a lost device raises an error of the
                runtime.
        """
        verify_golden(self._bundle, self._backend)
        if self.gate:
            verify_golden_gate(self._bundle, self._backend, self.gate)
        if self.detector:
            self.detector.verify(self._bundle)


def _regions(found: Regions) -> tuple[Region, ...]:
    """Return the regions found, without boxes of zero area."""
    regions = (
        Region(left=left, top=top, right=right, bottom=bottom, score=score)
        for (left, top, right, bottom), score in zip(
            found.boxes.round(_DIGITS).tolist(), found.scores.round(_DIGITS).tolist(), strict=True
        )
    )
    return tuple(region for region in regions if region.right > region.left and region.bottom > region.top)
