"""Measures films from elsewhere, read as the node reads them, as far as their labels allow."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_model.bundle import file_sha256
from pneumonia_model.prediction import Backend
from pneumonia_model.preprocessing import INPUT_SIDE

from pneumonia_training.films.manifests import ManifestError, fold_of
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.reading import film_input
from pneumonia_training.measuring.calibration import Chosen
from pneumonia_training.measuring.measure import Measurement, measure_films
from pneumonia_training.measuring.provenance import films_document

log = logging.getLogger(__name__)

_COLUMNS: Final = ("negative_class", "view", "age", "sex", "boxes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The readable pictures of a manifest.

    Attributes:
        images: shape (n, 224, 224), in the order of `table`.
        table: the manifest's rows of these pictures, all as text.
        unreadable: path and reason of each of the others.
    """

    images: NDArray[np.uint8]
    table: pd.DataFrame
    unreadable: list[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSet:
    """The readable films of a manifest.

    Attributes:
        unreadable: path and reason of each film that cannot be read, and so gets no score.
        patients_known: whether the manifest says which films belong to one patient.
    """

    prepared: PreparedFilms
    unreadable: list[dict[str, str]]
    patients_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalMeasurement:
    """An external set's figures, for JSON and for plots."""

    measurement: Measurement
    document: dict[str, Any]


def read_external(manifest: Path) -> ExternalSet:
    """Return the films of a CSV with `path`, relative to the manifest, and `label`, 0 or 1.

    `group` names the patient. Without it each film counts as a different patient, and intervals are too narrow if
    patients have several films. `negative_class`, `view`, `age`, `sex` and `boxes` are as in `prepare`.

    Raises:
        ManifestError: a column is missing, a label is neither 0 nor 1, or no film can be read.
    """
    table = manifest_table(manifest, columns=("path", "label"))
    if not table["label"].isin(["0", "1"]).all():
        raise ManifestError(f"{manifest.name}: a label is neither 0 nor 1")
    pictures = read_pictures(manifest, table)
    films = pictures.table.assign(label=pictures.table["label"].astype(int), subset=manifest.stem)
    for column in _COLUMNS:
        if column not in films:
            films[column] = ""
    patients_known = "group" in films
    if not patients_known:
        log.warning("%s has no column group: each film counts as a patient of its own", manifest.name)
        films["group"] = films["path"]
    films["fold"] = [fold_of(group) for group in films["group"]]
    digest = f"sha256:{file_sha256(manifest)}"
    prepared = PreparedFilms(images=pictures.images, films=films, digest=digest)
    return ExternalSet(prepared=prepared, unreadable=pictures.unreadable, patients_known=patients_known)


def manifest_table(manifest: Path, *, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return a CSV, all of it as text.

    Raises:
        ManifestError: one of the `columns` is missing.
    """
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    missing = [column for column in columns if column not in table]
    if missing:
        raise ManifestError(f"{manifest.name}: no column {', '.join(missing)}")
    return table


def read_pictures(manifest: Path, table: pd.DataFrame) -> Pictures:
    """Return the pictures that the column `path` names, relative to the manifest, as the network's inputs.

    Raises:
        ManifestError: no picture can be read.
    """
    images = np.empty((len(table), INPUT_SIDE, INPUT_SIDE), dtype=np.uint8)
    kept: list[int] = []
    unreadable: list[dict[str, str]] = []
    for row, path in enumerate(table["path"]):
        try:
            picture = film_input(manifest.parent / path)
        except Exception as error:  # noqa: BLE001 - other makers' decoders read any file that a user names
            unreadable.append({"path": str(path), "reason": f"{type(error).__name__}: {error}"})
            continue
        images[len(kept)] = np.rint(picture * 255).astype(np.uint8)
        kept.append(row)
    if not kept:
        raise ManifestError(f"{manifest.name}: no film can be read; the first: {unreadable[:1]}")
    for film in unreadable:
        log.warning("film is not scored path=%s reason=%s", film["path"], film["reason"])
    return Pictures(images=images[: len(kept)], table=table.iloc[kept].reset_index(drop=True), unreadable=unreadable)


def measure_external(external: ExternalSet, backend: Backend, chosen: Chosen) -> ExternalMeasurement:
    """Measure a bundle's network, calibration and thresholds on films that had no part in any of them."""
    prepared = external.prepared
    rows = np.arange(len(prepared.films))
    measurement = measure_films(prepared, rows, backend, chosen, train=None)
    document = {
        "data": prepared.digest,
        "split": {
            "kind": "external",
            "by": "patient" if external.patients_known else "image",
            "test": films_document(prepared, rows),
        },
        "warnings": _warnings(external),
        "unreadable": external.unreadable,
        "test": measurement.figures,
    }
    return ExternalMeasurement(measurement=measurement, document=document)


def _warnings(external: ExternalSet) -> list[str]:
    warnings = []
    if not external.patients_known:
        warnings.append("No patients are named: each film counts as one, and intervals may be too narrow.")
    if external.unreadable:
        warnings.append(f"{len(external.unreadable)} films could not be read and are not scored.")
    if external.prepared.films["label"].nunique() < 2:
        warnings.append("All films are of one class: only the share of them that is called right can be stated.")
    return warnings
