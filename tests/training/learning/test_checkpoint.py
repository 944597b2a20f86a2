"""Only a trained network of the node's own kind becomes a bundle, wherever it was trained."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pneumonia_model.bundle import load_bundle
from pneumonia_model.network import pneumonia_resnet18
from pneumonia_training import intervals
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import SplitRule
from pneumonia_training.learning.checkpoint import CheckpointError, NetworkBackend, network_weights
from pneumonia_training.learning.recipe import read_recipe
from pneumonia_training.release.export import ExportError, Release, export
from torch import Tensor, nn
from torchvision.models import resnet18

from tests.node import BUNDLE
from tests.training.small_films import prepared_films

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
RELEASE: Final = Release(name="elsewhere", version="0.0.1", status="demonstration", commit="unknown")


def trained() -> dict[str, Tensor]:
    """Return weights that count as trained."""
    torch.manual_seed(0)
    network = pneumonia_resnet18().train()
    with torch.no_grad():
        network(torch.rand(4, 1, 64, 64))
    return dict(network.state_dict())


class Elsewhere(pl.LightningModule):
    """The common recipe as others write it: torchvision's ResNet-18, its first convolution and its head replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.model = resnet18()
        self.model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.model.fc = nn.Linear(512, 1)
        self.loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        loss: Tensor = self.loss(self.model(batch[0])[:, 0], batch[1])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=1e-4)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that Lightning wrote for that module, optimiser and all."""
    folder = tmp_path_factory.mktemp("elsewhere")
    films = torch.utils.data.TensorDataset(torch.rand(8, 1, 64, 64), torch.tensor([0.0, 1] * 4))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, default_root_dir=folder
    )
    trainer.fit(Elsewhere(), torch.utils.data.DataLoader(films, batch_size=4))
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


def test_a_plain_lightning_checkpoint_gives_its_network(elsewhere: Path) -> None:
    module = Elsewhere()
    module.load_state_dict(torch.load(elsewhere, weights_only=True)["state_dict"])
    inputs = np.random.default_rng(0).random((3, 224, 224), dtype=np.float32)
    with torch.inference_mode():
        expected = module.eval().model(torch.from_numpy(inputs)[:, None])[:, 0].numpy()
    assert NetworkBackend(network_weights(elsewhere)).logits(inputs) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("prefix", ["", "net.", "module.model.", "network."])
def test_weights_are_found_whatever_attribute_held_the_network(prefix: str, tmp_path: Path) -> None:
    weights = trained()
    torch.save({"state_dict": {f"{prefix}{name}": value for name, value in weights.items()}}, tmp_path / "x.ckpt")
    assert network_weights(tmp_path / "x.ckpt").keys() == weights.keys()


def test_a_running_average_goes_before_the_weights_that_it_is_of(tmp_path: Path) -> None:
    weights = trained()
    state = {f"network.{name}": value for name, value in weights.items()}
    state |= {f"average.module.{name}": value + 1 for name, value in weights.items()}
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    assert torch.equal(network_weights(tmp_path / "x.ckpt")["fc.bias"], weights["fc.bias"] + 1)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("unpickled"),)


def test_a_pickled_object_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": trained(), "more": Evil()}, "x.ckpt")
    with pytest.raises(CheckpointError, match="can run code"):
        network_weights(Path("x.ckpt"))
    assert not Path("unpickled").exists()


def changed(**values: Tensor | None) -> dict[str, Tensor]:
    weights = trained() | {name.replace("__", "."): value for name, value in values.items()}
    return {name: value for name, value in weights.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (lambda: pneumonia_resnet18().state_dict(), "untrained: bn1.num_batches_tracked is 0"),
        (lambda: changed(conv1__weight=torch.rand(64, 3, 7, 7)), "takes 3 channels"),
        (lambda: changed(fc__weight=torch.rand(2, 512), fc__bias=torch.rand(2)), "the head is"),
        (lambda: changed(fc__weight=None, fc__bias=None), "the head is"),
        (lambda: changed(layer4__1__conv2__weight=None), "layer4.1.conv2.weight is missing"),
        (lambda: changed(extra__weight=torch.rand(3)), "extra.weight is unknown"),
        (lambda: changed(layer1__0__conv1__weight=torch.rand(64, 64, 1, 1)), "a ResNet-18 has"),
        (lambda: changed(fc__bias=torch.tensor([float("nan")])), "not finite"),
        (lambda: {"a.conv1.weight": torch.rand(1), "b.conv1.weight": torch.rand(1)}, "one ResNet is expected"),
        (lambda: {"encoder.weight": torch.rand(1)}, "no conv1.weight"),
    ],
)
def test_what_is_no_trained_network_of_this_kind_is_refused_with_its_reason(
    state: object, reason: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": state()}, tmp_path / "x.ckpt")  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=reason):
        network_weights(tmp_path / "x.ckpt")


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("weights")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps([1]))
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name, reason in (("gone", "cannot be read"), ("text", "not a checkpoint"), ("list", "no state_dict")):
        with pytest.raises(CheckpointError, match=reason):
            network_weights(tmp_path / f"{name}.ckpt")
    with pytest.raises(CheckpointError):
        network_weights(tmp_path / "pickle.ckpt")


# --- release ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here are releases; `test_intervals` tests the intervals."""
    monkeypatch.setattr(intervals, "REPLICATES", 100)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFilms:
    return prepared_films(tmp_path_factory.mktemp("films"), patients=40, films_each=1)


