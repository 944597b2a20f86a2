"""Fits a bundle's gate, and counts the films and the other pictures that it refuses.

It learns from one class, frontal chest films: nobody could collect every other kind of picture. Mean and axes are those
of the films; the limit is set on films of the natural mix that neither the fit nor the network has seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_model.gate import CHANGES, Appearance, Gate
from pneumonia_model.prediction import Backend

from pneumonia_training.films.manifests import NO_OPACITY_NOT_NORMAL
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import Split
from pneumonia_training.learning.recipe import Recipe
from pneumonia_training.measuring.external import ExternalSet, manifest_table, read_pictures
from pneumonia_training.measuring.measure import fold_networks, groups_of_films, read_predictions
from pneumonia_training.measuring.probes import batches

REFUSED_SHARE: Final = 0.005
"""Share of the films of the natural mix that the limit refuses."""

MOST_AXES: Final = 512
FILMS_AN_AXIS: Final = 6
"""With fewer films the deviations along the last axes would be noise."""

LEAST_DEVIATION: Final = 1e-6
"""Of a feature over the films: one that is 0 on all of them must not be divided by."""

_CHANGES: Final = {
    "turned by 90 degrees to the left": CHANGES[Appearance.TURNED_LEFT],
    "upside down": CHANGES[Appearance.UPSIDE_DOWN],
    "turned by 90 degrees to the right": CHANGES[Appearance.TURNED_RIGHT],
    "inverted": CHANGES[Appearance.INVERTED],
}
"""What is done to films of the natural mix, each of which the gate should refuse then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateEvidence:
    """A gate with its figures.

    Attributes:
        films: number of films that it was fitted on.
        unlikeness: of films of the natural mix that neither fit nor network had seen.
    """

    gate: Gate
    films: int
    unlikeness: NDArray[np.float64]
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A network, the rows that its gate is fitted on, and those that it is measured on."""

    backend: Backend
    fitted: NDArray[np.intp]
    measured: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Distances:
    """Distances of films of the natural mix, part by part.

    Attributes:
        limits: for each film, a limit that it had no part in.
    """

    rows: NDArray[np.intp]
    plain: NDArray[np.float64]
    changed: Mapping[str, NDArray[np.float64]]
    limits: NDArray[np.float64]


def gate_by_crossvalidation(
    prepared: PreparedFilms, recipe: Recipe, backend: Backend, predictions: Path
) -> GateEvidence | None:
    """Return a gate of the released network, fitted on all films of the recipe's last stage.

    Each fold's network and a gate fitted on its training films measure the fold's films; the limit of each fold's
    figures is that of the other folds. None if the folds' networks do not lie beside the table.
    """
    table = read_predictions(predictions, prepared)
    rows, folds = table["row"].to_numpy(dtype=np.intp), table["fold"].to_numpy(dtype=np.int64)
    networks = fold_networks(predictions.parent, rows, folds)
    if not networks:
        return None
    count = len(np.unique(folds))
    fold_of = prepared.films["fold"].to_numpy(dtype=np.int64) % count
    films = _last_films(prepared, recipe)
    parts = [
        _Part(backend=network.backend, fitted=films[fold_of[films] != fold], measured=network.rows)
        for fold, network in zip(np.unique(folds), networks, strict=True)
    ]
    found = _distances(prepared, parts, lambda part, distances, parts: _limit(distances[parts != part]))
    limit = _limit(found.plain)
    gate = replace(fit_gate(describe(prepared.images, backend, films)), limit=limit)
    return GateEvidence(
        gate=gate, films=len(films), unlikeness=found.plain / found.limits, figures=_figures(prepared, found)
    )


def gate_by_hold_out(prepared: PreparedFilms, recipe: Recipe, backend: Backend, split: Split) -> GateEvidence:
    """Return a gate that is fitted on the training films, with a limit from the validation films."""
    films = np.intersect1d(_last_films(prepared, recipe), split.train)
    gate = fit_gate(describe(prepared.images, backend, films))
    limit = _limit(gate.unlikeness(describe(prepared.images, backend, split.validation)))
    part = _Part(backend=backend, fitted=films, measured=split.test)
    found = _distances(prepared, [part], lambda _part, _distances, _parts: limit)
    return GateEvidence(
        gate=replace(gate, limit=limit),
        films=len(films),
        unlikeness=found.plain / limit,
        figures=_figures(prepared, found),
    )


def fit_gate(features: NDArray[np.float32]) -> Gate:
    """Return a gate for films with these features, shape (n, STAGE_FEATURES), with a limit of 1.

    The axes are the principal ones of the standardised features (Jolliffe 2002), the most important first.
    """
    values = features.astype(np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0) + LEAST_DEVIATION
    _, sizes, axes = np.linalg.svd((values - mean) / scale, full_matrices=False)
    deviations = sizes / np.sqrt(len(values))
    kept = max(1, min(MOST_AXES, len(values) // FILMS_AN_AXIS, int((deviations > LEAST_DEVIATION).sum())))
    parts = {"mean": mean, "scale": scale, "axes": axes[:kept], "deviations": deviations[:kept]}
    # as precise as a bundle holds them, so that the figures are those of the gate that is released
    return Gate(**{name: part.astype(np.float32).astype(np.float64) for name, part in parts.items()}, limit=1.0)


def describe(
    images: NDArray[np.uint8],
    backend: Backend,
    rows: NDArray[np.intp],
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> NDArray[np.float32]:
    """Return the features of films, shape (n, STAGE_FEATURES); `change` first alters the inputs."""
    return np.concatenate(
        [
            backend.scores(inputs if change is None else np.ascontiguousarray(change(inputs))).features
            for inputs in batches(images, rows)
        ]
    )


def measure_elsewhere(
    gate: Gate, backend: Backend, *, external: Mapping[str, ExternalSet], outside: Sequence[Path]
) -> dict[str, Any]:
    """Return how many films from elsewhere are refused, and how many pictures of other kinds.

    Each of `outside` is a CSV with `path`, relative to it, and `kind`, for example "hand".
    """
    films = {}
    for name, of in external.items():
        films[name] = _count(_refused(gate, backend, of.prepared.images))
    kinds = {}
    for manifest in outside:
        pictures = read_pictures(manifest, manifest_table(manifest, columns=("path", "kind")))
        refused = _refused(gate, backend, pictures.images)
        named = pictures.table["kind"].to_numpy(dtype=np.str_)
        kinds[manifest.stem] = {
            "all": _count(refused),
            **{str(kind): _count(refused[named == kind]) for kind in np.unique(named)},
        }
    return {"external": films, "outside": kinds}


def _refused(gate: Gate, backend: Backend, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return gate.unlikeness(describe(images, backend, np.arange(len(images)))) > 1


def _count(refused: NDArray[np.bool_]) -> dict[str, int]:
    return {"pictures": len(refused), "refused": int(refused.sum())}


def _last_films(prepared: PreparedFilms, recipe: Recipe) -> NDArray[np.intp]:
    """Return the rows of the films of the recipe's last stage: those that the network serves."""
    subsets = recipe.stages[-1].subsets or tuple(prepared.films["subset"].unique())
    return np.flatnonzero(prepared.films["subset"].isin(subsets).to_numpy())


