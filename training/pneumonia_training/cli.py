"""`pneumonia-train`: prepare, fit, evaluate, export."""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, cast

import typer
from pneumonia_model.bundle import BundleError, load_bundle
from pneumonia_model.errors import BackendError
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pneumonia_training.detection.commands import detect_evaluate, detect_export, fit_boxes
from pneumonia_training.detection.recipe import is_detection
from pneumonia_training.evaluation import compare_bundles, evaluate_crossvalidation, evaluate_external, evaluate_films
from pneumonia_training.films.manifests import ManifestError, read_manifest, read_rsna_folder
from pneumonia_training.films.prepare import load_prepared, npy_names, write_npy
from pneumonia_training.films.prepare import prepare as prepare_films
from pneumonia_training.films.problems import FilmProblem, read_findings, summary
from pneumonia_training.learning.checkpoint import CheckpointError
from pneumonia_training.learning.crossvalidate import Plan
from pneumonia_training.learning.crossvalidate import crossvalidate as run_crossvalidation
from pneumonia_training.learning.fit import Hardware, teacher_probabilities
from pneumonia_training.learning.fit import fit as train
from pneumonia_training.learning.fit import smoke as smoke_trial
from pneumonia_training.learning.recipe import RecipeError, read_recipe
from pneumonia_training.learning.run_record import RunError
from pneumonia_training.learning.start_weights import StartWeightsError
from pneumonia_training.measuring.calibration import CalibrationError
from pneumonia_training.measuring.compare_recipes import compare_recipes
from pneumonia_training.release.cards import update_cards
from pneumonia_training.release.export import Elsewhere, ExportError, Release, rewrite_graph
from pneumonia_training.release.export import export as release_bundle

app = typer.Typer(help="Train, evaluate and release the pneumonia model.", no_args_is_help=True, add_completion=False)

Cache = Annotated[Path, typer.Argument(help="Folder of prepared films.")]
RunFolder = Annotated[Path, typer.Argument(help="Folder for checkpoints, logs and what the training was.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Value over the recipe's, as in stage.films.epochs=3 or stage.*.side=160."),
]
Accelerator = Annotated[str, typer.Option(help="As Lightning names it: auto, cpu, gpu.")]
Devices = Annotated[str, typer.Option(help="How many of them train together, or auto for all.")]
Teacher = Annotated[Path | None, typer.Option(help="Predictions of other networks: soft targets for `teacher` stages.")]
Predictions = Annotated[
    Path | None,
    typer.Option(help="Predictions of `crossvalidate`: every figure is of a film that its network had not seen."),
]
RecipeName = Annotated[str, typer.Option("--recipe", help="Name of a recipe of this package, or a TOML file.")]


@app.command()
def prepare(
    cache: Cache,
    *,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV: path, label; group (the patient), fold, view and more if known.")
    ] = None,
    rsna: Annotated[Path | None, typer.Option(help="Unpacked RSNA challenge, stage 2.")] = None,
    nih_map: Annotated[
        Path | None, typer.Option(help="CSV: rsna_id, nih_patient. Splits films with an image id by patient.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes that read; else one for each core.")] = None,
    npy: Annotated[Path | None, typer.Option(help="Folder for one float32 .npy of each film, too.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 where checks.csv names anything.")] = False,
) -> None:
    """Read and check films once, through the node's own preprocessing; again: go on where it was interrupted."""
    findings: list[FilmProblem] = []
    if manifest is not None and rsna is None:
        films, root = read_manifest(manifest, nih_map=nih_map), manifest.parent
    elif rsna is not None and manifest is None:
        (films, findings), root = read_rsna_folder(rsna, nih_map=nih_map), rsna
    else:
        raise typer.BadParameter("give --manifest or --rsna")
    if npy is not None:
        npy_names(films)  # refuses, before hours of reading, what could not be written after it
    with progress_bar("films", total=len(films)) as progress:
        prepared = prepare_films(
            films, root=root, cache=cache, findings=findings, jobs=jobs or os.cpu_count() or 1, progress=progress
        )
    if npy is not None:
        write_npy(prepared, npy)
    typer.echo(f"{len(prepared.films)} films, {prepared.digest}")
    found = read_findings(cache / "checks.csv")
    typer.echo(f"{cache / 'checks.csv'}: {summary(found)}")
    if strict and found:
        raise ManifestError(f"{len(found)} findings, and --strict was asked for")


