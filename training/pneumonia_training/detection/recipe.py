"""The recipe of a detector: one TOML file, which differs from a classifier's by its table `[detector]`."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from pneumonia_training.films.sampling import SplitRule
from pneumonia_training.learning.recipe import RecipeError, assignment, recipe_document, tuples

_TABLE: Final = "detector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """Bounds of the random variation of each training film; a film is never mirrored, since the heart is on one side.

    Attributes:
        rotation: degrees.
        zoom, shift: shares of the side.
        brightness, contrast, gamma: shares.
    """

    rotation: float = 6.0
    zoom: float = 0.15
    shift: float = 0.06
    brightness: float = 0.1
    contrast: float = 0.2
    gamma: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """Settings of the detector's training.

    Attributes:
        side: side in pixels to which films are resized, in training and afterwards.
        subsets: empty for all.
        films_per_epoch: number of films drawn; 0 for the number of films that exist.
        positive_share: share of positive films among the films drawn.
        averaging: decay of the running average of weights that is measured and released.
    """

    epochs: int
    side: int
    learning_rate: float
    batch_size: int
    subsets: tuple[str, ...] = ()
    films_per_epoch: int = 0
    positive_share: float = 0.5
    weight_decay: float = 0.02
    averaging: float = 0.995
    variation: Variation = Variation()


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionRecipe:
    """A whole training of a detector.

    Attributes:
        init: checkpoint of a classifier to start from; "" for none.
    """

    name: str
    seed: int
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    split: SplitRule
    detector: DetectorSettings
    init: str = ""


def is_detection(name_or_path: str) -> bool:
    """Return whether a recipe is a detector's; False if it cannot be read, which its reader will report."""
    try:
        return _TABLE in recipe_document(name_or_path)[1]
    except RecipeError:
        return False


def read_detection_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> DetectionRecipe:
    """Return a detector's recipe, by its name in the package or by path, with `key=value` settings over it.

    A key is dotted: `seed`, `init`, `split.test_folds`, `detector.epochs`; a value is TOML, or a bare word.

    Raises:
        RecipeError: the recipe or a key does not exist, or a value is not valid.
    """
    path, document = recipe_document(name_or_path)
    for override in overrides:
        _override(document, override)
    try:
        recipe = parsed(document)
    except (KeyError, TypeError) as error:
        raise RecipeError(f"{path}: not a detector's recipe: {error}") from error
    _check(recipe)
    return recipe


def parsed(document: dict[str, Any]) -> DetectionRecipe:
    """Return the recipe in a TOML or JSON document.

    Raises:
        KeyError, TypeError: the document is not a recipe.
    """
    settings = dict(document[_TABLE])
    variation = Variation(**settings.pop("variation", {}))
    rest = {key: value for key, value in document.items() if key not in {"split", _TABLE}}
    return DetectionRecipe(
        **rest,
        split=SplitRule(**tuples(document["split"])),
        detector=DetectorSettings(**tuples(settings), variation=variation),
    )


def _override(document: dict[str, Any], override: str) -> None:
    (*tables, last), value = assignment(override)
    target = document
    for table in tables:
        target = target.get(table, {})
        if not isinstance(target, dict) or table not in {_TABLE, "split", "variation"}:
            raise RecipeError(f"--set {override}: no table {table}")
    if not tables and last not in {entry.name for entry in fields(DetectionRecipe)}:
        raise RecipeError(f"--set {override}: no setting {last}")
    target[last] = value


def _check(recipe: DetectionRecipe) -> None:
    """Raise RecipeError for values that would fail late or leave nothing to train."""
    settings = recipe.detector
    for value, least in (
        (settings.epochs, 1),
        (settings.side, 64),
        (settings.batch_size, 2),
        (settings.films_per_epoch, 0),
    ):
        if not isinstance(value, int) or value < least:
            raise RecipeError(f"detector: {value!r} is not a whole number from {least}")
    if not 0 < settings.positive_share < 1 or not 0 < settings.averaging < 1:
        raise RecipeError("detector: positive_share and averaging lie between 0 and 1")
    if not recipe.split.validation_folds or not recipe.split.test_folds:
        raise RecipeError("split: validation films choose the threshold, and test films measure")
