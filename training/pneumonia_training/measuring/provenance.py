"""Describes which network was measured on which films, and the doubts about it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.bundle import Bundle

from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import Split, SplitRule
from pneumonia_training.learning.checkpoint import CheckpointError
from pneumonia_training.learning.fit import rows_of
from pneumonia_training.learning.recipe import Recipe
from pneumonia_training.learning.run_record import RUN, plain, sides_document
from pneumonia_training.measuring.measure import age_in_years


def bundle_document(bundle: Bundle) -> dict[str, str]:
    """Return the identity of a bundle."""
    return {"name": bundle.name, "version": bundle.version, "status": bundle.status, "digest": bundle.digest}


def films_document(prepared: PreparedFilms, rows: NDArray[np.intp]) -> dict[str, Any]:
    """Return the numbers of films, positive films and patients, with subsets, views, ages and sexes."""
    films = prepared.films.iloc[rows]
    subsets = films.groupby("subset")["label"].agg(["size", "sum"])
    ages = np.array([age_in_years(str(age)) for age in films["age"]], dtype=np.float64)
    known = ages[np.isfinite(ages)]
    return {
        "films": len(films),
        "positive": int(films["label"].sum()),
        "patients": int(films["group"].nunique()),
        "subsets": {
            str(name): {"films": int(size), "positive": int(positive)} for name, size, positive in subsets.itertuples()
        },
        "women": int((films["sex"] == "F").sum()),
        "men": int((films["sex"] == "M").sum()),
        "views": {view: int((films["view"] == view).sum()) for view in ("AP", "PA")},
        "age": [float(age) for age in np.quantile(known, (0.25, 0.5, 0.75))] if len(known) else None,
    }


def trained_document(prepared: PreparedFilms, recipe: Recipe, split: Split) -> dict[str, Any]:
    """Return the recipe and the films that its stages train on."""
    rows = np.unique(np.concatenate([rows_of(prepared, split, stage) for stage in recipe.stages]))
    return {"recipe": recipe.name, "train": films_document(prepared, rows)}


def hold_out_document(prepared: PreparedFilms, recipe: Recipe, split: Split) -> dict[str, Any]:
    """Return the three sides of a split."""
    return trained_document(prepared, recipe, split) | {
        "by": split_by(prepared, recipe),
        "kind": "hold-out",
        "validation": films_document(prepared, split.validation),
        "test": films_document(prepared, split.test),
    }


def split_by(prepared: PreparedFilms, recipe: Recipe | None = None) -> str:
    """Return "patient", or "image" if the recipe splits so or the films' patients are not known."""
    by_image = recipe is not None and not isinstance(recipe.split, SplitRule)
    return "image" if by_image else prepared.split_unit


def crossvalidation_document(prepared: PreparedFilms, rows: NDArray[np.intp], *, folds: int) -> dict[str, Any]:
    """Return the description of a cross-validation: no film's network had seen its patient."""
    return {
        "by": split_by(prepared),
        "kind": "cross-validation",
        "folds": folds,
        "test": films_document(prepared, rows),
    }


def recorded_run(checkpoint: Path, prepared: PreparedFilms, split: Split) -> dict[str, Any] | None:
    """Return the record of the training in the checkpoint's run folder; None for a checkpoint without one.

    Raises:
        CheckpointError: the training used other films, or the split to measure on differs from its split.
    """
    path = checkpoint.parent.parent / RUN
    if not path.is_file():
        return None
    run: dict[str, Any] = json.loads(path.read_text())
    if run["data"] != prepared.digest:
        raise CheckpointError(f"{checkpoint}: trained on other prepared films, {run['data']}")
    for name, side in sides_document(split).items():
        if run["split"][name] != side:
            raise CheckpointError(
                f"{checkpoint}: trained by another split (its {name} films differ): give the recipe and the settings "
                "that it was trained with"
            )
    return run


def doubts(bundle: Bundle, prepared: PreparedFilms, recipe: Recipe | None) -> list[str]:
    """Return the reasons that speak against measuring this bundle on the test films of a recipe, or on all films."""
    training = bundle.manifest.get("training", {})
    if training.get("data") != prepared.digest:
        return ["The bundle was trained on other prepared films: whether it has seen these patients is not known here."]
    if training.get("evaluation") == "cross-validation":
        return [
            "The bundle's network was trained on all of these films: only its cross-validation says what it is worth."
        ]
    if recipe is None:
        return ["All films are measured, those that the bundle was trained on among them: the figures are too good."]
    if plain(asdict(recipe))["split"] != training["recipe"]["split"]:
        return ["The bundle was trained by another split: it has seen some of these films."]
    if split_by(prepared, recipe) == "image":
        return ["The split is by image: patients are on both sides, the figures are too good."]
    return []
