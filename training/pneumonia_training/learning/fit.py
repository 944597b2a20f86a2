"""Trains the stages of a recipe one after the other; each starts from the weights of the one before."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import (
    Batch,
    Films,
    Split,
    SplitRule,
    balanced_loader,
    balanced_weights,
    resize,
    split_by_image,
    split_by_patient,
)
from pneumonia_training.learning.checkpoint import network_weights
from pneumonia_training.learning.module import PneumoniaModule
from pneumonia_training.learning.recipe import Recipe, RecipeError, Stage
from pneumonia_training.learning.run_record import record_run
from pneumonia_training.learning.start_weights import StartWeights, read_start_weights

log = logging.getLogger(__name__)

STAGE: Final = "stage.json"
SMOKE_FILMS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The hardware for training, in Lightning's words; several devices train together (DDP)."""

    accelerator: str = "auto"
    devices: int | str = "auto"


def split_films(prepared: PreparedFilms, recipe: Recipe) -> Split:
    """Return the recipe's split; it is always the same for the same films and recipe."""
    if isinstance(recipe.split, SplitRule):
        return split_by_patient(prepared.films, recipe.split)
    log.warning("split by image: patients are shared between training and test, figures will be too good")
    return split_by_image(prepared.films, test_share=recipe.split, seed=recipe.seed)


def fit(
    prepared: PreparedFilms,
    recipe: Recipe,
    *,
    run: Path,
    hardware: Hardware | None = None,
    split: Split | None = None,
    shared: Path | None = None,
    teacher: NDArray[np.float32] | None = None,
) -> Path:
    """Train and return the path of the last stage's checkpoint; logs, checkpoints and `run.json` go below `run`.

    A second call with the same folder resumes an interrupted training.

    `split` replaces the recipe's split. `shared` is a folder for stages that do not depend on the patients held out:
    all trainings with this folder train such a stage once. `teacher` holds the probability from another network for
    each prepared film, NaN for a film without one.

    Raises:
        RunError: the folder holds a training of another recipe or other films.
        RecipeError: a stage is left without films.
        StartWeightsError: the recipe's start weights cannot be used.
    """
    split = split_films(prepared, recipe) if split is None else split
    start = read_start_weights(Path(recipe.stages[0].init)) if recipe.stages[0].init else None
    taught = None if teacher is None else hashlib.sha256(teacher.tobytes()).hexdigest()
    known = {"recipe": asdict(recipe), "start": start.document() if start else None, "teacher": taught}
    record_run(run, prepared, split, known)
    weights: Path | None = None
    for number, stage in enumerate(recipe.stages):
        folder = run / f"{number}-{stage.name}"
        if shared is not None and stage.apart_from and (weights is None or weights.is_relative_to(shared)):
            folder = shared / f"{stage.name}-{_key(prepared, recipe, stage, weights, start)}"
        task = _Task(
            prepared=prepared, split=split, recipe=recipe, stage=stage, run=folder, weights=weights, start=start
        )
        weights = _fit_stage(task, hardware or Hardware(), teacher)
    if weights is None:
        raise RecipeError("a recipe has at least one stage")
    return weights


def smoke(prepared: PreparedFilms, recipe: Recipe) -> tuple[PreparedFilms, Recipe]:
    """Return 64 films from all sides of the split, and a recipe that passes over them once, to see whether it runs."""
    split = split_films(prepared, recipe)
    table = prepared.films.assign(side="")
    for name, rows in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        table.loc[table.index[rows], "side"] = name
    order = np.random.default_rng(recipe.seed).permutation(np.flatnonzero(table["side"] != ""))
    rank = table.iloc[order].groupby(["side", "label", "subset"]).cumcount()
    rows = np.sort(order[np.argsort(rank.to_numpy(), kind="stable")][:SMOKE_FILMS])
    few = PreparedFilms(
        images=prepared.images[rows], films=prepared.films.iloc[rows].reset_index(drop=True), digest=prepared.digest
    )
    stages = tuple(
        replace(stage, epochs=1, films_per_epoch=0, batch_size=min(stage.batch_size, 8)) for stage in recipe.stages
    )
    return few, replace(recipe, name=f"{recipe.name} (smoke)", stages=stages)


def trained_on(prepared: PreparedFilms, rows: NDArray[np.intp]) -> dict[str, int]:
    """Return the number of films that a stage trains on, and the number of positive ones."""
    return {"films": len(rows), "positive": int(prepared.films["label"].iloc[rows].sum())}


def predict_films(checkpoint: Path, stage: Stage, images: NDArray[np.uint8], *, batch: int = 32) -> NDArray[np.float64]:
    """Return a checkpoint's logits, shape (n,), of prepared films at the side at which its stage validates."""
    module = PneumoniaModule(stage)
    network = module.released_network()
    network.load_state_dict(network_weights(checkpoint))
    network.eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            inputs = torch.from_numpy(images[start : start + batch].astype(np.float32) / np.float32(255))
            logits.append(module(resize(inputs, stage.side)).numpy())
    return np.concatenate(logits).astype(np.float64)


