"""Figures of merit are what textbooks say, and their intervals are of patients."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pneumonia_training.intervals import (
    auc,
    bootstrap,
    calibration_error,
    confusion,
    logistic,
    platt,
    rates,
    threshold_for_recall,
)

LABELS: Final = np.array([False, False, True, True])


def test_the_auc_counts_pairs_in_the_right_order() -> None:
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), LABELS) == 0.75
    assert auc(np.array([1.0, 2.0, 3.0, 4.0]), LABELS) == 1
    assert auc(np.array([4.0, 3.0, 2.0, 1.0]), LABELS) == 0
    assert auc(np.zeros(4), LABELS) == 0.5


@settings(max_examples=30)
@given(scores=st.lists(st.integers(0, 6), min_size=5, max_size=30), seed=st.integers(0, 1000))
def test_the_auc_is_the_share_of_pairs_with_ties_by_half(scores: list[int], seed: int) -> None:
    values = np.array(scores, dtype=np.float64)
    labels = np.random.default_rng(seed).random(len(values)) < 0.5
    labels[:2] = [True, False]
    pairs = values[labels][:, None] - values[~labels][None]
    assert auc(values, labels) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())


def test_one_kind_of_films_alone_has_no_auc() -> None:
    assert np.isnan(auc(np.array([0.1, 0.2]), np.array([True, True])))


def test_a_confusion_matrix_has_the_truth_in_rows_and_the_threshold_counts_as_positive() -> None:
    probabilities = np.array([0.1, 0.5, 0.4, 0.9])
    assert confusion(probabilities, LABELS, 0.5) == [[1, 1], [1, 1]]
    assert confusion(probabilities, LABELS, 0.4) == [[1, 1], [0, 2]]


def test_rates_follow_from_the_confusion_matrix() -> None:
    scores = np.array([0.9] * 4 + [0.1] * 1 + [0.9] * 2 + [0.1] * 13)
    labels = np.array([True] * 5 + [False] * 15)
    found = {name: figure(scores, labels) for name, figure in rates(0.5).items()}
    assert found == pytest.approx({"accuracy": 17 / 20, "precision": 4 / 6, "recall": 4 / 5, "specificity": 13 / 15})


def test_perfectly_calibrated_films_have_no_error_and_wrong_ones_have_theirs() -> None:
    labels = np.array([True] * 8 + [False] * 2)
    assert calibration_error(np.full(10, 0.8), labels) == pytest.approx(0)
    assert calibration_error(np.full(10, 0.3), labels) == pytest.approx(0.5)


def test_platt_finds_the_distortion_of_the_logits() -> None:
    random = np.random.default_rng(0)
    true_logits = random.normal(-1, 2, 20000)
    labels = random.random(20000) < logistic(true_logits)
    slope, intercept = platt((true_logits - 3) * 2, labels)
    assert slope == pytest.approx(0.5, abs=0.02)
    assert intercept == pytest.approx(3, abs=0.1)


def test_platt_refuses_logits_that_mean_the_opposite() -> None:
    with pytest.raises(ValueError, match="do not rise"):
        platt(np.array([4.0, 3.0, 2.0, 1.0]), LABELS)


def test_the_threshold_for_a_recall_reaches_it_and_the_next_would_not() -> None:
    random = np.random.default_rng(1)
    probabilities, labels = random.random(500), random.random(500) < 0.3
    threshold = threshold_for_recall(probabilities, labels, 0.9)
    assert (probabilities[labels] >= threshold).mean() >= 0.9
    assert (probabilities[labels] >= threshold + 0.02).mean() < 0.9


def test_an_interval_holds_its_figure_and_narrows_with_more_patients() -> None:
    random = np.random.default_rng(2)

    def interval(count: int) -> tuple[float, float]:
        labels = random.random(count) < 0.4
        scores = labels + random.normal(0, 1, count)
        estimate = bootstrap(auc, scores, labels, np.arange(count).astype(str))
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value is not None
        assert estimate.low < estimate.value < estimate.high
        return estimate.low, estimate.high

    wide, narrow = interval(60), interval(600)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_many_films_of_few_patients_do_not_count_as_many_patients() -> None:
    random = np.random.default_rng(3)
    labels = random.random(40) < 0.5
    scores = labels + random.normal(0, 1, 40)
    by_film = bootstrap(auc, np.repeat(scores, 10), np.repeat(labels, 10), np.arange(400).astype(str))
    by_patient = bootstrap(auc, np.repeat(scores, 10), np.repeat(labels, 10), np.repeat(np.arange(40), 10).astype(str))
    assert by_film.value == by_patient.value
    assert by_film.low is not None
    assert by_patient.low is not None
    assert by_patient.low < by_film.low - 0.02


def test_a_figure_that_the_films_do_not_allow_is_left_open() -> None:
    estimate = bootstrap(auc, np.array([0.1, 0.2]), np.array([True, True]), np.array(["a", "b"]))
    assert estimate.as_list() == [None, None, None]
