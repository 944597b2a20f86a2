"""What a report says, and that its number never contradicts it."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from typing import Final

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from scp_node.domain import Finding, NotAnalysed, Note, Outcome, Reason, Verdict
from scp_node.report.content.wording import (
    REMARKS,
    SHORT_LENGTH,
    SHORT_REMARKS,
    image_sentence,
    percent,
    percent_exactly,
    short_comment,
    study_sentence,
)
from scp_node.report.version import Remark
from tests.scp_node.report.reports import FAILED, LATERAL, MODEL, NEGATIVE, OUTCOMES, POSITIVE, UNDETERMINED

fractions = st.floats(min_value=0, max_value=1)
JUST_BELOW_HALF: Final = math.nextafter(0.5, 0)


def test_a_positive_says_probability_threshold_and_that_no_physician_has_verified_it() -> None:
    assert image_sentence(POSITIVE, MODEL) == (
        "Pneumonia: PRESENT (probability 87.3 %, threshold 50 %). "
        "AI result, not verified by a physician. Research use only."
    )


def test_a_negative_says_not_detected_and_never_that_there_is_no_pneumonia() -> None:
    sentence = image_sentence(NEGATIVE, MODEL)
    assert sentence.startswith(
        "Pneumonia: not detected at this operating point (probability 12.4 %, threshold 50 %). AI result,"
    )
    assert "no pneumonia" not in sentence.lower()
    assert "absent" not in sentence.lower()


def test_a_study_that_may_be_incomplete_says_so_after_its_conclusion_and_its_short_form_fits_its_attribute() -> None:
    whole = study_sentence([NEGATIVE, LATERAL], MODEL)
    incomplete = REMARKS[Remark.INCOMPLETE]
    assert study_sentence([NEGATIVE, LATERAL], MODEL, [Remark.INCOMPLETE]) == f"{whole} {incomplete}"
    assert incomplete.startswith("STUDY MAY BE INCOMPLETE: ")
    assert all(remark.isascii() for remark in REMARKS.values())  # they are drawn
    assert set(SHORT_REMARKS) == {remark for remark in Remark if remark.is_partial}
    assert max(map(len, SHORT_REMARKS.values())) <= 64  # LO, PS3.5 Table 6.2-1


def test_a_finding_within_the_grey_zone_is_undetermined_and_says_between_which_limits() -> None:
    assert image_sentence(UNDETERMINED, MODEL).startswith(
        "Pneumonia: undetermined at this operating point "
        "(probability 54.6 %, threshold 50 %, undetermined from 45 % to 55 %). AI result,"
    )
    assert short_comment(UNDETERMINED) == "AI: undetermined"


@pytest.mark.parametrize(
    ("probability", "verdict"),
    [
        (0.45, Verdict.UNDETERMINED),
        (math.nextafter(0.45, 0), Verdict.NOT_DETECTED),
        (math.nextafter(0.55, 0), Verdict.UNDETERMINED),
        (0.55, Verdict.PRESENT),
    ],
)
def test_the_grey_zone_holds_its_lower_end_and_not_its_upper(probability: float, verdict: Verdict) -> None:
    finding = replace(UNDETERMINED, probability=probability)
    assert finding.verdict is verdict
    shown = Decimal(percent(probability, *finding.limits))
    lower, upper = (Decimal(repr(limit)) * 100 for limit in finding.limits)
    assert (shown >= upper, shown >= lower) == (verdict is Verdict.PRESENT, verdict is not Verdict.NOT_DETECTED)


def test_only_an_image_in_which_it_is_present_is_positive() -> None:
    assert [name for name, outcome in OUTCOMES.items() if outcome.is_positive] == ["positive"]


# A number of the report has 13 decimals at most (see `percent`): so narrow a grey zone is no setting.
@given(probability=fractions, threshold=fractions, zone=st.just(0.0) | st.floats(min_value=1e-6, max_value=0.4))
def test_no_number_contradicts_its_verdict_whatever_the_grey_zone(
    probability: float, threshold: float, zone: float
) -> None:
    finding = Finding(probability=probability, logit=0.0, threshold=threshold, grey_zone=zone)
    shown = Decimal(percent(probability, *finding.limits))
    for limit in finding.limits:
        assert (shown >= Decimal(repr(limit)) * 100) == (probability >= limit)


def test_what_is_present_stands_for_the_study_before_what_is_undetermined_and_that_before_the_rest() -> None:
    surer = replace(NEGATIVE, probability=0.7, threshold=0.9)
    outcomes = [surer, UNDETERMINED, NEGATIVE]
    assert study_sentence(outcomes, MODEL).startswith("Pneumonia: undetermined")
    present = replace(POSITIVE, probability=0.3, threshold=0.2)
    assert study_sentence([*outcomes, present], MODEL).startswith("Pneumonia: PRESENT")


@pytest.mark.parametrize("reason", Reason)
def test_an_image_without_a_score_says_why(reason: Reason) -> None:
    assert image_sentence(NotAnalysed(reason=reason), MODEL) == f"NOT ANALYSED: {reason.sentence}."


def test_the_notes_of_an_analysis_stand_behind_its_result() -> None:
    noted = Finding(probability=0.9, logit=2.2, threshold=0.5, notes=(Note.VIEW_MISSING, Note.AGE_MISSING))
    assert image_sentence(noted, MODEL).endswith(
        "Research use only. View position is not stated: analysed as frontal. "
        "Patient age is not stated: analysed as adult."
    )


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())
def test_a_demonstration_model_says_so_before_anything_else(outcome: Outcome) -> None:
    demonstration = replace(MODEL, status="demonstration")
    warning = "DEMONSTRATION MODEL - NOT FOR CLINICAL USE. "
    assert image_sentence(outcome, demonstration) == warning + image_sentence(outcome, MODEL)
    assert study_sentence([outcome], demonstration) == warning + study_sentence([outcome], MODEL)


def test_a_cleared_model_does_not_say_research_use_only() -> None:
    cleared = replace(MODEL, status="cleared")
    assert image_sentence(POSITIVE, cleared).endswith("AI result, not verified by a physician.")


def test_a_model_without_calibration_calls_its_probability_a_score() -> None:
    uncalibrated = replace(MODEL, calibration="none")
    assert image_sentence(POSITIVE, uncalibrated).endswith("The probability is an uncalibrated score.")
    assert "uncalibrated" not in image_sentence(POSITIVE, MODEL)


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())
def test_the_comment_that_viewers_draw_on_the_film_is_short(outcome: Outcome) -> None:
    assert len(short_comment(outcome)) <= SHORT_LENGTH == 24


def test_a_study_is_positive_if_one_image_is() -> None:
    assert study_sentence([NEGATIVE, POSITIVE], MODEL) == image_sentence(POSITIVE, MODEL)


def test_a_positive_below_another_images_threshold_still_leads() -> None:
    sensitive = Finding(probability=0.2, logit=-1.4, threshold=0.1)
    strict = Finding(probability=0.8, logit=1.4, threshold=0.9)
    assert study_sentence([strict, sensitive], MODEL) == image_sentence(sensitive, MODEL)


def test_a_study_says_how_much_of_it_the_result_does_not_cover() -> None:
    assert study_sentence([NEGATIVE, LATERAL, FAILED], MODEL) == (
        f"{image_sentence(NEGATIVE, MODEL)} 2 of 3 images NOT ANALYSED: "
        f"{Reason.VIEW.sentence}; {Reason.UNREADABLE_PIXELS.sentence}."
    )


@pytest.mark.parametrize("reason", Reason)
def test_the_detail_is_told_where_it_names_attributes_or_what_a_picture_looks_like(reason: Reason) -> None:
    outcome = NotAnalysed(reason=reason, detail="WindowWidth")
    attributes = {Reason.UNREADABLE_HEADER, Reason.PIXEL_FORM, Reason.DISPLAY_ATTRIBUTES}
    named = {*attributes, Reason.UNLIKE_A_FRONTAL_CHEST_FILM}
    told = f"{reason.sentence} (WindowWidth)" if reason in named else reason.sentence
    assert image_sentence(outcome, MODEL) == study_sentence([outcome], MODEL) == f"NOT ANALYSED: {told}."


def test_a_study_without_any_score_gives_each_reason_once() -> None:
    assert study_sentence([LATERAL, LATERAL], MODEL) == f"NOT ANALYSED: {Reason.VIEW.sentence}."


@given(probability=fractions, threshold=fractions)
@example(probability=0.4996, threshold=0.5)
@example(probability=JUST_BELOW_HALF, threshold=0.5)
@example(probability=0.43719, threshold=0.43718293450000001)
@example(probability=5e-324, threshold=1e-323)
def test_the_number_shown_is_on_the_same_side_of_the_threshold_as_the_verdict(
    probability: float, threshold: float
) -> None:
    shown, limit = Decimal(percent(probability, threshold)), Decimal(percent_exactly(threshold))
    finding = Finding(probability=probability, logit=0.0, threshold=threshold)
    assert (shown >= limit) == (finding.verdict is Verdict.PRESENT)


def test_rounding_to_one_decimal_would_contradict_the_verdict() -> None:
    naive = f"{100 * 0.4996:.1f}"
    assert naive == "50.0"
    assert percent(0.4996, 0.5) == "49.96"


@given(probability=fractions, threshold=fractions)
@example(probability=JUST_BELOW_HALF, threshold=0.5)
def test_the_number_shown_fits_a_decimal_string_and_is_close(probability: float, threshold: float) -> None:
    shown = percent(probability, threshold)
    assert len(shown) <= 16
    assert abs(Decimal(shown) - 100 * Decimal(repr(probability))) <= Decimal("0.05")


@given(probability=fractions, threshold=fractions)
def test_one_decimal_is_enough_away_from_the_threshold(probability: float, threshold: float) -> None:
    assume(abs(probability - threshold) > 0.001)
    assert len(percent(probability, threshold).partition(".")[2]) == 1


def test_a_tiny_probability_is_written_as_a_plain_number() -> None:
    assert percent(1e-9, 0.5) == "0.0"


@pytest.mark.parametrize(
    ("threshold", "shown"), [(0.5, "50"), (0.437, "43.7"), (1.0, "100"), (0.0, "0"), (0.05, "5"), (1e-7, "0.00001")]
)
def test_a_threshold_is_shown_with_all_its_digits(threshold: float, shown: str) -> None:
    assert percent_exactly(threshold) == shown


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -0.01, 1.01])
def test_what_is_no_probability_is_not_reported(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"a finding has a probability, 0\.\.1"):
        Finding(probability=wrong, logit=0.0, threshold=0.5)
    with pytest.raises(ValueError, match="a threshold is a number from 0 to 1"):
        image_sentence(Finding(probability=0.5, logit=0.0, threshold=wrong), MODEL)
