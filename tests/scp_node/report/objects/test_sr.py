"""The report as a DICOM object: its versions, flags and references, and that it is built the same every time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from zoneinfo import ZoneInfo

import pytest
from pydicom import dcmread

from scp_node.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_node.domain import BuiltReport, Outcome, PreviousReport
from scp_node.report.objects.sr import warm_up
from scp_node.report.version import ReportVersion
from tests.scp_node.report.reports import (
    AT,
    FAILED,
    IMAGE,
    LATERAL,
    MODEL,
    OUTCOMES,
    POSITIVE,
    SERIES,
    SITE,
    STUDY,
    built,
    lateral,
    radiograph,
    references,
    report,
)


def _as_previous(report: BuiltReport, version: int) -> PreviousReport:
    return PreviousReport(
        sop_instance_uid=report.sop_instance_uid,
        series_instance_uid=report.series_instance_uid,
        sop_class_uid=report.sop_class_uid,
        version=version,
    )


def test_equal_arguments_give_equal_bytes() -> None:
    assert built(radiograph(), lateral()) == built(radiograph(), lateral())


def test_the_first_report_of_a_process_needs_no_special_argument() -> None:
    warm_up()


def test_what_is_returned_is_what_the_file_says() -> None:
    made = built()
    read = dcmread(BytesIO(made.file))
    assert made.study_uid == read.StudyInstanceUID == STUDY
    assert made.sop_instance_uid == read.SOPInstanceUID == read.file_meta.MediaStorageSOPInstanceUID
    assert made.sop_class_uid == read.SOPClassUID == read.file_meta.MediaStorageSOPClassUID
    assert made.series_instance_uid == read.SeriesInstanceUID
    assert len(made.content_digest) == 64


def test_the_file_is_explicit_little_endian_and_ours() -> None:
    meta = report().file_meta
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME


def test_a_report_is_preliminary_unverified_and_in_a_series_of_its_own() -> None:
    read = report()
    assert (read.PreliminaryFlag, read.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert (read.Modality, read.SeriesNumber) == ("SR", 9100)
    assert read.SeriesInstanceUID != SERIES
    assert read.SeriesDescription == "AI PNEUMONIA report 0.1.0"
    assert list(read.ReferencedPerformedProcedureStepSequence) == list(read.PerformedProcedureCodeSequence) == []


def test_the_equipment_is_this_node_with_its_model() -> None:
    read = report()
    assert read.Manufacturer == "scp-node open-source project"
    assert read.ManufacturerModelName == "scp-node"
    assert read.DeviceSerialNumber == "2.25.77"
    assert list(read.SoftwareVersions) == ["0.1.0", "pneumonia-resnet18-0.1.0"]


@pytest.mark.parametrize(
    ("outcomes", "flag"),
    [
        ([POSITIVE], "COMPLETE"),
        ([POSITIVE, LATERAL], "COMPLETE"),
        ([LATERAL], "COMPLETE"),
        ([POSITIVE, FAILED], "PARTIAL"),
    ],
)
def test_a_report_is_partial_if_an_analysis_failed(outcomes: list[Outcome], flag: str) -> None:
    images = [radiograph(outcome, SOPInstanceUID=f"{IMAGE}.{number}") for number, outcome in enumerate(outcomes)]
    assert report(*images).CompletionFlag == flag


def test_every_image_is_evidence_analysed_or_not() -> None:
    read = report(radiograph(), lateral(SeriesInstanceUID=f"{SERIES}.9"), radiograph(SOPInstanceUID=f"{IMAGE}.3"))
    assert references(read.CurrentRequestedProcedureEvidenceSequence) == [
        (SERIES, IMAGE),
        (SERIES, f"{IMAGE}.3"),
        (f"{SERIES}.9", f"{IMAGE}.2"),
    ]
    assert "PertinentOtherEvidenceSequence" not in read


def test_a_first_report_has_no_predecessor() -> None:
    read = report()
    assert read.InstanceNumber == 1
    assert "PredecessorDocumentsSequence" not in read


def test_a_new_version_names_the_one_it_replaces_and_joins_its_series() -> None:
    first = built(radiograph(FAILED))
    second = report(radiograph(POSITIVE), previous=_as_previous(first, 1))
    assert second.InstanceNumber == 2
    assert second.SOPInstanceUID != first.sop_instance_uid
    assert second.SeriesInstanceUID == first.series_instance_uid
    assert references(second.PredecessorDocumentsSequence) == [(first.series_instance_uid, first.sop_instance_uid)]


def test_a_third_version_that_says_what_the_first_said_is_another_object() -> None:
    first = built(radiograph(POSITIVE))
    second = built(radiograph(FAILED), previous=_as_previous(first, 1))
    third = built(radiograph(POSITIVE), previous=_as_previous(second, 2))
    assert third.content_digest == first.content_digest
    assert third.sop_instance_uid != first.sop_instance_uid


def test_all_versions_describe_their_series_alike() -> None:
    first = built(radiograph(FAILED))
    second = report(radiograph(POSITIVE), previous=_as_previous(first, 1), at=AT + timedelta(hours=1))
    read = dcmread(BytesIO(first.file))
    for keyword in ("SeriesNumber", "SeriesDescription", "Modality", "Manufacturer"):
        assert read[keyword] == second[keyword]
    assert "SeriesDate" not in second


def test_a_result_is_not_told_by_the_series_description() -> None:
    assert len({report(radiograph(outcome)).SeriesDescription for outcome in OUTCOMES.values()}) == 1


def test_a_long_model_version_does_not_make_the_series_description_too_long() -> None:
    assert len(report(model=replace(MODEL, version="1.0.0-" + 80 * "x")).SeriesDescription) == 64


def test_the_patient_is_the_first_images() -> None:
    assert report(radiograph(), lateral(PatientID="ANOTHER")).PatientID == "P-0815"


def test_without_a_source_zone_a_report_is_in_the_sites() -> None:
    read = report(site=replace(SITE, time_zone=ZoneInfo("America/New_York")))
    assert (read.ContentDate, read.ContentTime) == ("20260501", "083000")


def test_a_report_needs_an_image() -> None:
    with pytest.raises(ValueError, match="needs an image"):
        ReportVersion(images=[], model=MODEL, site=SITE, at=AT)


def test_a_report_is_of_one_study() -> None:
    with pytest.raises(ValueError, match="one study"):
        built(radiograph(), lateral(StudyInstanceUID=f"{STUDY}.9"))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="a time with its zone"):
        built(at=datetime(2026, 5, 1))  # noqa: DTZ001  # the mistake