def rows_of(prepared: PreparedFilms, split: Split, stage: Stage) -> NDArray[np.intp]:
    """Return the rows that a stage trains on."""
    films, rows = prepared.films, split.train
    if stage.apart_from:
        groups = films.loc[films["subset"].isin(stage.apart_from), "group"]
        rows = np.flatnonzero(~films["group"].isin(groups))
    if stage.subsets:
        rows = rows[films["subset"].iloc[rows].isin(stage.subsets).to_numpy()]
    if not len(rows):
        raise RecipeError(f"stage {stage.name}: no film to train on")
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One stage of one training."""

    prepared: PreparedFilms
    split: Split
    recipe: Recipe
    stage: Stage
    run: Path
    weights: Path | None  # of the stage before
    start: StartWeights | None  # of the recipe


def _fit_stage(task: _Task, hardware: Hardware, teacher: NDArray[np.float32] | None) -> Path:
    """Train one stage, resume it, or find it done; return its checkpoint."""
    prepared, recipe, stage, run = task.prepared, task.recipe, task.stage, task.run
    if (run / STAGE).is_file():
        return run / str(json.loads((run / STAGE).read_text())["checkpoint"])
    rows = rows_of(prepared, task.split, stage)
    # Every stage is seeded, so that a resumed stage does not depend on what ran before it.
    pl.seed_everything(recipe.seed, workers=True, verbose=False)
    module = new_module(stage, task.weights, task.start)
    validated = recipe.monitor != "last" and stage.objective == "label" and not stage.apart_from
    best = ModelCheckpoint(
        dirpath=run,
        filename="best" if validated else "final",
        monitor=recipe.monitor if validated else None,
        mode="max",
        save_last=validated,  # without validation the one to release is the last
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [best]
    if stage.patience and validated:
        callbacks.append(EarlyStopping(monitor=recipe.monitor, mode="max", patience=stage.patience))
    trainer = pl.Trainer(
        max_epochs=stage.epochs,
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        precision=recipe.precision,
        logger=[CSVLogger(run, name="csv", version=""), TensorBoardLogger(run, name="tensorboard", version="")],
        callbacks=callbacks,
        deterministic=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=20,
        limit_val_batches=1.0 if validated else 0,
    )
    log.info("stage starts name=%s films=%d side=%d epochs=%d", stage.name, len(rows), stage.side, stage.epochs)
    begun = run / ("last.ckpt" if validated else "final.ckpt")
    trainer.fit(
        module,
        _training_loader(prepared, rows, stage, seed=recipe.seed, teacher=teacher),
        DataLoader(Films(prepared, task.split.validation), batch_size=64) if validated else None,
        ckpt_path=str(begun) if begun.is_file() else None,
    )
    chosen = Path(best.best_model_path)
    if trainer.is_global_zero:
        (run / "last.ckpt").unlink(missing_ok=True)
        document = {"stage": asdict(stage), "checkpoint": chosen.name} | trained_on(prepared, rows)
        (run / STAGE).write_text(json.dumps(document, indent=2) + "\n")
    return chosen


def new_module(stage: Stage, weights: Path | None = None, start: StartWeights | None = None) -> PneumoniaModule:
    """Return the module of a stage, with the released weights of the checkpoint before it, or else start weights."""
    module = PneumoniaModule(stage)
    if weights is not None:
        module.network.load_state_dict(network_weights(weights))
    elif start is not None:
        module.network.load_state_dict({**module.network.state_dict(), **start.weights})
    if module.average is not None:
        module.average.module.load_state_dict(module.network.state_dict())
    return module


def _training_loader(
    prepared: PreparedFilms, rows: NDArray[np.intp], stage: Stage, *, seed: int, teacher: NDArray[np.float32] | None
) -> DataLoader[Batch]:
    films = Films(prepared, rows, teacher)
    if stage.balanced:
        weights = balanced_weights(
            prepared.films.iloc[rows], negatives=stage.negative_weights, shares=stage.subset_shares
        )
        return balanced_loader(
            films,
            weights,
            batch_size=stage.batch_size,
            seed=seed,
            films_per_epoch=stage.films_per_epoch,
        )
    return DataLoader(
        films,
        batch_size=stage.batch_size,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
    )


def _key(
    prepared: PreparedFilms, recipe: Recipe, stage: Stage, weights: Path | None, start: StartWeights | None
) -> str:
    """Return a key that differs for each different shared stage."""
    document: Mapping[str, Any] = {
        "stage": asdict(stage),
        "seed": recipe.seed,
        "precision": recipe.precision,
        "data": prepared.digest,
        "weights": "" if weights is None else weights.parent.name,
        "start": "" if start is None else start.sha256,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]


def teacher_probabilities(predictions: Path, films: int) -> NDArray[np.float32]:
    """Return the mean probability for each of `films` films from a table of predictions (`row`, `logit`)."""
    table = pd.read_csv(predictions)
    probabilities = 1 / (1 + np.exp(-table["logit"]))
    teacher = np.full(films, np.nan, dtype=np.float32)
    mean = probabilities.groupby(table["row"]).mean()
    teacher[mean.index.to_numpy()] = mean.to_numpy(dtype=np.float32)
    return teacher
