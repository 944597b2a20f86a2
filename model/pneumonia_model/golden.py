"""The golden checks: a runtime must answer the golden inputs as the bundle did at its release."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pneumonia_model.bundle import Bundle, BundleError
from pneumonia_model.gate import Gate, gate_section
from pneumonia_model.precision import BOUNDS, Bounds
from pneumonia_model.prediction import Backend
from pneumonia_model.regions import Detector, detector_section

GOLDEN_REGIONS: Final = 3
"""So many of the surest regions of each golden input are recorded, however unsure they are."""
GOLDEN_REGION_TOLERANCE: Final = 1e-3
"""Largest difference of an edge, as a share of the film's side, or of a score, from the released ones."""


def verify_golden(bundle: Bundle, backend: Backend) -> None:
    """Compare the backend's logits of the golden inputs with the released ones.

    Raises:
        BundleError: they differ by more than the precision's bound.
    """
    _require_within(
        bundle, backend, "golden logits differ", golden_difference(bundle, backend), bounds_of(backend).logit
    )


def bounds_of(backend: Backend) -> Bounds:
    """Return the bounds of the precision that a backend computes in."""
    return BOUNDS[backend.precision]


def _require_within(bundle: Bundle, backend: Backend, told: str, worst: float, allowed: float) -> None:
    if not worst <= allowed:
        raise BundleError(
            f"{bundle.path}: {told} by {worst:.2g} on {backend.name} ({backend.device}) with inference.precision = "
            f"{backend.precision}, allowed are {allowed:g}"
        )


def golden_difference(bundle: Bundle, backend: Backend) -> float:
    """Return the largest difference between a backend's golden logits and the released ones.

    Raises:
        BundleError: the bundle has a different number of inputs and logits.
    """
    expected = bundle.golden_logits()
    found = backend.logits(bundle.golden_inputs())
    if found.shape != expected.shape:
        raise BundleError(f"{bundle.path}: {len(found)} golden inputs, {len(expected)} golden logits")
    return float(np.abs(found - expected).max())


def verify_golden_gate(bundle: Bundle, backend: Backend, gate: Gate) -> None:
    """Compare the gate's figures of the golden inputs with the released ones.

    Raises:
        BundleError: a figure differs by more than the precision's bound.
    """
    worst = golden_gate_difference(bundle, backend, gate)
    _require_within(bundle, backend, "the gate's golden figures differ", worst, bounds_of(backend).unlikeness)


def golden_gate_difference(bundle: Bundle, backend: Backend, gate: Gate) -> float:
    """Return the largest difference between the gate's figures of the golden inputs and the released ones, as a share.

    Raises:
        BundleError: the bundle has a different number of inputs and figures.
    """
    expected = np.asarray(gate_section(bundle)["golden"], dtype=np.float64)
    found = gate.unlikeness(backend.scores(bundle.golden_inputs()).features)
    if found.shape != expected.shape:
        raise BundleError(f"{bundle.path}: {len(found)} golden inputs, {len(expected)} golden figures of the gate")
    return float((np.abs(found - expected) / expected).max())


def verify_golden_regions(bundle: Bundle, detector: Detector) -> None:
    """Compare the best-scored regions of the golden inputs with the released ones.

    Raises:
        BundleError: an edge or a score differs by more than `GOLDEN_REGION_TOLERANCE`.
    """
    expected = np.asarray(detector_section(bundle)["golden"], dtype=np.float64)
    found = golden_regions(detector, bundle.golden_inputs())
    if found.shape != expected.shape:
        raise BundleError(f"{bundle.path}: golden regions are {found.shape}, the manifest states {expected.shape}")
    worst = float(np.abs(found - expected).max())
    if not worst <= GOLDEN_REGION_TOLERANCE:
        raise BundleError(
            f"{bundle.path}: golden regions differ by {worst:.2g}, allowed are {GOLDEN_REGION_TOLERANCE:g}"
        )


def golden_regions(detector: Detector, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the best-scored regions of each input, shape (n, `GOLDEN_REGIONS`, 5): left, top, right, bottom, score."""
    return np.stack(
        [
            np.column_stack([regions.boxes[:GOLDEN_REGIONS], regions.scores[:GOLDEN_REGIONS]])
            for regions in detector.detect(inputs)
        ]
    )
