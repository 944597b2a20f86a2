"""Release a trained network: weights, graph, golden inputs, figures and the manifest that seals them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pneumonia_model.backends import open_backend
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
    verify_golden,
)
from pneumonia_model.network import ARCHITECTURE, LogitAndMap, pneumonia_resnet18
from pneumonia_model.preprocessing import PREPROCESSING
from safetensors.torch import save

from pneumonia_training.data import Split
from pneumonia_training.evaluate import DEFAULT_POINT, Chosen, choose, evaluate, predict, trivial_baselines
from pneumonia_training.fit import Recipe, released_weights, split_films
from pneumonia_training.golden import golden_pictures
from pneumonia_training.graph import write_graph
from pneumonia_training.prepare import Prepared

METRICS: Final = "metrics.json"
_QUANTILES: Final = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)

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
    """What a person decides about a release."""

    name: str
    version: str
    status: Literal["demonstration", "research", "cleared"]
    commit: str
    remarks: str = ""  # whatever of the training the recipe does not say


def export(checkpoint: Path, prepared: Prepared, recipe: Recipe, release: Release, *, bundles: Path) -> Bundle:
    """Write a bundle into `bundles`/<name>-<version> and return it, loaded and verified on ONNX Runtime."""
    folder = bundles / f"{release.name}-{release.version}"
    folder.mkdir(parents=True, exist_ok=True)
    weights = released_weights(checkpoint)
    (folder / WEIGHTS).write_bytes(save({name: tensor.contiguous() for name, tensor in weights.items()}))
    write_graph(folder)
    np.save(folder / GOLDEN, golden_pictures(), allow_pickle=False)
    golden = _golden_logits(weights)

    # A first manifest, with no more than the graph needs to be run by the node's own runtime.
    _write_manifest(folder, _manifest(folder, release, golden, Chosen(slope=1, intercept=0, thresholds={"half": 0.5})))
    backend = open_backend(load_bundle(folder), "onnxruntime", "cpu")
    split = split_films(prepared, recipe)
    labels = prepared.films["label"].to_numpy() == 1
    validation = predict(backend, prepared.images[split.validation])
    test = predict(backend, prepared.images[split.test])
    chosen = choose(validation, labels[split.validation])
    figures: dict[str, Any] = {
        "data": prepared.digest,
        "split": _split_document(prepared, split, recipe),
        "test": evaluate(
            prepared.films.iloc[split.test],
            test,
            chosen,
            baselines=trivial_baselines(prepared, split, split.test),
        ),
    }
    (folder / METRICS).write_text(json.dumps(figures, indent=2) + "\n")
    manifest = _manifest(folder, release, golden, chosen) | {
        "default_operating_point": DEFAULT_POINT,
        "operating_points": figures["test"]["operating_points"],
        "auc": figures["test"]["auc"]["model"]["all"],
        "training": {
            "commit": release.commit,
            "data": prepared.digest,
            "recipe": _plain(asdict(recipe)),
            "remarks": release.remarks,
        },
        "reference": _reference(prepared, split, chosen.probabilities(validation)),
    }
    _write_manifest(folder, manifest)
    bundle = load_bundle(folder)
    verify_golden(bundle, open_backend(bundle, "onnxruntime", "cpu"))
    return bundle


def _manifest(folder: Path, release: Release, golden: list[float], chosen: Chosen) -> dict[str, Any]:
    files = [WEIGHTS, GRAPH, GOLDEN, *([METRICS] if (folder / METRICS).exists() else [])]
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
        "attributions": list(ATTRIBUTIONS),
    }


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_bytes(rendered(seal(manifest)))


def _golden_logits(weights: dict[str, torch.Tensor]) -> list[float]:
    """Return the golden logits as PyTorch computes them: the other runtime has to find the same."""
    network = pneumonia_resnet18()
    network.load_state_dict(weights)
    inputs = torch.from_numpy(golden_pictures().astype(np.float32) / np.float32(255))
    with torch.inference_mode():
        logits, _ = LogitAndMap(network).eval()(inputs)
    return [round(float(logit), 7) for logit in logits]


def _split_document(prepared: Prepared, split: Split, recipe: Recipe) -> dict[str, Any]:
    def side(rows: NDArray[np.intp]) -> dict[str, Any]:
        films = prepared.films.iloc[rows]
        subsets = films.groupby("subset")["label"].agg(["size", "sum"])
        return {
            "films": len(films),
            "positive": int(films["label"].sum()),
            "patients": int(films["group"].nunique()),
            "subsets": {
                str(name): {"films": int(size), "positive": int(positive)}
                for name, size, positive in subsets.itertuples()
            },
        }

    sides = {"train": split.train, "validation": split.validation, "test": split.test}
    return {"recipe": recipe.name, "by": "patient", **{name: side(rows) for name, rows in sides.items()}}


def _reference(prepared: Prepared, split: Split, probabilities: NDArray[np.float64]) -> dict[str, Any]:
    """Return what inputs and probabilities look like on the natural sample: the yardstick for drift in service."""
    inputs = prepared.images[np.concatenate([split.validation, split.test])].reshape(-1, prepared.images[0].size) / 255

    def quantiles(values: NDArray[np.float64]) -> list[float]:
        return [round(float(value), 5) for value in np.quantile(values, _QUANTILES)]

    return {
        "quantiles": list(_QUANTILES),
        "input_mean": quantiles(inputs.mean(axis=1)),
        "input_std": quantiles(inputs.std(axis=1)),
        "probability": quantiles(probabilities),
    }


def _plain(value: Any) -> Any:
    """Return tuples as lists, as JSON will: the digest must not depend on it."""
    return json.loads(json.dumps(value))
