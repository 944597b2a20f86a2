"""Source images to report on, reports of them, and ways to read what a report says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.filewriter import dcmwrite
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from scp_node.domain import (
    BuiltObject,
    BuiltReport,
    Finding,
    ModelIdentity,
    NotAnalysed,
    Outcome,
    PreviousReport,
    Reason,
    Region,
    ReportedImage,
)
from scp_node.report.codes import Concept
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.key_object import build_key_object
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.objects.presentation_state import build_presentation_state
from scp_node.report.objects.segmentation import build_segmentation
from scp_node.report.objects.sr import build_report
from scp_node.report.objects.text_sr import build_text_report
from scp_node.report.site import Site
from scp_node.report.sop_class import SOP_CLASSES
from scp_node.report.version import ReportVersion

AT: Final = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
SITE: Final = Site(
    installation="2.25.77",
    ae_title="PNEUMONIA",
    manufacturer="scp-node open-source project",
    model_name="scp-node",
    software_version="0.1.0",
    series_number=9100,
    series_description="AI PNEUMONIA report",
    time_zone=UTC,
)
MODEL: Final = ModelIdentity(
    name="pneumonia-resnet18",
    version="0.1.0",
    digest="sha256:" + 8 * "0123abcd",
    status="research",
    threshold=0.5,
    calibration="platt:slope=0.93,intercept=-1.2",
    manufacturer="scp-node open-source project",
)
POSITIVE: Final = Finding(probability=0.873, logit=1.93, threshold=0.5)
NEGATIVE: Final = Finding(probability=0.124, logit=-1.96, threshold=0.5)
UNDETERMINED: Final = Finding(probability=0.546, logit=0.18, threshold=0.5, grey_zone=0.05)
SEEN: Final = replace(
    POSITIVE,
    regions=(Region(left=0.1, top=0.2, right=0.4, bottom=0.9, score=0.5),),
    attention=np.linspace(-3, 4, 196, dtype="<f4").tobytes(),
)
LATERAL: Final = NotAnalysed(reason=Reason.VIEW, detail="ViewPosition LL")
FAILED: Final = NotAnalysed(reason=Reason.UNREADABLE_PIXELS)
OUTCOMES: Final[dict[str, Outcome]] = {
    "positive": POSITIVE,
    "negative": NEGATIVE,
    "undetermined": UNDETERMINED,
    "not attempted": LATERAL,
    "failed": FAILED,
}

PREVIOUS: Final = PreviousReport(
    sop_instance_uid="2.25.1", series_instance_uid="2.25.2", sop_class_uid=SOP_CLASSES[0], version=1
)

STUDY: Final = "1.2.826.0.1.3680043.10.1.1"
SERIES: Final = "1.2.826.0.1.3680043.10.1.2"
IMAGE: Final = "1.2.826.0.1.3680043.10.1.3"
RADIOGRAPH: Final[dict[str, Any]] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
    "SOPInstanceUID": IMAGE,
    "StudyDate": "20260501",
    "StudyTime": "101112",
    "AccessionNumber": "A-4711",
    "Modality": "DX",
    "Manufacturer": "Acme",
    "ManufacturerModelName": "Ray 1",
    "ReferringPhysicianName": "Welby^Marcus",
    "StudyDescription": "Chest two views",
    "PatientName": "Doe^Jane",
    "PatientID": "P-0815",
    "PatientBirthDate": "19600229",
    "PatientSex": "F",
    "PatientAge": "066Y",
    "ViewPosition": "PA",
    "ImagerPixelSpacing": ["0.143", "0.139"],
    "StudyInstanceUID": STUDY,
    "SeriesInstanceUID": SERIES,
    "StudyID": "S1",
    "PatientOrientation": ["L", "F"],
    "Rows": 2500,
    "Columns": 2048,
}


def dataset(**attributes: Any) -> Dataset:
    """Return pydicom's dataset of these attributes, whatever their values; items of sequences may be mappings."""
    result = Dataset()
    for keyword, value in attributes.items():
        tag = Tag(keyword)
        vr = dictionary_VR(tag)
        if vr == "SQ":
            value = [item if isinstance(item, Dataset) else dataset(**item) for item in value]  # noqa: PLW2901
        result.add(DataElement(tag, "OB" if vr == "OB or OW" else vr, value, validation_mode=IGNORE))
    return result


