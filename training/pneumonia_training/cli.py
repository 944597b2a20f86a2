"""`pneumonia-train`: prepare, fit, evaluate, export."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer
from pneumonia_model.backends import open_backend
from pneumonia_model.bundle import load_bundle

from pneumonia_training import prepare as preparation
from pneumonia_training.card import update_file
from pneumonia_training.evaluate import chosen_in, predict, trivial_baselines
from pneumonia_training.evaluate import evaluate as figures_of
from pneumonia_training.export import Release
from pneumonia_training.export import export as release_bundle
from pneumonia_training.fit import fit as train
from pneumonia_training.fit import read_recipe, split_films

app = typer.Typer(help="Train, evaluate and release the pneumonia model.", no_args_is_help=True, add_completion=False)

Cache = Annotated[Path, typer.Argument(help="Folder of prepared films.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="Name of a recipe of this package, or a TOML file.")]


@app.command()
def prepare(
    cache: Cache,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV: path, label, group; fold, view and more if known.")
    ] = None,
    rsna: Annotated[Path | None, typer.Option(help="Unpacked RSNA challenge, stage 2.")] = None,
    patients: Annotated[Path | None, typer.Option(help="CSV: rsna_id, nih_patient. Splits RSNA by patient.")] = None,
) -> None:
    """Read films once, through the node's own preprocessing."""
    if manifest is not None:
        films, root = preparation.read_manifest(manifest), manifest.parent
    elif rsna is not None:
        films, root = preparation.read_rsna_folder(rsna, patients=patients), rsna
    else:
        raise typer.BadParameter("give --manifest or --rsna")
    prepared = preparation.prepare(films, root=root, cache=cache)
    typer.echo(f"{len(prepared.films)} films, {prepared.digest}")


@app.command()
def fit(
    cache: Cache,
    run: Annotated[Path, typer.Argument(help="Folder for checkpoints and logs.")],
    recipe: RecipeName = "default",
    accelerator: Annotated[str, typer.Option(help="As Lightning names it: auto, cpu, gpu.")] = "auto",
) -> None:
    """Train by a recipe."""
    best = train(preparation.load_prepared(cache), read_recipe(recipe), run=run, accelerator=accelerator)
    typer.echo(best)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint to release.")],
    cache: Cache,
    *,
    recipe: RecipeName = "default",
    name: Annotated[str, typer.Option()] = "pneumonia-resnet18",
    version: Annotated[str, typer.Option()] = "0.1.0",
    commit: Annotated[str, typer.Option(help="Commit that the training ran at.")] = "unknown",
    remarks: Annotated[str, typer.Option(help="Whatever of the training the recipe does not say.")] = "",
    bundles: Annotated[Path, typer.Option(help="Folder of bundles.")] = Path("model/bundles"),
) -> None:
    """Calibrate, measure and write a bundle; its status is always demonstration: only a person can raise it."""
    release = Release(name=name, version=version, status="demonstration", commit=commit, remarks=remarks)
    bundle = release_bundle(checkpoint, preparation.load_prepared(cache), read_recipe(recipe), release, bundles=bundles)
    typer.echo(f"{bundle.path} {bundle.digest}")


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    cache: Cache,
    recipe: Annotated[str | None, typer.Option(help="Measure only the films that this recipe tests on.")] = None,
) -> None:
    """Measure a bundle through the node's own runtime; figures go to standard output as JSON."""
    loaded, prepared = load_bundle(bundle), preparation.load_prepared(cache)
    backend = open_backend(loaded, "onnxruntime", "cpu")
    if recipe is None:
        figures = figures_of(prepared.films, predict(backend, prepared.images), chosen_in(loaded), baselines={})
    else:
        split = split_films(prepared, read_recipe(recipe))
        logits = predict(backend, prepared.images[split.test])
        baselines = trivial_baselines(prepared, split, split.test)
        figures = figures_of(prepared.films.iloc[split.test], logits, chosen_in(loaded), baselines=baselines)
    typer.echo(json.dumps(figures, indent=2))


@app.command()
def card(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    path: Annotated[Path, typer.Argument(help="Model card to renew.")] = Path("model/MODEL_CARD.md"),
) -> None:
    """Write a bundle's figures into its model card."""
    update_file(path, bundle)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    app()
