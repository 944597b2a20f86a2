"""Weights to start from that were trained on other pictures: a safetensors file, and its licence beside it.

Nothing is downloaded: the file is made or brought by a person, and what is trained from it says so.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pneumonia_model.network import pneumonia_resnet18
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

LICENCE: Final = "LICENSE"
"""Name of the file beside the weights with the text of their licence."""

_STEM: Final = "conv1.weight"
_COUNTERS: Final = "num_batches_tracked"
_HEAD: Final = "fc."


class StartWeightsError(Exception):
    """The file holds no weights that this network can start from, or nobody says by which licence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWeights:
    """The weights of a ResNet-18 without its head, under torchvision's names, and where they come from."""

    path: str
    sha256: str
    licence: str
    weights: dict[str, Tensor]

    def document(self) -> dict[str, Any]:
        """Return what a training's record says of them: path, SHA-256 and the licence's text."""
        return {"path": self.path, "sha256": self.sha256, "licence": self.licence}


def read_start_weights(path: Path) -> StartWeights:
    """Return the weights of a safetensors file, with one gray channel in.

    The first convolution may take three channels: a gray film is the same in each, so their weights are summed.
    Counters of batches may be missing; there is no head.

    Raises:
        StartWeightsError: the file or the licence beside it cannot be read; or a name is missing, unknown or of another
            shape, or a weight is not finite: the message names it.
    """
    try:
        content = path.read_bytes()
        weights = load(content)
    except OSError as error:
        raise StartWeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise StartWeightsError(f"{path}: not a safetensors file: {error}") from error
    licence = path.with_name(LICENCE)
    try:
        text = licence.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartWeightsError(f"{licence}: the licence of the start weights cannot be read: {error}") from error
    if not text:
        raise StartWeightsError(f"{licence}: the licence of the start weights is empty")
    checked = _checked(path, weights)
    return StartWeights(path=str(path), sha256=hashlib.sha256(content).hexdigest(), licence=text, weights=checked)


def licence_title(licence: str) -> str:
    """Return the first line of a licence's text."""
    return licence.strip().split("\n", maxsplit=1)[0].strip()


def _checked(path: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    expected = {name: value for name, value in pneumonia_resnet18().state_dict().items() if not name.startswith(_HEAD)}
    needed = {name for name in expected if not name.endswith(_COUNTERS)}
    if unknown := sorted(weights.keys() - expected.keys()):
        raise StartWeightsError(f"{path}: {', '.join(unknown[:3])}: unknown; a ResNet-18 without its head is expected")
    if missing := sorted(needed - weights.keys()):
        raise StartWeightsError(f"{path}: {', '.join(missing[:3])}: missing; a ResNet-18 without its head is expected")
    found = {name: value.float() for name, value in weights.items() if name in needed}
    stem = found[_STEM]
    if stem.ndim == 4 and stem.shape[1] == 3:
        found[_STEM] = stem.sum(dim=1, keepdim=True)
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise StartWeightsError(f"{path}: {name} is {tuple(value.shape)}, expected {tuple(expected[name].shape)}")
        if not torch.isfinite(value).all():
            raise StartWeightsError(f"{path}: {name} holds a number that is not finite")
    return found
