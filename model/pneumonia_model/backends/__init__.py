"""The runtimes that evaluate a bundle: one module each, imported only when it is asked for."""

import ctypes
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pneumonia_model.bundle import Bundle
from pneumonia_model.preprocessing import INPUT_SIDE, PREPROCESSING

__all__ = ["Backend", "BackendError", "Prediction", "open_backend"]


class BackendError(Exception):
    """The runtime or device that was asked for is not there, or gave no usable numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the network says of a batch.

    Attributes:
        logits: shape (n,), always finite.
        maps: class activation maps in logit units, shape (n, 7, 7); a map's mean plus the bias is its film's logit.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32]


class Backend(Protocol):
    """A loaded network."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    def predict(self, inputs: NDArray[np.float32]) -> Prediction:
        """Evaluate inputs of shape (n, 224, 224).

        Raises:
            BackendError: the inputs have another shape, or an output is not finite.
        """


def open_backend(
    bundle: Bundle,
    backend: Literal["auto", "onnxruntime", "torch"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    *,
    threads: int | None = None,
) -> Backend:
    """Load a bundle's network; "auto" is PyTorch where CUDA works, else ONNX Runtime on the CPU.

    Raises:
        BackendError: the runtime is not installed, the device is not there, or the bundle wants other preprocessing.
    """
    if bundle.manifest["preprocessing"] != PREPROCESSING:
        raise BackendError(f"{bundle.path}: made for other preprocessing than this version's: {PREPROCESSING}")
    if backend == "auto":
        cuda = device != "cpu" and find_spec("torch") is not None and _cuda_driver_present()
        backend = "torch" if cuda and _torch_finds_cuda() else "onnxruntime"
    if backend == "torch":
        if find_spec("torch") is None or find_spec("torchvision") is None:
            raise BackendError("backend torch is not installed: install the extra 'gpu'")
        from pneumonia_model.backends.torch_backend import TorchBackend  # noqa: PLC0415 - costs seconds and 0.5 GB

        return TorchBackend(bundle, device=device, threads=threads)
    if find_spec("onnxruntime") is None:
        raise BackendError("backend onnxruntime is not installed")
    from pneumonia_model.backends.onnxruntime_backend import OnnxRuntimeBackend  # noqa: PLC0415 - as above

    return OnnxRuntimeBackend(bundle, device=device, threads=threads)


def checked_inputs(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inputs if they have the network's shape and type, else raise BackendError."""
    if inputs.ndim != 3 or inputs.shape[1:] != (INPUT_SIDE, INPUT_SIDE) or inputs.dtype != np.float32:
        raise BackendError(f"inputs are {inputs.dtype} {inputs.shape}, the network takes float32 (n, 224, 224)")
    return np.ascontiguousarray(inputs)


def checked_prediction(logits: NDArray[np.float32], maps: NDArray[np.float32], *, count: int) -> Prediction:
    """Return the outputs as a prediction if there is a finite one for each input, else raise BackendError."""
    if logits.shape != (count,) or len(maps) != count:
        raise BackendError(f"{count} inputs gave {logits.shape} logits")
    if not (np.isfinite(logits).all() and np.isfinite(maps).all()):
        raise BackendError("the network gave a number that is not finite")
    return Prediction(logits=logits, maps=maps)


def _cuda_driver_present() -> bool:
    """Return whether NVIDIA's driver library is there, before seconds are spent on importing torch to ask."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def _torch_finds_cuda() -> bool:
    import torch  # noqa: PLC0415 - costs seconds, and only machines with a GPU need it

    return bool(torch.cuda.is_available())
