"""Trainings: what a run folder holds, going on after an interruption, what is shared and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pytest
import torch
from pneumonia_training.films.prepare import PreparedFilms, load_prepared
from pneumonia_training.films.sampling import Augmentation, Split, SplitRule, split_by_patient
from pneumonia_training.learning.checkpoint import network_weights
from pneumonia_training.learning.crossvalidate import Fold, Plan, crossvalidate, fold_split
from pneumonia_training.learning.fit import (
    Hardware,
    fit,
    predict_films,
    rows_of,
    smoke,
    split_films,
    teacher_probabilities,
)
from pneumonia_training.learning.module import PneumoniaModule, place_loss
from pneumonia_training.learning.recipe import Recipe, RecipeError, Stage, Tasks, read_recipe
from pneumonia_training.learning.run_record import RunError
from pneumonia_training.learning.start_weights import read_start_weights

from tests.training.phantoms import phantoms
from tests.training.small_films import prepared_films
from tests.training.start_weights import write_start_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

CPU: Final = Hardware(accelerator="cpu", devices=1)
FILMS: Final = Stage(name="films", epochs=1, side=32, learning_rate=1e-3, batch_size=24, averaging=0.5)
RECIPE: Final = Recipe(
    name="trial",
    seed=3,
    precision="32-true",
    monitor="last",
    split=SplitRule(test_folds=(0,), validation_folds=(1,)),
    stages=(FILMS,),
)


@pytest.fixture(scope="module")
def prepared() -> PreparedFilms:
    return phantoms(60)


def with_stage(**values: object) -> Recipe:
    return replace(RECIPE, stages=(replace(FILMS, **values),))  # type: ignore[arg-type]


def weights_of(checkpoint: Path) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in network_weights(checkpoint).values()])


@pytest.fixture(scope="module")
def trained(prepared: PreparedFilms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training by `RECIPE`: its tests only look at it."""
    return fit(prepared, RECIPE, run=tmp_path_factory.mktemp("trained"), hardware=CPU)


def test_a_run_folder_says_what_the_training_was(prepared: PreparedFilms, trained: Path) -> None:
    run = json.loads((trained.parent.parent / "run.json").read_text())
    assert run["recipe"]["stages"][0]["learning_rate"] == 1e-3
    assert run["data"] == prepared.digest
    assert run["split"]["train"]["films"] == len(split_films(prepared, RECIPE).train)
    assert torch.__version__.startswith(run["environment"]["torch"])
    assert run["environment"]["commit"]


def test_the_same_training_twice_gives_the_same_weights(prepared: PreparedFilms, tmp_path: Path) -> None:
    start = write_start_weights(tmp_path)
    varied = Augmentation(aspect=0.1, noise=0.04, erase=0.1)
    recipe = with_stage(epochs=2, augmentation=varied, init=str(start), body_rate=0.5, dropout=0.3)
    first, second = (fit(prepared, recipe, run=tmp_path / name, hardware=CPU) for name in "ab")
    assert torch.equal(weights_of(first), weights_of(second))
    run = json.loads((tmp_path / "a" / "run.json").read_text())
    assert run["start"] == read_start_weights(start).document()
    write_start_weights(tmp_path)  # others, of the same name
    with pytest.raises(RunError, match="start differ"):
        fit(prepared, recipe, run=tmp_path / "a", hardware=CPU)


class PowerCutError(Exception):
    """Stands for a power cut."""


