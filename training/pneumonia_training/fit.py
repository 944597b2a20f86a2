"""Train the stages of a recipe, one after the other, each starting from the weights of the one before."""

import logging
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from pneumonia_training.data import (
    Augmentation,
    Films,
    Split,
    SplitRule,
    balanced_loader,
    split_by_image,
    split_by_patient,
)
from pneumonia_training.module import PneumoniaModule
from pneumonia_training.prepare import Prepared

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some epochs on some subsets at one resolution."""

    name: str
    epochs: int
    side: int
    learning_rate: float
    batch_size: int
    subsets: tuple[str, ...] = ()  # none: all
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = 0.02
    averaging: float = 0.99
    balanced: bool = True
    negative_weights: dict[str, float] = field(default_factory=dict)
    augmentation: Augmentation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole training, as one TOML file says it."""

    name: str
    seed: int
    precision: Literal["32-true", "bf16-mixed"]
    monitor: Literal["val_auroc", "val_acc"]
    split: SplitRule | float  # a share: a random split by image
    stages: tuple[Stage, ...]


def read_recipe(name_or_path: str) -> Recipe:
    """Return a recipe of the package by name, or any by path."""
    bundled = Path(__file__).parent / "recipes" / f"{name_or_path}.toml"
    text = bundled.read_text() if bundled.is_file() else Path(name_or_path).read_text()
    document = tomllib.loads(text)
    rule = document.pop("split")
    split = rule["test_share_of_images"] if "test_share_of_images" in rule else SplitRule(**_tuples(rule))
    stages = tuple(_stage(stage) for stage in document.pop("stage"))
    return Recipe(**document, split=split, stages=stages)


def _stage(document: dict[str, Any]) -> Stage:
    augmentation = document.pop("augmentation", None)
    return Stage(**_tuples(document), augmentation=None if augmentation is None else Augmentation(**augmentation))


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


def split_films(prepared: Prepared, recipe: Recipe) -> Split:
    """Return the recipe's split; the same films and recipe always give the same one."""
    if isinstance(recipe.split, SplitRule):
        return split_by_patient(prepared.films, recipe.split)
    log.warning("split by image: patients are shared between training and test, figures will be too good")
    return split_by_image(prepared.films, test_share=recipe.split, seed=recipe.seed)


def fit(prepared: Prepared, recipe: Recipe, *, run: Path, accelerator: str = "auto") -> Path:
    """Train and return the path of the best checkpoint of the last stage; logs and checkpoints go below `run`."""
    pl.seed_everything(recipe.seed, workers=True)
    split = split_films(prepared, recipe)
    weights: Path | None = None
    for number, stage in enumerate(recipe.stages):
        weights = _fit_stage(
            prepared,
            split,
            recipe,
            stage,
            run=run / f"{number}-{stage.name}",
            weights=weights,
            accelerator=accelerator,
        )
    if weights is None:
        raise ValueError("a recipe has at least one stage")
    return weights


def new_module(stage: Stage, weights: Path | None = None) -> PneumoniaModule:
    """Return the module of a stage, with a checkpoint's released weights where one is given."""
    module = PneumoniaModule(
        side=stage.side,
        learning_rate=stage.learning_rate,
        optimizer=stage.optimizer,
        weight_decay=stage.weight_decay,
        averaging=stage.averaging,
        augmentation=stage.augmentation,
    )
    if weights is not None:
        released = released_weights(weights)
        module.network.load_state_dict(released)
        if module.average is not None:
            module.average.module.load_state_dict(released)
    return module


def released_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return the weights in a checkpoint that are validated and released: the running average where there is one."""
    state: dict[str, Tensor] = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "average.module." if any(key.startswith("average.module.") for key in state) else "network."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _fit_stage(
    prepared: Prepared,
    split: Split,
    recipe: Recipe,
    stage: Stage,
    *,
    run: Path,
    weights: Path | None,
    accelerator: str,
) -> Path:
    rows = split.train
    if stage.subsets:
        rows = rows[prepared.films["subset"].iloc[rows].isin(stage.subsets).to_numpy()]
    log.info("stage starts name=%s films=%d side=%d epochs=%d", stage.name, len(rows), stage.side, stage.epochs)
    best = ModelCheckpoint(dirpath=run, filename="best", monitor=recipe.monitor, mode="max", save_last=True)
    trainer = pl.Trainer(
        max_epochs=stage.epochs,
        accelerator=accelerator,
        precision=recipe.precision,
        logger=[CSVLogger(run, name="csv", version=""), TensorBoardLogger(run, name="tensorboard", version="")],
        callbacks=[best],
        deterministic=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=20,
    )
    validation = DataLoader(Films(prepared, split.validation), batch_size=64)
    trainer.fit(new_module(stage, weights), _training_loader(prepared, rows, stage, seed=recipe.seed), validation)
    return Path(best.best_model_path)


def _training_loader(
    prepared: Prepared, rows: np.ndarray[tuple[int], np.dtype[np.intp]], stage: Stage, *, seed: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    if stage.balanced:
        return balanced_loader(prepared, rows, batch_size=stage.batch_size, weights=stage.negative_weights, seed=seed)
    return DataLoader(
        Films(prepared, rows),
        batch_size=stage.batch_size,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
    )
