"""Between two films the threads of the runtime and of BLAS sleep: turning while they wait, they would take cores."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
import onnxruntime
from pneumonia_model.bundle import GRAPH, WEIGHTS, load_bundle
from pneumonia_model.gate import Gate
from pneumonia_model.opening import open_backend
from pneumonia_model.prediction import STAGE_FEATURES, THIRD_STAGE
from pneumonia_training.measuring.pixel_gate import MOST_AXES

from tests.node import BUNDLE
from tests.waiting import let_pass

RUNS: Final = 5
IDLE: Final = 0.15  # seconds after each run: about as long as such a thread turns
SLEEPING: Final = 0.01  # processor seconds in that time
THREADS: Final = 4
FILM: Final = np.random.default_rng(1).random((1, 224, 224), dtype=np.float32)


def spent_idle(work: Callable[[], object]) -> float:
    """Return the processor seconds that all threads of this process take in the idle time after work, the median."""
    spent = []
    for _ in range(RUNS):
        work()
        began = time.process_time()
        let_pass(IDLE)
        spent.append(time.process_time() - began)
    return sorted(spent)[RUNS // 2]


def test_the_threads_of_onnx_runtime_sleep_after_a_film() -> None:
    backend = open_backend(load_bundle(BUNDLE), "onnxruntime", "cpu", threads=THREADS)
    assert spent_idle(lambda: backend.scores(FILM)) < SLEEPING


def test_the_control_of_the_one_above_by_themselves_they_turn() -> None:
    bundle, options = load_bundle(BUNDLE), onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_external_initializers_from_files_in_memory(
        [WEIGHTS], [weights := bundle.content(WEIGHTS)], [len(weights)]
    )
    session = onnxruntime.InferenceSession(bundle.content(GRAPH), options, providers=["CPUExecutionProvider"])
    film = {"inputs": FILM, "mapped": np.empty((0, *THIRD_STAGE), dtype=np.float32)}
    assert spent_idle(lambda: session.run(["logits"], film)) > SLEEPING


def test_the_threads_of_blas_sleep_after_the_gate() -> None:
    chance = np.random.default_rng(2)
    gate = Gate(
        mean=np.zeros(STAGE_FEATURES),
        scale=np.ones(STAGE_FEATURES),
        axes=chance.random((MOST_AXES, STAGE_FEATURES)),
        deviations=np.ones(MOST_AXES),
        limit=1.0,
    )
    features = chance.random((1, STAGE_FEATURES), dtype=np.float32)
    assert spent_idle(lambda: gate.unlikeness(features)) < SLEEPING