def test_an_interrupted_training_goes_on(
    prepared: PreparedFilms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = with_stage(epochs=3)
    real = PneumoniaModule.training_step
    seen: list[int] = []

    def interrupted(self: PneumoniaModule, *arguments: object) -> torch.Tensor:
        seen.append(self.current_epoch)
        if self.current_epoch == 2:
            raise PowerCutError
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(PneumoniaModule, "training_step", interrupted)
    with pytest.raises(PowerCutError):
        fit(prepared, recipe, run=tmp_path, hardware=CPU)
    assert (tmp_path / "0-films" / "final.ckpt").is_file()

    def counted(self: PneumoniaModule, *arguments: object) -> torch.Tensor:
        seen.append(self.current_epoch)
        return real(self, *arguments)  # type: ignore[arg-type]

    seen.clear()
    monkeypatch.setattr(PneumoniaModule, "training_step", counted)
    checkpoint = fit(prepared, recipe, run=tmp_path, hardware=CPU)
    assert set(seen) == {2}
    assert torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"] == 2

    seen.clear()
    assert fit(prepared, recipe, run=tmp_path, hardware=CPU) == checkpoint
    assert not seen


def test_a_run_folder_is_not_mixed_with_another_training(prepared: PreparedFilms, trained: Path) -> None:
    run = trained.parent.parent
    with pytest.raises(RunError, match="recipe differ"):
        fit(prepared, replace(RECIPE, seed=4), run=run, hardware=CPU)
    with pytest.raises(RunError, match="data"):
        fit(replace(prepared, digest="others"), RECIPE, run=run, hardware=CPU)


def test_a_training_that_gets_no_better_ends_early(prepared: PreparedFilms, tmp_path: Path) -> None:
    recipe = replace(with_stage(epochs=30, learning_rate=1e-9, patience=2, averaging=0.0), monitor="val_acc")
    fit(prepared, recipe, run=tmp_path, hardware=CPU)
    epochs = pd.read_csv(tmp_path / "0-films" / "csv" / "metrics.csv")["epoch"]
    assert epochs.max() == 2
    assert (tmp_path / "0-films" / "best.ckpt").is_file()


@pytest.mark.parametrize("name", ["reference", "default", "demonstration"])
def test_a_smoke_trial_passes_over_few_films_of_every_side(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name, ["stage.*.side=32", "stage.*.subsets=[]", "stage.*.apart_from=[]"])
    if (first := recipe.stages[0]).init:
        start = str(write_start_weights(tmp_path))
        recipe = replace(recipe, stages=(replace(first, init=start), *recipe.stages[1:]))
    if isinstance(recipe.split, SplitRule):
        recipe = replace(recipe, split=replace(recipe.split, evaluated_subsets=()))
    few, short = smoke(phantoms(200), recipe)
    assert len(few.films) == 64
    assert {stage.epochs for stage in short.stages} == {1}
    split = split_films(few, short)
    sides = [rows for rows in (split.train, split.test) if len(rows)]
    assert all(set(few.films["label"].iloc[rows]) == {0, 1} for rows in sides)
    assert fit(few, short, run=tmp_path / "run", hardware=CPU).is_file()


TASKS: Final = Tasks(negatives=1.0, boxes=1.0, map=1.0, findings=1.0)


def test_other_tasks_train_the_network_and_leave_nothing_in_what_is_released(
    prepared: PreparedFilms, trained: Path, tmp_path: Path
) -> None:
    tasked = fit(prepared, with_stage(tasks=TASKS), run=tmp_path, hardware=CPU)
    assert network_weights(trained).keys() == network_weights(tasked).keys()
    assert not torch.equal(weights_of(trained), weights_of(tasked))


def test_box_supervision_teaches_where_the_opacity_is(tmp_path: Path) -> None:
    recipe = with_stage(epochs=8, side=64, tasks=Tasks(boxes=1.0), averaging=0.0)
    checkpoint = fit(phantoms(120), recipe, run=tmp_path, hardware=CPU)
    losses = pd.read_csv(tmp_path / "0-films" / "csv" / "metrics.csv")["train_loss"]
    assert losses.iloc[-1] < 0.6 * losses.iloc[0]
    others = phantoms(100, seed=9_000)
    logits = predict_films(checkpoint, recipe.stages[-1], others.images)
    assert np.median(logits[others.films.label == 1]) > np.median(logits[others.films.label == 0])


def test_a_supervised_map_is_to_be_high_inside_the_boxes_and_low_outside() -> None:
    boxes = torch.zeros(2, 56, 56)
    boxes[:, 8:24, 32:48] = 1
    inside = torch.nn.functional.adaptive_avg_pool2d(boxes[:, None], (7, 7))
    everywhere, nowhere = torch.tensor([True, True]), torch.tensor([False, False])
    right, wrong = (place_loss(20 * (sign * (inside - 0.5)), boxes, everywhere).item() for sign in (1, -1))
    assert right < 0.01
    assert wrong > 5
    assert place_loss(20 * (0.5 - inside), boxes, nowhere).item() == 0


def test_denoising_trains_the_filters_without_a_label(prepared: PreparedFilms, tmp_path: Path) -> None:
    stages = (replace(FILMS, name="denoising", objective="denoise", epochs=2, batch_size=8), FILMS)
    shuffled = replace(prepared, films=prepared.films.assign(label=0))
    fit(shuffled, replace(RECIPE, stages=stages), run=tmp_path, hardware=CPU)
    losses = pd.read_csv(tmp_path / "0-denoising" / "csv" / "metrics.csv")["train_loss"]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]


def test_soft_targets_pull_towards_the_teacher(prepared: PreparedFilms, tmp_path: Path) -> None:
    recipe = with_stage(teacher=1.0, epochs=2, batch_size=8, learning_rate=3e-3, averaging=0.0)
    never = np.full(len(prepared.films), 0.01, dtype=np.float32)
    checkpoint = fit(prepared, recipe, run=tmp_path, hardware=CPU, teacher=never)
    positive = prepared.images[prepared.films["label"].to_numpy() == 1]
    assert np.median(predict_films(checkpoint, FILMS, positive)) < -1


