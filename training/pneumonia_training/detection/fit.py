"""Trains a detector, and opens a trained one."""

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import pytorch_lightning as pl
import torch
from pneumonia_model.bundle import file_sha256
from pneumonia_model.detector import OpacityDetector, TorchDetector
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from pneumonia_training.detection.films import split_boxed, training_loader
from pneumonia_training.detection.module import RELEASED, DetectorModule
from pneumonia_training.detection.recipe import DetectionRecipe, parsed
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import Split
from pneumonia_training.learning.checkpoint import network_weights
from pneumonia_training.learning.fit import Hardware
from pneumonia_training.learning.recipe import RecipeError
from pneumonia_training.learning.run_record import RUN, RunError, record_run, sides_document

log = logging.getLogger(__name__)

_FOLDER: Final = "detector"
_FINAL: Final = "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedDetector:
    """A finished training: its recipe, its split, and the weights to release."""

    recipe: DetectionRecipe
    split: Split
    weights: dict[str, Tensor]
    sha256: str  # of the checkpoint
    commit: str  # of the code that trained it

    def detector(self) -> TorchDetector:
        """Return the detector, on the CPU."""
        network = OpacityDetector(self.recipe.detector.side)
        network.load_state_dict(self.weights)
        return TorchDetector(network)


def fit_detector(
    prepared: PreparedFilms, recipe: DetectionRecipe, *, run: Path, hardware: Hardware | None = None
) -> Path:
    """Train and return the checkpoint's path; logs, checkpoints and `run.json` go below `run`.

    A second call with the same folder resumes an interrupted training.

    Raises:
        RunError: the folder holds another training, or the classifier to start from has seen films of the test
            side.
        RecipeError: the split leaves no film for training, or `init` does not name a classifier.
    """
    split = split_boxed(prepared, recipe)
    init = file_sha256(Path(recipe.init)) if recipe.init and Path(recipe.init).is_file() else None
    record_run(run, prepared, split, {"recipe": asdict(recipe), "init": init})
    folder, where = run / _FOLDER, hardware or Hardware()
    pl.seed_everything(recipe.seed, workers=True, verbose=False)
    module = DetectorModule(recipe.detector)
    if recipe.init:
        module.start_from_classifier(_classifier(Path(recipe.init), prepared, split))
    final = ModelCheckpoint(dirpath=folder, filename=_FINAL, enable_version_counter=False)
    trainer = pl.Trainer(
        max_epochs=recipe.detector.epochs,
        accelerator=where.accelerator,
        devices=where.devices,
        precision=recipe.precision,
        logger=[CSVLogger(folder, name="csv", version=""), TensorBoardLogger(folder, name="tensorboard", version="")],
        callbacks=[final],
        deterministic=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=20,
        limit_val_batches=0,
    )
    log.info("detector starts films=%d side=%d", len(split.train), recipe.detector.side)
    checkpoint = folder / f"{_FINAL}.ckpt"
    loader = training_loader(prepared, split.train, recipe)
    trainer.fit(module, loader, ckpt_path=str(checkpoint) if checkpoint.is_file() else None)
    return checkpoint


def smoke(recipe: DetectionRecipe) -> DetectionRecipe:
    """Return a recipe that passes over 64 films once, to see whether it runs at all."""
    settings = replace(recipe.detector, epochs=1, films_per_epoch=64, batch_size=min(recipe.detector.batch_size, 8))
    return replace(recipe, name=f"{recipe.name} (smoke)", detector=settings)


def open_trained(checkpoint: Path, prepared: PreparedFilms) -> TrainedDetector:
    """Return the training that `fit_detector` left, with its split.

    Raises:
        RunError: the training has no record, or used other films.
    """
    path = checkpoint.parent.parent / RUN
    try:
        document = json.loads(path.read_text())
        recipe = parsed(document["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: no record of a detector's training") from error
    split = split_boxed(prepared, recipe)
    if document["data"] != prepared.digest or document["split"] != sides_document(split):
        raise RunError(f"{checkpoint}: trained on other prepared films than these")
    state: dict[str, Tensor] = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    weights = {key.removeprefix(RELEASED): value for key, value in state.items() if key.startswith(RELEASED)}
    return TrainedDetector(
        recipe=recipe,
        split=split,
        weights=weights,
        sha256=file_sha256(checkpoint),
        commit=str(document["environment"]["commit"]),
    )


def _classifier(checkpoint: Path, prepared: PreparedFilms, split: Split) -> dict[str, Tensor]:
    """Return a classifier's weights if it has not seen the patients on whom the detector is measured."""
    if not checkpoint.is_file():
        raise RecipeError(f"init: no file {checkpoint}")
    record = checkpoint.parent.parent / RUN
    if not record.is_file():
        log.warning("classifier without a record of its training: whether it has seen the test films is not known here")
        return network_weights(checkpoint)
    found = json.loads(record.read_text())
    if found["data"] != prepared.digest or found["split"]["test"] != sides_document(split)["test"]:
        raise RunError(f"init: {checkpoint} holds out other films than this detector is measured on")
    return network_weights(checkpoint)
