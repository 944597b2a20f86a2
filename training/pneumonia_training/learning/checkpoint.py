"""Reads a ResNet-18 from a checkpoint, of this package or of another Lightning training."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from pneumonia_model.backends.torch_backend import ModuleBackend
from pneumonia_model.network import LogitAndMap, pneumonia_resnet18
from torch import Tensor

_STEM: Final = "conv1.weight"
_OURS: Final = ("average.module.", "network.")
"""Prefixes of this package's own checkpoints: the running average of the weights goes before the weights."""


class CheckpointError(Exception):
    """The file holds no trained network of the node's architecture."""


def network_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights to release, under torchvision's names.

    Lightning names weights by the attribute that holds the network, such as `model.conv1.weight` or `net.conv1.weight`.
    Any such prefix is found, and so are names without one.

    Raises:
        CheckpointError: the file cannot be read without running its code, holds no ResNet-18 with one channel in
            and one logit out, or holds an untrained one.
    """
    state = _state(path)
    prefix = _prefix(path, state)
    weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    _check_shapes(path, weights)
    for name, value in weights.items():
        if name.endswith("num_batches_tracked") and not value > 0:
            raise CheckpointError(f"{path}: untrained: {name} is {int(value)}")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {name} holds a number that is not finite")
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def _state(path: Path) -> dict[str, Tensor]:
    try:
        document: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of plain weights; pickled objects are not opened, for they can run code. "
            "Save again what is needed: torch.save({'state_dict': module.state_dict()}, path)"
        ) from error
    state = document.get("state_dict", document) if isinstance(document, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: holds no state_dict")
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _prefix(path: Path, state: Mapping[str, Tensor]) -> str:
    """Return the prefix in the names of the one network to release."""
    found = [key.removesuffix(_STEM) for key in state if key.endswith(_STEM) and ".layer" not in f".{key}"]
    for prefix in _OURS:
        if prefix in found:
            return prefix
    if len(found) != 1:
        seen = ", ".join(f"{prefix}{_STEM}" for prefix in found) or "no conv1.weight"
        raise CheckpointError(f"{path}: one ResNet is expected, there is {seen}")
    return found[0]


def _check_shapes(path: Path, weights: Mapping[str, Tensor]) -> None:
    expected = pneumonia_resnet18().state_dict()
    channels = weights[_STEM].shape[1] if weights[_STEM].ndim == 4 else 0
    if channels != 1:
        raise CheckpointError(f"{path}: conv1 takes {channels} channels; the node's network takes 1, a grayscale film")
    head = {name: tuple(value.shape) for name, value in weights.items() if name.startswith("fc.")}
    if head != {"fc.weight": (1, 512), "fc.bias": (1,)}:
        raise CheckpointError(
            f"{path}: the head is {head}; a linear layer fc of shape (1, 512) with a bias is expected"
        )
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        named = ", ".join(
            [f"{name} is missing" for name in missing[:3]] + [f"{name} is unknown" for name in unknown[:3]]
        )
        raise CheckpointError(f"{path}: not a ResNet-18: {named}")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(value.shape)}, a ResNet-18 has {tuple(expected[name].shape)}"
            )


class NetworkBackend(ModuleBackend):
    """A checkpoint's network, before any bundle holds it."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        network = pneumonia_resnet18()
        network.load_state_dict(weights)
        super().__init__(LogitAndMap(network), device="cpu")
