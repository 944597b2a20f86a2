"""PyTorch: the runtime of a node with a GPU."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from pneumonia_model.bundle import WEIGHTS, Bundle
from pneumonia_model.errors import BackendError
from pneumonia_model.network import LogitAndMap, pneumonia_resnet18
from pneumonia_model.precision import Precision
from pneumonia_model.prediction import Scores, checked_inputs, checked_logits, checked_maps, checked_scores

_DTYPES: Final = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_ON_CPU: Final = ("float32", "bfloat16")
_FROM_AMPERE: Final = ("tf32", "bfloat16")
_AMPERE: Final = (8, 0)  # compute capability


class ModuleBackend:
    """A network of torch."""

    name = "torch"

    def __init__(self, module: LogitAndMap, *, device: str, precision: Precision = "float32") -> None:
        """Run `module`, which lies on `device` and computes in this precision."""
        self.device = device
        self.precision = precision
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

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Literal["auto", "cpu", "cuda"],
        threads: int | None,
        precision: Precision = "float32",
    ) -> None:
        cuda = torch.cuda.is_available()
        if device == "cuda" and not cuda:
            raise BackendError("torch finds no CUDA device")
        chosen = "cuda" if cuda and device != "cpu" else "cpu"
        _require_precision(chosen, precision)
        if chosen == "cuda":
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.benchmark = False
        if threads is not None:
            torch.set_num_threads(threads)
        network = pneumonia_resnet18()
        network.load_state_dict(load(bundle.content(WEIGHTS)))
        if dtype := _DTYPES.get(precision):
            for convolution in (layer for layer in network.modules() if isinstance(layer, nn.Conv2d)):
                convolution.to(dtype)
        module = LogitAndMap(network).to(chosen).to(memory_format=torch.channels_last)
        super().__init__(module, device=chosen, precision=precision)


def _require_precision(device: str, precision: Precision) -> None:
    """Raise BackendError unless the device computes in this precision."""
    if device == "cpu" and precision not in _ON_CPU:
        raise BackendError(f"inference.precision = {precision}: torch on the CPU has {' and '.join(_ON_CPU)} alone")
    if device == "cuda" and precision in _FROM_AMPERE and torch.cuda.get_device_capability() < _AMPERE:
        raise BackendError(f"inference.precision = {precision}: {torch.cuda.get_device_name()} does not compute in it")
