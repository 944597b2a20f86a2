"""The model that the node serves: a bundle of `pneumonia_model`, as the worker and the commands see it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.backends import Backend, open_backend
from pneumonia_model.bundle import Bundle, load_bundle, verify_golden

from scp_node.domain import ModelIdentity
from scp_node.settings import InferenceSettings, SettingsError


class ServedModel:
    """An opened bundle whose network has answered its golden inputs as it should."""

    def __init__(self, bundle: Bundle, backend: Backend, identity: ModelIdentity) -> None:
        """Serve `bundle` through `backend` as `identity`."""
        self._bundle = bundle
        self._backend = backend
        self.identity = identity
        self.backend = backend.name
        self.device = backend.device

    @classmethod
    def open(cls, settings: InferenceSettings) -> ServedModel:
        """Load the bundle, open its network and check both.

        Raises:
            BundleError: a file is missing or altered, or the network does not answer as recorded.
            SettingsError: the bundle has no such operating point.
            BackendError: the runtime or device that was asked for is not there.
        """
        bundle = load_bundle(settings.bundle)
        identity = _identity(bundle, settings)
        backend = open_backend(bundle, settings.backend, settings.device, threads=settings.threads or None)
        verify_golden(bundle, backend)
        return cls(bundle, backend, identity)

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits, shape (n,), of inputs of shape (n, 224, 224) in [0, 1]."""
        return self._backend.predict(inputs).logits

    def probability(self, logit: float) -> float:
        """Return the calibrated probability, 0..1."""
        return self._bundle.probability(logit)


def identify(settings: InferenceSettings) -> ModelIdentity:
    """Return who the configured bundle is, without opening its network.

    Raises:
        BundleError: a file is missing or altered.
        SettingsError: the bundle has no such operating point.
    """
    return _identity(load_bundle(settings.bundle), settings)


def describe(settings: InferenceSettings) -> dict[str, Any]:
    """Return the bundle's manifest with its digest, ready for JSON.

    Raises:
        BundleError: a file is missing or altered.
    """
    bundle = load_bundle(settings.bundle)
    return {"digest": bundle.digest, **bundle.manifest}


def _identity(bundle: Bundle, settings: InferenceSettings) -> ModelIdentity:
    return ModelIdentity(
        name=bundle.name,
        version=bundle.version,
        digest=bundle.digest,
        status=bundle.status,
        threshold=_threshold(bundle, settings.operating_point),
        calibration=f"platt:slope={bundle.calibration.slope:.4f},intercept={bundle.calibration.intercept:.4f}",
    )


def _threshold(bundle: Bundle, operating_point: str) -> float:
    """Return the threshold of that name: thresholds belong to a model, so only its own can be chosen."""
    if not operating_point:
        return bundle.threshold
    points = {str(point["name"]): float(point["threshold"]) for point in bundle.manifest["operating_points"]}
    if operating_point not in points:
        raise SettingsError(
            f"inference.operating_point: {bundle.name} has {', '.join(points)}, not {operating_point!r}"
        )
    return points[operating_point]