def _limit(distances: NDArray[np.float64]) -> float:
    return float(np.quantile(distances, 1 - REFUSED_SHARE))


def _distances(
    prepared: PreparedFilms,
    parts: Sequence[_Part],
    limit: Callable[[int, NDArray[np.float64], NDArray[np.intp]], float],
) -> _Distances:
    plain, changed = [], {name: list[NDArray[np.float64]]() for name in _CHANGES}
    for part in parts:
        gate = fit_gate(describe(prepared.images, part.backend, part.fitted))
        plain.append(gate.unlikeness(describe(prepared.images, part.backend, part.measured)))
        for name, change in _CHANGES.items():
            features = describe(prepared.images, part.backend, part.measured, change)
            changed[name].append(gate.unlikeness(features))
    numbers = np.repeat(np.arange(len(parts)), [len(part.measured) for part in parts])
    distances = np.concatenate(plain)
    limits = np.array([limit(number, distances, numbers) for number in range(len(parts))])
    return _Distances(
        rows=np.concatenate([part.measured for part in parts]),
        plain=distances,
        changed={name: np.concatenate(of) for name, of in changed.items()},
        limits=limits[numbers],
    )


def _figures(prepared: PreparedFilms, found: _Distances) -> dict[str, Any]:
    """Return how many films are refused, by group, and how many after each change."""
    films = prepared.films.iloc[found.rows]
    refused = found.plain > found.limits
    groups = _groups(films, films["label"].to_numpy() == 1)
    return {
        "refused": {name: _count(refused[kept]) for name, kept in groups.items()},
        "changed": {name: _count(distances > found.limits) for name, distances in found.changed.items()},
    }


def _groups(films: pd.DataFrame, labels: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    classes = films["negative_class"].to_numpy()
    groups = {
        "positive": labels,
        "negative": ~labels,
        "Normal": ~labels & (classes == "Normal"),
        NO_OPACITY_NOT_NORMAL: ~labels & (classes == NO_OPACITY_NOT_NORMAL),
    }
    others = groups_of_films(films, labels)
    found = {"all": others.pop("all"), **groups, **{k: kept for k, kept in others.items() if "against" not in k}}
    return {name: kept for name, kept in found.items() if kept.any()}
