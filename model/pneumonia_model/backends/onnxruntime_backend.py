"""ONNX Runtime: small and quick to start, the runtime of a node without a GPU."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as states

from pneumonia_model.bundle import GRAPH, WEIGHTS, Bundle
from pneumonia_model.errors import BackendError
from pneumonia_model.precision import Precision
from pneumonia_model.prediction import (
    THIRD_STAGE,
    Scores,
    checked_inputs,
    checked_logits,
    checked_maps,
    checked_scores,
)
from pneumonia_model.sizes import INPUT_SIDE

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_OPTIONS: Final = {"cpu": {}, "cuda": {"use_tf32": "0"}}  # by default it rounds factors to 10 bits
_NO_FILMS: Final = {
    "inputs": np.empty((0, INPUT_SIDE, INPUT_SIDE), dtype=np.float32),
    "mapped": np.empty((0, *THIRD_STAGE), dtype=np.float32),
}
_THIRD: Final = "layer3.1.out"
_NAMES: Final = {*_NO_FILMS, "logits", "features", _THIRD, "maps"}
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
    precision: Precision = "float32"

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
        self._session = onnxruntime.InferenceSession(
            bundle.content(GRAPH), options, providers=[(provider, _OPTIONS[self.device])]
        )
        found = {argument.name for argument in (*self._session.get_inputs(), *self._session.get_outputs())}
        if found != _NAMES:
            raise BackendError(
                f"{bundle.path / GRAPH}: takes and gives {sorted(found)}, not {sorted(_NAMES)}: "
                "`pneumonia-train rewrite-graph` writes this version's"
            )

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        checked = checked_inputs(inputs)
        (logits,) = self._outputs("inputs", checked, "logits")
        return checked_logits(logits, count=len(checked))

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        checked = checked_inputs(inputs)
        logits, features, third = self._outputs("inputs", checked, "logits", "features", _THIRD)
        return checked_scores(logits, features, lambda rows: self._maps(third, rows), count=len(checked))

    def _maps(self, third: NDArray[np.float32], rows: Sequence[int]) -> NDArray[np.float32]:
        (maps,) = self._outputs("mapped", third[list(rows)], "maps")
        return checked_maps(maps, count=len(rows))

    def _outputs(self, name: str, films: NDArray[np.float32], *outputs: str) -> list[NDArray[np.float32]]:
        """Return these outputs for films that enter the graph at the input `name`; none enters at the other."""
        # One by one on a CPU, so that a film's answer is the same to the last bit whatever other films came with it. A
        # batch of 16 would take 0.94 of the time (two idle cores; 0.6 if one is busy) and change the seventh digit.
        size = 1 if self.device == "cpu" else len(films)
        parts = [
            self._session.run(list(outputs), {**_NO_FILMS, name: films[start : start + size]})
            for start in range(0, len(films), size)
        ]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]
