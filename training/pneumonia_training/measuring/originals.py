"""Measures the training films again as whole files: does a score depend on the form in which a film came?"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumonia_training.films.manifests import ManifestError
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.intervals import auc, bootstrap, difference
from pneumonia_training.learning.recipe import Recipe
from pneumonia_training.measuring.calibration import Chosen
from pneumonia_training.measuring.external import read_external
from pneumonia_training.measuring.measure import fold_networks, read_predictions
from pneumonia_training.measuring.probes import NetworkRows, predict


def measure_originals(
    prepared: PreparedFilms, recipe: Recipe, predictions: Path, manifest: Path, chosen: Chosen
) -> dict[str, Any]:
    """Return the scores of a cross-validation's networks for films in another form, next to those of the prepared form.

    `manifest` is a CSV with `path`, `label` and `image_id`; a film counts if a film of the recipe's last stage has the
    same image id. The fold's network that has not seen its patient scores it in both forms. Decisions are at the
    default operating point of `chosen`.

    Raises:
        ManifestError: no film of the manifest is among the prepared ones, or the folds' networks are missing.
    """
    external = read_external(manifest)
    if "image_id" not in external.prepared.films:
        raise ManifestError(f"{manifest.name}: no column image_id")
    films = prepared.films[prepared.films["subset"].isin(recipe.stages[-1].subsets or prepared.films["subset"])]
    row_of = {image: row for row, image in films["image_id"].items() if image}
    found = [number for number, image in enumerate(external.prepared.films["image_id"]) if image in row_of]
    if not found:
        raise ManifestError(f"{manifest.name}: none of its films is among the prepared ones")
    rows = np.array([row_of[external.prepared.films["image_id"].iloc[number]] for number in found], dtype=np.intp)
    count = read_predictions(predictions, prepared)["fold"].nunique()
    order, parts = _by_fold(prepared, predictions, rows, count)
    here = predict(prepared.images, parts)
    starts = np.cumsum([0, *(len(part.rows) for part in parts)])
    again = [
        NetworkRows(part.backend, np.asarray(found, dtype=np.intp)[order[start : start + len(part.rows)]])
        for part, start in zip(parts, starts, strict=False)
    ]
    there = predict(external.prepared.images, again)
    return _figures(prepared, rows[order], here, there, chosen)


def _by_fold(
    prepared: PreparedFilms, predictions: Path, rows: NDArray[np.intp], count: int
) -> tuple[NDArray[np.intp], list[NetworkRows]]:
    """Return the order of the rows by fold, and each fold's network with its rows in that order."""
    folds = prepared.films["fold"].to_numpy(dtype=np.int64)[rows] % count
    order = np.argsort(folds, kind="stable")
    parts = fold_networks(predictions.parent, rows[order], folds[order])
    if not parts:
        raise ManifestError(f"{predictions}: the networks of the folds are not beside it")
    return order, parts


def _figures(
    prepared: PreparedFilms,
    rows: NDArray[np.intp],
    here: NDArray[np.float64],
    there: NDArray[np.float64],
    chosen: Chosen,
) -> dict[str, Any]:
    films = prepared.films.iloc[rows]
    labels, patients = films["label"].to_numpy() == 1, films["group"].to_numpy(dtype=np.str_)
    default = next(iter(chosen.thresholds))
    calls = [chosen.applied(logits).calls[default] for logits in (here, there)]
    apart = there - here
    return {
        "films": len(rows),
        "positive": int(labels.sum()),
        "patients": len(set(patients)),
        "auc": {
            "prepared": bootstrap(auc, here, labels, patients).as_list(),
            "original": bootstrap(auc, there, labels, patients).as_list(),
            "difference": bootstrap(difference(auc), np.stack([there, here], axis=1), labels, patients).as_list(),
        },
        "logits_apart": {
            "negative": round(float(apart[~labels].mean()), 4),
            "positive": round(float(apart[labels].mean()), 4),
            "deviation": round(float(apart.std()), 4),
        },
        "decisions_that_differ": int((calls[0] != calls[1]).sum()),
    }
