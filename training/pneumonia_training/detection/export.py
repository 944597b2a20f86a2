"""Gives a released bundle a detector: a new version of it, with a new identity."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import numpy as np
from pneumonia_model.bundle import MANIFEST, Bundle, file_sha256, load_bundle, rendered, seal
from pneumonia_model.detector import DETECTOR_ARCHITECTURE
from pneumonia_model.golden import golden_regions
from pneumonia_model.opening import open_detector
from pneumonia_model.regions import DETECTOR_WEIGHTS, SECTION
from safetensors.torch import save

from pneumonia_training.detection.evaluate import measure
from pneumonia_training.detection.fit import TrainedDetector
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.release.export import ExportError

_DIGITS: Final = 6


def add_detector(
    bundle: Bundle, trained: TrainedDetector, prepared: PreparedFilms, *, version: str, bundles: Path
) -> Bundle:
    """Write `bundles`/<name>-<version>, the bundle with this detector, and return it, loaded and checked.

    Threshold and figures come from the detector's split: chosen on its validation films, measured on its test films.

    Raises:
        ExportError: the folder exists.
        BundleError: the written bundle does not answer as recorded.
    """
    folder = bundles / f"{bundle.name}-{version}"
    if folder.exists():
        raise ExportError(f"{folder} exists: a release is never written over")
    measured = measure(prepared, trained)
    shutil.copytree(bundle.path, folder)
    weights = {name: tensor.contiguous() for name, tensor in trained.weights.items()}
    (folder / DETECTOR_WEIGHTS).write_bytes(save(weights))
    golden = golden_regions(trained.detector(), bundle.golden_inputs())
    manifest = dict(bundle.manifest) | {
        "version": version,
        "files": {**bundle.manifest["files"], DETECTOR_WEIGHTS: file_sha256(folder / DETECTOR_WEIGHTS)},
        SECTION: {
            "architecture": DETECTOR_ARCHITECTURE,
            "side": trained.recipe.detector.side,
            "threshold": measured.threshold,
            "golden": np.round(golden, _DIGITS).tolist(),
            "evaluation": measured.document,
            "training": {
                "commit": trained.commit,
                "data": prepared.digest,
                "recipe": json.loads(json.dumps(asdict(replace(trained.recipe, init="")))),  # the path is private
                "checkpoint": trained.sha256,
            },
        },
    }
    (folder / MANIFEST).write_bytes(rendered(seal(manifest)))
    released = load_bundle(folder)
    open_detector(released, "cpu")
    return released
