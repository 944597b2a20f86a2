"""ONNX Runtime: small and quick to start, the runtime of a node without a GPU."""

from typing import Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as states

from pneumonia_model.bundle import GRAPH, WEIGHTS, Bundle
from pneumonia_model.errors import BackendError
from pneumonia_model.prediction import (
    Prediction,
    Scores,
    checked_inputs,
    checked_logits,
    checked_prediction,
    checked_scores,
)

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INPUTS: Final = {"inputs", "mapped"}
ERRORS: Final[tuple[type[Exception], ...]] = (
    states.EPFail,
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NoModel,
    states.NoSuchFile,
    states.NotImplemented,
    states.RuntimeException,
)
"""What ONNX Runtime raises of a graph that it cannot load or run."""


class OnnxRuntimeBackend:
    """A bundle's graph, whose weights ONNX Runtime reads from the bundle's one weights file."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, *, device: Literal["auto", "cpu", "cuda"], threads: int | None) -> None:
        self.device = "cuda" if device == "cuda" else "cpu"
        provider = _PROVIDERS[self.device]
        if provider not in onnxruntime.get_available_providers():
            raise BackendError(f"this ONNX Runtime has no {provider}")
        options = onnxruntime.SessionOptions()
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep: see tests.bench
        if threads is not None:
            options.intra_op_num_threads = threads
        weights = bundle.content(WEIGHTS)
        options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [len(weights)])
        self._session = onnxruntime.InferenceSession(bundle.content(GRAPH), options, providers=[provider])
        found = {argument.name for argument in self._session.get_inputs()}
        if found != _INPUTS:
            raise BackendError(f"{bundle.path / GRAPH}: takes {sorted(found)}, not {sorted(_INPUTS)}: export it again")
        self._gives_features = "features" in {output.name for output in self._session.get_outputs()}

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        checked = checked_inputs(inputs)
        (logits,) = self._outputs(checked, "logits")
        return checked_logits(logits, count=len(checked))

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        if not self._gives_features:
            raise BackendError("the graph gives no features of the second stage: export the bundle again")
        checked = checked_inputs(inputs)
        logits, features = self._outputs(checked, "logits", "features")
        return checked_scores(logits, features, count=len(checked))

    def predict(self, inputs: NDArray[np.float32]) -> Prediction:
        checked = checked_inputs(inputs)
        logits, maps = self._outputs(checked, "logits", "maps")
        return checked_prediction(logits, maps, count=len(checked))

    def _outputs(self, inputs: NDArray[np.float32], *names: str) -> list[NDArray[np.float32]]:
        # One by one on a CPU, so that a film's answer is the same to the last bit whatever other films came with it. A
        # batch of 16 would take 0.94 of the time (two idle cores; 0.6 if one is busy) and change the seventh digit.
        size = 1 if self.device == "cpu" else len(inputs)
        parts = []
        for start in range(0, len(inputs), size):
            films = inputs[start : start + size]
            mapped = np.arange(len(films) if "maps" in names else 0, dtype=np.int64)
            parts.append(self._session.run(list(names), {"inputs": films, "mapped": mapped}))
        return [np.concatenate(part) for part in zip(*parts, strict=True)]
