"""The challenge's figure, worked out by hand."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.regions import NO_REGIONS as NOTHING
from pneumonia_model.regions import Regions
from pneumonia_training.detection.metric import (
    OVERLAPS,
    film_score,
    film_scores,
    intersection_over_union,
    mean_average_precision,
    mean_score,
)

NO_OPACITY: Final = np.empty((0, 4))


def boxes(*corners: tuple[float, float, float, float]) -> NDArray[np.float64]:
    return np.array(corners, dtype=np.float64)


def predicted(*scored: tuple[float, tuple[float, float, float, float]]) -> Regions:
    return Regions(boxes=boxes(*(box for _, box in scored)), scores=np.array([score for score, _ in scored]))


def test_the_overlaps_are_the_challenges() -> None:
    assert np.allclose(OVERLAPS, np.arange(0.40, 0.76, 0.05))


def test_the_overlap_of_two_boxes_is_their_common_area_over_their_joint_area() -> None:
    left, shifted = boxes((0, 0, 10, 10)), boxes((5, 0, 15, 10), (0, 0, 10, 10), (20, 20, 30, 30), (10, 0, 20, 10))
    assert intersection_over_union(left, shifted).tolist() == [pytest.approx([50 / 150, 1, 0, 0])]


def test_a_box_without_area_overlaps_nothing_not_even_itself() -> None:
    assert intersection_over_union(boxes((1, 1, 1, 5)), boxes((1, 1, 1, 5))).tolist() == [[0.0]]


def test_the_very_box_scores_one() -> None:
    assert film_score(predicted((0.9, (10, 10, 50, 60))), boxes((10, 10, 50, 60))) == 1


def test_an_overlap_of_56_percent_counts_at_four_of_eight_thresholds() -> None:
    # 10 x 10 against 10 x 5.6 inside it: 0.56 exceeds .40, .45, .50 and .55
    assert film_score(predicted((0.9, (0, 0, 10, 5.6))), boxes((0, 0, 10, 10))) == pytest.approx(4 / 8)


def test_an_overlap_of_exactly_the_threshold_is_no_hit() -> None:
    # 0.5 exceeds .40 and .45, and is not more than .50
    assert film_score(predicted((0.9, (0, 0, 10, 5))), boxes((0, 0, 10, 10))) == pytest.approx(2 / 8)


def test_a_missed_opacity_and_a_false_box_each_count_in_the_denominator() -> None:
    truth = boxes((0, 0, 10, 10), (50, 50, 60, 60))
    one_hit_one_false = predicted((0.9, (0, 0, 10, 10)), (0.8, (80, 80, 90, 90)))
    assert film_score(one_hit_one_false, truth) == pytest.approx(1 / 3)  # TP 1, FP 1, FN 1


def test_a_second_box_on_the_same_opacity_is_a_false_one() -> None:
    twice = predicted((0.9, (0, 0, 10, 10)), (0.8, (0, 0, 10, 10)))
    assert film_score(twice, boxes((0, 0, 10, 10))) == pytest.approx(1 / 2)


def test_the_surest_box_chooses_first() -> None:
    # Both boxes fit the first opacity best. A takes it, and B fits the second one by 0.5: a hit at two thresholds.
    truth = boxes((0, 0, 10, 10), (0, 0, 10, 5))
    sure, unsure = (0, 0, 10, 10), (0, 0, 10, 9.0)
    assert film_score(predicted((0.9, sure), (0.8, unsure)), truth) == pytest.approx((4 * 1 + 4 * 1 / 3) / 8)
    # Turned round, B takes the first by 0.9; A is left with the second by 0.5.
    assert film_score(predicted((0.8, sure), (0.9, unsure)), truth) == pytest.approx((2 * 1 + 6 * 1 / 3) / 8)


def test_the_order_in_which_boxes_are_listed_is_of_no_account() -> None:
    truth = boxes((0, 0, 10, 10), (0, 0, 10, 5))
    one, other = (0.9, (0.0, 0.0, 10.0, 10.0)), (0.8, (0.0, 0.0, 10.0, 9.0))
    assert film_score(predicted(one, other), truth) == film_score(predicted(other, one), truth)


def test_an_opacity_without_a_box_scores_zero() -> None:
    assert film_score(NOTHING, boxes((0, 0, 10, 10))) == 0


def test_a_box_on_a_film_without_opacity_scores_zero() -> None:
    assert film_score(predicted((0.1, (0, 0, 1, 1))), NO_OPACITY) == 0


def test_a_film_without_opacity_and_without_a_box_is_left_out_of_the_mean() -> None:
    scores = film_scores([predicted((0.9, (0, 0, 10, 10))), NOTHING], [boxes((0, 0, 10, 10)), NO_OPACITY])
    assert np.isnan(scores[1])
    assert mean_score(scores) == 1


def test_false_boxes_on_films_without_opacity_pull_the_mean_down() -> None:
    right, false = predicted((0.9, (0, 0, 10, 10))), predicted((0.2, (0, 0, 1, 1)))
    scores = film_scores([right, false, false, NOTHING], [boxes((0, 0, 10, 10)), *3 * [NO_OPACITY]])
    assert mean_score(scores) == pytest.approx(1 / 3)


def test_films_that_are_all_left_out_have_no_figure() -> None:
    assert np.isnan(mean_score(film_scores([NOTHING], [NO_OPACITY])))
    assert mean_average_precision(np.array([np.nan, np.nan]), np.array(["a", "b"])).value is None


def test_a_threshold_keeps_the_boxes_that_reach_it() -> None:
    both = predicted((0.9, (0, 0, 10, 10)), (0.5, (1, 1, 2, 2)), (0.2, (3, 3, 4, 4)))
    assert both.above(0.5).scores.tolist() == [0.9, 0.5]
    assert both.above(0.5).boxes.tolist() == [[0, 0, 10, 10], [1, 1, 2, 2]]


def test_the_interval_is_of_patients_not_of_films() -> None:
    scores = np.tile([0.0, 1.0], 50)
    each_his_own = mean_average_precision(scores, np.array([f"{n}" for n in range(100)]))
    two_patients = mean_average_precision(scores, np.tile(["a", "b"], 50))
    assert each_his_own.value == two_patients.value == 0.5
    assert (two_patients.low, two_patients.high) == (0.0, 1.0)
    assert each_his_own.low is not None
    assert each_his_own.low > 0.35
