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
from pneumonia_model.gate import GATE_WEIGHTS, SECTION, Gate, load_gate
from pneumonia_model.golden import verify_golden, verify_golden_gate
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
from pneumonia_training.measuring.external import ExternalSet, measure_external, read_external
from pneumonia_training.measuring.measure import measure_crossvalidation, measure_films, training_rows_like
from pneumonia_training.measuring.originals import measure_originals
from pneumonia_training.measuring.pixel_gate import (
    REFUSED_SHARE,
    GateEvidence,
    gate_by_crossvalidation,
    gate_by_hold_out,
    measure_elsewhere,
)
from pneumonia_training.measuring.probes import NetworkRows, predict
from pneumonia_training.measuring.provenance import (
    crossvalidation_document,
    hold_out_document,
    recorded_run,
    trained_document,
)
from pneumonia_training.release.golden import golden_inputs, golden_pictures
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Manifests to measure a release on in addition to its own films.

    Attributes:
        external: films from elsewhere (see `read_external`).
        originals: training films in another form, which needs a cross-validation's networks (see `measure_originals`).
        outside: pictures that the bundle's gate should refuse (see `measure_elsewhere`); it is fitted on films alone.
    """

    external: Sequence[Path] = ()
    originals: Path | None = None
    outside: Sequence[Path] = ()


NOTHING_ELSE: Final = Elsewhere()


def export(
    checkpoint: Path,
    prepared: PreparedFilms,
    recipe: Recipe,
    release: Release,
    *,
    bundles: Path,
    crossvalidation: Path | None = None,
    elsewhere: Elsewhere = NOTHING_ELSE,
) -> Bundle:
    """Write a bundle into `bundles`/<name>-<version> and return it, loaded and verified on both runtimes.

    Without `crossvalidation` the recipe's split holds: calibration, operating points and the gate's limit are chosen on
    its validation films and measured on its test films. `crossvalidation` is the table of predictions that a
    cross-validation left. With it they are chosen on all its films, and each film is measured with those of the other
    folds; if the folds' networks do not lie beside the table, the bundle has no gate.

    The checkpoint comes from this package, or from any Lightning training of the same network.

    Raises:
        CheckpointError: the checkpoint cannot be released, or was trained with another split.
        ExportError: the recipe leaves no film to choose or to measure on.
        CalibrationError: the films for the choice do not allow it.
    """
    split = split_films(prepared, recipe)
    if crossvalidation is None and not (len(split.validation) and len(split.test)):
        raise ExportError(f"recipe {recipe.name} holds out no validation or test films: give a cross-validation")
    if elsewhere.originals and not crossvalidation:
        raise ExportError("originals are scored by the networks of a cross-validation: give one")
    run = recorded_run(checkpoint, prepared, split)
    start = None if run is None else run.get("start")
    folder = bundles / f"{release.name}-{release.version}"
    golden = _write_network(folder, network_weights(checkpoint), start)
    # A first manifest, with only what the node's runtime needs to run the graph.
    _write_manifest(folder, _manifest(folder, release, golden, Chosen(slope=1, intercept=0, thresholds={"half": 0.5})))
    backend = open_backend(load_bundle(folder), "onnxruntime", "cpu")
    if crossvalidation is None:
        evidence = _hold_out(prepared, recipe, split, backend)
    else:
        evidence = _crossvalidation(prepared, recipe, split, backend, crossvalidation)
    figures = {"data": prepared.digest, "split": evidence.split, "test": evidence.test}
    figures |= _figures_elsewhere(elsewhere, backend, evidence)
    if elsewhere.originals and crossvalidation:
        originals = measure_originals(prepared, recipe, crossvalidation, elsewhere.originals, evidence.chosen)
        figures["originals"] = originals
    (folder / METRICS).write_text(json.dumps(figures, indent=2) + "\n")
    if evidence.gate:
        _write_gate(folder, evidence.gate.gate)
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
        "reference": _reference(prepared.images, evidence),
    }
    if evidence.gate:
        manifest[SECTION] = _gate_document(evidence.gate, backend)
    if start:
        manifest["attributions"] = [*manifest["attributions"], _start_attribution(manifest["training"]["start"])]
    _write_manifest(folder, manifest)
    return _verified(folder)


def rewrite_graph(folder: Path) -> Bundle:
    """Write the graph of a bundle as this version does; return the bundle, loaded and verified on both runtimes.

    Weights, figures and golden answers stay as they were released. The digest, and so the identity, is another one.

    Raises:
        BundleError: a file was missing or altered, or the new graph does not answer as recorded.
    """
    manifest = load_bundle(folder).manifest
    write_graph(folder)
    files = {**manifest["files"], GRAPH: file_sha256(folder / GRAPH)}
    _write_manifest(folder, {**manifest, "files": files})
    return _verified(folder)


def _write_network(folder: Path, weights: dict[str, torch.Tensor], start: Mapping[str, Any] | None) -> list[float]:
    """Write the network and its golden inputs, and nothing that an earlier release left there; return their logits."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (METRICS, GATE_WEIGHTS, START_LICENCE):
        (folder / name).unlink(missing_ok=True)
    (folder / WEIGHTS).write_bytes(save({name: tensor.contiguous() for name, tensor in weights.items()}))
    write_graph(folder)
    np.save(folder / GOLDEN, golden_pictures(), allow_pickle=False)
    if start:
        (folder / START_LICENCE).write_text(f"{start['licence']}\n", encoding="utf-8")
    return _golden_logits(weights)


