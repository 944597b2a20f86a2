"""PyTorch: the runtime of a node with a GPU."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from pneumonia_model.bundle import WEIGHTS, Bundle
from pneumonia_model.errors import BackendError
from pneumonia_model.network import LogitAndMap, pneumonia_resnet18
from pneumonia_model.prediction import Scores, checked_inputs, checked_logits, checked_maps, checked_scores


class ModuleBackend:
    """A network of torch, in single precision everywhere.

    Half precision and TF32 would be faster on a GPU, but would change logits by more than a bundle's tolerance.
    """

    name = "torch"

    def __init__(self, module: LogitAndMap, *, device: str) -> None:
        """Run `module`, which lies on `device`."""
        self.device = device
        self._module = module.eval()

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        checked = checked_inputs(inputs)
        with torch.inference_mode():
            logits, _, _ = self._module.scores(self._on_device(checked))
        return checked_logits(logits.cpu().numpy(), count=len(checked))

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        checked = checked_inputs(inputs)
        with torch.inference_mode():
            logits, features, third = self._module.scores(self._on_device(checked))
        return checked_scores(
            logits.cpu().numpy(), features.cpu().numpy(), lambda rows: self._maps(third, rows), count=len(checked)
        )

    def _maps(self, third: Tensor, rows: Sequence[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            maps = self._module.maps(third[list(rows)])
        return checked_maps(maps.cpu().numpy(), count=len(rows))

    def _on_device(self, inputs: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(inputs).to(self.device)


class TorchBackend(ModuleBackend):
    """A bundle's weights in the network of `network.py`."""

    def __init__(self, bundle: Bundle, *, device: Literal["auto", "cpu", "cuda"], threads: int | None) -> None:
        cuda = torch.cuda.is_available()
        if device == "cuda" and not cuda:
            raise BackendError("torch finds no CUDA device")
        chosen = "cuda" if cuda and device != "cpu" else "cpu"
        if chosen == "cuda":
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.benchmark = False
        if threads is not None:
            torch.set_num_threads(threads)
        network = pneumonia_resnet18()
        network.load_state_dict(load(bundle.content(WEIGHTS)))
        super().__init__(LogitAndMap(network).to(chosen).to(memory_format=torch.channels_last), device=chosen)
