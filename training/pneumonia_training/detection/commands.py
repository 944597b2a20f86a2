"""The commands of `pneumonia-train` for a detector: `fit` by its recipe, `detect-evaluate` and `detect-export`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from pneumonia_model.bundle import load_bundle

from pneumonia_training.detection.evaluate import measure
from pneumonia_training.detection.export import add_detector
from pneumonia_training.detection.fit import fit_detector, open_trained, smoke
from pneumonia_training.detection.recipe import read_detection_recipe
from pneumonia_training.films.prepare import load_prepared
from pneumonia_training.learning.fit import Hardware

Cache = Annotated[Path, typer.Argument(help="Folder of prepared films.")]
Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint of `fit --recipe detect`, in its run folder.")]


def fit_boxes(
    cache: Path, run: Path, recipe: str, settings: Iterable[str], hardware: Hardware, *, shortly: bool
) -> Path:
    """Train a detector, or shortly check that one can be trained, and return the checkpoint's path."""
    chosen = read_detection_recipe(recipe, settings)
    return fit_detector(load_prepared(cache), smoke(chosen) if shortly else chosen, run=run, hardware=hardware)


def detect_evaluate(cache: Cache, checkpoint: Checkpoint) -> None:
    """Measure a detector on the test films of its split, with 95 % intervals by patient; prints JSON."""
    prepared = load_prepared(cache)
    typer.echo(json.dumps(measure(prepared, open_trained(checkpoint, prepared)).document, indent=2))


def detect_export(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle without a detector.")],
    cache: Cache,
    checkpoint: Checkpoint,
    *,
    version: Annotated[str, typer.Option(help="Version of the bundle with the detector.")],
    bundles: Annotated[Path, typer.Option(help="Folder of bundles.")] = Path("model/bundles"),
) -> None:
    """Write a bundle again, with a detector: a node that serves it reports where the opacities lie."""
    prepared = load_prepared(cache)
    trained = open_trained(checkpoint, prepared)
    released = add_detector(load_bundle(bundle), trained, prepared, version=version, bundles=bundles)
    typer.echo(f"{released.path} {released.digest}")
