"""Cross-validation by patient: every film is scored by a network that has not seen its patient."""

import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Final, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pneumonia_training.films.prepare import PreparedFilms, load_prepared
from pneumonia_training.films.sampling import Split, SplitRule, split_by_patient
from pneumonia_training.intervals import logistic
from pneumonia_training.learning.fit import Hardware, fit, predict_films
from pneumonia_training.learning.recipe import Recipe

log = logging.getLogger(__name__)

PREDICTIONS: Final = "predictions.csv"
_FOLDS_OF_FILMS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One training of a cross-validation, without the patients of one fold of `of`, or of two."""

    number: int
    of: int
    share: float = 1.0
    other: int | None = None

    @property
    def name(self) -> str:
        return f"fold-{self.number}" if self.other is None else f"folds-{self.number}-{self.other}"


def fold_split(prepared: PreparedFilms, recipe: Recipe, fold: Fold) -> Split:
    """Return the split that holds out every `fold.of`-th fold of patients, from one start or from two.

    A recipe that chooses its checkpoint gets one more tenth of the patients for that; other recipes train on it as
    well. With `fold.share` below 1 only that share of the training patients is kept, and a smaller share is part of a
    larger one.
    """
    evaluated = recipe.split.evaluated_subsets if isinstance(recipe.split, SplitRule) else ()
    test = tuple(number for number in range(_FOLDS_OF_FILMS) if number % fold.of in (fold.number, fold.other))
    others = [number for number in range(_FOLDS_OF_FILMS) if number not in test]
    validation = () if recipe.monitor == "last" else (min(others, key=lambda number: (number - fold.number) % fold.of),)
    rule = SplitRule(test_folds=test, validation_folds=validation, evaluated_subsets=evaluated)
    split = split_by_patient(prepared.films, rule)
    if fold.share == 1:
        return split
    groups = prepared.films["group"].iloc[split.train]
    patients = np.random.default_rng(0).permutation(np.unique(groups.to_numpy(dtype=np.str_)))
    kept = groups.isin(patients[: round(fold.share * len(patients))]).to_numpy()
    return Split(train=split.train[kept], validation=split.validation, test=split.test)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings that all trainings of one cross-validation share.

    Attributes:
        run: folder of the whole.
        folds: number of trainings.
        share: part of the training patients that is used: for a learning curve.
        shared: folder of stages that every fold shares (see `fit`), which other cross-validations may use as well.
        teacher: probability from another network for each prepared film, NaN for a film without one.
        distil: in each stage that has a share for a teacher, teach the network by networks that have seen neither
            the film's patient nor a patient of the fold. This takes one more network for each pair of folds.
    """

    recipe: Recipe
    run: Path
    folds: int = 5
    share: float = 1.0
    shared: Path | None = None
    hardware: Hardware = field(default_factory=Hardware)
    teacher: NDArray[np.float32] | None = None
    distil: bool = False


def crossvalidate(cache: Path, plan: Plan, *, jobs: int = 1) -> Path:
    """Train `jobs` folds at a time, the cores divided among them, and write `predictions.csv`; return its path.

    Its columns are `row`, the film's row among the prepared films, `fold`, whose network has not seen the film's
    patient, and `logit`. A second call with the same folder resumes an interrupted one.
    """
    teachers = _teachers(cache, plan, jobs) if plan.distil else dict.fromkeys(range(plan.folds), plan.teacher)
    tasks = [
        _Task(fold=Fold(number=number, of=plan.folds, share=plan.share), plan=plan, teacher=teachers[number])
        for number in range(plan.folds)
    ]
    path = plan.run / PREDICTIONS
    pd.concat(_run_all(cache, tasks, jobs)).sort_values("row").to_csv(path, index=False)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    fold: Fold
    plan: Plan
    teacher: NDArray[np.float32] | None


def _teachers(cache: Path, plan: Plan, jobs: int) -> dict[int, NDArray[np.float32]]:
    """Return for each fold the probabilities from other networks for the films that it trains on.

    Such a network has not seen the film's patient nor a patient of the fold. A network without two folds can teach each
    of them about the films of the other.
    """
    pairs = [
        Fold(number=number, of=plan.folds, share=plan.share, other=other)
        for number, other in combinations(range(plan.folds), 2)
    ]
    plain = replace(plan, recipe=_without_teacher(plan.recipe))
    tables = _run_all(cache, [_Task(fold=pair, plan=plain, teacher=None) for pair in pairs], jobs)
    prepared = load_prepared(cache)
    fold_of_row = prepared.films["fold"].to_numpy() % plan.folds
    teachers = {number: np.full(len(prepared.films), np.nan, dtype=np.float32) for number in range(plan.folds)}
    for pair, table in zip(pairs, tables, strict=True):
        rows = table["row"].to_numpy()
        probabilities = logistic(table["logit"].to_numpy(dtype=np.float64))
        for taught, teaching in ((pair.number, pair.other), (pair.other, pair.number)):
            of = fold_of_row[rows] == teaching
            teachers[cast("int", taught)][rows[of]] = probabilities[of]
    return teachers


def _without_teacher(recipe: Recipe) -> Recipe:
    return replace(recipe, stages=tuple(replace(stage, teacher=0.0) for stage in recipe.stages))


def _run_all(cache: Path, tasks: Sequence[_Task], jobs: int) -> list[pd.DataFrame]:
    """Return the predictions of the tasks, in order."""
    prepared = load_prepared(cache)
    first = _predictions(prepared, tasks[0])  # trains the stages that the others share
    if jobs == 1:
        return [first, *(_predictions(prepared, task) for task in tasks[1:])]
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_set_up, initargs=(threads,))
    with pool:
        return [first, *pool.map(partial(_load_and_predict, cache), tasks[1:])]


def _set_up(threads: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    torch.set_num_threads(threads)


def _load_and_predict(cache: Path, task: _Task) -> pd.DataFrame:
    """Carry out a task in another process, which has to open the films itself."""
    return _predictions(load_prepared(cache), task)


def _predictions(prepared: PreparedFilms, task: _Task) -> pd.DataFrame:
    plan, fold = task.plan, task.fold
    split = fold_split(prepared, plan.recipe, fold)
    checkpoint = fit(
        prepared,
        plan.recipe,
        run=plan.run / fold.name,
        split=split,
        shared=plan.run / "shared" if plan.shared is None else plan.shared,
        hardware=plan.hardware,
        teacher=task.teacher,
    )
    logits = predict_films(checkpoint, plan.recipe.stages[-1], prepared.images[split.test])
    log.info("fold done name=%s films=%d", fold.name, len(split.test))
    return pd.DataFrame({"row": split.test, "fold": fold.number, "logit": logits})
