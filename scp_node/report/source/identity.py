"""Who the images of a report name: one patient by the ID, but perhaps not in one spelling."""

from __future__ import annotations

from collections.abc import Sequence

from scp_node.dicom.inspection import folded_name, patient_key, qualified_issuer
from scp_node.report.source.source import SourceImage
from scp_node.report.version import Remark, ReportVersion


def remarks(version: ReportVersion, sources: Sequence[SourceImage]) -> tuple[Remark, ...]:
    """Return what the report says of the study beside the results."""
    differ = (Remark.SPELLINGS_DIFFER,) if _spellings_differ(sources) else ()
    return (*version.remarks, *differ)


def key_of_patient(source: SourceImage) -> str:
    """Return the key of the patient that an image names; see `patient_key`."""
    text, qualifiers = source.attributes.text, source.attributes.items("IssuerOfPatientIDQualifiersSequence")
    return patient_key(
        patient_id=text("PatientID"),
        issuer=qualified_issuer(text("IssuerOfPatientID"), [item.text("UniversalEntityID") for item in qualifiers]),
        name=text("PatientName"),
        birth_date=text("PatientBirthDate"),
    )


def _spellings_differ(sources: Sequence[SourceImage]) -> bool:
    """Return whether two images state another name or birth date; an image that states none agrees with all."""
    names = {folded_name(source.attributes.text("PatientName")) for source in sources}
    days = {source.attributes.text("PatientBirthDate").strip() for source in sources}
    return max(len(names - {""}), len(days - {""})) > 1
