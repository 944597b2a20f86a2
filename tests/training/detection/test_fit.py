"""A detector learns where planted opacities lie, and what it is trained and measured on does not mix."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from pneumonia_model.regions import NO_REGIONS, Regions
from pneumonia_training.detection.evaluate import THRESHOLDS, choose_threshold, mean_boxes, measure
from pneumonia_training.detection.films import BoxedBatch, corners, moved_boxes, split_boxed, training_loader, vary
from pneumonia_training.detection.fit import fit_detector, open_trained, smoke
from pneumonia_training.detection.module import DetectorModule
from pneumonia_training.detection.recipe import DetectionRecipe, Variation, is_detection, parsed, read_detection_recipe
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.learning.fit import Hardware
from pneumonia_training.learning.recipe import RecipeError
from pneumonia_training.learning.run_record import RunError

from tests.training.phantoms import phantoms

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

CPU: Final = Hardware(accelerator="cpu", devices=1)


def small(**settings: object) -> DetectionRecipe:
    """Return a recipe that takes seconds."""
    document = {
        "name": "small",
        "seed": 1,
        "precision": "32-true",
        "split": {"test_folds": [0, 5], "validation_folds": [1]},
        "detector": {
            "epochs": 1,
            "side": 64,
            "learning_rate": 2e-3,
            "batch_size": 8,
            "films_per_epoch": 16,
            "averaging": 0.9,
            **settings,
        },
    }
    return parsed(document)


@pytest.fixture(scope="module")
def films() -> PreparedFilms:
    return phantoms(40)


def test_boxes_of_a_manifest_become_corners_in_shares_of_the_film() -> None:
    assert corners("[[256, 512, 128, 256]]").tolist() == [[0.25, 0.5, 0.375, 0.75]]
    assert corners("").shape == (0, 4)


def test_a_box_that_reaches_over_the_edge_ends_there() -> None:
    assert corners("[[900, 0, 200, 1024]]").tolist() == [[900 / 1024, 0, 1, 1]]


def test_the_split_keeps_patients_apart_and_leaves_out_opacities_without_a_box(films: PreparedFilms) -> None:
    without = films.films.copy()
    lost = int(np.flatnonzero(without["label"] == 1)[3])
    without.loc[lost, "boxes"] = ""
    split = split_boxed(replace(films, films=without), small())
    sides = [set(without["group"].iloc[rows]) for rows in (split.train, split.validation, split.test)]
    assert sides[0].isdisjoint(sides[1] | sides[2])
    assert sides[1].isdisjoint(sides[2])
    assert lost not in np.concatenate([split.train, split.validation, split.test])
    assert sum(len(side) for side in sides) == len(without) - 1


def test_a_split_without_a_box_on_one_side_is_refused(films: PreparedFilms) -> None:
    without = films.films.assign(boxes="")
    with pytest.raises(RecipeError, match="no film with a box among the train films"):
        split_boxed(replace(films, films=without), small())


def test_half_of_the_films_drawn_have_an_opacity(films: PreparedFilms) -> None:
    few = films.films["label"].to_numpy() == 0
    few[np.flatnonzero(~few)[:4]] = True
    loader = training_loader(films, np.flatnonzero(few), small(films_per_epoch=800))
    shares = [sum(len(boxes) > 0 for boxes in batch.boxes) / len(batch.boxes) for batch in loader]
    assert 0.4 < np.mean(shares) < 0.6


def test_a_box_moves_with_its_opacity() -> None:
    torch.manual_seed(3)
    box = torch.tensor([[0.3, 0.55, 0.42, 0.8]])
    film = torch.zeros(1, 224, 224)
    left, top, right, bottom = (box[0] * 224).round().int().tolist()
    film[:, top:bottom, left:right] = 1
    variation = Variation(rotation=0, zoom=0.2, shift=0.1, brightness=0, contrast=0, gamma=0)
    for _ in range(20):
        varied = vary(BoxedBatch(inputs=film, boxes=[box]), variation)
        rows, columns = torch.nonzero(varied.inputs[0] > 0.5, as_tuple=True)
        bright = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 224
        assert torch.allclose(varied.boxes[0][0], bright, atol=2 / 224)


def test_a_turned_box_keeps_its_centre_on_the_opacity() -> None:
    torch.manual_seed(4)
    box = torch.tensor([[0.1, 0.7, 0.2, 0.8]])
    film = torch.zeros(1, 224, 224)
    film[:, 157:179, 22:45] = 1
    variation = Variation(rotation=15, zoom=0.1, shift=0.05, brightness=0, contrast=0, gamma=0)
    for _ in range(20):
        varied = vary(BoxedBatch(inputs=film, boxes=[box]), variation)
        rows, columns = torch.nonzero(varied.inputs[0] > 0.5, as_tuple=True)
        centre = torch.stack([columns.float().mean(), rows.float().mean()]) / 224
        middle = (varied.boxes[0][0, :2] + varied.boxes[0][0, 2:]) / 2
        assert torch.allclose(middle, centre, atol=3 / 224)


def test_a_box_that_is_moved_out_of_the_film_is_dropped() -> None:
    turn, shift = torch.eye(2), torch.tensor([0.5, 0.0])
    boxes = torch.tensor([[0.0, 0.4, 0.2, 0.6], [0.5, 0.4, 0.7, 0.6]])
    kept = moved_boxes(boxes, turn, torch.tensor(1.0), shift)
    assert torch.allclose(kept, torch.tensor([[0.25, 0.4, 0.45, 0.6]]))


def test_the_threshold_is_the_one_with_the_best_mean() -> None:
    truth = [corners("[[0, 0, 512, 512]]"), corners("")]
    right = Regions(boxes=truth[0], scores=np.array([0.7]))
    false = Regions(boxes=truth[0], scores=np.array([0.4]))
    assert choose_threshold([right, false], truth) == (0.7, 1.0)
    assert choose_threshold([false, right], truth)[1] == pytest.approx(0.5)


def test_where_no_threshold_helps_the_highest_is_taken() -> None:
    assert choose_threshold([NO_REGIONS], [corners("[[0, 0, 512, 512]]")]) == (THRESHOLDS[-1], 0.0)


def test_the_mean_boxes_are_of_the_two_sides_of_the_film() -> None:
    right = corners("[[100, 200, 200, 200], [200, 300, 200, 200]]")
    left = corners("[[700, 300, 200, 300]]")
    one, two = mean_boxes([right, left, corners("")])
    assert np.allclose(one.boxes * 1024, [[150, 250, 350, 450]])
    assert np.allclose(two.boxes * 1024, [[150, 250, 350, 450], [700, 300, 900, 600]])


def test_a_classifiers_recipe_is_none_of_a_detector() -> None:
    assert is_detection("detect")
    assert not is_detection("demonstration")
    assert not is_detection("no such recipe")


def test_settings_go_over_a_recipe() -> None:
    recipe = read_detection_recipe("detect", ["detector.side=128", "init=some/where.ckpt", "detector.variation.zoom=0"])
    assert (recipe.detector.side, recipe.init, recipe.detector.variation.zoom) == (128, "some/where.ckpt", 0)


@pytest.mark.parametrize(
    "setting",
    ["detector.sides=1", "detektor.side=96", "sed=1", "detector.epochs=0", "detector.side=wide", "split.test_folds=[]"],
)
def test_a_setting_that_does_not_exist_or_suit_is_refused(setting: str) -> None:
    with pytest.raises(RecipeError):
        read_detection_recipe("detect", [setting])


def test_a_detector_finds_planted_opacities_better_than_a_fixed_box(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    films = phantoms(160)
    recipe = small(epochs=8, films_per_epoch=160, learning_rate=3e-3, averaging=0.97)
    checkpoint = fit_detector(films, recipe, run=tmp_path, hardware=CPU)
    figures = measure(films, open_trained(checkpoint, films)).document
    best_fixed = max(value[0] for name, value in figures["map"].items() if name != "detector")
    assert figures["map"]["detector"][0] > best_fixed
    assert figures["map"]["no box"][0] == 0
    assert figures["test"] == {"films": 32, "positive": 16, "patients": 32, "boxes": 16}
    assert figures["threshold"]["chosen_on"]["films"] == 16


def _interrupted_in_the_second_epoch(module: DetectorModule) -> None:
    if module.current_epoch == 1:
        raise RuntimeError("interrupted")


def test_an_interrupted_training_goes_on_with_the_epoch_that_it_was_in(
    films: PreparedFilms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(DetectorModule, "on_train_epoch_start", _interrupted_in_the_second_epoch)
        with pytest.raises(RuntimeError, match="interrupted"):
            fit_detector(films, small(epochs=2), run=tmp_path, hardware=CPU)
    checkpoint = fit_detector(films, small(epochs=2), run=tmp_path, hardware=CPU)
    state = torch.load(checkpoint, weights_only=True)
    assert (state["epoch"], state["global_step"]) == (1, 4)
    weights = open_trained(checkpoint, films).weights
    again = fit_detector(films, small(epochs=2), run=tmp_path, hardware=CPU)
    assert all(torch.equal(weights[name], value) for name, value in open_trained(again, films).weights.items())


@pytest.fixture(scope="module")
def trained(films: PreparedFilms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a short training: its tests only look at it."""
    return fit_detector(films, smoke(small()), run=tmp_path_factory.mktemp("trained"), hardware=CPU)


def test_a_folder_is_of_one_training(films: PreparedFilms, trained: Path) -> None:
    with pytest.raises(RunError, match="recipe differ"):
        fit_detector(films, small(), run=trained.parent.parent, hardware=CPU)


def test_a_classifier_that_has_seen_the_test_films_is_no_start(films: PreparedFilms, tmp_path: Path) -> None:
    run = tmp_path / "classifier" / "0-films"
    run.mkdir(parents=True)
    (run / "final.ckpt").write_bytes(b"never opened")
    split = {"test": {"films": 1, "sha256": "of other films"}}
    (run.parent / "run.json").write_text(json.dumps({"data": films.digest, "split": split}))
    recipe = replace(small(), init=str(run / "final.ckpt"))
    with pytest.raises(RunError, match="holds out other films"):
        fit_detector(films, recipe, run=tmp_path / "run", hardware=CPU)


def test_a_checkpoint_is_measured_on_its_own_films_only(films: PreparedFilms, trained: Path) -> None:
    assert len(open_trained(trained, films).split.test) == 8
    with pytest.raises(RunError, match="other prepared films"):
        open_trained(trained, replace(films, digest="another"))
