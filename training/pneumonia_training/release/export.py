"""Releases a trained network: weights, graph, golden inputs, figures and the manifest that seals them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pneumonia_model.bundle import (
    GOLDEN,
    GRAPH,
    MANIFEST,
    SCHEMA,
    WEIGHTS,
    Bundle,
    file_sha256,
    load_bundle,
    rendered,
    seal,
)
from pneumonia_model.golden import verify_golden
from pneumonia_model.network import ARCHITECTURE, LogitAndMap, pneumonia_resnet18
from pneumonia_model.opening import open_backend
from pneumonia_model.prediction import Backend
from pneumonia_model.preprocessing import PREPROCESSING
from safetensors.torch import save

from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import Split
from pneumonia_training.learning.checkpoint import network_weights
from pneumonia_training.learning.fit import split_films
from pneumonia_training.learning.recipe import Recipe
from pneumonia_training.learning.run_record import plain
from pneumonia_training.learning.start_weights import licence_title
from pneumonia_training.measuring.calibration import Chosen, choose
from pneumonia_training.measuring.external import measure_external, read_external
from pneumonia_training.measuring.measure import measure_crossvalidation, measure_films, training_rows_like
from pneumonia_training.measuring.originals import measure_originals
from pneumonia_training.measuring.probes import NetworkRows, predict
from pneumonia_training.measuring.provenance import (
    crossvalidation_document,
    hold_out_document,
    recorded_run,
    trained_document,
)
from pneumonia_training.release.golden import golden_pictures
from pneumonia_training.release.onnx_graph import write_graph

METRICS: Final = "metrics.json"
START_LICENCE: Final = "LICENSE.start-weights"
"""The licence of the weights that the training started from, where it did."""
RUNTIMES: Final[tuple[Literal["onnxruntime", "torch"], ...]] = ("onnxruntime", "torch")
_QUANTILES: Final = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)

ATTRIBUTIONS: Final = (
    (
        "Radiologists' labels: RSNA Pneumonia Detection Challenge 2018; Shih G et al. Augmenting the National "
        "Institutes of Health Chest Radiograph Dataset with Expert Annotations of Possible Pneumonia. Radiology: "
        "Artificial Intelligence 2019;1(1):e180041."
    ),
    (
        "Films: NIH Clinical Center; Wang X et al. ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on "
        "Weakly-Supervised Classification and Localization of Common Thorax Diseases. IEEE CVPR 2017."
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A person's decisions about a release."""

    name: str
    version: str
    status: Literal["demonstration", "research", "cleared"]
    commit: str = ""  # of the code that trained it; by default the one in the run folder
    remarks: str = ""  # facts about the training that the recipe does not hold
    attributions: tuple[str, ...] = ()  # of films other than RSNA's and NIH's


class ExportError(Exception):
    """These films or this recipe cannot make a bundle."""


def export(
    checkpoint: Path,
    prepared: PreparedFilms,
    recipe: Recipe,
    release: Release,
    *,
    bundles: Path,
    crossvalidation: Path | None = None,
    external: Sequence[Path] = (),
    originals: Path | None = None,
) -> Bundle:
    """Write a bundle into `bundles`/<name>-<version> and return it, loaded and verified on both runtimes.

    Without `crossvalidation` the recipe's split holds: calibration and operating points are chosen on its validation
    films and measured on its test films. `crossvalidation` is the table of predictions that a cross-validation left.
    With it, calibration and operating points are chosen on all its films, and each film is measured with those of the
    other folds.

    The checkpoint comes from this package, or from any Lightning training of the same network. `external` are manifests
    of films from elsewhere to measure on as well. `originals` is a manifest of training films in another form; it needs
    the cross-validation's networks (see `measure_originals`).

    Raises:
        CheckpointError: the checkpoint cannot be released, or was trained with another split.
        ExportError: the recipe leaves no film to choose or to measure on.
        CalibrationError: the films for the choice do not allow it.
    """
    split = split_films(prepared, recipe)
    if crossvalidation is None and not (len(split.validation) and len(split.test)):
        raise ExportError(f"recipe {recipe.name} holds out no validation or test films: give a cross-validation")
    if originals and not crossvalidation:
        raise ExportError("originals are scored by the networks of a cross-validation: give one")
    run = recorded_run(checkpoint, prepared, split)
    weights = network_weights(checkpoint)
    folder = bundles / f"{release.name}-{release.version}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(save({name: tensor.contiguous() for name, tensor in weights.items()}))
    write_graph(folder)
    np.save(folder / GOLDEN, golden_pictures(), allow_pickle=False)
    golden = _golden_logits(weights)

    # A first manifest, with only what the node's runtime needs to run the graph.
    (folder / METRICS).unlink(missing_ok=True)
    start = None if run is None else run.get("start")
    if start:
        (folder / START_LICENCE).write_text(f"{start['licence']}\n", encoding="utf-8")
    else:
        (folder / START_LICENCE).unlink(missing_ok=True)
    _write_manifest(folder, _manifest(folder, release, golden, Chosen(slope=1, intercept=0, thresholds={"half": 0.5})))
    backend = open_backend(load_bundle(folder), "onnxruntime", "cpu")
    if crossvalidation is None:
        evidence = _hold_out(prepared, recipe, split, backend)
    else:
        evidence = _crossvalidation(prepared, recipe, split, crossvalidation)
    figures: dict[str, Any] = {"data": prepared.digest, "split": evidence.split, "test": evidence.test}
    if external:
        figures["external"] = {manifest.stem: _external(manifest, backend, evidence.chosen) for manifest in external}
    if originals and crossvalidation:
        figures["originals"] = measure_originals(prepared, recipe, crossvalidation, originals, evidence.chosen)
    (folder / METRICS).write_text(json.dumps(figures, indent=2) + "\n")
    manifest = _manifest(folder, release, golden, evidence.chosen) | {
        "operating_points": evidence.test["operating_points"],
        "auc": evidence.test["auc"]["model"]["all"],
        "training": {
            "commit": release.commit or ("unknown" if run is None else run["environment"]["commit"]),
            "data": prepared.digest,
            "recipe": _without_folders(plain(asdict(recipe)) if run is None else run["recipe"]),
            "start": _start_document(start),
            "remarks": release.remarks,
            "evaluation": evidence.split["kind"],
            "recorded": run is not None,
        },
        "reference": _reference(prepared.images, evidence.reference, evidence.probabilities),
    }
    if start:
        manifest["attributions"] = [*manifest["attributions"], _start_attribution(manifest["training"]["start"])]
    _write_manifest(folder, manifest)
    bundle = load_bundle(folder)
    for runtime in RUNTIMES:
        verify_golden(bundle, open_backend(bundle, runtime, "cpu"))
    return bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """The basis of a release's choices and figures.

    Attributes:
        test: figures, as in `metrics.json`.
        reference: rows of films in the mix of clinical practice.
        probabilities: of films on which the network was not trained.
    """

    chosen: Chosen
    split: dict[str, Any]
    test: dict[str, Any]
    reference: NDArray[np.intp]
    probabilities: NDArray[np.float64]


