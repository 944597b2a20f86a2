"""Tests that learn: the common recipe finds an opacity that is there, and finds nothing where there is nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.intervals import auc
from pneumonia_training.learning.fit import Hardware, fit, predict_films
from pneumonia_training.learning.recipe import read_recipe

from tests.training.phantoms import phantoms

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

# The recipe itself but for its length and size: 30 epochs at 224 are for thousands of films.
RECIPE: Final = read_recipe("reference", ["stage.films.epochs=3", "stage.films.batch_size=8", "stage.films.side=64"])


def auc_elsewhere(prepared: PreparedFilms, run: Path) -> float:
    """Train, and return the AUC on phantoms that training has not seen."""
    checkpoint = fit(prepared, RECIPE, run=run, hardware=Hardware(accelerator="cpu", devices=1))
    others = phantoms(300, seed=50_000)
    logits = predict_films(checkpoint, RECIPE.stages[-1], others.images)
    return auc(logits, others.films["label"].to_numpy() == 1)


def test_the_reference_recipe_finds_a_planted_opacity(tmp_path: Path) -> None:
    assert auc_elsewhere(phantoms(160), tmp_path) > 0.95


def test_the_reference_recipe_finds_nothing_in_shuffled_labels(tmp_path: Path) -> None:
    """Shuffled so that half of the films with an opacity, and half of those without, are called positive.

    A plain shuffle leaves a correlation by chance, of .07 on 200 films, and a network that learns would find it.
    """
    planted = phantoms(160)
    films, random = planted.films, np.random.default_rng(5)
    order = random.permutation(len(films))
    rank = films.iloc[order].groupby("label").cumcount().sort_index()
    shuffled = films.assign(label=rank % 2)
    assert auc_elsewhere(replace(planted, films=shuffled), tmp_path) == pytest.approx(0.5, abs=0.1)
