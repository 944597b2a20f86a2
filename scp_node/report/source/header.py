"""The attributes that a report takes over from its source image: patient, study, order, acquisition device, zone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Final

from scp_node.dicom.writing import Dataset
from scp_node.logs import get_logger
from scp_node.report.attributes import code_item, dataset
from scp_node.report.codes import ACQUISITION_EQUIPMENT, Concept
from scp_node.report.source.identifiers import codes, issuers, other_patient_ids, patient_id_qualifiers
from scp_node.report.source.mending import (
    long_string,
    short_string,
    unaltered,
    valid_age,
    valid_date,
    valid_sex,
    valid_time,
)
from scp_node.report.source.source import Attributes, SourceImage

log = get_logger(__name__)

# Patient, General Study and Patient Study modules (PS3.3 Sections C.7.1.1, C.7.2.1, C.7.2.2). What is not listed, such
# as Patient Comments or Additional Patient History, is not repeated.
_TYPE_2: Final[Mapping[str, Callable[[str], str]]] = {
    "PatientName": unaltered,
    "PatientID": unaltered,
    "PatientBirthDate": valid_date,
    "PatientSex": valid_sex,
    "StudyDate": valid_date,
    "StudyTime": valid_time,
    "ReferringPhysicianName": unaltered,
    "StudyID": unaltered,
    "AccessionNumber": unaltered,
}
_TYPE_3: Final[Mapping[str, Callable[[str], str]]] = {
    "IssuerOfPatientID": unaltered,
    "PatientAge": valid_age,
    "StudyDescription": long_string,
}
_SEQUENCES: Final[Mapping[str, Callable[[Attributes], list[Dataset]]]] = {
    "IssuerOfPatientIDQualifiersSequence": patient_id_qualifiers,
    "OtherPatientIDsSequence": other_patient_ids,
    "IssuerOfAccessionNumberSequence": lambda source: issuers(source, "IssuerOfAccessionNumberSequence"),
    "ProcedureCodeSequence": lambda source: codes(source, "ProcedureCodeSequence"),
}
# one at least names an order
_REQUEST: Final = (
    "RequestedProcedureID",
    "AccessionNumber",
    "RequestedProcedureDescription",
)
_EQUIPMENT: Final[Mapping[str, Callable[[str], str]]] = {
    "Manufacturer": long_string,
    "InstitutionName": long_string,
    "InstitutionalDepartmentName": long_string,
    "StationName": short_string,
    "ManufacturerModelName": long_string,
    "DeviceSerialNumber": long_string,
    "SoftwareVersions": long_string,
}


def patient_and_study(source: SourceImage) -> Dataset:
    """Return the attributes of patient and study, in ISO_IR 192 whatever the source's character set is."""
    attributes = source.attributes
    copied = dataset(SpecificCharacterSet="ISO_IR 192", StudyInstanceUID=source.study_instance_uid)
    mended = []
    for keyword, mend in (*_TYPE_2.items(), *_TYPE_3.items()):
        found = attributes.text(keyword)
        value = mend(found)
        if value or keyword in _TYPE_2:
            copied[keyword] = value
        if value != found:
            mended.append(keyword)
    for keyword, items in _SEQUENCES.items():
        if found_items := items(attributes):
            copied[keyword] = found_items
    if zone_offset(attributes) is not None:
        copied["TimezoneOffsetFromUTC"] = attributes.text("TimezoneOffsetFromUTC")
    if mended:
        log.info("header mended", sop_instance_uid=source.sop_instance_uid, attributes=mended)
    return copied


def procedures(source: SourceImage) -> list[Concept]:
    """Return the study's procedure codes, those that are well formed."""
    return [
        Concept(item["CodeValue"], item["CodingSchemeDesignator"], item["CodeMeaning"])
        for item in codes(source.attributes, "ProcedureCodeSequence")
    ]


def referenced_requests(source: SourceImage) -> list[Dataset]:
    """Return the orders that the image was acquired for (PS3.3 Table C.17-2, Referenced Request Sequence)."""
    items = source.attributes.items("RequestAttributesSequence")
    return [_request(item, source) for item in items if any(item.text(keyword) for keyword in _REQUEST)]


def acquisition_equipment(source: SourceImage) -> list[Dataset]:
    """Return the device that acquired the image, if the image names its manufacturer (PS3.3 Section C.12.1)."""
    named = {keyword: mend(source.attributes.text(keyword)) for keyword, mend in _EQUIPMENT.items()}
    if not named["Manufacturer"]:
        return []
    present = {keyword: value for keyword, value in named.items() if value}
    return [dataset(PurposeOfReferenceCodeSequence=[code_item(ACQUISITION_EQUIPMENT)], **present)]


def local_time(at: datetime, source: SourceImage, default: tzinfo | None) -> datetime:
    """Return `at` in the source's time zone, which governs every date and time of a report that repeats its offset.

    A source without one was written in the site's time, which nothing states: then the report is in `default`, or
    without a default in the host's zone.
    """
    offset = zone_offset(source.attributes)
    return at.astimezone(default if offset is None else timezone(offset))


def zone_offset(attributes: Attributes) -> timedelta | None:
    """Return Timezone Offset From UTC (0008,0201), None where it is absent or wrong."""
    match = re.fullmatch(r"([+-])([0-9]{2})([0-5][0-9])", attributes.text("TimezoneOffsetFromUTC"))
    if not match or match[0] == "-0000":  # PS3.3 Section C.12.1.1.8: from -1200 to +1400, and no -0000
        return None
    minutes = (int(match[2]) * 60 + int(match[3])) * (-1 if match[1] == "-" else 1)
    return timedelta(minutes=minutes) if -12 * 60 <= minutes <= 14 * 60 else None


def _request(item: Attributes, source: SourceImage) -> Dataset:
    request = dataset(
        StudyInstanceUID=item.text("StudyInstanceUID") or source.study_instance_uid,
        ReferencedStudySequence=[],
        AccessionNumber=item.text("AccessionNumber") or source.attributes.text("AccessionNumber"),
        PlacerOrderNumberImagingServiceRequest=item.text("PlacerOrderNumberImagingServiceRequest"),
        FillerOrderNumberImagingServiceRequest=item.text("FillerOrderNumberImagingServiceRequest"),
        RequestedProcedureID=item.text("RequestedProcedureID"),
        RequestedProcedureDescription=long_string(item.text("RequestedProcedureDescription")),
        RequestedProcedureCodeSequence=[],
    )
    if assigners := issuers(item, "IssuerOfAccessionNumberSequence"):
        request["IssuerOfAccessionNumberSequence"] = assigners
    return request
