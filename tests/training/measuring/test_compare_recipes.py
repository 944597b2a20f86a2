"""Recipes are compared on the same films, each patient resampled for all of them at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pneumonia_training.films.manifests import ManifestError
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.measuring.compare_recipes import compare_recipes, comparison_table

from tests.training.phantoms import phantoms


@pytest.fixture(scope="module")
def prepared() -> PreparedFilms:
    return phantoms(120)


@pytest.fixture
def tables(prepared: PreparedFilms, tmp_path: Path) -> dict[str, Path]:
    """Predictions of a good recipe, with its trainings' folders beside them, and of one that guesses."""
    random, labels = np.random.default_rng(0), prepared.films["label"].to_numpy()
    for name, signal in (("good", 2.0), ("guess", 0.0)):
        (tmp_path / name).mkdir()
        logits = random.normal(signal * labels, 1)
        table = pd.DataFrame({"row": range(120), "fold": np.arange(120) % 2, "logit": logits})
        table.sample(frac=1, random_state=1).to_csv(tmp_path / name / "predictions.csv", index=False)
    for fold, films in ((0, 100), (1, 90)):
        last = tmp_path / "good" / f"fold-{fold}" / "1-last"
        last.mkdir(parents=True)
        recipe = {"name": "good", "stages": [{"name": "first"}, {"name": "last"}]}
        (last.parent / "run.json").write_text(json.dumps({"recipe": recipe}))
        (last / "stage.json").write_text(json.dumps({"films": films, "positive": films // 2}))
    return {name: tmp_path / name / "predictions.csv" for name in ("good", "guess")}


def test_a_comparison_states_each_recipe_and_its_difference_on_the_same_patients(
    prepared: PreparedFilms, tables: dict[str, Path]
) -> None:
    compared = compare_recipes(prepared, tables, subset="phantoms", against="guess")
    good, guess = compared["compared"]["good"], compared["compared"]["guess"]
    assert (compared["films"], compared["positive"], compared["patients"]) == (120, 60, 120)
    assert good["difference"][0] == pytest.approx(good["auc"]["all"][0] - guess["auc"]["all"][0], abs=2e-4)
    assert good["difference"][1] > 0
    assert guess["difference"] == [0, 0, 0]
    assert good["trained_on"] == {"films": 95, "positive": 48}
    assert good["recipe"]["name"] == "good"
    assert "trained_on" not in guess
    lines = comparison_table(compared).split("\n")
    assert lines[2].startswith(f"| good | 95, 48 | {good['auc']['all'][0]:.3f} [")
    assert lines[3].endswith("|  |")
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table[1:], "does not score every film"),
        (lambda table: pd.concat([table, table[:1]]), "scores a film twice"),
    ],
)
def test_a_table_of_other_films_is_refused(
    prepared: PreparedFilms, tables: dict[str, Path], change: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    change(pd.read_csv(tables["good"])).to_csv(tables["good"], index=False)
    with pytest.raises(ManifestError, match=reason):
        compare_recipes(prepared, tables, subset="phantoms", against="guess")


def test_what_there_is_not_cannot_be_compared(prepared: PreparedFilms, tables: dict[str, Path]) -> None:
    with pytest.raises(ManifestError, match="nothing named best"):
        compare_recipes(prepared, tables, subset="phantoms", against="best")
    with pytest.raises(ManifestError, match="no film of the subset"):
        compare_recipes(prepared, tables, subset="others", against="guess")
