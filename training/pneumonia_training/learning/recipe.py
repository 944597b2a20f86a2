"""Recipes: one TOML file describes a whole training."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from pneumonia_training.films.sampling import Augmentation, SplitRule

EVERY_STAGE: Final = "*"
RECIPES: Final = Path(__file__).parent.parent / "recipes"


class RecipeError(Exception):
    """A training cannot follow the recipe, or a value set over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Weights of the losses besides that of the label; the release drops what these tasks train.

    Attributes:
        negatives: Normal against No Lung Opacity / Not Normal among the films without opacity. With the label this
            is a three-class head, written as two nested questions so that P(opacity) stays one logit.
        boxes: places of the radiologists' boxes, at a sixteenth of the film's side. A positive film without a known
            box teaches nothing here, and neither does the border outside the film.
        map: the class activation map must be above zero inside the boxes and below zero outside, so that the score
            comes from the opacity and not from its surroundings.
        findings: the findings that text mining found in the film's report; noisy, and never reported.
    """

    negatives: float = 0.0
    boxes: float = 0.0
    map: float = 0.0
    findings: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some epochs on some subsets at one resolution.

    Attributes:
        init: safetensors file with the weights to start from (see `start_weights`), as a path from the working folder;
            only in the first stage. Empty: the weights are drawn at random.
        objective: "label" trains the classifier; "denoise" trains its filters to restore a film from a noisy one
            with holes, without a label (Vincent et al. 2008).
        subsets: empty for all.
        apart_from: a patient with any film in these subsets never trains in this stage, so that the stage is the
            same whichever of those patients are held out.
        body_rate: learning rate of all but the heads, as a share of `learning_rate`; 0 leaves the body as it is.
        dropout: share of the pooled features that is left out at random before the heads.
        films_per_epoch: number of films drawn; 0 for the number of films that exist.
        averaging: decay of the running average of weights that is validated and released; 0 for none.
        negative_weights: by class, how often a negative film is drawn relative to the others.
        subset_shares: by subset, its share of the films drawn, half of it positive; the other subsets share the
            rest.
        teacher: share of the soft targets, if given, against the labels.
        patience: epochs without a better monitored figure before the stage ends early; 0 for never.
    """

    name: str
    epochs: int
    side: int
    learning_rate: float
    batch_size: int
    init: str = ""
    objective: Literal["label", "denoise"] = "label"
    subsets: tuple[str, ...] = ()
    apart_from: tuple[str, ...] = ()
    films_per_epoch: int = 0
    optimizer: Literal["adam", "adamw"] = "adamw"
    body_rate: float = 1.0
    weight_decay: float = 0.02
    dropout: float = 0.0
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
        monitor: figure of the validation films that chooses a stage's checkpoint; "last" takes the last one, and
            then no film is spent on validation.
        split: folds of patients, or a share of films for a random split by image.
    """

    name: str
    seed: int
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    monitor: Literal["val_auroc", "val_acc", "last"]
    split: SplitRule | float
    stages: tuple[Stage, ...]


def read_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Return a recipe, by its name in the package or by path, with `key=value` settings over it.

    A key is dotted: `seed`, `split.test_folds`, `stage.NAME.epochs` or `stage.*.batch_size`; a value is TOML.

    Raises:
        RecipeError: the recipe or a key does not exist, or a value is not valid.
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
    """Return the file of a recipe, by its name in the package or by path, and its contents.

    Raises:
        RecipeError: the file does not exist, or is not TOML.
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
        RecipeError: `override` is not an assignment.
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
    """Raise RecipeError for values that would fail late or leave nothing to train."""
    if not recipe.stages or recipe.stages[-1].objective != "label":
        raise RecipeError("the last stage of a recipe trains the label")
    names = [stage.name for stage in recipe.stages]
    if len(set(names)) < len(names):
        raise RecipeError("two stages have one name")
    if late := [stage.name for stage in recipe.stages[1:] if stage.init]:
        raise RecipeError(f"stage {late[0]}: init belongs to the first stage: the others start from the one before")
    for stage in recipe.stages:
        for value, least in ((stage.epochs, 1), (stage.side, 32), (stage.batch_size, 2), (stage.films_per_epoch, 0)):
            if not isinstance(value, int) or value < least:
                raise RecipeError(f"stage {stage.name}: {value!r} is not a whole number from {least}")
        if not 0 <= stage.body_rate <= 1:
            raise RecipeError(f"stage {stage.name}: body_rate {stage.body_rate} is not a share from 0 to 1")
        if not 0 <= stage.dropout < 1:
            raise RecipeError(f"stage {stage.name}: dropout {stage.dropout} is not a share from 0 to below 1")


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
