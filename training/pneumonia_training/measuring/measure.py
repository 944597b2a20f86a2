"""Measures a network on held-out patients, next to baselines that need no network."""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_model.prediction import Backend

from pneumonia_training.films.manifests import NO_OPACITY_NOT_NORMAL, ManifestError
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import Split
from pneumonia_training.intervals import (
    Figure,
    auc,
    average_precision,
    bootstrap,
    bootstrap_each,
    brier,
    calibration_error,
    confusion,
    difference,
    logistic,
    of_both_classes,
    predictive_values,
    rates,
    reliability,
)
from pneumonia_training.learning.checkpoint import NetworkBackend, network_weights
from pneumonia_training.learning.fit import STAGE
from pneumonia_training.measuring.baselines import trivial_baselines
from pneumonia_training.measuring.calibration import Chosen, Scores, cross_fitted
from pneumonia_training.measuring.probes import (
    NetworkRows,
    activation_maps,
    boxed,
    pointing_game,
    predict,
    shortcut_probes,
)

log = logging.getLogger(__name__)

PREVALENCES: Final = (0.01, 0.05, 0.10, 0.226)
"""From screening to the RSNA challenge's own mix."""

AGE_BANDS: Final = {"under 18": (0, 18), "18-39": (18, 40), "40-64": (40, 65), "65 and over": (65, 111)}
_AGE: Final = re.compile(r"(\d{1,3})(?:\.0)?([YMWD]?)")  # PS3.5 Table 6.2-1, and RSNA's numbers without a unit
_UNITS_A_YEAR: Final = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}
CALLED: Final = 0.5
"""Between 0 and 1: the threshold of a call that has been made already."""

_SAME_LOGIT: Final = 0.05
"""Largest difference between a stated prediction and the same network here: half precision moves logits by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Films, their scores, and every figure over them.

    Attributes:
        rows: the films' rows among the prepared ones, in the order of `films` and `scores`.
        baselines: scores of the same films by the trivial baselines.
        folds: number of networks that shared the films among them.
    """

    rows: NDArray[np.intp]
    films: pd.DataFrame
    scores: Scores
    figures: dict[str, Any]
    baselines: Mapping[str, NDArray[np.float64]]
    folds: int = 1


def measure_films(
    prepared: PreparedFilms, rows: NDArray[np.intp], backend: Backend, chosen: Chosen, *, train: NDArray[np.intp] | None
) -> Measurement:
    """Measure a network on `rows`; the thumbnail baseline learns from the rows `train`, else across folds of `rows`."""
    if not len(rows):
        raise ManifestError("no film to measure on")
    folds = prepared.films["fold"].to_numpy(dtype=np.int64)[rows]
    baselines = trivial_baselines(prepared, rows, folds, train=train)
    parts = [NetworkRows(backend, rows)]
    scores = chosen.applied(predict(prepared.images, parts))
    figures = evaluate(prepared.films.iloc[rows], scores, baselines=baselines) | _looks(prepared, parts)
    films = prepared.films.iloc[rows]
    return Measurement(rows=rows, films=films, scores=scores, figures=figures, baselines=baselines)


def training_rows_like(prepared: PreparedFilms, split: Split) -> NDArray[np.intp]:
    """Return the training rows in the subsets of the test: a baseline may learn from them."""
    tested = prepared.films["subset"].iloc[split.test].unique()
    return split.train[prepared.films["subset"].iloc[split.train].isin(tested).to_numpy()]


def read_predictions(path: Path, prepared: PreparedFilms) -> pd.DataFrame:
    """Return the predictions of a cross-validation (`row`, `fold`, `logit`), sorted by fold and row.

    Raises:
        ManifestError: the table is not valid, names a film twice or one that does not exist, or a patient lies in
            two folds.
    """
    table = pd.read_csv(path)
    if not {"row", "fold", "logit"} <= set(table.columns):
        raise ManifestError(f"{path.name}: the columns row, fold and logit are expected")
    table = table[["row", "fold", "logit"]].sort_values(["fold", "row"], ignore_index=True)
    if not (table["row"].is_unique and table["row"].between(0, len(prepared.films) - 1).all()):
        raise ManifestError(f"{path.name}: a row is named twice, or is not among the {len(prepared.films)} films")
    if not np.isfinite(table["logit"]).all():
        raise ManifestError(f"{path.name}: a logit is not a finite number")
    if table["fold"].nunique() < 2:
        raise ManifestError(f"{path.name}: a cross-validation has at least two folds")
    groups = prepared.films["group"].iloc[table["row"]].reset_index(drop=True)
    if (table["fold"].groupby(groups).nunique() > 1).any():
        raise ManifestError(f"{path.name}: a group lies in more than one fold: its patient was trained on")
    return table