@app.command()
def fit(
    cache: Cache,
    run: RunFolder,
    *,
    recipe: RecipeName = "default",
    settings: Settings = None,
    accelerator: Accelerator = "auto",
    devices: Devices = "auto",
    teacher: Teacher = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Pass over 64 films once: does it run at all?")] = False,
) -> None:
    """Train by a recipe, or go on with an interrupted training in the same folder; prints the checkpoint's path."""
    if is_detection(recipe):
        if teacher is not None:
            raise typer.BadParameter("a detector has no --teacher")
        _tell(fit_boxes(cache, run, recipe, settings or (), _hardware(accelerator, devices), shortly=smoke))
        return
    prepared, chosen = load_prepared(cache), read_recipe(recipe, settings or ())
    soft = None if teacher is None else teacher_probabilities(teacher, len(prepared.films))
    if smoke:
        prepared, chosen = smoke_trial(prepared, chosen)
        soft = None
    _tell(train(prepared, chosen, run=run, hardware=_hardware(accelerator, devices), teacher=soft))


@app.command()
def crossvalidate(
    cache: Cache,
    run: RunFolder,
    *,
    recipe: RecipeName = "default",
    settings: Settings = None,
    accelerator: Accelerator = "auto",
    devices: Devices = "auto",
    teacher: Teacher = None,
    folds: Annotated[
        int, typer.Option(min=2, max=10, help="How many trainings, each without a part of the patients.")
    ] = 5,
    share: Annotated[float, typer.Option(min=0.01, max=1, help="Part of the training patients: a learning curve.")] = 1,
    shared: Annotated[Path | None, typer.Option(help="Folder of stages that several cross-validations share.")] = None,
    distil: Annotated[
        bool, typer.Option("--distil", help="Teach by networks that saw neither the film nor the fold.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time; the cores are divided among them.")] = 1,
) -> None:
    """Train once per part of the patients; every film is scored by a network that has not seen its patient."""
    films = len(load_prepared(cache).films)
    plan = Plan(
        recipe=read_recipe(recipe, settings or ()),
        run=run,
        folds=folds,
        share=share,
        shared=shared,
        hardware=_hardware(accelerator, devices),
        teacher=None if teacher is None else teacher_probabilities(teacher, films),
        distil=distil,
    )
    typer.echo(run_crossvalidation(cache, plan, jobs=jobs))


@contextlib.contextmanager
def progress_bar(unit: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of films done; from its first call it shows a bar, on a terminal."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console)
    task = bar.add_task(unit, total=total)

    def show(done: int) -> None:
        bar.start()  # not earlier: a warning that is logged first stays on the screen
        bar.update(task, completed=done)

    if not console.is_terminal:
        yield lambda _: None
        return
    try:
        yield show
    finally:
        bar.stop()


@rank_zero_only
def _tell(checkpoint: Path) -> None:
    """Print the checkpoint's path, only once if several processes train together."""
    typer.echo(checkpoint)


def _hardware(accelerator: str, devices: str) -> Hardware:
    return Hardware(accelerator=accelerator, devices=int(devices) if devices.isdecimal() else devices)


@app.command()
def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint to release: of `fit`, or of another Lightning training.")
    ],
    cache: Cache,
    *,
    recipe: RecipeName = "default",
    settings: Settings = None,
    crossvalidation: Predictions = None,
    external: Annotated[list[Path] | None, typer.Option(help="CSV of films from elsewhere to measure on, too.")] = None,
    originals: Annotated[
        Path | None, typer.Option(help="CSV (path, label, image_id) of training films as whole files: same scores?")
    ] = None,
    outside: Annotated[
        list[Path] | None, typer.Option(help="CSV (path, kind) of pictures that the gate should refuse.")
    ] = None,
    name: Annotated[str, typer.Option()] = "pneumonia-resnet18",
    version: Annotated[str, typer.Option()] = "0.1.0",
    commit: Annotated[str, typer.Option(help="Commit that the training ran at, if its folder does not name it.")] = "",
    remarks: Annotated[str, typer.Option(help="Whatever of the training the recipe does not say.")] = "",
    attribution: Annotated[
        list[str] | None, typer.Option(help="Source to name beside RSNA and NIH, with its licence.")
    ] = None,
    bundles: Annotated[Path, typer.Option(help="Folder of bundles.")] = Path("model/bundles"),
) -> None:
    """Calibrate, measure and write a bundle; its status is always demonstration: only a person can raise it."""
    release = Release(
        name=name,
        version=version,
        status="demonstration",
        commit=commit,
        remarks=remarks,
        attributions=tuple(attribution or ()),
    )
    bundle = release_bundle(
        checkpoint,
        load_prepared(cache),
        read_recipe(recipe, settings or ()),
        release,
        bundles=bundles,
        crossvalidation=crossvalidation,
        elsewhere=Elsewhere(external=external or (), originals=originals, outside=outside or ()),
    )
    typer.echo(f"{bundle.path} {bundle.digest}")


