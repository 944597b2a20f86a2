"""Recipes: a whole training, as one TOML file says it."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from pneumonia_training.films.sampling import Augmentation, SplitRule

EVERY_STAGE: Final = "*"
RECIPES: Final = Path(__file__).parent.parent / "recipes"


class RecipeError(Exception):
    """The recipe, or a value set over it, cannot be trained by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Weights of the losses beside the label's own; what they train is thrown away at release.

    Attributes:
        negatives: Normal against No Lung Opacity / Not Normal among the films without opacity. With the label this is
            a three-class head, written as two nested questions so that P(opacity) stays one logit.
        boxes: where the radiologists' boxes lie, at a sixteenth of the film's side. A positive film without a known
            box, and the border that is not film, teach nothing.
        map: whether the class activation map is above zero inside the boxes and below outside, so that the score is
            made of the opacity and not of what comes with it.
        findings: the findings that text mining found in the film's report; noisy, and never what is reported.
    """

    negatives: float = 0.0
    boxes: float = 0.0
    map: float = 0.0
    findings: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some epochs on some subsets at one resolution.

    Attributes:
        objective: "label" trains the classifier; "denoise" trains its filters to restore a film from a noisy one with
            holes, without a label (Vincent et al. 2008).
        subsets: none means all.
        apart_from: a patient with any film in these subsets trains nothing in this stage, so that it is the same
            whichever of their patients are held out.
        films_per_epoch: how many are drawn; 0 means as many as there are.
        averaging: decay of the running average of weights that is validated and released; 0 for none.
        negative_weights: how often a negative film of a class is drawn against the others.
        subset_shares: which share of the films drawn is of a subset, half of it positive; subsets that are not named
            share the rest.
        teacher: share of the soft targets, where they are given, against the labels.
        patience: epochs without a better monitored figure before the stage ends early; 0 for never.
    """

    name: str
    epochs: int
    side: int
    learning_rate: float
    batch_size: int
    objective: Literal["label", "denoise"] = "label"
    subsets: tuple[str, ...] = ()
    apart_from: tuple[str, ...] = ()
    films_per_epoch: int = 0
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = 0.02
    averaging: float = 0.99
    balanced: bool = True
    negative_weights: dict[str, float] = field(default_factory=dict)
    subset_shares: dict[str, float] = field(default_factory=dict)
    tasks: Tasks = Tasks()
    teacher: float = 0.0
    patience: int = 0
    augmentation: Augmentation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole training.

    Attributes:
        monitor: figure of the validation films that chooses a stage's checkpoint; "last" chooses nothing, and then no
            film is spent on validation.
        split: folds of patients, or a share of films for a random split by image.
    """

    name: str
    seed: int
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    monitor: Literal["val_auroc", "val_acc", "last"]
    split: SplitRule | float
    stages: tuple[Stage, ...]


def read_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Return a recipe of the package by name, or any by path, with `key=value` settings over it.

    A key is dotted: `seed`, `split.test_folds`, `stage.NAME.epochs` or `stage.*.batch_size`; a value is TOML.

    Raises:
        RecipeError: there is no such recipe or key, or a value does not suit.
    """
    path, document = recipe_document(name_or_path)
    for override in overrides:
        _override(document, override)
    try:
        rule = document.pop("split")
        split = rule["test_share_of_images"] if "test_share_of_images" in rule else SplitRule(**tuples(rule))
        stages = tuple(_stage(stage) for stage in document.pop("stage"))
        recipe = Recipe(**document, split=split, stages=stages)
    except (KeyError, TypeError) as error:
        raise RecipeError(f"{path}: not a recipe: {error}") from error
    _check(recipe)
    return recipe


def recipe_document(name_or_path: str) -> tuple[Path, dict[str, Any]]:
    """Return the file of a recipe, the package's by name or any by path, and what it holds.

    Raises:
        RecipeError: there is none, or it is not TOML.
    """
    bundled = RECIPES / f"{name_or_path}.toml"
    path = bundled if bundled.is_file() else Path(name_or_path)
    try:
        return path, tomllib.loads(path.read_text())
    except OSError as error:
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.toml")))
        raise RecipeError(f"no recipe {name_or_path}: there are {known}, or give the path of a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: {error}") from error


def assignment(override: str) -> tuple[list[str], Any]:
    """Return the parts of the key and the value of `key=value`; a value is TOML, or a bare word.

    Raises:
        RecipeError: it assigns nothing.
    """
    key, separator, text = override.partition("=")
    if not separator:
        raise RecipeError(f"--set {override}: write key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return key.strip().split("."), value


def _stage(document: dict[str, Any]) -> Stage:
    augmentation, tasks = document.pop("augmentation", None), document.pop("tasks", {})
    return Stage(
        **tuples(document),
        tasks=Tasks(**tasks),
        augmentation=None if augmentation is None else Augmentation(**augmentation),
    )


def tuples(document: dict[str, Any]) -> dict[str, Any]:
    """Return a table of TOML with its arrays as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


def _check(recipe: Recipe) -> None:
    """Raise RecipeError for values that would fail late or train nothing."""
    if not recipe.stages or recipe.stages[-1].objective != "label":
        raise RecipeError("the last stage of a recipe trains the label")
    names = [stage.name for stage in recipe.stages]
    if len(set(names)) < len(names):
        raise RecipeError("two stages have one name")
    for stage in recipe.stages:
        for value, least in ((stage.epochs, 1), (stage.side, 32), (stage.batch_size, 2), (stage.films_per_epoch, 0)):
            if not isinstance(value, int) or value < least:
                raise RecipeError(f"stage {stage.name}: {value!r} is not a whole number from {least}")


def _override(document: dict[str, Any], override: str) -> None:
    parts, value = assignment(override)
    if parts[0] == "stage":
        if len(parts) < 3:
            raise RecipeError(f"--set {override}: write stage.NAME.key=value, or stage.*.key=value")
        targets = [stage for stage in document["stage"] if parts[1] in (EVERY_STAGE, stage["name"])]
        if not targets:
            raise RecipeError(f"--set {override}: no stage {parts[1]}")
        known, path = {entry.name for entry in fields(Stage)}, parts[2:]
    else:
        targets, known, path = [document], {entry.name for entry in fields(Recipe)} - {"stages"}, parts
    if path[0] not in known:
        raise RecipeError(f"--set {override}: no setting {path[0]}; there are {', '.join(sorted(known))}")
    for target in targets:
        for part in path[:-1]:
            target = target.setdefault(part, {})  # noqa: PLW2901 - walks down
        target[path[-1]] = value
