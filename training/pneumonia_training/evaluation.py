"""`pneumonia-train evaluate`: writes the measurements as `metrics.json` and one page of HTML."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pneumonia_model.bundle import Bundle
from pneumonia_model.opening import open_backend

from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.learning.fit import split_films
from pneumonia_training.learning.recipe import Recipe
from pneumonia_training.measuring.calibration import chosen_in
from pneumonia_training.measuring.compare_bundles import compare
from pneumonia_training.measuring.external import measure_external, read_external
from pneumonia_training.measuring.measure import Measurement, measure_crossvalidation, measure_films, training_rows_like
from pneumonia_training.measuring.provenance import (
    bundle_document,
    crossvalidation_document,
    doubts,
    films_document,
    hold_out_document,
    split_by,
)
from pneumonia_training.pages.evaluation_page import comparison_report, report

METRICS: Final = "metrics.json"
REPORT: Final = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """An evaluation as the contents of its two files."""

    metrics: str
    report: str

    def written(self, folder: Path) -> Path:
        """Write both files into a folder and return the page's path."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / METRICS).write_text(self.metrics + "\n", encoding="utf-8")
        (folder / REPORT).write_text(self.report, encoding="utf-8")
        return folder / REPORT


def evaluate_films(bundle: Bundle, prepared: PreparedFilms, recipe: Recipe | None) -> Evaluation:
    """Measure a bundle on the test films of a recipe, or on all films."""
    backend, chosen = open_backend(bundle, "onnxruntime", "cpu"), chosen_in(bundle)
    if recipe is None:
        rows = np.arange(len(prepared.films))
        measurement = measure_films(prepared, rows, backend, chosen, train=None)
        split: dict[str, Any] = {"kind": "all films", "by": split_by(prepared), "test": films_document(prepared, rows)}
    else:
        sides = split_films(prepared, recipe)
        measurement = measure_films(prepared, sides.test, backend, chosen, train=training_rows_like(prepared, sides))
        split = hold_out_document(prepared, recipe, sides)
    return _evaluation(bundle, prepared, measurement, split, doubts(bundle, prepared, recipe))


def evaluate_crossvalidation(bundle: Bundle, prepared: PreparedFilms, predictions: Path) -> Evaluation:
    """Measure the cross-validation by which a bundle was chosen."""
    measurement = measure_crossvalidation(prepared, predictions)
    split = crossvalidation_document(prepared, measurement.rows, folds=measurement.folds)
    same = measurement.figures["auc"]["model"]["all"] == bundle.manifest["auc"]
    warnings = [] if same else ["The bundle states another AUC: it was not chosen by this cross-validation."]
    return _evaluation(bundle, prepared, measurement, split, warnings)


def evaluate_external(bundle: Bundle, manifest: Path) -> Evaluation:
    """Measure a bundle on films from elsewhere."""
    external = measure_external(read_external(manifest), open_backend(bundle, "onnxruntime", "cpu"), chosen_in(bundle))
    document = {"bundle": bundle_document(bundle), **external.document}
    return Evaluation(metrics=_json(document), report=report(document, external.measurement))


def compare_bundles(first: Bundle, second: Bundle, prepared: PreparedFilms, recipe: Recipe | None) -> Evaluation:
    """Compare two bundles on the test films of a recipe, or on all films."""
    rows = np.arange(len(prepared.films)) if recipe is None else split_films(prepared, recipe).test
    doubted = [f"{bundle.version}: {doubt}" for bundle in (first, second) for doubt in doubts(bundle, prepared, recipe)]
    document = compare(first, second, prepared, rows) | {"warnings": doubted}
    return Evaluation(metrics=_json(document), report=comparison_report(document))


def _evaluation(
    bundle: Bundle, prepared: PreparedFilms, measurement: Measurement, split: dict[str, Any], warnings: list[str]
) -> Evaluation:
    document = {
        "bundle": bundle_document(bundle),
        "data": prepared.digest,
        "split": split,
        "warnings": warnings,
        "test": measurement.figures,
    }
    return Evaluation(metrics=_json(document), report=report(document, measurement))


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False)