@app.command("rewrite-graph")
def rewrite_graph_of(bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")]) -> None:
    """Write the graph of an older bundle as this version needs it: all else stays, the digest is another one."""
    rewritten = rewrite_graph(bundle)
    typer.echo(f"{rewritten.path} {rewritten.digest}")


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    cache: Annotated[Path | None, typer.Argument(help="Folder of prepared films.")] = None,
    *,
    recipe: Annotated[str | None, typer.Option(help="Measure only the films that this recipe tests on.")] = None,
    settings: Settings = None,
    crossvalidation: Predictions = None,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV of films from elsewhere (path, label), not a cache.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Bundle to compare: differences are this one minus BUNDLE.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json and report.html; else JSON is printed.")
    ] = None,
) -> None:
    """Measure a bundle through the node's own runtime, with 95 % intervals by patient."""
    chosen = None if recipe is None else read_recipe(recipe, settings or ())
    if (cache is None) == (manifest is None):
        raise typer.BadParameter("give a CACHE of prepared films, or --manifest")
    if sum(option is not None for option in (recipe or compare, crossvalidation, manifest)) > 1:
        raise typer.BadParameter("--manifest and --crossvalidation stand alone")
    if cache is None:
        result = evaluate_external(load_bundle(bundle), cast("Path", manifest))
    elif compare is not None:
        result = compare_bundles(load_bundle(compare), load_bundle(bundle), load_prepared(cache), chosen)
    elif crossvalidation is not None:
        result = evaluate_crossvalidation(load_bundle(bundle), load_prepared(cache), crossvalidation)
    else:
        result = evaluate_films(load_bundle(bundle), load_prepared(cache), chosen)
    typer.echo(result.metrics if out is None else result.written(out))


@app.command()
def compare(
    cache: Cache,
    predictions: Annotated[list[str], typer.Argument(help="NAME=CSV: tables that `crossvalidate` left, named.")],
    *,
    subset: Annotated[str, typer.Option(help="Films to compare on: those of the natural mix.")],
    against: Annotated[str, typer.Option(help="NAME that every difference is to.")],
) -> None:
    """Compare recipes, or shares of the films, by their cross-validations; prints JSON."""
    tables = {name: Path(path) for name, _, path in (named.partition("=") for named in predictions)}
    compared = compare_recipes(load_prepared(cache), tables, subset=subset, against=against)
    typer.echo(json.dumps(compared, indent=2))


@app.command()
def cards(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    repository: Annotated[Path, typer.Argument(help="Folder with model/ and training/.")] = Path(),
) -> None:
    """Write the figures of a bundle and of the comparisons into the model card and the dataset card."""
    for path in update_cards(repository, bundle):
        typer.echo(path)


app.command()(detect_evaluate)
app.command()(detect_export)


def main() -> None:
    """Run the command line; an error that the user can fix ends it with one line and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        app()
    except (
        ManifestError,
        RecipeError,
        RunError,
        StartWeightsError,
        BundleError,
        BackendError,
        CalibrationError,
        CheckpointError,
        ExportError,
    ) as error:
        typer.echo(error, err=True)
        raise SystemExit(1) from error
