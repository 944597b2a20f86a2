"""What a report takes over from its source image: patient, study, order, acquisition; and how wrong values are mended.

Identifiers are never altered, not even invalid ones: a report that names another patient, study or order is worse than
an invalid one. Descriptions are cut and dates, ages and sexes dropped where the standard does not allow them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Any

from pydicom.dataset import Dataset

from scp_node.report.attributes import code_item, dataset, put
from scp_node.report.codes import ACQUISITION_EQUIPMENT, Concept
from scp_node.report.source import Attributes, SourceImage

LONGEST_SH = 16  # characters, PS3.5 Table 6.2-1
LONGEST_LO = 64


def patient_and_study(source: SourceImage) -> Dataset:
    """Return the attributes of the Patient, General Study and Patient Study modules, ready for ISO_IR 192."""
    attributes = source.attributes
    copied = dataset(SpecificCharacterSet="ISO_IR 192", StudyInstanceUID=source.study_instance_uid)
    for keyword, mend in _TYPE_2.items():
        put(copied, keyword, mend(attributes.text(keyword)))
    for keyword, mend in _TYPE_3.items():
        if value := mend(attributes.text(keyword)):
            put(copied, keyword, value)
    for keyword, macro in _SEQUENCES.items():
        if items := _copies(attributes, keyword, macro):
            put(copied, keyword, items)
    if zone_offset(attributes) is not None:
        put(copied, "TimezoneOffsetFromUTC", attributes.text("TimezoneOffsetFromUTC"))
    return copied


def procedures(source: SourceImage) -> list[Concept]:
    """Return the study's procedure codes, those that are well formed."""
    return [
        Concept(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
        for item in _copies(source.attributes, "ProcedureCodeSequence", _code)
    ]


def referenced_requests(source: SourceImage) -> list[Dataset]:
    """Return the orders that the image was acquired for (PS3.3 Table C.17-2, Referenced Request Sequence)."""
    return [_request(item, source) for item in source.attributes.items("RequestAttributesSequence")]


def acquisition_equipment(source: SourceImage) -> list[Dataset]:
    """Return the device that acquired the image, if the image names its manufacturer (PS3.3 Section C.12.1)."""
    named = {keyword: _cut(source.attributes.text(keyword), LONGEST_LO) for keyword in _EQUIPMENT}
    named["StationName"] = _cut(source.attributes.text("StationName"), LONGEST_SH)
    if not named["Manufacturer"]:
        return []
    present = {keyword: value for keyword, value in named.items() if value}
    return [dataset(PurposeOfReferenceCodeSequence=[code_item(ACQUISITION_EQUIPMENT)], **present)]


def local_time(at: datetime, source: SourceImage, default: tzinfo | None) -> datetime:
    """Return `at` in the source's time zone, which governs every date and time of a report that repeats its offset.

    A source without one was written in the site's time, which nothing states: then the report is, too, in `default`,
    or the host's zone.
    """
    offset = zone_offset(source.attributes)
    return at.astimezone(default if offset is None else timezone(offset))


def zone_offset(attributes: Attributes) -> timedelta | None:
    """Return Timezone Offset From UTC (0008,0201), None where it is absent or wrong."""
    match = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", attributes.text("TimezoneOffsetFromUTC"))
    if not match or match[0] == "-0000":  # PS3.3 Section C.12.1.1.8: -1200 to +1400, and no -0000
        return None
    minutes = (int(match[2]) * 60 + int(match[3])) * (-1 if match[1] == "-" else 1)
    return timedelta(minutes=minutes) if -12 * 60 <= minutes <= 14 * 60 else None


def valid_date(value: str) -> str:
    """Return `value` if it is a DA with a day that exists, else nothing."""
    if not re.fullmatch(r"[0-9]{8}", value):
        return ""
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return ""
    return value


def _valid_time(value: str) -> str:
    # 60 is the leap second (PS3.5 Table 6.2-1, TM)
    pattern = r"([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?"
    return value if re.fullmatch(pattern, value) else ""


def _valid_age(value: str) -> str:
    # "064Y"; "64Y" is clear and gets its zero, "64" could be days
    match = re.fullmatch(r"([0-9]{1,3})([DWMY])", value)
    return f"{int(match[1]):03}{match[2]}" if match else ""


def _valid_sex(value: str) -> str:
    return value if value in {"M", "F", "O"} else ""


def _as_it_is(value: str) -> str:
    return value


def _description(value: str) -> str:
    return _cut(value, LONGEST_LO)


def _cut(value: str, longest: int) -> str:
    printable = "".join(character if character.isprintable() else " " for character in value)
    return printable.replace("\\", " ")[:longest].rstrip()


Mend = Callable[[str], str]
Macro = Callable[[Attributes], Dataset | None]

_TYPE_2: Mapping[str, Mend] = {
    "PatientName": _as_it_is,
    "PatientID": _as_it_is,
    "PatientBirthDate": valid_date,
    "PatientSex": _valid_sex,
    "StudyDate": valid_date,
    "StudyTime": _valid_time,
    "ReferringPhysicianName": _as_it_is,
    "StudyID": _as_it_is,
    "AccessionNumber": _as_it_is,
}
_TYPE_3: Mapping[str, Mend] = {
    "IssuerOfPatientID": _as_it_is,
    "OtherPatientIDs": _as_it_is,
    "PatientAge": _valid_age,
    "StudyDescription": _description,
}
_EQUIPMENT = (
    "Manufacturer",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)


def _copies(attributes: Attributes, keyword: str, macro: Macro) -> list[Dataset]:
    return [copy for item in attributes.items(keyword) if (copy := macro(item))]


def _code(attributes: Attributes) -> Dataset | None:
    # PS3.3 Table 8.8-1, Code Value being type 1C: longer codes are rare and would need Long Code Value
    value, scheme, meaning = (attributes.text(k) for k in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
    if not (0 < len(value) <= LONGEST_SH and 0 < len(scheme) <= LONGEST_SH and meaning):
        return None
    item = code_item(Concept(value, scheme, _description(meaning)))
    if version := attributes.text("CodingSchemeVersion"):
        put(item, "CodingSchemeVersion", version)
    return item


def _issuer(attributes: Attributes) -> Dataset | None:
    # PS3.3 Table 10-17 HL7v2 Hierarchic Designator
    keywords = ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")
    present = {keyword: value for keyword in keywords if (value := attributes.text(keyword))}
    return dataset(**present) if present else None


def _patient_id_qualifiers(attributes: Attributes) -> Dataset | None:
    # PS3.3 Table 10-18 Issuer of Patient ID Macro
    keywords = ("UniversalEntityID", "UniversalEntityIDType", "IdentifierTypeCode")
    present: dict[str, Any] = {keyword: value for keyword in keywords if (value := attributes.text(keyword))}
    nested: Mapping[str, Macro] = {
        "AssigningFacilitySequence": _issuer,
        "AssigningJurisdictionCodeSequence": _code,
        "AssigningAgencyOrDepartmentCodeSequence": _code,
    }
    for keyword, macro in nested.items():
        if items := _copies(attributes, keyword, macro):
            present[keyword] = items
    return dataset(**present) if present else None


def _other_patient_id(attributes: Attributes) -> Dataset | None:
    # PS3.3 Table C.7-1
    if not (patient_id := attributes.text("PatientID")):
        return None
    item = dataset(PatientID=patient_id, TypeOfPatientID=attributes.text("TypeOfPatientID") or "TEXT")
    if assigner := attributes.text("IssuerOfPatientID"):
        put(item, "IssuerOfPatientID", assigner)
    if qualifiers := _copies(attributes, "IssuerOfPatientIDQualifiersSequence", _patient_id_qualifiers):
        put(item, "IssuerOfPatientIDQualifiersSequence", qualifiers)
    return item


_SEQUENCES: Mapping[str, Macro] = {
    "IssuerOfPatientIDQualifiersSequence": _patient_id_qualifiers,
    "OtherPatientIDsSequence": _other_patient_id,
    "IssuerOfAccessionNumberSequence": _issuer,
    "ProcedureCodeSequence": _code,
}


def _request(item: Attributes, source: SourceImage) -> Dataset:
    accession = item.text("AccessionNumber") or source.attributes.text("AccessionNumber")
    request = dataset(
        StudyInstanceUID=item.text("StudyInstanceUID") or source.study_instance_uid,
        ReferencedStudySequence=[],
        AccessionNumber=accession,
        PlacerOrderNumberImagingServiceRequest=item.text("PlacerOrderNumberImagingServiceRequest"),
        FillerOrderNumberImagingServiceRequest=item.text("FillerOrderNumberImagingServiceRequest"),
        RequestedProcedureID=item.text("RequestedProcedureID"),
        RequestedProcedureDescription=_description(item.text("RequestedProcedureDescription")),
        RequestedProcedureCodeSequence=[],
    )
    if issuers := _copies(item, "IssuerOfAccessionNumberSequence", _issuer):
        put(request, "IssuerOfAccessionNumberSequence", issuers)
    return request
