"""The runtimes that evaluate a bundle: one module each, imported only when it is asked for."""

import ctypes
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pneumonia_model.bundle import Bundle
from pneumonia_model.preprocessing import INPUT_SIDE, PREPROCESSING

__all__ = ["MAP_SIDE", "Backend", "BackendError", "Prediction", "open_backend"]

MAP_SIDE: Final = INPUT_SIDE // 16
"""Places of a class activation map along each side."""


class BackendError(Exception):
    """The runtime or device that was asked for is not there, or gave no usable numbers."""


class NotFiniteError(BackendError):
    """The network gave NaN or an infinity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the network says of a batch.

    Attributes:
        logits: shape (n,), always finite.
        maps: class activation maps in logit units, shape (n, 14, 14), on one scale for all films. The mean of every
            second row and column, [::2, ::2], plus the network's bias is the film's logit; the places in between are
            what the same weights say there. Attention, not a segmentation.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32]


class Backend(Protocol):
    """A loaded network."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits, shape (n,), of inputs of shape (n, 224, 224): half of the work of `predict`.

        Raises:
            BackendError: the inputs have another shape, or an output is not finite.
        """

    def predict(self, inputs: NDArray[np.float32]) -> Prediction:
        """Return the same logits, to the last bit, and the maps.

        Raises:
            BackendError: as `logits`.
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
        backend = "torch" if device != "cpu" and cuda_found() else "onnxruntime"
    if backend == "torch":
        if not installed("torch"):
            raise BackendError("backend torch is not installed: install the extra 'gpu'")
        from pneumonia_model.backends.torch_backend import TorchBackend  # noqa: PLC0415 - costs seconds and 0.5 GB

        return TorchBackend(bundle, device=device, threads=threads)
    if not installed("onnxruntime"):
        raise BackendError("backend onnxruntime is not installed")
    from pneumonia_model.backends.onnxruntime_backend import OnnxRuntimeBackend  # noqa: PLC0415 - as above

    return OnnxRuntimeBackend(bundle, device=device, threads=threads)


def checked_inputs(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inputs if there are any, of the network's shape and type, else raise BackendError."""
    if (
        inputs.ndim != 3
        or not len(inputs)
        or inputs.shape[1:] != (INPUT_SIDE, INPUT_SIDE)
        or inputs.dtype != np.float32
    ):
        raise BackendError(f"inputs are {inputs.dtype} {inputs.shape}, the network takes float32 (n, 224, 224)")
    return np.ascontiguousarray(inputs)


def checked_logits(logits: NDArray[np.float32], *, count: int) -> NDArray[np.float32]:
    """Return the logits if there is a finite one for each input, else raise BackendError."""
    if logits.shape != (count,):
        raise BackendError(f"{count} inputs gave {logits.shape} logits")
    if not np.isfinite(logits).all():
        raise NotFiniteError("the network gave a number that is not finite")
    return logits


def checked_prediction(logits: NDArray[np.float32], maps: NDArray[np.float32], *, count: int) -> Prediction:
    """Return the outputs as a prediction if there is a finite one for each input, else raise BackendError."""
    if maps.shape != (count, MAP_SIDE, MAP_SIDE):
        raise BackendError(f"{count} inputs gave {maps.shape} maps")
    if not np.isfinite(maps).all():
        raise NotFiniteError("the network gave a number that is not finite")
    return Prediction(logits=checked_logits(logits, count=count), maps=maps)


def installed(backend: Literal["onnxruntime", "torch"]) -> bool:
    """Return whether a runtime's packages are there, without importing them."""
    packages = ("torch", "torchvision") if backend == "torch" else ("onnxruntime",)
    return all(find_spec(package) is not None for package in packages)


def cuda_found() -> bool:
    """Return whether the torch backend would run on CUDA."""
    return installed("torch") and _cuda_driver_present() and _torch_finds_cuda()


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