def measure_crossvalidation(prepared: PreparedFilms, predictions: Path) -> Measurement:
    """Measure a cross-validation: no film's patient had a part in its network, calibration or thresholds.

    The probes and the pointing game need the folds' networks, which `crossvalidate` leaves beside the table; without
    them these figures are left out.
    """
    table = read_predictions(predictions, prepared)
    rows, folds = table["row"].to_numpy(dtype=np.intp), table["fold"].to_numpy(dtype=np.int64)
    labels = prepared.films["label"].to_numpy()[rows] == 1
    scores = cross_fitted(table["logit"].to_numpy(dtype=np.float64), labels, folds)
    films = prepared.films.iloc[rows]
    baselines = trivial_baselines(prepared, rows, folds)
    figures = evaluate(films, scores, baselines=baselines)
    parts = fold_networks(predictions.parent, rows, folds)
    if parts:
        worst = float(np.abs(predict(prepared.images, parts) - scores.logits).max())
        if worst > _SAME_LOGIT:
            raise ManifestError(
                f"{predictions}: the folds' networks give these films other logits here, by up to {worst:.2g}: "
                "were they predicted at another resolution than the node's?"
            )
        figures |= _looks(prepared, parts)
    else:
        log.warning("no networks of the folds beside %s: no probes, no pointing game", predictions.name)
    count = len(np.unique(folds))
    return Measurement(rows=rows, films=films, scores=scores, figures=figures, baselines=baselines, folds=count)


def fold_networks(folder: Path, rows: NDArray[np.intp], folds: NDArray[np.int64]) -> list[NetworkRows]:
    """Return each fold's network with its rows; an empty list if one is missing."""
    parts = []
    for fold in np.unique(folds):
        stages = sorted(folder.glob(f"fold-{fold}/*/{STAGE}"), key=lambda path: int(path.parent.name.split("-")[0]))
        if not stages:
            return []
        checkpoint = stages[-1].parent / str(json.loads(stages[-1].read_text())["checkpoint"])
        parts.append(NetworkRows(NetworkBackend(network_weights(checkpoint)), rows[folds == fold]))
    return parts


def _looks(prepared: PreparedFilms, parts: Sequence[NetworkRows]) -> dict[str, Any]:
    """Return where the networks look; the pointing game is null if no positive film has boxes."""
    films = prepared.films.iloc[np.concatenate([part.rows for part in parts])]
    labels, patients = films["label"].to_numpy() == 1, films["group"].to_numpy(dtype=np.str_)
    of_boxed = [NetworkRows(part.backend, part.rows[boxed(prepared.films.iloc[part.rows])]) for part in parts]
    return {
        "probes": shortcut_probes(prepared.images, parts, labels, patients),
        "pointing": (
            pointing_game(films[boxed(films)], activation_maps(prepared.images, of_boxed))
            if boxed(films).any()
            else None
        ),
    }


