"""The regions of a positive image: what a report says of them, and that no other report has any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from pydicom.dataset import Dataset

from scp_node.domain import Finding, Outcome, Region
from scp_node.report import codes
from tests.scp_node.report.reports import (
    FAILED,
    IMAGE,
    LATERAL,
    MODEL,
    NEGATIVE,
    POSITIVE,
    built,
    code_values,
    every_item,
    found,
    lateral,
    radiograph,
    report,
    said,
)

RIGHT: Final = Region(left=0.125, top=0.4, right=0.375, bottom=0.8, score=0.6249)
LEFT: Final = Region(left=0.6, top=0.3, right=0.9, bottom=1.0, score=0.31)
LOCATED: Final = replace(POSITIVE, regions=(RIGHT, LEFT))
DETECTING: Final = replace(MODEL, region_threshold=0.3)


def _region_groups(read: Dataset) -> list[Dataset]:
    groups = found(read, codes.MEASUREMENT_GROUP)
    return [group for group in groups if group.ContentTemplateSequence[0].TemplateIdentifier == "1410"]


def _outlines(read: Dataset) -> list[list[float]]:
    return [list(item.GraphicData) for item in found(read, codes.IMAGE_REGION)]


def _tracking_uids(read: Dataset) -> list[str]:
    return said(read, codes.TRACKING_UNIQUE_IDENTIFIER)


def test_each_region_is_a_group_with_finding_site_outline_and_certainty() -> None:
    right, left = _region_groups(report(radiograph(LOCATED), model=DETECTING))
    assert said(right, codes.TRACKING_IDENTIFIER) == ["Opacity 1"]
    assert said(left, codes.TRACKING_IDENTIFIER) == ["Opacity 2"]
    for group, certainty in ((right, "62.5"), (left, "31.0")):
        assert code_values(group, codes.FINDING) == [codes.OPACITY.value]
        assert code_values(group, codes.FINDING_SITE) == [codes.LUNG.value]
        assert said(group, codes.CERTAINTY_OF_FINDING) == [certainty]
        assert "region_threshold=0.3" in said(group, codes.ALGORITHM_PARAMETERS)
        assert said(group, codes.PROBABILITY) == []


def test_an_outline_is_closed_and_in_pixels_of_the_whole_image() -> None:
    # 2048 columns and 2500 rows: both axes were shrunk to 224, each by its own factor
    right, left = _outlines(report(radiograph(LOCATED)))
    assert right == [256, 1000, 768, 1000, 768, 2000, 256, 2000, 256, 1000]
    assert left == pytest.approx([1228.8, 750, 1843.2, 750, 1843.2, 2500, 1228.8, 2500, 1228.8, 750], abs=0.06)


def test_an_outline_refers_to_its_own_image() -> None:
    read = report(radiograph(), lateral(LOCATED, ViewPosition="AP", Columns=1000, Rows=500))
    for item in found(read, codes.IMAGE_REGION):
        (selected_from,) = item.ContentSequence
        assert selected_from.RelationshipType == "SELECTED FROM"
        assert selected_from.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{IMAGE}.2"
    assert _outlines(read)[0] == [125, 200, 375, 200, 375, 400, 125, 400, 125, 200]


@pytest.mark.parametrize(
    "outcome", [replace(NEGATIVE, regions=(RIGHT,)), LATERAL, FAILED], ids=["negative", "not analysed", "failed"]
)
def test_no_other_report_holds_a_region_even_if_the_result_does(outcome: Outcome) -> None:
    read = report(radiograph(outcome), model=DETECTING)
    assert _region_groups(read) == []
    assert _outlines(read) == []


def test_regions_of_a_negative_image_do_not_change_a_byte_of_its_report() -> None:
    assert built(radiograph(replace(NEGATIVE, regions=(RIGHT,)))).file == built(radiograph(NEGATIVE)).file


def test_a_positive_report_says_that_regions_were_looked_for_also_where_none_was_found() -> None:
    read = report(radiograph(POSITIVE), model=DETECTING)
    assert _region_groups(read) == []
    assert "region_threshold=0.3" in said(read, codes.ALGORITHM_PARAMETERS)
    without = said(report(), codes.ALGORITHM_PARAMETERS)
    assert not any(parameter.startswith("region") for parameter in without)


def test_tracking_uids_are_the_same_in_every_run_and_differ_between_regions_and_images() -> None:
    images = [radiograph(LOCATED), lateral(LOCATED)]
    uids = _tracking_uids(report(*images))
    assert uids == _tracking_uids(report(*images))
    assert len(set(uids)) == len(uids) == 6


def test_two_images_under_one_uid_have_regions_of_their_own() -> None:
    uids = _tracking_uids(report(radiograph(LOCATED), radiograph(LOCATED)))
    assert len(set(uids)) == len(uids) == 6


def test_another_region_makes_another_report() -> None:
    first = built(radiograph(LOCATED))
    assert first.sop_instance_uid == built(radiograph(LOCATED)).sop_instance_uid
    for changed in (POSITIVE, replace(POSITIVE, regions=(RIGHT,)), _moved()):
        assert built(radiograph(changed)).sop_instance_uid != first.sop_instance_uid


def _moved() -> Finding:
    return replace(POSITIVE, regions=(RIGHT, replace(LEFT, bottom=0.95)))


def test_the_conclusion_is_the_image_s_not_the_regions() -> None:
    (with_regions,), (without,) = (
        found(report(radiograph(outcome)), codes.QUALITATIVE_EVALUATIONS) for outcome in (LOCATED, POSITIVE)
    )
    said_of: list[Any] = [[str(item) for item in every_item(tree)] for tree in (with_regions, without)]
    assert said_of[0] == said_of[1]
