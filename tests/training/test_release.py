"""From films to a bundle that serves, in one short training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pneumonia_model.backends import open_backend
from pneumonia_model.bundle import WEIGHTS, Bundle, load_bundle, verify_golden
from pneumonia_training.data import Augmentation, SplitRule, balanced_loader, resize, split_by_patient, vary
from pneumonia_training.evaluate import chosen_in, evaluate, predict
from pneumonia_training.export import METRICS, Release, export
from pneumonia_training.fit import Recipe, Stage, fit, read_recipe, released_weights
from pneumonia_training.golden import golden_pictures
from pneumonia_training.prepare import Prepared
from safetensors.numpy import load_file

from tests.training.films import prepared_films

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

RULE = SplitRule(test_folds=(0, 1), validation_folds=(2, 3))
RECIPE = Recipe(
    name="trial",
    seed=3,
    precision="32-true",
    monitor="val_auroc",
    split=RULE,
    stages=(
        Stage(name="small", epochs=1, side=32, learning_rate=1e-3, batch_size=12, averaging=0.0),
        Stage(name="large", epochs=2, side=224, learning_rate=1e-3, batch_size=12, averaging=0.7),
    ),
)
RELEASE = Release(name="trial", version="0.0.1", status="demonstration", commit="none")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_films(tmp_path_factory.mktemp("films"), patients=60, films_each=1)


@pytest.fixture(scope="module")
def run(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit(prepared, RECIPE, run=folder, accelerator="cpu")
    return folder


@pytest.fixture(scope="module")
def bundle(prepared: Prepared, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(run / "1-large" / "best.ckpt", prepared, RECIPE, RELEASE, bundles=tmp_path_factory.mktemp("bundles"))


def test_a_training_leaves_its_course_as_csv_and_for_tensorboard(run: Path) -> None:
    with (run / "1-large" / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"train_loss", "val_auroc", "val_acc", "val_loss"} <= rows[0].keys()
    assert list((run / "1-large" / "tensorboard").glob("events.out.tfevents.*"))


def test_a_trained_network_tells_ill_films_from_others_and_can_be_released(bundle: Bundle) -> None:
    figures = json.loads((bundle.path / METRICS).read_text())
    assert figures["test"]["auc"]["model"]["all"][0] > 0.9
    assert bundle.status == "demonstration"
    assert bundle.manifest["files"].keys() >= {WEIGHTS, METRICS}
    for name in ("onnxruntime", "torch"):
        verify_golden(bundle, open_backend(bundle, name, "cpu"))


def test_the_weights_are_stored_once(bundle: Bundle) -> None:
    sizes = {file.name: file.stat().st_size for file in bundle.path.iterdir()}
    assert sizes["model.onnx"] < 50_000
    assert sizes[WEIGHTS] > 40_000_000
    assert sum(sizes.values()) < 46_000_000


def test_the_released_weights_are_trained_ones(bundle: Bundle) -> None:
    assert load_file(bundle.path / WEIGHTS)["bn1.num_batches_tracked"] > 0


def test_the_released_weights_are_the_average_that_was_validated(run: Path) -> None:
    checkpoint = run / "1-large" / "best.ckpt"
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    released = released_weights(checkpoint)
    assert torch.equal(released["fc.weight"], state["average.module.fc.weight"])
    assert not torch.equal(released["fc.weight"], state["network.fc.weight"])


def test_figures_in_the_manifest_are_those_that_evaluation_finds_again(prepared: Prepared, bundle: Bundle) -> None:
    split = split_by_patient(prepared.films, RULE)
    backend = open_backend(bundle, "onnxruntime", "cpu")
    films = prepared.films.iloc[split.test]
    again = evaluate(films, predict(backend, prepared.images[split.test]), chosen_in(bundle), baselines={})
    assert again["auc"]["model"]["all"] == bundle.manifest["auc"]
    assert again["operating_points"] == bundle.manifest["operating_points"]
    assert again["patients"] == films.group.nunique()


def test_a_release_can_be_made_again_byte_for_byte(
    prepared: Prepared, run: Path, bundle: Bundle, tmp_path: Path
) -> None:
    again = export(run / "1-large" / "best.ckpt", prepared, RECIPE, RELEASE, bundles=tmp_path)
    assert again.digest == bundle.digest
    assert load_bundle(again.path).digest == bundle.digest


def test_golden_pictures_are_the_same_each_time_and_no_two_alike() -> None:
    assert np.array_equal(golden_pictures(), golden_pictures())
    assert len({picture.tobytes() for picture in golden_pictures()}) == len(golden_pictures())


def test_training_films_vary_and_stay_pictures() -> None:
    torch.manual_seed(0)
    films = torch.rand(8, 224, 224)
    varied = vary(films, side=96, augmentation=Augmentation())
    assert varied.shape == (8, 96, 96)
    assert 0 <= varied.min() <= varied.max() <= 1
    assert not torch.equal(varied, vary(films, side=96, augmentation=Augmentation()))


def test_no_film_is_mirrored() -> None:
    torch.manual_seed(0)
    film = torch.zeros(64, 224, 224)
    film[:, :, :80] = 1
    varied = vary(film, side=64, augmentation=Augmentation())
    assert (varied[:, :, :20].mean(dim=(1, 2)) > varied[:, :, -20:].mean(dim=(1, 2))).all()


def test_without_variation_a_film_is_only_resized() -> None:
    still = Augmentation(rotation=0, scale=0, shift=0, brightness=0, contrast=0, gamma=0, blur=0)
    film = torch.rand(2, 224, 224).clamp(0.01, 1)
    assert torch.allclose(vary(film, side=112, augmentation=still), resize(film, 112), atol=1e-5)


def test_balanced_batches_hold_as_many_ill_films_as_others(prepared: Prepared) -> None:
    rows = split_by_patient(prepared.films, RULE).train
    loader = balanced_loader(prepared, rows, batch_size=16, weights={}, seed=0)
    labels = torch.cat([labels for _ in range(10) for _, labels in loader])
    assert labels.mean() == pytest.approx(0.5, abs=0.08)


def test_hard_negatives_are_drawn_as_often_as_the_recipe_says(prepared: Prepared) -> None:
    rows = np.arange(len(prepared.films))
    hard = "No Lung Opacity / Not Normal"
    loader = balanced_loader(prepared, rows, batch_size=16, weights={hard: 9.0}, seed=0)
    films = prepared.films
    drawn = films.iloc[[row for _ in range(20) for row in loader.sampler]]
    negative = drawn[drawn.label == 0]
    assert (negative.negative_class == hard).mean() > 0.8


@pytest.mark.parametrize("name", ["reference", "default", "demonstration"])
def test_every_recipe_of_the_package_can_be_read(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.stages


def test_the_reference_recipe_is_the_common_one() -> None:
    recipe = read_recipe("reference")
    (stage,) = recipe.stages
    assert (recipe.split, recipe.monitor) == (0.1, "val_acc")
    assert (stage.side, stage.learning_rate, stage.optimizer, stage.augmentation) == (224, 1e-4, "adam", None)
    assert not stage.balanced
