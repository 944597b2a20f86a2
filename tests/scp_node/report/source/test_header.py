"""What a report takes over from a source header, and what it does with wrong values."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from scp_node.domain import ReportedImage
from scp_node.report import codes
from scp_node.report.source.source import UnreportableHeader
from tests.scp_node.report.reports import (
    IMAGE,
    MODEL,
    SEEN,
    attribute,
    built,
    dataset,
    every_object,
    lateral,
    radiograph,
    report,
    said,
    unvalidated,
)

IDENTITY: Final = {
    "PatientName": "Doe^Jane",
    "PatientID": "P-0815",
    "PatientBirthDate": "19600229",
    "PatientSex": "F",
    "PatientAge": "066Y",
    "StudyDate": "20260501",
    "StudyTime": "101112",
    "StudyID": "S1",
    "StudyDescription": "Chest two views",
    "AccessionNumber": "A-4711",
    "ReferringPhysicianName": "Welby^Marcus",
}


@pytest.mark.parametrize(("keyword", "value"), IDENTITY.items())
def test_patient_and_study_are_the_sources(keyword: str, value: str) -> None:
    assert str(report()[keyword].value) == value


@pytest.mark.parametrize(
    "keyword", [keyword for keyword in IDENTITY if keyword not in {"PatientAge", "StudyDescription"}]
)
def test_what_the_source_lacks_is_empty(keyword: str) -> None:
    assert not report(radiograph(**attribute(keyword, None)))[keyword].value


@pytest.mark.parametrize("keyword", ["PatientAge", "StudyDescription", "IssuerOfPatientID", "TimezoneOffsetFromUTC"])
def test_an_optional_attribute_that_the_source_lacks_is_left_out(keyword: str) -> None:
    assert keyword not in report(radiograph(**attribute(keyword, None)))


@pytest.mark.parametrize("keyword", ["PatientComments", "EthnicGroup", "AdditionalPatientHistory", "PatientAddress"])
def test_what_a_report_has_no_use_for_is_not_repeated(keyword: str) -> None:
    assert keyword not in report(radiograph(**attribute(keyword, "x")))


@pytest.mark.parametrize(
    ("keyword", "wrong"),
    [
        ("StudyDate", "20261399"),
        ("StudyDate", "2026-05-01"),
        ("StudyDate", "20250229"),
        ("StudyTime", "246000"),
        ("StudyTime", "10:11:12"),
        ("PatientBirthDate", "00000000"),
        ("PatientBirthDate", "1960"),
        ("PatientSex", "female"),
        ("PatientSex", "m"),
    ],
)
def test_a_value_that_the_standard_does_not_allow_is_left_empty(keyword: str, wrong: str) -> None:
    assert not report(radiograph(**attribute(keyword, wrong)))[keyword].value


@pytest.mark.parametrize(
    ("age", "reported"),
    [("066Y", "066Y"), ("66Y", "066Y"), ("9M", "009M"), ("32", None), ("abc", None), ("0066Y", None)],
)
def test_an_age_without_a_unit_is_left_out(age: str, reported: str | None) -> None:
    assert report(radiograph(PatientAge=age)).get("PatientAge") == reported


@pytest.mark.parametrize("time", ["10", "1011", "101112", "101112.5", "101112.123456", "235960"])
def test_a_time_of_any_precision_is_kept(time: str) -> None:
    assert str(report(radiograph(StudyTime=time)).get_item("StudyTime").value, "ascii").strip() == time


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "AccessionNumber", "StudyID", "IssuerOfPatientID"])
def test_an_identifier_is_never_altered_however_long_it_is(keyword: str) -> None:
    eighty = "0123456789" * 8
    assert unvalidated(report(radiograph(**attribute(keyword, eighty))), keyword) == eighty


def test_a_description_of_eighty_characters_is_cut_to_what_the_standard_allows() -> None:
    assert report(radiograph(StudyDescription="0123456789" * 8)).StudyDescription == ("0123456789" * 7)[:64]


def test_a_description_keeps_one_line_and_one_value() -> None:
    assert report(radiograph(StudyDescription="Chest\r\nPA\\LAT")).StudyDescription == "Chest  PA LAT"


def test_an_issuer_belongs_to_its_identifier() -> None:
    qualifier = dataset(
        UniversalEntityID="1.2.3",
        UniversalEntityIDType="ISO",
        AssigningFacilitySequence=[dataset(LocalNamespaceEntityID="WARD 7")],
    )
    accession_issuer = dataset(LocalNamespaceEntityID="RIS")
    read = report(
        radiograph(
            IssuerOfPatientID="HOSPITAL",
            IssuerOfPatientIDQualifiersSequence=[qualifier],
            IssuerOfAccessionNumberSequence=[accession_issuer],
        )
    )
    assert read.IssuerOfPatientID == "HOSPITAL"
    assert read.IssuerOfPatientIDQualifiersSequence[0] == qualifier
    assert read.IssuerOfAccessionNumberSequence[0] == accession_issuer


def test_other_patient_ids_get_the_type_that_sources_often_lack() -> None:
    items = [dataset(PatientID="OTHER", IssuerOfPatientID="ELSEWHERE"), dataset(IssuerOfPatientID="NOBODY")]
    read = report(radiograph(OtherPatientIDsSequence=items))
    assert [
        (item.PatientID, item.IssuerOfPatientID, item.TypeOfPatientID) for item in read.OtherPatientIDsSequence
    ] == [("OTHER", "ELSEWHERE", "TEXT")]


def test_other_patient_ids_in_the_retired_form_are_not_lost() -> None:
    read = report(radiograph(OtherPatientIDs=["OLD-1", "OLD-2"], OtherPatientIDsSequence=[dataset(PatientID="OLD-1")]))
    assert [item.PatientID for item in read.OtherPatientIDsSequence] == ["OLD-1", "OLD-2"]
    assert "OtherPatientIDs" not in read


def test_the_sources_procedure_is_the_procedure_reported() -> None:
    procedure = dataset(CodeValue="XR-CH2", CodingSchemeDesignator="99RIS", CodeMeaning="Chest two views")
    read = report(radiograph(ProcedureCodeSequence=[procedure]))
    assert read.ProcedureCodeSequence[0] == procedure
    assert said(read, codes.PROCEDURE_REPORTED) == ["Chest two views"]


@pytest.mark.parametrize(
    "incomplete",
    [
        dataset(CodeValue="XR", CodingSchemeDesignator="99RIS"),
        dataset(CodeValue="XR", CodeMeaning="Chest"),
        dataset(CodeValue="XR\\CT", CodingSchemeDesignator="99RIS", CodeMeaning="Chest"),
        dataset(CodeValue="longer than 16 characters", CodingSchemeDesignator="99RIS", CodeMeaning="Chest"),
        dataset(),
    ],
)
def test_a_procedure_code_that_is_not_well_formed_is_not_reported(incomplete: Dataset) -> None:
    read = report(radiograph(ProcedureCodeSequence=[incomplete]))
    assert "ProcedureCodeSequence" not in read
    assert said(read, codes.PROCEDURE_REPORTED) == ["Imaging procedure"]


def test_the_order_is_the_one_that_the_image_was_made_for() -> None:
    order = dataset(
        AccessionNumber="A-4712",
        RequestedProcedureID="RP1",
        RequestedProcedureDescription="Chest for fever",
        FillerOrderNumberImagingServiceRequest="F1",
    )
    (request,) = report(radiograph(RequestAttributesSequence=[order])).ReferencedRequestSequence
    assert (request.AccessionNumber, request.RequestedProcedureID) == ("A-4712", "RP1")
    assert request.RequestedProcedureDescription == "Chest for fever"
    assert request.FillerOrderNumberImagingServiceRequest == "F1"
    assert request.StudyInstanceUID == report().StudyInstanceUID
    assert request.PlacerOrderNumberImagingServiceRequest == ""
    assert list(request.ReferencedStudySequence) == list(request.RequestedProcedureCodeSequence) == []


def test_an_order_is_in_the_character_set_of_its_image() -> None:
    order = dataset(RequestedProcedureID="RP1", RequestedProcedureDescription="Thorax für Fieber")
    read = report(radiograph(SpecificCharacterSet="ISO_IR 100", RequestAttributesSequence=[order]))
    assert read.ReferencedRequestSequence[0].RequestedProcedureDescription == "Thorax für Fieber"


def test_without_an_order_no_order_is_named() -> None:
    assert "ReferencedRequestSequence" not in report()


def test_the_order_has_the_studys_accession_number_if_it_names_none() -> None:
    read = report(radiograph(RequestAttributesSequence=[dataset(RequestedProcedureID="RP1")]))
    assert read.ReferencedRequestSequence[0].AccessionNumber == "A-4711"


def test_the_acquisition_device_contributed() -> None:
    read = report(radiograph(StationName="A station's much too long name"))
    device = read.ContributingEquipmentSequence[0]
    assert (device.Manufacturer, device.ManufacturerModelName) == ("Acme", "Ray 1")
    assert device.StationName == "A station's much"
    assert device.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Acquisition Equipment"
    assert "ContributionDateTime" not in device


def test_a_device_without_a_manufacturer_is_not_named() -> None:
    (only,) = report(radiograph(Manufacturer=None)).ContributingEquipmentSequence
    assert only.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"


def test_the_model_contributed_as_a_device_that_other_weights_make_another() -> None:
    other = replace(MODEL, digest="sha256:" + 64 * "f")
    devices = [report(model=model).ContributingEquipmentSequence[-1] for model in (MODEL, MODEL, other)]
    assert [device.ManufacturerModelName for device in devices] == 3 * [MODEL.name]
    assert devices[0].SoftwareVersions == MODEL.version
    assert devices[0].DeviceUID == devices[1].DeviceUID != devices[2].DeviceUID


@pytest.mark.parametrize(
    ("offset", "content"),
    [("+0200", ("20260501", "143000")), ("-0930", ("20260501", "030000")), ("+1400", ("20260502", "023000"))],
)
def test_times_are_in_the_sources_zone(offset: str, content: tuple[str, str]) -> None:
    read = report(radiograph(TimezoneOffsetFromUTC=offset))
    assert read.TimezoneOffsetFromUTC == offset
    assert (read.ContentDate, read.ContentTime) == content
    assert (read.InstanceCreationDate, read.InstanceCreationTime) == content


@pytest.mark.parametrize("wrong", ["", "0200", "-0000", "+1500", "+0260", "CET", "+02:00"])
def test_without_a_valid_zone_times_are_the_sites_and_no_zone_is_stated(wrong: str) -> None:
    read = report(radiograph(TimezoneOffsetFromUTC=wrong))
    assert "TimezoneOffsetFromUTC" not in read
    assert read.ContentTime == "123000"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_any_encoding_of_the_source_gives_the_same_report(syntax: Any) -> None:
    order = attribute("RequestAttributesSequence", [dataset(RequestedProcedureID="RP1")])
    assert built(radiograph(syntax=syntax, **order)) == built(radiograph(**order))


def test_a_compressed_source_has_its_header_in_explicit_little_endian() -> None:
    plain = radiograph()
    compressed = ReportedImage(
        sop_instance_uid=plain.sop_instance_uid,
        header=plain.header,
        transfer_syntax=JPEGBaseline8Bit,
        outcome=plain.outcome,
    )
    assert built(compressed) == built(plain)


def test_a_study_uid_with_characters_that_no_uid_has_is_reported_as_it_is() -> None:
    odd = "1.2\x1f\x00.3"
    assert unvalidated(report(radiograph(StudyInstanceUID=odd)), "StudyInstanceUID").rstrip("\0") == odd


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_a_damaged_uid_is_not_read_in_the_character_set_of_the_texts(keyword: str) -> None:
    image = radiograph(SpecificCharacterSet="ISO_IR 192", **attribute(keyword, "1.2.840.9999.7777"))
    damaged = image.header.replace(b"9999", b"9\xc4\x809")
    assert b"1.2.840.9\xc4\x809.7777" in built(_with_header(image, damaged)).file


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_an_image_without_an_identifier_cannot_be_reported(keyword: str) -> None:
    with pytest.raises(UnreportableHeader, match=f"header has no {keyword}") as caught:
        built(radiograph(), lateral(**attribute(keyword, None)))
    assert caught.value.sop_instance_uid == lateral().sop_instance_uid


def test_a_header_that_ends_inside_a_value_cannot_be_reported() -> None:
    whole = radiograph()
    cut = whole.header[: whole.header.index(b"Doe^Jane") + 3]
    with pytest.raises(UnreportableHeader, match="header is cut off"):
        built(_with_header(whole, cut))


@pytest.mark.parametrize("rubbish", [b"", b"\x08\x00", b"not DICOM at all, but a letter", bytes(range(256)) * 4])
def test_what_is_not_dicom_cannot_be_reported(rubbish: bytes) -> None:
    with pytest.raises(UnreportableHeader):
        built(_with_header(radiograph(), rubbish))


def test_sequences_nested_beyond_reason_cannot_stop_the_process() -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff"
    with pytest.raises(UnreportableHeader):
        built(_with_header(radiograph(), radiograph().header + (sequence + item) * 5000))


@pytest.mark.parametrize("content", [b"\xfe\xff\x00\xe0\xff\x00\x00\x00", b"no items", bytes(8)])
def test_an_unreadable_sequence_that_a_report_can_do_without_is_left_out(content: bytes) -> None:
    sequence = b"\x40\x00\x75\x02SQ\x00\x00\x08\x00\x00\x00" + content
    assert "ReferencedRequestSequence" not in report(_with_header(radiograph(), radiograph().header + sequence))


def test_an_empty_value_of_an_unknown_kind_is_empty() -> None:
    image = radiograph(AccessionNumber="")
    header = image.header.replace(b"\x08\x00\x50\x00SH", b"\x08\x00\x50\x00ZZ")
    assert header != image.header
    assert report(_with_header(image, header)).AccessionNumber == ""


def test_an_identifier_with_a_backslash_does_not_stop_the_report() -> None:
    read = report(radiograph(OtherPatientIDsSequence=[dataset(PatientID="A\\B")], OtherPatientIDs=["C"]))
    unaltered, retired = read.OtherPatientIDsSequence
    assert list(unaltered.PatientID) == ["A", "B"]
    assert retired.PatientID == "C"


damages = st.tuples(st.integers(0, 2_000), st.binary(min_size=1, max_size=8), st.booleans())


@given(damage=st.lists(damages, min_size=1, max_size=8), implicit=st.booleans())
@example(damage=[(410, b"\xc4\x80", True)], implicit=False)  # two bytes of a UID that are one character in UTF-8
@settings(max_examples=150, deadline=None)
def test_no_damage_to_a_header_makes_the_node_fail(damage: list[tuple[int, bytes, bool]], *, implicit: bool) -> None:
    order = dataset(RequestedProcedureID="RP1", IssuerOfAccessionNumberSequence=[dataset(UniversalEntityID="1.2")])
    image = radiograph(
        SEEN,
        syntax=ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian,
        Rows=None,  # damaged, it would be the size of a segmentation: gigabytes
        OtherPatientIDsSequence=[dataset(PatientID="OTHER")],
        ProcedureCodeSequence=[dataset(CodeValue="XR", CodingSchemeDesignator="99RIS", CodeMeaning="Chest")],
        RequestAttributesSequence=[order],
    )
    header = bytearray(image.header)
    for place, found, overwrites in damage:
        header[place : place + overwrites * len(found)] = found
    with suppress(UnreportableHeader):
        every_object(_with_header(image, bytes(header)))


def test_nothing_of_the_patient_gets_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    secrets: dict[str, Any] = {
        "PatientName": "Canary^" * 20,
        "PatientID": "CANARY" * 20,
        "PatientBirthDate": "CANARY13",
        "PatientSex": "CANARY",
        "PatientAge": "CANARY",
        "StudyDate": "CANARY99",
        "StudyTime": "CANARY",
        "StudyDescription": "Canary's chest " * 9,
    }
    with caplog.at_level(logging.DEBUG):
        built(radiograph(**secrets))
    mended = "PatientBirthDate,PatientSex,StudyDate,StudyTime,PatientAge,StudyDescription"
    assert caplog.messages == [f"header mended sop_instance_uid={IMAGE} attributes={mended}"]


def test_a_header_in_order_is_not_mentioned_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        built()
    assert not caplog.messages


def test_the_message_of_an_unreportable_header_holds_nothing_of_the_patient() -> None:
    whole = radiograph()
    with pytest.raises(UnreportableHeader) as caught:
        built(_with_header(whole, whole.header[: whole.header.index(b"Doe^Jane") + 8]))
    assert "Doe" not in f"{caught.value!r}{caught.value.__cause__!r}"


def _with_header(image: ReportedImage, header: bytes) -> ReportedImage:
    return ReportedImage(
        sop_instance_uid=image.sop_instance_uid,
        header=header,
        transfer_syntax=image.transfer_syntax,
        outcome=image.outcome,
    )
