"""Compares recipes, each by its cross-validation over the same patients, and gives the learning curve."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumonia_training.films.manifests import NO_OPACITY_NOT_NORMAL, ManifestError
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.intervals import auc, bootstrap, difference
from pneumonia_training.learning.fit import STAGE
from pneumonia_training.learning.run_record import RUN
from pneumonia_training.measuring.measure import groups_of_films

GROUPS: Final = ("all", "view AP", "view PA", "against Normal", f"against {NO_OPACITY_NOT_NORMAL}")


def compare_recipes(
    prepared: PreparedFilms, predictions: Mapping[str, Path], *, subset: str, against: str
) -> dict[str, Any]:
    """Return the AUC of each named table of predictions on the films of a subset; each table must score all of them.

    Every figure is [value, low, high] with a 95 % interval by patient. `difference` is the AUC minus that of the table
    named `against`, on the same resampled patients. If the folds' folders lie beside a table, the result also describes
    their trainings.

    Raises:
        ManifestError: a table leaves a film out or scores one twice, or no table is named `against`.
    """
    if against not in predictions:
        raise ManifestError(f"nothing named {against} to compare with: there are {', '.join(predictions)}")
    films = prepared.films
    rows = np.flatnonzero(films["subset"] == subset)
    if not len(rows):
        raise ManifestError(f"no film of the subset {subset}")
    table = films.iloc[rows]
    labels, patients = table["label"].to_numpy() == 1, table["group"].to_numpy(dtype=np.str_)
    groups = {name: kept for name, kept in groups_of_films(table, labels).items() if name in GROUPS}
    scores = {name: _scores(path, rows) for name, path in predictions.items()}

    def figures(score: NDArray[np.float64]) -> dict[str, Any]:
        pair = np.stack([score, scores[against]], axis=1)
        return {
            "auc": {
                name: bootstrap(auc, score[kept], labels[kept], patients[kept]).as_list()
                for name, kept in groups.items()
            },
            "difference": bootstrap(difference(auc), pair, labels, patients).as_list(),
        }

    return {
        "data": prepared.digest,
        "subset": subset,
        "films": len(rows),
        "positive": int(labels.sum()),
        "patients": len(set(patients)),
        "against": against,
        "compared": {name: figures(score) | _training(predictions[name]) for name, score in scores.items()},
    }


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Return a comparison as a Markdown table."""
    groups = list(next(iter(comparison["compared"].values()))["auc"])
    head = ["", "films, positive", *(f"AUC, {group}" for group in groups), f"less *{comparison['against']}*"]
    lines = [head, ["---"] * len(head)]
    for name, of in comparison["compared"].items():
        trained = "{films:,}, {positive:,}".format(**of["trained_on"]) if "trained_on" in of else ""
        less = "" if name == comparison["against"] else _figure(of["difference"], sign="+")
        lines.append([name, trained, *(_figure(of["auc"][group]) for group in groups), less])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(estimate: list[float | None], *, sign: str = "") -> str:
    value, low, high = estimate
    if value is None:
        return "too few films"
    return f"{value:{sign}.3f} [{low:{sign}.3f}{', ' if sign else '-'}{high:{sign}.3f}]"


def _scores(path: Path, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    table = pd.read_csv(path).set_index("row")["logit"]
    if not table.index.is_unique:
        raise ManifestError(f"{path}: scores a film twice")
    if not set(rows) <= set(table.index):
        raise ManifestError(f"{path}: does not score every film of the subset")
    return table.reindex(rows).to_numpy(dtype=np.float64)


def _training(predictions: Path) -> dict[str, Any]:
    """Return the recipe and the mean number of films in a fold's last stage; empty without the folders."""
    runs = sorted(predictions.parent.glob(f"fold-*/{RUN}"))
    if not runs:
        return {}
    recipe = json.loads(runs[0].read_text())["recipe"]
    last = f"{len(recipe['stages']) - 1}-{recipe['stages'][-1]['name']}"
    stages = [json.loads((run.parent / last / STAGE).read_text()) for run in runs]
    trained = {count: round(float(np.mean([stage[count] for stage in stages]))) for count in ("films", "positive")}
    return {"trained_on": trained, "recipe": recipe}