def test_a_teacher_is_the_mean_of_its_predictions(tmp_path: Path) -> None:
    pd.DataFrame({"row": [2, 2, 0], "logit": [0.0, 50.0, -50.0]}).to_csv(tmp_path / "p.csv", index=False)
    teacher = teacher_probabilities(tmp_path / "p.csv", 4)
    assert teacher[[0, 2]].tolist() == pytest.approx([0, 0.75], abs=1e-6)
    assert np.isnan(teacher[[1, 3]]).all()


def test_no_film_of_an_evaluated_patient_is_in_a_stage_apart_from_them(prepared: PreparedFilms) -> None:
    films = prepared.films.copy()
    films.loc[films.index < 40, "group"] = [f"patient-{number // 2}" for number in range(40)]
    films["subset"] = np.where(films.index % 2 == 0, "evaluated", "more")
    of_two = replace(prepared, films=films)
    split = split_by_patient(films, SplitRule(test_folds=(), validation_folds=(), evaluated_subsets=("evaluated",)))
    rows = rows_of(of_two, split, replace(FILMS, apart_from=("evaluated",)))
    assert len(rows)
    assert not set(films["group"].iloc[rows]) & set(films.loc[films.subset == "evaluated", "group"])
    with pytest.raises(RecipeError, match="no film to train on"):
        rows_of(of_two, split, replace(FILMS, subsets=("nothing",)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    prepared_films(folder, patients=40)
    return folder / "cache"


@pytest.mark.parametrize("monitor", ["last", "val_auroc"])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_no_patient_of_a_fold_trains_or_chooses_its_network(cache: Path, monitor: str, share: float) -> None:
    prepared = load_prepared(cache)
    recipe = read_recipe("default", [f"monitor={monitor}"])
    tested = []
    for number in range(5):
        split = fold_split(prepared, recipe, Fold(number=number, of=5, share=share))
        groups = [set(prepared.films["group"].iloc[rows]) for rows in (split.train, split.validation, split.test)]
        assert len(set.union(*groups)) == sum(len(side) for side in groups)
        assert bool(groups[1]) is (monitor != "last")
        tested += split.test.tolist()
    assert sorted(tested) == list(range(len(prepared.films)))


def test_a_smaller_share_of_the_patients_is_a_part_of_a_larger_one(cache: Path) -> None:
    prepared = load_prepared(cache)
    half, more = (
        set(fold_split(prepared, RECIPE, Fold(number=0, of=5, share=share)).train.tolist()) for share in (0.5, 0.75)
    )
    assert half < more


def test_cross_validation_scores_every_film_once_and_trains_what_is_shared_once(cache: Path, tmp_path: Path) -> None:
    films = load_prepared(cache).films
    shared = replace(FILMS, name="start", apart_from=("nothing",))
    recipe = replace(RECIPE, stages=(shared, FILMS))
    plan = Plan(recipe=recipe, run=tmp_path, folds=2, hardware=CPU)
    predictions = pd.read_csv(crossvalidate(cache, plan, jobs=2))
    assert predictions["row"].tolist() == list(range(len(films)))
    assert (predictions["fold"].to_numpy() == films["fold"].to_numpy() % 2).all()
    assert len(list((tmp_path / "shared").iterdir())) == 1
    assert len(list(tmp_path.glob("fold-*/1-films/final.ckpt"))) == 2


def test_a_distilled_network_is_taught_by_networks_that_saw_neither_film_nor_fold(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = load_prepared(cache)
    numbers = prepared.films["fold"].to_numpy() % 3
    taught: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]] | None] = {}
    unseen: dict[str, set[int]] = {}

    def noted(*_: object, run: Path, split: Split, teacher: object, **__: object) -> Path:
        unseen[run.name] = set(numbers[split.test]) - set(numbers[split.train])
        taught[run.name] = teacher  # type: ignore[assignment]
        return run

    def said(checkpoint: Path, *_: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        held_out = np.flatnonzero(np.isin(numbers, list(unseen[checkpoint.name])))
        return np.full(len(held_out), float(sum(unseen[checkpoint.name])))

    monkeypatch.setattr("pneumonia_training.learning.crossvalidate.fit", noted)
    monkeypatch.setattr("pneumonia_training.learning.crossvalidate.predict_films", said)
    crossvalidate(cache, Plan(recipe=with_stage(teacher=0.5), run=tmp_path, folds=3, hardware=CPU, distil=True))
    assert unseen == {
        **{f"fold-{number}": {number} for number in range(3)},
        **{f"folds-{a}-{b}": {a, b} for a, b in ((0, 1), (0, 2), (1, 2))},
    }
    assert taught["folds-0-1"] is None
    for number in range(3):
        teacher = taught[f"fold-{number}"]
        assert teacher is not None
        assert np.isnan(teacher[numbers == number]).all()
        for told in {0, 1, 2} - {number}:
            assert teacher[numbers == told] == pytest.approx(1 / (1 + np.exp(-(number + told))))