def radiograph(
    outcome: Outcome = POSITIVE, *, syntax: UID = ExplicitVRLittleEndian, **attributes: Any
) -> ReportedImage:
    """Return an adult's frontal chest film with its outcome; attributes by keyword, None leaves one out."""
    present = {key: value for key, value in (RADIOGRAPH | attributes).items() if value is not None}
    buffer = BytesIO()
    dcmwrite(buffer, dataset(**present), implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return ReportedImage(
        sop_instance_uid=present.get("SOPInstanceUID", IMAGE),
        header=buffer.getvalue(),
        transfer_syntax=syntax,
        outcome=outcome,
    )


def rich_header() -> dict[str, Any]:
    """Return a header with all that a report takes over."""
    procedure = dataset(CodeValue="XR-CH2", CodingSchemeDesignator="99RIS", CodeMeaning="Chest two views")
    facility = dataset(LocalNamespaceEntityID="WARD 7", UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
    qualifiers = dataset(
        UniversalEntityID="1.2.4",
        UniversalEntityIDType="ISO",
        IdentifierTypeCode="MR",
        AssigningFacilitySequence=[facility],
    )
    order = dataset(
        AccessionNumber="A-4711",
        IssuerOfAccessionNumberSequence=[facility],
        RequestedProcedureID="RP1",
        RequestedProcedureDescription="Chest for fever",
        PlacerOrderNumberImagingServiceRequest="P1",
    )
    other_id = dataset(PatientID="OTHER", IssuerOfPatientIDQualifiersSequence=[qualifiers])
    return {
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "IssuerOfPatientID": "HOSPITAL",
        "IssuerOfPatientIDQualifiersSequence": [qualifiers],
        "OtherPatientIDsSequence": [other_id],
        "OtherPatientIDs": ["OLD-1", "OLD-2"],
        "IssuerOfAccessionNumberSequence": [facility],
        "ProcedureCodeSequence": [procedure],
        "RequestAttributesSequence": [order],
        "TimezoneOffsetFromUTC": "+0200",
        "InstitutionName": "Hospital",
        "StationName": "ROOM1",
        "DeviceSerialNumber": "42",
        "SoftwareVersions": ["1", "2"],
    }


def attribute(keyword: str, value: Any) -> dict[str, Any]:
    """Return one attribute as an argument of `radiograph` and `lateral`, for tests that have its keyword as a value."""
    return {keyword: value}


def lateral(outcome: Outcome = LATERAL, **attributes: Any) -> ReportedImage:
    """Return a second film of the same study."""
    return radiograph(outcome, **({"SOPInstanceUID": f"{IMAGE}.2", "ViewPosition": "LL"} | attributes))


def stored(path: Path, outcome: Outcome = POSITIVE) -> ReportedImage:
    """Return the image of a DICOM file as the node keeps it: the bytes of its header."""
    file = path.read_bytes()
    stream = BytesIO(file)
    syntax = ImplicitVRLittleEndian
    if file[128:132] == b"DICM":
        syntax = UID(read_file_meta_info(path).TransferSyntaxUID)
        stream.seek(132 + 12 + int.from_bytes(file[140:144], "little"))  # behind the group of file meta information
    start = stream.tell()
    header = read_dataset(stream, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=_is_pixel_data)
    return ReportedImage(
        sop_instance_uid=_raw(header, "SOPInstanceUID").decode().strip(" \0") or IMAGE,
        header=file[start : stream.tell()],
        transfer_syntax=syntax,
        outcome=outcome,
    )


def version_of(
    *images: ReportedImage,
    model: ModelIdentity = MODEL,
    site: Site = SITE,
    previous: PreviousReport | None = None,
    at: datetime = AT,
    incomplete: bool = False,
    several_patients: bool = False,
) -> ReportVersion:
    """Return the first version of the report of these images, one positive film by default."""
    return ReportVersion(
        images=images or [radiograph()],
        model=model,
        site=site,
        at=at,
        number=previous.version + 1 if previous else 1,
        previous=previous,
        incomplete=incomplete,
        several_patients=several_patients,
    )


def built(
    *images: ReportedImage,
    model: ModelIdentity = MODEL,
    site: Site = SITE,
    previous: PreviousReport | None = None,
    at: datetime = AT,
    incomplete: bool = False,
) -> BuiltReport:
    """Return the report of these images, one positive film by default."""
    return build_report(version_of(*images, model=model, site=site, previous=previous, at=at, incomplete=incomplete))


def text_report(*images: ReportedImage, incomplete: bool = False) -> BuiltObject:
    """Return the Basic Text SR of these images, one positive film by default."""
    return build_text_report(version_of(*images, incomplete=incomplete))


def every_object(image: ReportedImage, *, several_patients: bool = False) -> dict[ObjectKind, bytes]:
    """Return the file of each kind of object that is made of this film, the positive one with regions and map."""
    version = version_of(image, several_patients=several_patients)
    display = np.zeros((8, 8), np.uint8)
    picture = build_overlay(version, image=image, number=1, display=display)
    companions = [
        picture,
        build_text_report(version),
        build_presentation_state(version, image=image, attention=True),
        build_segmentation(version, image=image),
        build_key_object(version, pictures=[picture]),
    ]
    words = {kind.word: kind for kind in ObjectKind}
    files = {words[companion.kind]: companion.file for companion in companions if companion}
    return {ObjectKind.REPORT: build_report(version).file, **files}


def report(*images: ReportedImage, **options: Any) -> Dataset:
    """Return the report of these images, read back."""
    return dcmread(BytesIO(built(*images, **options).file))


def found(item: Dataset, concept: Concept) -> list[Dataset]:
    """Return the content items of this name anywhere below `item`, in order."""
    below = []
    for child in item.get("ContentSequence", []):
        if _named(child) == concept[:2]:
            below.append(child)
        below += found(child, concept)
    return below


def every_item(item: Dataset) -> list[Dataset]:
    """Return `item` and all content items below it."""
    return [item, *(below for child in item.get("ContentSequence", []) for below in every_item(child))]


def words(report: Dataset) -> str:
    """Return everything that a report says in text."""
    return " ".join(item.TextValue for item in every_item(report) if "TextValue" in item)


def said(item: Dataset, concept: Concept) -> list[str]:
    """Return what the items of this name say: a text, a code's meaning, a number, a UID, a date."""
    return [_value(child) for child in found(item, concept)]


def code_values(item: Dataset, concept: Concept) -> list[str]:
    """Return the code values of the coded items of this name."""
    return [child.ConceptCodeSequence[0].CodeValue for child in found(item, concept)]


def unvalidated(read: Dataset, keyword: str) -> str:
    """Return a text as it stands in a report, even if it is longer than the standard allows."""
    return _raw(read, keyword).decode().rstrip(" ")


def references(sequence: Sequence[Dataset]) -> list[tuple[str, str]]:
    """Return series and instance of each reference in an evidence sequence."""
    return [
        (series.SeriesInstanceUID, instance.ReferencedSOPInstanceUID)
        for study in sequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]


def _is_pixel_data(tag: int, _vr: str | None, _length: int) -> bool:
    return tag == 0x7FE00010


def _raw(read: Dataset, keyword: str) -> bytes:
    element = read.get_item(Tag(keyword))
    return bytes(element.value or b"") if element is not None else b""


def _named(item: Dataset) -> tuple[str, str]:
    names = item.get("ConceptNameCodeSequence")
    return (names[0].CodeValue, names[0].CodingSchemeDesignator) if names else ("", "")


def _value(item: Dataset) -> str:
    match item.ValueType:
        case "TEXT":
            return str(item.TextValue)
        case "CODE":
            return str(item.ConceptCodeSequence[0].CodeMeaning)
        case "NUM":
            return str(item.MeasuredValueSequence[0].NumericValue) if item.MeasuredValueSequence else ""
        case "UIDREF":
            return str(item.UID)
        case "DATE":
            return str(item.Date)
        case other:
            raise AssertionError(f"a {other} item has no value to say")
