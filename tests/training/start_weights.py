"""A file of weights to start from, as a person would bring it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from pneumonia_model.network import pneumonia_resnet18
from safetensors.torch import save_file

LICENCE_TEXT: Final = "The Licence of a Test\n\nDo as you like.\n"


def random_weights() -> dict[str, torch.Tensor]:
    """Return the weights of a new network without its head and its counters."""
    state = pneumonia_resnet18().state_dict()
    return {name: state[name] for name in state if not name.startswith("fc.") and "num_batches" not in name}


def write_start_weights(folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> Path:
    """Write the file and its licence, and return the file's path."""
    path = folder / "start.safetensors"
    save_file(dict(weights or random_weights()), path)
    path.with_name("LICENSE").write_text(LICENCE_TEXT)
    return path