def _hold_out(prepared: PreparedFilms, recipe: Recipe, split: Split, backend: Backend) -> _Evidence:
    labels = prepared.films["label"].to_numpy()[split.validation] == 1
    logits = predict(prepared.images, [NetworkRows(backend, split.validation)])
    chosen = choose(logits, labels)
    measured = measure_films(prepared, split.test, backend, chosen, train=training_rows_like(prepared, split))
    return _Evidence(
        chosen=chosen,
        split=hold_out_document(prepared, recipe, split),
        test=measured.figures,
        reference=np.union1d(split.validation, split.test),
        probabilities=chosen.probabilities(logits),
    )


def _crossvalidation(prepared: PreparedFilms, recipe: Recipe, split: Split, predictions: Path) -> _Evidence:
    measured = measure_crossvalidation(prepared, predictions)
    logits = measured.scores.logits
    chosen = choose(logits, measured.films["label"].to_numpy() == 1)
    return _Evidence(
        chosen=chosen,
        split=trained_document(prepared, recipe, split)
        | crossvalidation_document(prepared, measured.rows, folds=measured.folds),
        test=measured.figures,
        reference=measured.rows,
        probabilities=chosen.probabilities(logits),
    )


def _external(manifest: Path, backend: Backend, chosen: Chosen) -> dict[str, Any]:
    """Return an external set's figures without its file names, which may identify a site."""
    document = measure_external(read_external(manifest), backend, chosen).document
    return document | {"unreadable": len(document["unreadable"])}


def _manifest(folder: Path, release: Release, golden: list[float], chosen: Chosen) -> dict[str, Any]:
    files = [WEIGHTS, GRAPH, GOLDEN, *(name for name in (METRICS, START_LICENCE) if (folder / name).exists())]
    return {
        "schema": SCHEMA,
        "name": release.name,
        "version": release.version,
        "status": release.status,
        "architecture": ARCHITECTURE,
        "files": {name: file_sha256(folder / name) for name in files},
        "preprocessing": dict(PREPROCESSING),
        "calibration": {"method": "platt", "slope": chosen.slope, "intercept": chosen.intercept},
        "default_operating_point": next(iter(chosen.thresholds)),
        "operating_points": [{"name": name, "threshold": value} for name, value in chosen.thresholds.items()],
        "golden": {"logits": golden},
        "licence": "Apache-2.0",
        "attributions": [*ATTRIBUTIONS, *release.attributions],
    }


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe whose start weights have a name alone: folders say something of a site, and nothing to others."""
    stages = [{**stage, "init": Path(stage["init"]).name if stage.get("init") else ""} for stage in recipe["stages"]]
    return {**recipe, "stages": stages}


def _start_document(start: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Return what a manifest says of the weights that a training started from; None: they were drawn at random."""
    if start is None:
        return None
    return {"file": Path(start["path"]).name, "sha256": start["sha256"], "licence": licence_title(start["licence"])}


def _start_attribution(start: Mapping[str, str]) -> str:
    return f"Start weights: {start['file']}, SHA-256 {start['sha256']}, {start['licence']}: see {START_LICENCE}."


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_bytes(rendered(seal(manifest)))


def _golden_logits(weights: dict[str, torch.Tensor]) -> list[float]:
    """Return the golden logits computed by PyTorch; the other runtime has to match them."""
    network = pneumonia_resnet18()
    network.load_state_dict(weights)
    inputs = torch.from_numpy(golden_pictures().astype(np.float32) / np.float32(255))
    with torch.inference_mode():
        logits, _ = LogitAndMap(network).eval()(inputs)
    return [round(float(logit), 7) for logit in logits]


def _reference(images: NDArray[np.uint8], rows: NDArray[np.intp], probabilities: NDArray[np.float64]) -> dict[str, Any]:
    """Return the distributions of inputs and probabilities on the natural sample, to compare with those in service."""
    moments = np.array([(film.mean(), film.std()) for film in (images[row] / 255 for row in rows)])

    def quantiles(values: NDArray[np.float64]) -> list[float]:
        return [round(float(value), 5) for value in np.quantile(values, _QUANTILES)]

    return {
        "films": len(rows),
        "quantiles": list(_QUANTILES),
        "input_mean": quantiles(moments[:, 0]),
        "input_std": quantiles(moments[:, 1]),
        "probability": quantiles(probabilities),
    }