def evaluate(films: pd.DataFrame, scores: Scores, *, baselines: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return every figure over these films, each as [value, low, high] with a 95 % interval by patient.

    If all films are positive, or all negative, only the recall or the specificity has a meaning; every other figure is
    then null.
    """
    labels = films["label"].to_numpy() == 1
    patients = films["group"].to_numpy(dtype=np.str_)
    groups = groups_of_films(films, labels)

    def estimate(figure: Figure, values: NDArray[np.float64], rows: NDArray[np.bool_] | None = None) -> Any:
        keep = slice(None) if rows is None else rows
        return bootstrap(of_both_classes(figure), values[keep], labels[keep], patients[keep]).as_list()

    def by_group(figure: Figure, values: NDArray[np.float64]) -> dict[str, Any]:
        return {name: estimate(figure, values, rows) for name, rows in groups.items()}

    scorers = {"model": scores.logits, **baselines}
    pairs = {name: np.stack([scores.logits, baseline], axis=1) for name, baseline in baselines.items()}
    call = {name: called.astype(np.float64) for name, called in scores.calls.items()}
    default = call[next(iter(scores.thresholds))]
    return {
        "patients": len(set(patients)),
        "groups": {
            name: {"films": int(rows.sum()), "positive": int(labels[rows].sum())} for name, rows in groups.items()
        },
        "auc": {scorer: by_group(auc, values) for scorer, values in scorers.items()},
        "auc_difference": {name: by_group(difference(auc), pair) for name, pair in pairs.items()},
        "average_precision": {scorer: by_group(average_precision, values) for scorer, values in scorers.items()},
        "average_precision_difference": {
            name: estimate(difference(average_precision), pair) for name, pair in pairs.items()
        },
        "brier": _before_and_after(brier, scores, estimate),
        "calibration_error": _before_and_after(calibration_error, scores, estimate),
        "reliability": {
            "before": _bins(logistic(scores.logits), labels, patients),
            "after": _bins(scores.probabilities, labels, patients),
        },
        "operating_points": [
            {"name": name, "threshold": threshold, "confusion": confusion(call[name], labels, CALLED)}
            | _rates(call[name], labels, patients)
            for name, threshold in scores.thresholds.items()
        ],
        "predictive_values": {name: _predictive_values(called, labels, patients) for name, called in call.items()},
        "rates_by_group": {
            name: {
                rate: bootstrap(rates(CALLED)[rate], default[rows], labels[rows], patients[rows]).as_list()
                for rate in ("recall", "specificity")
            }
            for name, rows in groups.items()
        },
    }


def groups_of_films(films: pd.DataFrame, labels: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Return a mask of the films of each subgroup that is not empty."""

    def rows(column: str, value: str) -> NDArray[np.bool_]:
        return np.asarray(films[column] == value, dtype=np.bool_)

    def against(negative: NDArray[np.bool_]) -> NDArray[np.bool_]:
        negative = negative & ~labels
        return labels | negative if negative.any() else negative

    ages = np.array([age_in_years(str(age)) for age in films["age"]], dtype=np.float64)
    groups = {
        "all": np.ones(len(films), dtype=np.bool_),
        "view AP": rows("view", "AP"),
        "view PA": rows("view", "PA"),
        "against Normal": against(rows("negative_class", "Normal")),
        f"against {NO_OPACITY_NOT_NORMAL}": against(rows("negative_class", NO_OPACITY_NOT_NORMAL)),
        "women": rows("sex", "F"),
        "men": rows("sex", "M"),
        **{f"age {name}": (ages >= first) & (ages < end) for name, (first, end) in AGE_BANDS.items()},
        "age unknown": np.isnan(ages),
    }
    return {name: kept for name, kept in groups.items() if kept.any()}


def age_in_years(age: str) -> float:
    """Return an age given in DICOM's form or as a plain number; NaN if it is missing or implausible."""
    match = _AGE.fullmatch(age.strip())
    if match is None:
        return float("nan")
    years = int(match[1]) / _UNITS_A_YEAR[match[2]]
    return years if years < AGE_BANDS["65 and over"][1] else float("nan")


def _before_and_after(figure: Figure, scores: Scores, estimate: Callable[..., Any]) -> dict[str, Any]:
    """Return a figure of the probabilities before and after calibration."""
    return {"before": estimate(figure, logistic(scores.logits)), "after": estimate(figure, scores.probabilities)}


def _bins(
    probabilities: NDArray[np.float64], labels: NDArray[np.bool_], patients: NDArray[np.str_]
) -> list[dict[str, Any]]:
    """Return the filled bins of a reliability diagram; an empty list if the films are all of one class."""
    if labels.all() or not labels.any():
        return []
    films, predicted, _ = reliability(probabilities, labels)
    positive = bootstrap_each(lambda *drawn: reliability(*drawn)[2], probabilities, labels, patients)
    return [
        {"films": int(count), "predicted": round(float(mean), 4), "positive": share.as_list()}
        for count, mean, share in zip(films, predicted, positive, strict=True)
        if count
    ]


def _rates(called: NDArray[np.float64], labels: NDArray[np.bool_], patients: NDArray[np.str_]) -> dict[str, Any]:
    of = {
        name: figure if name in {"recall", "specificity"} else of_both_classes(figure)
        for name, figure in rates(CALLED).items()
    }
    return _each(of, called, labels, patients)


def _predictive_values(
    called: NDArray[np.float64], labels: NDArray[np.bool_], patients: NDArray[np.str_]
) -> list[dict[str, Any]]:
    return [
        {"prevalence": prevalence, **_each(predictive_values(CALLED, prevalence), called, labels, patients)}
        for prevalence in PREVALENCES
    ]


def _each(
    figures: Mapping[str, Figure], called: NDArray[np.float64], labels: NDArray[np.bool_], patients: NDArray[np.str_]
) -> dict[str, Any]:
    estimates = bootstrap_each(
        lambda *drawn: np.array([figure(*drawn) for figure in figures.values()]), called, labels, patients
    )
    return {name: estimate.as_list() for name, estimate in zip(figures, estimates, strict=True)}
