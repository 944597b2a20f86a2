"""What stands in a report, image by image and as its conclusion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from pydicom.dataset import Dataset

from scp_node.domain import Finding, Note, Outcome, Reason
from scp_node.report import codes
from scp_node.report.content.wording import image_sentence, study_sentence
from tests.scp_node.report.reports import (
    FAILED,
    IMAGE,
    LATERAL,
    MODEL,
    NEGATIVE,
    OUTCOMES,
    POSITIVE,
    SITE,
    UNDETERMINED,
    attribute,
    code_values,
    every_item,
    found,
    lateral,
    radiograph,
    report,
    said,
)

PRESENT: Final = "52101004"
ABSENT: Final = "272519000"
SUCCEEDED: Final = "111222"
PARTIALLY: Final = "111223"
UNSUCCESSFUL: Final = "111224"
NOT_ATTEMPTED: Final = "111225"
every_outcome = pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())


def _groups(read: Dataset) -> list[Dataset]:
    return found(read, codes.MEASUREMENT_GROUP)


def _conclusion(read: Dataset) -> Dataset:
    (conclusion,) = found(read, codes.QUALITATIVE_EVALUATIONS)
    return conclusion


def test_a_positive_group_holds_the_finding_its_probability_and_its_verdict() -> None:
    (group,) = _groups(report(radiograph(POSITIVE)))
    assert said(group, codes.FINDING) == ["Pneumonia"]
    assert said(group, codes.FINDING_SITE) == ["Lung"]
    assert said(group, codes.PROBABILITY) == ["87.3"]
    assert code_values(group, codes.PNEUMONIA) == [PRESENT]
    assert code_values(group, codes.SUMMARY_OF_DETECTIONS) == [SUCCEEDED]
    assert said(group, codes.COMMENT) == ["AI: pneumonia PRESENT"]
    assert said(group, codes.CONCLUSION) == [image_sentence(POSITIVE, MODEL)]


def test_a_negative_group_says_absent_and_holds_no_finding_that_a_viewer_could_show_alone() -> None:
    read = report(radiograph(NEGATIVE))
    (group,) = _groups(read)
    assert said(group, codes.PROBABILITY) == ["12.4"]
    assert code_values(group, codes.PNEUMONIA) == [ABSENT]
    assert said(group, codes.COMMENT) == ["AI: not detected"]
    assert not found(read, codes.FINDING)
    assert found(report(radiograph(POSITIVE)), codes.FINDING)  # else this test would pass on anything


@pytest.mark.parametrize(
    ("outcome", "summary", "qualifier"), [(LATERAL, NOT_ATTEMPTED, "114007"), (FAILED, UNSUCCESSFUL, "114006")]
)
def test_an_image_without_a_score_says_so_and_holds_no_number_and_no_verdict(
    outcome: Outcome, summary: str, qualifier: str
) -> None:
    read = report(radiograph(outcome))
    (group,) = _groups(read)
    (probability,) = found(group, codes.PROBABILITY)
    assert list(probability.MeasuredValueSequence) == []
    assert probability.NumericValueQualifierCodeSequence[0].CodeValue == qualifier
    assert code_values(group, codes.SUMMARY_OF_DETECTIONS) == [summary]
    assert said(group, codes.COMMENT) == ["AI: NOT ANALYSED"]
    assert said(group, codes.CONCLUSION) == [image_sentence(outcome, MODEL)]
    assert not found(read, codes.PNEUMONIA)
    assert not found(read, codes.FINDING)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_is_in_its_report(reason: Reason) -> None:
    read = report(radiograph(replace(LATERAL, reason=reason)))
    assert all(reason.sentence in sentence for sentence in said(read, codes.CONCLUSION))
    assert reason.sentence in said(_conclusion(read), codes.COMMENT)[0]


def test_what_was_found_in_the_header_is_not_repeated_with_the_reason() -> None:
    assert not any("ViewPosition LL" in str(item) for item in every_item(report(radiograph(LATERAL))))


@pytest.mark.parametrize("note", Note)
def test_each_note_is_in_the_group_of_its_image(note: Note) -> None:
    noted, plain = _groups(report(radiograph(replace(POSITIVE, notes=(note,))), lateral(NEGATIVE)))
    assert note.sentence in said(noted, codes.CONCLUSION)[0]
    assert note.sentence not in said(plain, codes.CONCLUSION)[0]


def test_each_image_has_its_own_group_in_the_order_of_arrival() -> None:
    read = report(radiograph(POSITIVE), lateral(LATERAL))
    assert [said(group, codes.COMMENT) for group in _groups(read)] == [["AI: pneumonia PRESENT"], ["AI: NOT ANALYSED"]]
    assert [_source(group) for group in _groups(read)] == [IMAGE, f"{IMAGE}.2"]


@pytest.mark.parametrize(
    ("outcomes", "verdict", "summary"),
    [
        ([POSITIVE], [PRESENT], SUCCEEDED),
        ([NEGATIVE, POSITIVE], [PRESENT], SUCCEEDED),
        ([NEGATIVE, LATERAL], [ABSENT], SUCCEEDED),
        ([NEGATIVE, FAILED], [ABSENT], PARTIALLY),
        ([POSITIVE, FAILED, LATERAL], [PRESENT], PARTIALLY),
        ([FAILED, LATERAL], [], UNSUCCESSFUL),
        ([LATERAL, LATERAL], [], NOT_ATTEMPTED),
    ],
)
def test_the_conclusion_is_the_highest_result_and_says_what_is_missing(
    outcomes: list[Outcome], verdict: list[str], summary: str
) -> None:
    images = [radiograph(outcome, SOPInstanceUID=f"{IMAGE}.{number}") for number, outcome in enumerate(outcomes)]
    conclusion = _conclusion(report(*images))
    assert code_values(conclusion, codes.PNEUMONIA) == verdict
    assert code_values(conclusion, codes.SUMMARY_OF_DETECTIONS) == [summary]
    assert said(conclusion, codes.COMMENT) == [study_sentence(outcomes, MODEL)]


@every_outcome
def test_every_group_names_the_algorithm_and_its_operating_point(outcome: Outcome) -> None:
    (group,) = _groups(report(radiograph(outcome)))
    assert said(group, codes.ALGORITHM_NAME) == ["pneumonia-resnet18"]
    assert said(group, codes.ALGORITHM_VERSION) == ["0.1.0+sha256:0123abcd0123"]
    assert said(group, codes.ALGORITHM_MANUFACTURER) == ["scp-node open-source project"]
    assert said(group, codes.ALGORITHM_PARAMETERS) == [
        "operating_threshold=0.5",
        "calibration=platt:slope=0.93,intercept=-1.2",
        *(["grey_zone=0.05"] if outcome is UNDETERMINED else []),
        "input=224x224 grayscale",
        "status=research",
        f"digest={MODEL.digest}",
    ]


def test_the_threshold_named_is_the_one_that_was_applied() -> None:
    (group,) = _groups(report(radiograph(replace(POSITIVE, threshold=0.43))))
    assert "operating_threshold=0.43" in said(group, codes.ALGORITHM_PARAMETERS)


def test_a_score_that_a_gate_let_through_says_so() -> None:
    (group,) = _groups(report(radiograph(replace(POSITIVE, input_stats={"mean": 0.4, "unlikeness": 0.612}))))
    assert "unlikeness=0.612" in said(group, codes.ALGORITHM_PARAMETERS)


def test_a_model_without_a_manufacturer_names_none() -> None:
    assert not found(report(model=replace(MODEL, manufacturer="")), codes.ALGORITHM_MANUFACTURER)


@every_outcome
def test_every_group_has_the_outline_of_its_whole_image(outcome: Outcome) -> None:
    # OHIF shows nothing at all of a report in which one group has no coordinates
    (group,) = _groups(report(radiograph(outcome, Rows=2500, Columns=2048)))
    (number,) = found(group, codes.PROBABILITY)
    (outline,) = number.ContentSequence
    assert (outline.RelationshipType, outline.ValueType) == ("INFERRED FROM", "SCOORD")
    assert outline.GraphicType == "POLYLINE"
    assert list(outline.GraphicData) == [0, 0, 2048, 0, 2048, 2500, 0, 2500, 0, 0]
    (image,) = outline.ContentSequence
    assert (image.RelationshipType, image.ValueType) == ("SELECTED FROM", "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == IMAGE


def test_an_image_of_unknown_size_has_an_outline_too() -> None:
    (group,) = _groups(report(radiograph(FAILED, Rows=None, Columns=None)))
    (number,) = found(group, codes.PROBABILITY)
    assert list(number.ContentSequence[0].GraphicData) == [0, 0, 1, 0, 1, 1, 0, 1, 0, 0]


def test_tracking_uids_are_distinct_and_stay_with_the_image_from_model_to_model() -> None:
    images = radiograph(POSITIVE), lateral(LATERAL)
    first = said(report(*images), codes.TRACKING_UNIQUE_IDENTIFIER)
    other = said(report(*images, model=replace(MODEL, digest="sha256:" + 64 * "f")), codes.TRACKING_UNIQUE_IDENTIFIER)
    assert len(set(first)) == 2
    assert first == other
    assert set(said(report(*images), codes.TRACKING_IDENTIFIER)) == {"Pneumonia (image level)"}


def test_two_images_that_came_under_one_uid_are_two_results_of_one_instance() -> None:
    conflict = replace(LATERAL, reason=Reason.CONFLICTING_INSTANCE)
    read = report(radiograph(POSITIVE), radiograph(conflict))
    assert len(_groups(read)) == 2
    assert len(set(said(read, codes.TRACKING_UNIQUE_IDENTIFIER))) == 2
    assert len(found(read, codes.SOURCE)) == 1


def test_every_heading_keeps_its_statements_apart() -> None:
    # with CONTINUOUS, dsr2html prints "87.3 % Present Succeeded" without a word of what is what
    headings = [item for item in every_item(report()) if item.ValueType == "CONTAINER"]
    assert {heading.ContinuityOfContent for heading in headings} == {"SEPARATE"}


def test_the_observer_is_a_device_and_nobody_has_verified() -> None:
    read = report()
    assert said(read, codes.OBSERVER_TYPE) == ["Device"]
    assert said(read, codes.DEVICE_OBSERVER_UID) == [SITE.device_uid]
    assert said(read, codes.DEVICE_OBSERVER_NAME) == ["PNEUMONIA"]
    assert said(read, codes.DEVICE_OBSERVER_SERIAL_NUMBER) == ["2.25.77"]
    assert "VerifyingObserverSequence" not in read
    assert "AuthorObserverSequence" not in read


def test_the_image_library_describes_each_image() -> None:
    entry, second = found(report(radiograph(), lateral()), codes.SOURCE)
    assert said(entry, codes.MODALITY) == ["Digital Radiography"]
    assert said(entry, codes.STUDY_DATE) == ["20260501"]
    assert said(entry, codes.IMAGE_VIEW) == ["postero-anterior"]
    assert said(second, codes.IMAGE_VIEW) == ["left lateral"]
    assert said(entry, codes.PIXEL_DATA_ROWS) == ["2500"]
    assert said(entry, codes.PIXEL_DATA_COLUMNS) == ["2048"]
    assert said(entry, codes.PATIENT_ORIENTATION_ROW) == ["L"]
    assert said(entry, codes.PATIENT_ORIENTATION_COLUMN) == ["F"]
    assert said(entry, codes.VERTICAL_PIXEL_SPACING) == ["0.143"]
    assert said(entry, codes.HORIZONTAL_PIXEL_SPACING) == ["0.139"]


@pytest.mark.parametrize(
    ("keyword", "value", "row"),
    [
        ("Modality", "XY", codes.MODALITY),
        ("StudyDate", "20261399", codes.STUDY_DATE),
        ("ViewPosition", None, codes.IMAGE_VIEW),
        ("Rows", None, codes.PIXEL_DATA_ROWS),
        ("Rows", None, codes.PIXEL_DATA_COLUMNS),
        ("PatientOrientation", "", codes.PATIENT_ORIENTATION_ROW),
        ("PatientOrientation", ["up", "down"], codes.PATIENT_ORIENTATION_COLUMN),
        ("ImagerPixelSpacing", None, codes.VERTICAL_PIXEL_SPACING),
        ("ImagerPixelSpacing", ["0", "-1"], codes.HORIZONTAL_PIXEL_SPACING),
        ("ImagerPixelSpacing", "0.14", codes.HORIZONTAL_PIXEL_SPACING),
    ],
)
def test_the_image_library_says_only_what_the_source_says(keyword: str, value: Any, row: codes.Concept) -> None:
    assert found(report(), row)
    assert not found(report(radiograph(**attribute(keyword, value))), row)


def test_an_image_of_which_nothing_is_known_is_in_the_library_all_the_same() -> None:
    known = {"SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"}
    unknown = dict.fromkeys(("Modality", "StudyDate", "ViewPosition", "Rows", "Columns"))
    unknown |= {"PatientOrientation": None, "ImagerPixelSpacing": None}
    assert not known & set(unknown)
    (entry,) = found(report(radiograph(**dict[str, Any](unknown))), codes.SOURCE)
    assert "ContentSequence" not in entry


def test_an_image_of_a_class_that_nobody_knows_is_reported() -> None:
    read = report(radiograph(LATERAL, SOPClassUID="1.2.3.4.5.6.7"))
    assert {_class(group) for group in _groups(read)} == {"1.2.3.4.5.6.7"}


def test_a_probability_that_is_none_is_not_reported() -> None:
    with pytest.raises(ValueError, match="probability"):
        report(radiograph(Finding(probability=float("nan"), logit=0.0, threshold=0.5)))


def _source(group: Dataset) -> str:
    (image,) = [item for item in found(group, codes.SOURCE_OF_MEASUREMENT) if item.ValueType == "IMAGE"]
    return str(image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


def _class(group: Dataset) -> str:
    (image,) = [item for item in found(group, codes.SOURCE_OF_MEASUREMENT) if item.ValueType == "IMAGE"]
    return str(image.ReferencedSOPSequence[0].ReferencedSOPClassUID)
