"""The bundle on trial: whether it can be run beside the one that reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pneumonia_model.bundle import Bundle, BundleError, read_manifest, understood
from pneumonia_model.errors import BackendError
from pneumonia_model.opening import runtime_errors
from pneumonia_model.preprocessing import PREPROCESSING

from scp_node.domain import ModelIdentity
from scp_node.inference.identity import ShadowRefusedError, describe, identify, promoted
from scp_node.inference.served_model import ServedModel
from scp_node.settings import InferenceSettings, SettingsError

# What an unfit bundle raises: ours, and the runtimes' own.
_FAULTS: Final[tuple[type[Exception], ...]] = (
    BundleError,
    BackendError,
    SettingsError,
    OSError,
    MemoryError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
)


def identify_shadow(settings: InferenceSettings, reporting: ModelIdentity) -> ModelIdentity:
    """Return the identity of the bundle on trial; its network is not opened.

    Raises:
        ShadowRefusedError: none is set, it cannot be read, it is the one that reports, it needs another input than the
            one that is prepared, or it lacks the operating point of these settings.
    """
    trial = promoted(settings)
    try:
        bundle = understood(trial.bundle, read_manifest(trial.bundle))
        _require_another(bundle, reporting)
        _require_the_input(bundle)
        return identify(trial)
    except _FAULTS as error:
        raise ShadowRefusedError(str(error) or type(error).__name__) from error


def describe_both(settings: InferenceSettings) -> dict[str, Any]:
    """Return `describe` of the bundle that reports; under "shadow" that of the one on trial, or why it is refused.

    Raises:
        BundleError: a file of the bundle that reports is missing or altered.
        SettingsError: it has no such operating point.
    """
    reporting = describe(settings)
    if settings.shadow_bundle is None:
        return reporting
    try:
        identify_shadow(settings, identify(settings))
    except ShadowRefusedError as error:
        return {**reporting, "shadow": {"bundle": str(settings.shadow_bundle), "refused": str(error)}}
    return {**reporting, "shadow": describe(promoted(settings))}


def open_shadow(
    settings: InferenceSettings,
    reporting: ModelIdentity,
    open_model: Callable[[InferenceSettings], ServedModel] = ServedModel.open,
) -> ServedModel | None:
    """Open the bundle on trial as the one that reports is opened, its golden check included; None if none is set.

    Raises:
        ShadowRefusedError: see `identify_shadow`; or its network cannot be opened, or answers differently from its
            release.
    """
    if settings.shadow_bundle is None:
        return None
    identify_shadow(settings, reporting)
    try:
        return open_model(promoted(settings))
    except (*_FAULTS, *runtime_errors()) as error:
        raise ShadowRefusedError(str(error) or type(error).__name__) from error


def _require_another(bundle: Bundle, reporting: ModelIdentity) -> None:
    if bundle.digest == reporting.digest:
        raise SettingsError(f"{bundle.path} is the bundle that reports ({reporting.digest}): give another one")


def _require_the_input(bundle: Bundle) -> None:
    """Compare the bundle's preprocessing with the one input that is prepared of each image."""
    wanted: Any = bundle.manifest["preprocessing"]
    if not isinstance(wanted, dict):
        raise BundleError(f"{bundle.path}: its preprocessing is {wanted!r}")
    names = [name for name in {**PREPROCESSING, **wanted} if wanted.get(name) != PREPROCESSING.get(name)]
    differing = "; ".join(f"{name} is {wanted.get(name)!r}, not {PREPROCESSING.get(name)!r}" for name in names)
    if differing:
        raise BundleError(f"{bundle.path}: needs another input than the one that is prepared: {differing}")
