"""The same commands on a GPU: training, several folds on one card, the served network. Skipped where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pytest
import torch
from pneumonia_model.bundle import load_bundle
from pneumonia_model.errors import BackendError
from pneumonia_model.golden import golden_difference, golden_gate_difference, verify_golden, verify_golden_gate
from pneumonia_model.opening import open_backend
from pneumonia_model.precision import BOUNDS, Precision
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import SplitRule
from pneumonia_training.learning.checkpoint import NetworkBackend, network_weights
from pneumonia_training.learning.crossvalidate import Plan, crossvalidate
from pneumonia_training.learning.fit import Hardware, fit
from pneumonia_training.learning.recipe import Recipe, Stage

from tests.model.gates import gate_of, with_gate
from tests.training.small_films import prepared_films

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]

CUDA: Final = Hardware(accelerator="gpu", devices=1)
RECIPE: Final = Recipe(
    name="trial",
    seed=3,
    precision="bf16-mixed",
    monitor="last",
    split=SplitRule(test_folds=(0, 1), validation_folds=()),
    stages=(Stage(name="films", epochs=2, side=96, learning_rate=1e-3, batch_size=8, averaging=0.5, dropout=0.1),),
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFilms:
    return prepared_films(tmp_path_factory.mktemp("films"), patients=40, films_each=1)


def test_a_training_on_a_gpu_leaves_a_checkpoint_that_a_processor_reads(
    prepared: PreparedFilms, tmp_path: Path
) -> None:
    checkpoint = fit(prepared, RECIPE, run=tmp_path / "run", hardware=CUDA)
    inputs = prepared.images[:4].astype(np.float32) / np.float32(255)
    assert np.isfinite(NetworkBackend(network_weights(checkpoint)).logits(inputs)).all()


def test_a_training_on_a_gpu_can_be_made_again(prepared: PreparedFilms, tmp_path: Path) -> None:
    one, other = (network_weights(fit(prepared, RECIPE, run=tmp_path / name, hardware=CUDA)) for name in ("a", "b"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_gpu_in_single_precision_trains_as_a_processor_does(prepared: PreparedFilms, tmp_path: Path) -> None:
    recipe = replace(RECIPE, precision="32-true")
    processor = Hardware(accelerator="cpu", devices=1)
    inputs = prepared.images[:8].astype(np.float32) / np.float32(255)
    one, other = (
        NetworkBackend(network_weights(fit(prepared, recipe, run=tmp_path / name, hardware=hardware))).logits(inputs)
        for name, hardware in (("gpu", CUDA), ("cpu", processor))
    )
    assert np.corrcoef(one, other)[0, 1] > 0.9


def test_several_folds_train_at_once_on_one_card(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    prepared = prepared_films(tmp_path / "films", patients=40, films_each=1)
    plan = Plan(recipe=RECIPE, run=tmp_path / "run", folds=3, hardware=CUDA)
    table = pd.read_csv(crossvalidate(tmp_path / "films" / "cache", plan, jobs=3))
    assert sorted(table["row"]) == list(range(len(prepared.films)))
    assert table["fold"].nunique() == 3
    assert np.isfinite(table["logit"]).all()


def test_the_served_network_and_its_gate_answer_on_a_gpu_as_recorded(tmp_path: Path) -> None:
    bundle = load_bundle(with_gate(tmp_path / "bundle"))
    backend = open_backend(bundle, "torch", "cuda")
    assert backend.device == "cuda"
    assert golden_difference(bundle, backend) <= 1e-4
    assert golden_gate_difference(bundle, backend, gate_of(bundle)) <= BOUNDS["float32"].unlikeness


@pytest.mark.parametrize("precision", BOUNDS)
def test_each_precision_answers_within_its_bound_on_a_gpu_or_is_refused(tmp_path: Path, precision: Precision) -> None:
    bundle = load_bundle(with_gate(tmp_path / "bundle"))
    if precision in {"tf32", "bfloat16"} and torch.cuda.get_device_capability() < (8, 0):
        with pytest.raises(BackendError, match=r"inference\.precision"):
            open_backend(bundle, "torch", "cuda", precision=precision)
        return
    backend = open_backend(bundle, "torch", "cuda", precision=precision)
    assert backend.precision == precision
    verify_golden(bundle, backend)
    verify_golden_gate(bundle, backend, gate_of(bundle))
    assert (golden_difference(bundle, backend) > BOUNDS["float32"].logit) is (precision != "float32")
