"""Figures of quality: only from what can tell them, and with the reason where nothing can."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from scp_node.ledger import Pair, SampleData, SampledStudy, Truth
from scp_node.measures import wilson
from scp_node.web.quality import quality_of

NONE: Final = SampleData(
    days=0,
    positive=0,
    negative=0,
    undetermined=0,
    bundles=(),
    sample=(),
    positives_right=0,
    positives_wrong=0,
    positives_unclear=0,
    pairs=(),
)
MONTH: Final = replace(NONE, days=28, positive=200, negative=1_000, bundles=("m-1",))


def sampled(
    number: int, truth: Truth = Truth.UNKNOWN, *, positive: bool, weight: float = 1.0, readers: int | None = None
) -> tuple[SampledStudy, ...]:
    probability = 0.9 if positive else 0.1
    read = (truth is not Truth.UNKNOWN) if readers is None else readers
    return tuple(
        SampledStudy(
            subject_id=each,
            is_positive=positive,
            weight=weight,
            probability=probability,
            threshold=0.5,
            truth=truth,
            readers=int(read),
        )
        for each in range(number)
    )


READ: Final = replace(
    MONTH,
    sample=(
        *sampled(25, Truth.POSITIVE, positive=True, weight=4),
        *sampled(25, Truth.NEGATIVE, positive=True, weight=4),
        *sampled(2, Truth.POSITIVE, positive=False, weight=10),
        *sampled(98, Truth.NEGATIVE, positive=False, weight=10),
    ),
    positives_right=40,
    positives_wrong=20,
    positives_unclear=3,
)


def test_rates_come_from_the_sample_weighted_by_stratum() -> None:
    found = quality_of(READ)
    assert found.rates.sensitivity.value == pytest.approx(100 / 120)
    assert found.rates.specificity.value == pytest.approx(980 / 1_080)
    assert found.rates.prevalence == pytest.approx(0.1)
    assert found.why_no_sensitivity == ""
    assert found.remarks == ()


def test_ppv_may_use_all_answered_positives_and_counts_the_others() -> None:
    found = quality_of(READ)
    assert found.all_positives == wilson(40 / 60, 60)
    assert (found.positives_unclear, found.positives_unanswered) == (3, 200 - 63)
    assert found.rates.ppv.value == pytest.approx(0.5)


def test_the_curve_weighs_studies_as_the_rates_do() -> None:
    found = quality_of(READ)
    at = next(point for point in found.curve if point.threshold == 0.9)
    assert at.true_positive_rate == pytest.approx(100 / 120)
    assert at.false_positive_rate == pytest.approx(100 / 1_080)
    # one step: the area is the mean of sensitivity and specificity
    assert found.area.value == pytest.approx((100 / 120 + 980 / 1_080) / 2)
    assert found.area.low is not None
    assert found.area.high is not None
    assert found.area.low < (100 / 120 + 980 / 1_080) / 2 < found.area.high


def test_without_weights_the_area_would_be_another() -> None:
    even = replace(READ, positive=50, negative=100)
    assert quality_of(even).area.value != pytest.approx(quality_of(READ).area.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (NONE, "No day of this selection is over"),
        (
            replace(MONTH, positives_right=30, positives_wrong=5),
            "Answers about flagged studies, 35 so far, cannot tell it.",
        ),
        (replace(MONTH, sample=sampled(5, positive=False)), "No negative study of the reading sample is read"),
        (
            replace(MONTH, sample=sampled(5, Truth.POSITIVE, positive=True)),
            "nobody knows how many findings were missed",
        ),
        (
            replace(MONTH, sample=sampled(5, Truth.NEGATIVE, positive=False)),
            "No positive study of the reading sample is read",
        ),
        (
            replace(
                MONTH,
                sample=(*sampled(5, Truth.NEGATIVE, positive=False), *sampled(5, Truth.NEGATIVE, positive=True)),
            ),
            "has the finding",
        ),
    ],
)
def test_what_cannot_be_known_has_its_reason(data: SampleData, told: str) -> None:
    found = quality_of(data)
    assert found.rates.sensitivity.value is None
    assert told in found.why_no_sensitivity
    assert found.area.value is None


def test_feedback_on_flagged_studies_alone_gives_no_sensitivity_however_much_there_is() -> None:
    data = replace(MONTH, sample=sampled(100, Truth.POSITIVE, positive=True), positives_right=100)
    found = quality_of(data)
    assert found.rates.sensitivity.value is None
    assert found.all_positives.value == 1


def test_a_sample_that_is_half_read_is_told() -> None:
    half = replace(READ, sample=(*READ.sample, *sampled(200, positive=False, weight=10)))
    assert any(
        "Of 300 negative studies in the reading sample 100 are known" in each for each in quality_of(half).remarks
    )
    found = quality_of(half).negative
    assert (found.drawn, found.known, found.unclear, found.unread) == (300, 100, 0, 200)


def test_unsure_and_contradictory_answers_count_nowhere_and_are_shown() -> None:
    unsure = replace(READ, sample=(*READ.sample, *sampled(4, positive=True, readers=1, weight=4)))
    found = quality_of(unsure)
    assert (found.positive.unclear, found.positive.unread) == (4, 0)
    assert found.rates.ppv.value == pytest.approx(0.5)


def test_that_none_was_missed_is_not_taken_for_certain() -> None:
    data = replace(
        MONTH,
        sample=(*sampled(50, Truth.POSITIVE, positive=True), *sampled(100, Truth.NEGATIVE, positive=False)),
    )
    found = quality_of(data)
    assert found.rates.sensitivity.value == 1
    assert found.rates.sensitivity.low is not None
    assert found.rates.sensitivity.low < 0.9
    assert any("No missed finding was seen among 100 negative studies" in each for each in found.remarks)


def test_bundles_together_and_undetermined_results_are_told() -> None:
    found = quality_of(replace(READ, bundles=("m-1", "m-2"), undetermined=7))
    assert found.remarks == (
        "These are results of 2 bundles together: choose one to judge it.",
        "7 undetermined results count as not flagged.",
    )


def test_the_agreement_of_two_readers() -> None:
    p, n = Truth.POSITIVE, Truth.NEGATIVE
    truths = [(p, p)] * 20 + [(p, n)] * 5 + [(n, p)] * 10 + [(n, n)] * 15
    pairs = tuple(Pair(first="a", second="b", truths=each) for each in truths)
    found = quality_of(replace(READ, pairs=(*pairs, Pair(first="a", second="c", truths=(p, p))))).agreements
    assert [(each.first, each.second, each.studies, each.same) for each in found] == [
        ("a", "b", 50, 35),
        ("a", "c", 1, 1),
    ]
    assert found[0].kappa.value == pytest.approx(0.4)
    assert found[1].kappa.value is None
