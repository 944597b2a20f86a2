"""Opens the parts of a bundle: its network, on a runtime that is imported only when needed, and its detector."""

import ctypes
from importlib.util import find_spec
from typing import Literal

from pneumonia_model.bundle import Bundle
from pneumonia_model.errors import BackendError
from pneumonia_model.golden import verify_golden_regions
from pneumonia_model.precision import Precision
from pneumonia_model.prediction import Backend
from pneumonia_model.preprocessing import PREPROCESSING
from pneumonia_model.regions import Detector, has_detector


def open_backend(
    bundle: Bundle,
    backend: Literal["auto", "onnxruntime", "torch"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    *,
    threads: int | None = None,
    precision: Precision = "float32",
) -> Backend:
    """Load a bundle's network; "auto" means PyTorch if CUDA works, else ONNX Runtime on the CPU.

    Raises:
        BackendError: the runtime is not installed, the device is missing, they do not compute in this precision, or the
            bundle needs another preprocessing.
    """
    if bundle.manifest["preprocessing"] != PREPROCESSING:
        raise BackendError(f"{bundle.path}: made for other preprocessing than this version's: {PREPROCESSING}")
    if backend == "auto":
        backend = "torch" if device != "cpu" and cuda_found() else "onnxruntime"
    if backend == "torch":
        if not installed("torch"):
            raise BackendError("backend torch is not installed: install the extra 'gpu'")
        from pneumonia_model.backends.torch_backend import TorchBackend  # noqa: PLC0415 - costs seconds and 0.5 GB

        return TorchBackend(bundle, device=device, threads=threads, precision=precision)
    if precision != "float32":
        raise BackendError(
            f"inference.precision = {precision}: ONNX Runtime, which was chosen, has float32 alone; torch has others"
        )
    if not installed("onnxruntime"):
        raise BackendError("backend onnxruntime is not installed")
    from pneumonia_model.backends.onnxruntime_backend import OnnxRuntimeBackend  # noqa: PLC0415 - as above

    return OnnxRuntimeBackend(bundle, device=device, threads=threads)


def installed(backend: Literal["onnxruntime", "torch"]) -> bool:
    """Return whether a runtime's packages are installed, without importing them."""
    packages = ("torch", "torchvision") if backend == "torch" else ("onnxruntime",)
    return all(find_spec(package) is not None for package in packages)


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return the errors of an installed runtime that have no base of Python's own but `Exception`."""
    if not installed("onnxruntime"):
        return ()
    from pneumonia_model.backends.onnxruntime_backend import ERRORS  # noqa: PLC0415 - as above

    return ERRORS


def cuda_found() -> bool:
    """Return whether the torch backend would run on CUDA."""
    return installed("torch") and _cuda_driver_present() and _torch_finds_cuda()


def _cuda_driver_present() -> bool:
    """Return whether NVIDIA's driver library exists: that saves the seconds that an import of torch would take."""
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


def open_detector(
    bundle: Bundle, device: Literal["auto", "cpu", "cuda"] = "auto", *, threads: int | None = None
) -> Detector | None:
    """Load the bundle's detector and check its golden regions; return None if the bundle has no detector.

    A node that cannot run the detector must not serve the bundle without it: otherwise two nodes with one model would
    report differently.

    Raises:
        BundleError: the detector's section or weights are not as this version expects, or it answers differently.
        BackendError: the runtime is not installed, or the device is missing.
    """
    if not has_detector(bundle):
        return None
    if find_spec("torch") is None or find_spec("torchvision") is None:
        raise BackendError(
            f"{bundle.path}: the bundle has a detector, which runs on PyTorch alone: install the extra 'gpu', or serve "
            "a bundle without one"
        )
    from pneumonia_model.detector import TorchDetector  # noqa: PLC0415 - costs seconds and 0.5 GB

    detector = TorchDetector.of_bundle(bundle, device=device, threads=threads)
    verify_golden_regions(bundle, detector)
    return detector
