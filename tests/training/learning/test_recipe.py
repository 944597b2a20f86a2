"""Recipes: what the package's own say, and values set over them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from pneumonia_training.films.sampling import SplitRule
from pneumonia_training.learning.recipe import RECIPES, RecipeError, read_recipe

NAMES: Final = sorted(path.stem for path in RECIPES.glob("*.toml") if path.stem != "detect")


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_of_the_package_can_be_read(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.stages


def test_the_reference_recipe_is_the_common_one() -> None:
    recipe = read_recipe("reference")
    (stage,) = recipe.stages
    assert (recipe.split, recipe.monitor) == (0.1, "val_acc")
    assert (stage.side, stage.learning_rate, stage.optimizer, stage.augmentation) == (224, 1e-4, "adam", None)
    assert not stage.balanced


def test_the_default_recipe_splits_by_patient_in_tenths_and_goes_by_auroc() -> None:
    recipe = read_recipe("default")
    assert isinstance(recipe.split, SplitRule)
    assert (len(recipe.split.test_folds), len(recipe.split.validation_folds)) == (1, 1)
    assert recipe.monitor == "val_auroc"
    assert all(stage.optimizer == "adamw" and stage.averaging for stage in recipe.stages)


def test_any_value_can_be_set_over_a_recipe() -> None:
    recipe = read_recipe(
        "demonstration",
        [
            "seed=7",
            "monitor=val_auroc",
            "split.test_folds=[3]",
            "stage.*.batch_size=8",
            "stage.films-160.epochs=1",
            "stage.*.tasks={boxes=0.5}",
            "stage.*.augmentation.blur=0.0",
        ],
    )
    assert (recipe.seed, recipe.monitor) == (7, "val_auroc")
    assert isinstance(recipe.split, SplitRule)
    assert recipe.split.test_folds == (3,)
    assert {stage.batch_size for stage in recipe.stages} == {8}
    assert recipe.stages[0].epochs == 1
    assert recipe.stages[-1].tasks.boxes == 0.5
    assert {stage.augmentation.blur for stage in recipe.stages if stage.augmentation} == {0.0}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs", "write key=value"),
        ("epochz=3", "no setting epochz"),
        ("stage.nowhere.epochs=3", "no stage nowhere"),
        ("stage.films.speed=3", "no setting speed"),
        ("stage.films=3", "write stage.NAME.key=value"),
        ("stage.films.epochs=0", "not a whole number from 1"),
        ("stage.films.epochs=many", "'many' is not a whole number"),
        ("stage.films.tasks.hearts=1", "not a recipe"),
        ("stage.films.body_rate=2", "body_rate 2 is not a share from 0 to 1"),
        ("stage.films.dropout=1.0", "dropout 1.0 is not a share from 0 to below 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_reason(setting: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_recipe("default", [setting])


def test_only_the_first_stage_has_start_weights() -> None:
    assert read_recipe("demonstration", ["stage.films-160.init=a.safetensors"]).stages[0].init == "a.safetensors"
    with pytest.raises(RecipeError, match="stage films-224: init belongs to the first stage"):
        read_recipe("demonstration", ["stage.*.init=a.safetensors"])


def test_an_unknown_recipe_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe defualt: there are .*default"):
        read_recipe("defualt")
    (tmp_path / "mine.toml").write_text("name = 3 3")
    with pytest.raises(RecipeError, match=r"mine\.toml"):
        read_recipe(str(tmp_path / "mine.toml"))
