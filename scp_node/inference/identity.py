"""Who a bundle is: read from its files, without the libraries that run its network."""

from __future__ import annotations

from typing import Any, Final

from pneumonia_model.bundle import Bundle, load_bundle

from scp_node.domain import ModelIdentity
from scp_node.settings import InferenceSettings, SettingsError

NARROWEST_GREY_ZONE: Final = 1e-6  # half-width; the limits of a narrower one are not apart in a report's decimals


class ShadowRefusedError(Exception):
    """The bundle on trial cannot be run beside the one that reports; the message says why."""


def promoted(settings: InferenceSettings) -> InferenceSettings:
    """Return the settings under which the bundle on trial would report.

    Raises:
        ShadowRefusedError: none is set.
    """
    if settings.shadow_bundle is None:
        raise ShadowRefusedError("inference.shadow_bundle is not set: no bundle is on trial")
    return settings.model_copy(update={"bundle": settings.shadow_bundle, "shadow_bundle": None})


def identify(settings: InferenceSettings) -> ModelIdentity:
    """Return the identity of the configured bundle, without opening its network.

    Raises:
        BundleError: a file is missing or altered.
        SettingsError: the bundle has no such operating point.
    """
    return identity_of(load_bundle(settings.bundle), settings)


def describe(settings: InferenceSettings) -> dict[str, Any]:
    """Return the bundle's manifest with its digest, ready for JSON.

    Raises:
        BundleError: a file is missing or altered.
    """
    bundle = load_bundle(settings.bundle)
    return {"digest": bundle.digest, **bundle.manifest}


def identity_of(bundle: Bundle, settings: InferenceSettings) -> ModelIdentity:
    """Return the identity of a bundle, served by these settings.

    Raises:
        SettingsError: the bundle has no such operating point, or the grey zone does not fit around it.
    """
    threshold = _threshold(bundle, settings.operating_point)
    if 0 < settings.grey_zone < NARROWEST_GREY_ZONE:
        raise SettingsError(f"inference.grey_zone: 0, or {NARROWEST_GREY_ZONE:f} or more: a report could not show it")
    if settings.grey_zone and not settings.grey_zone < threshold < 1 - settings.grey_zone:
        raise SettingsError(f"inference.grey_zone: {settings.grey_zone} around the threshold {threshold} leaves 0 to 1")
    return ModelIdentity(
        name=bundle.name,
        version=bundle.version,
        digest=bundle.digest,
        status=bundle.status,
        threshold=threshold,
        grey_zone=settings.grey_zone,
        calibration=f"platt:slope={bundle.calibration.slope:.4f},intercept={bundle.calibration.intercept:.4f}",
        region_threshold=_region_threshold(bundle),
    )


def _region_threshold(bundle: Bundle) -> float | None:
    """Return the score of a region from which it is reported; None where the bundle finds none."""
    if "detector" not in bundle.manifest:
        return None
    from pneumonia_model.regions import detector_threshold  # noqa: PLC0415 - loads numpy

    return detector_threshold(bundle)


def _threshold(bundle: Bundle, operating_point: str) -> float:
    """Return the threshold of that operating point; only the bundle's points can be chosen."""
    if not operating_point:
        return bundle.threshold
    points = {str(point["name"]): float(point["threshold"]) for point in bundle.manifest["operating_points"]}
    if operating_point not in points:
        raise SettingsError(
            f"inference.operating_point: {bundle.name} has {', '.join(points)}, not {operating_point!r}"
        )
    return points[operating_point]
