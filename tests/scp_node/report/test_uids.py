"""The UIDs of reports: the same result has the same one, another result never."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp_node.domain import Finding, NotAnalysed, Note, Outcome, Reason
from scp_node.report.uids import derived_uid
from tests.scp_node.report.reports import AT, FAILED, MODEL, OUTCOMES, POSITIVE, SITE, built, lateral, radiograph


@given(kind=st.text(), key=st.lists(st.text()))
def test_a_derived_uid_is_a_uid(kind: str, key: list[str]) -> None:
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", derived_uid(kind, *key))
    assert len(derived_uid(kind, *key)) <= 64


@pytest.mark.parametrize("other", [("a", "bc"), ("a,b", "c"), ('a","b', "c"), ("abc",), ("ab", "", "c")])
def test_a_key_cannot_be_confused_with_another(other: tuple[str, ...]) -> None:
    assert derived_uid("report", *other) != derived_uid("report", "ab", "c")


def test_a_derived_uid_is_the_same_for_ever() -> None:
    assert derived_uid("report", "1.2.3") == "2.25.41805128613404905599681088399721082781"


OTHERS: Final[dict[str, Outcome]] = OUTCOMES | {
    "another probability": replace(POSITIVE, probability=0.874),
    "another threshold": replace(POSITIVE, threshold=0.4),
    "a note": replace(POSITIVE, notes=(Note.VIEW_MISSING,)),
    "another reason": NotAnalysed(reason=Reason.BODY_PART),
    "another failure": NotAnalysed(reason=Reason.ABANDONED),
}


def test_each_result_of_an_image_has_a_uid_of_its_own() -> None:
    uids = {built(radiograph(outcome)).sop_instance_uid for outcome in OTHERS.values()}
    assert len(uids) == len(OTHERS)


def test_the_retry_of_a_failed_analysis_is_another_object() -> None:
    failed, retried = built(radiograph(FAILED)), built(radiograph(POSITIVE))
    assert failed.sop_instance_uid != retried.sop_instance_uid
    assert failed.content_digest != retried.content_digest


def test_what_the_report_does_not_show_does_not_make_another_object() -> None:
    assert built(radiograph(replace(POSITIVE, probability=0.87304, logit=1.9))) == built(radiograph(POSITIVE))


def test_the_order_in_which_images_came_does_not_matter() -> None:
    one, other = built(radiograph(), lateral()), built(lateral(), radiograph())
    assert one.sop_instance_uid == other.sop_instance_uid
    assert one.content_digest == other.content_digest


def test_the_results_of_two_images_are_not_exchanged() -> None:
    normal = Finding(probability=0.1, logit=-2.2, threshold=0.5)
    one, other = built(radiograph(POSITIVE), lateral(normal)), built(radiograph(normal), lateral(POSITIVE))
    assert one.sop_instance_uid != other.sop_instance_uid


def test_a_late_image_makes_another_object() -> None:
    assert built(radiograph()).sop_instance_uid != built(radiograph(), lateral()).sop_instance_uid


def test_another_model_makes_another_object_in_another_series() -> None:
    one, other = built(), built(model=replace(MODEL, digest="sha256:" + 64 * "f"))
    assert one.sop_instance_uid != other.sop_instance_uid
    assert one.series_instance_uid != other.series_instance_uid


def test_another_installation_makes_another_object_in_another_series() -> None:
    one, other = built(), built(site=replace(SITE, installation="2.25.78"))
    assert one.sop_instance_uid != other.sop_instance_uid
    assert one.series_instance_uid != other.series_instance_uid
    assert one.content_digest == other.content_digest


def test_a_report_built_again_later_has_the_same_uids_but_other_bytes() -> None:
    now, later = built(), built(at=AT + timedelta(seconds=1))
    assert (now.sop_instance_uid, now.content_digest) == (later.sop_instance_uid, later.content_digest)
    assert now.file != later.file
