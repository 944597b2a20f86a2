"""PyTorch: the runtime of a node with a GPU."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from pneumonia_model.bundle import WEIGHTS, Bundle
from pneumonia_model.errors import BackendError
from pneumonia_model.network import LogitAndMap, pneumonia_resnet18
from pneumonia_model.prediction import (
    Prediction,
    Scores,
    checked_inputs,
    checked_logits,
    checked_prediction,
    checked_scores,
)


class TorchBackend:
    """A bundle's weights in the network of `network.py`, in single precision everywhere.

    Half precision and TF32 would be faster on a GPU, but would change logits by more than the bundle's tolerance.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, *, device: Literal["auto", "cpu", "cuda"], threads: int | None) -> None:
        cuda = torch.cuda.is_available()
        if device == "cuda" and not cuda:
            raise BackendError("torch finds no CUDA device")
        self.device = "cuda" if cuda and device != "cpu" else "cpu"
        if self.device == "cuda":
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.benchmark = False
        if threads is not None:
            torch.set_num_threads(threads)
        network = pneumonia_resnet18()
        network.load_state_dict(load_file(bundle.path / WEIGHTS))
        self._module = LogitAndMap(network).eval().to(self.device).to(memory_format=torch.channels_last)

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        checked = checked_inputs(inputs)
        with torch.inference_mode():
            logits = self._module.logits(torch.from_numpy(checked).to(self.device))
        return checked_logits(logits.cpu().numpy(), count=len(checked))

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        checked = checked_inputs(inputs)
        with torch.inference_mode():
            logits, features = self._module.scores(torch.from_numpy(checked).to(self.device))
        return checked_scores(logits.cpu().numpy(), features.cpu().numpy(), count=len(checked))

    def predict(self, inputs: NDArray[np.float32]) -> Prediction:
        checked = checked_inputs(inputs)
        with torch.inference_mode():
            logits, maps = self._module(torch.from_numpy(checked).to(self.device))
        return checked_prediction(logits.cpu().numpy(), maps.cpu().numpy(), count=len(checked))