def served_checkpoint(tmp_path: Path) -> Path:
    """Return the shipped network as a checkpoint from elsewhere: it has logits that are worth calibrating."""
    from safetensors.torch import load_file  # noqa: PLC0415 - needed here only

    torch.save({"state_dict": load_file(BUNDLE / "weights.safetensors")}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


@pytest.mark.usefixtures("_few_replicates")
def test_a_checkpoint_made_elsewhere_is_released_by_the_split_of_the_common_recipe(
    prepared: PreparedFilms, tmp_path: Path
) -> None:
    checkpoint = served_checkpoint(tmp_path)
    logits = NetworkBackend(network_weights(checkpoint)).logits(prepared.images.astype(np.float32) / np.float32(255))
    labels = (logits > np.median(logits)) ^ (np.arange(len(logits)) % 5 == 0)  # it is right about four films of five
    known = replace(prepared, films=prepared.films.assign(label=labels.astype(int)))
    recipe = read_recipe("reference", ["split.test_share_of_images=0.5"])
    bundle = export(checkpoint, known, recipe, RELEASE, bundles=tmp_path)
    training = bundle.manifest["training"]
    assert training["recorded"] is False
    assert training["evaluation"] == "hold-out"
    assert json.loads((bundle.path / "metrics.json").read_text())["split"]["by"] == "image"


@pytest.mark.usefixtures("_few_replicates")
def test_a_release_by_cross_validation_says_so_and_is_chosen_on_all_its_films(
    prepared: PreparedFilms, tmp_path: Path
) -> None:
    labels, random = prepared.films["label"].to_numpy(), np.random.default_rng(0)
    table = pd.DataFrame({"row": range(40), "fold": prepared.films["fold"] % 5, "logit": random.normal(labels, 1)})
    table.to_csv(tmp_path / "predictions.csv", index=False)
    recipe = read_recipe("default", ["monitor=last", "split.test_folds=[]", "split.validation_folds=[]"])
    bundle = export(
        served_checkpoint(tmp_path),
        prepared,
        recipe,
        RELEASE,
        bundles=tmp_path,
        crossvalidation=tmp_path / "predictions.csv",
    )
    figures = json.loads((bundle.path / "metrics.json").read_text())
    assert figures["split"]["kind"] == bundle.manifest["training"]["evaluation"] == "cross-validation"
    assert figures["split"]["train"]["films"] == figures["split"]["test"]["films"] == 40
    assert load_bundle(bundle.path).digest == bundle.digest
    probabilities = 1 / (1 + np.exp(-(bundle.calibration.slope * table["logit"] + bundle.calibration.intercept)))
    threshold = bundle.manifest["operating_points"][0]["threshold"]
    assert (probabilities[labels == 1] >= threshold).mean() >= 0.9


def test_a_recipe_that_holds_nothing_out_needs_a_cross_validation(prepared: PreparedFilms, tmp_path: Path) -> None:
    recipe = read_recipe("default", ["split.test_folds=[]"])
    assert isinstance(recipe.split, SplitRule)
    with pytest.raises(ExportError, match="give a cross-validation"):
        export(served_checkpoint(tmp_path), prepared, recipe, RELEASE, bundles=tmp_path)