def _verified(folder: Path) -> Bundle:
    bundle = load_bundle(folder)
    for runtime in RUNTIMES:
        backend = open_backend(bundle, runtime, "cpu")
        verify_golden(bundle, backend)
        if gate := load_gate(bundle):
            verify_golden_gate(bundle, backend, gate)
    return bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """The basis of a release's choices and figures.

    Attributes:
        test: figures, as in `metrics.json`.
        reference: rows of films in the mix of clinical practice.
        probabilities: of films on which the network was not trained.
        gate: None where it could not be measured.
    """

    chosen: Chosen
    split: dict[str, Any]
    test: dict[str, Any]
    reference: NDArray[np.intp]
    probabilities: NDArray[np.float64]
    gate: GateEvidence | None


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
        gate=gate_by_hold_out(prepared, recipe, backend, split),
    )


def _crossvalidation(
    prepared: PreparedFilms, recipe: Recipe, split: Split, backend: Backend, predictions: Path
) -> _Evidence:
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
        gate=gate_by_crossvalidation(prepared, recipe, backend, predictions),
    )


def _figures_elsewhere(elsewhere: Elsewhere, backend: Backend, evidence: _Evidence) -> dict[str, Any]:
    sets = {manifest.stem: read_external(manifest) for manifest in elsewhere.external}
    figures: dict[str, Any] = {}
    if sets:
        figures["external"] = {name: _external(of, backend, evidence.chosen) for name, of in sets.items()}
    if evidence.gate:
        others = measure_elsewhere(evidence.gate.gate, backend, external=sets, outside=elsewhere.outside)
        figures["gate"] = evidence.gate.figures | others
    return figures


def _external(external: ExternalSet, backend: Backend, chosen: Chosen) -> dict[str, Any]:
    """Return an external set's figures without its file names, which may identify a site."""
    document = measure_external(external, backend, chosen).document
    return document | {"unreadable": len(document["unreadable"])}


def _manifest(folder: Path, release: Release, golden: list[float], chosen: Chosen) -> dict[str, Any]:
    files = [
        WEIGHTS,
        GRAPH,
        GOLDEN,
        *(name for name in (METRICS, GATE_WEIGHTS, START_LICENCE) if (folder / name).exists()),
    ]
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
    inputs = torch.from_numpy(golden_inputs())
    with torch.inference_mode():
        logits, _, _ = LogitAndMap(network).eval().scores(inputs)
    return [round(float(logit), 7) for logit in logits]


def _write_gate(folder: Path, gate: Gate) -> None:
    parts = {"mean": gate.mean, "scale": gate.scale, "axes": gate.axes, "deviations": gate.deviations}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for name, part in parts.items()}
    (folder / GATE_WEIGHTS).write_bytes(save(tensors))


def _gate_document(evidence: GateEvidence, backend: Backend) -> dict[str, Any]:
    """Return the gate's section of the manifest, with the golden figures of what has been written."""
    golden = evidence.gate.unlikeness(backend.scores(golden_inputs()).features)
    return {
        "features": "layer2, means of 3 x 3 places",
        "films": evidence.films,
        "axes": len(evidence.gate.deviations),
        "limit": evidence.gate.limit,
        "refused_share": REFUSED_SHARE,
        "golden": [round(float(value), 6) for value in golden],
    }


def _reference(images: NDArray[np.uint8], evidence: _Evidence) -> dict[str, Any]:
    """Return the distributions of inputs and probabilities on the natural sample, to compare with those in service."""
    moments = np.array([(film.mean(), film.std()) for film in (images[row] / 255 for row in evidence.reference)])

    def quantiles(values: NDArray[np.float64]) -> list[float]:
        return [round(float(value), 5) for value in np.quantile(values, _QUANTILES)]

    return {
        "films": len(evidence.reference),
        "quantiles": list(_QUANTILES),
        "input_mean": quantiles(moments[:, 0]),
        "input_std": quantiles(moments[:, 1]),
        "probability": quantiles(evidence.probabilities),
        **({"unlikeness": quantiles(evidence.gate.unlikeness)} if evidence.gate else {}),
    }
