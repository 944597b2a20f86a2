"""Codes, issuers and further identifiers, copied item by item from a source header: known attributes only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scp_node.dicom.writing import Dataset
from scp_node.report.attributes import code_item, dataset
from scp_node.report.codes import Concept
from scp_node.report.source.mending import LONGEST_SH, long_string
from scp_node.report.source.source import Attributes


def codes(attributes: Attributes, keyword: str) -> list[Dataset]:
    """Return the items of a code sequence that are well formed (PS3.3 Table 8.8-1)."""
    return _copies(attributes, keyword, _code)


def issuers(attributes: Attributes, keyword: str) -> list[Dataset]:
    """Return the items of an issuer or facility sequence (PS3.3 Table 10-17, HL7v2 Hierarchic Designator)."""
    return _copies(attributes, keyword, _issuer)


def patient_id_qualifiers(attributes: Attributes) -> list[Dataset]:
    """Return Issuer of Patient ID Qualifiers Sequence (PS3.3 Table 10-18)."""
    return _copies(attributes, "IssuerOfPatientIDQualifiersSequence", _qualifiers)


def other_patient_ids(attributes: Attributes) -> list[Dataset]:
    """Return Other Patient IDs Sequence (PS3.3 Table C.7-1), with what stands in its retired form (0010,1000) too."""
    known = {"", *(item.text("PatientID") for item in attributes.items("OtherPatientIDsSequence"))}
    retired = [patient_id for patient_id in attributes.texts("OtherPatientIDs") if patient_id not in known]
    items = _copies(attributes, "OtherPatientIDsSequence", _other_patient_id)
    return [*items, *(dataset(PatientID=patient_id, TypeOfPatientID="TEXT") for patient_id in retired)]


def _copies(attributes: Attributes, keyword: str, copy: Callable[[Attributes], Dataset | None]) -> list[Dataset]:
    return [copied for item in attributes.items(keyword) if (copied := copy(item))]


def _present(attributes: Attributes, *keywords: str) -> dict[str, Any]:
    return {keyword: value for keyword in keywords if (value := attributes.text(keyword))}


def _code(attributes: Attributes) -> Dataset | None:
    # longer codes stand in Long Code Value: too rare to be copied
    value, scheme, meaning = (attributes.text(k) for k in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
    if not (meaning and all(0 < len(part) <= LONGEST_SH and "\\" not in part for part in (value, scheme))):
        return None
    item = code_item(Concept(value, scheme, long_string(meaning)))
    if version := attributes.text("CodingSchemeVersion"):
        item["CodingSchemeVersion"] = version
    return item


def _issuer(attributes: Attributes) -> Dataset | None:
    present = _present(attributes, "LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")
    return dataset(**present) if present else None


def _qualifiers(attributes: Attributes) -> Dataset | None:
    present = _present(attributes, "UniversalEntityID", "UniversalEntityIDType", "IdentifierTypeCode")
    for keyword, items in (
        ("AssigningFacilitySequence", issuers),
        ("AssigningJurisdictionCodeSequence", codes),
        ("AssigningAgencyOrDepartmentCodeSequence", codes),
    ):
        if copied := items(attributes, keyword):
            present[keyword] = copied
    return dataset(**present) if present else None


def _other_patient_id(attributes: Attributes) -> Dataset | None:
    present = _present(attributes, "PatientID", "IssuerOfPatientID")
    if "PatientID" not in present:
        return None
    present["TypeOfPatientID"] = attributes.text("TypeOfPatientID") or "TEXT"  # type 1, often missing
    if qualifiers := patient_id_qualifiers(attributes):
        present["IssuerOfPatientIDQualifiersSequence"] = qualifiers
    return dataset(**present)
