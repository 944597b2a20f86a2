"""A report of nobody, by which a person tries a destination: marked as a test wherever people look."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from scp_node.domain import BuiltObject
from scp_node.report import codes
from scp_node.report.attributes import dataset
from scp_node.report.content.items import CONTAINS, HAS_CONCEPT_MOD, code, container, text
from scp_node.report.content.tree import observer
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.common import part10_file, quiet_pydicom
from scp_node.report.site import Site
from scp_node.report.source.mending import long_string
from scp_node.report.uids import derived_uid

TRIAL: Final = "test"  # in place of the word of a kind: the ledger never holds such an object
PATIENT_NAME: Final = "TEST^SCP-NODE"
PATIENT_ID: Final = "SCP-NODE-TEST"
WORDS: Final = "THIS IS A TEST, NO PATIENT"


@quiet_pydicom()
def build_trial_report(site: Site, at: datetime) -> BuiltObject:
    """Return a small Comprehensive 3D SR (PS3.16 TID 2000) about nobody, made at the aware instant `at`.

    All of one installation and day lie in one study, which begins at midnight in the zone of the site. Each instant
    gives another SOP Instance UID.
    """
    local = at.astimezone(site.time_zone)
    day, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    instance = dataset(
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=ObjectKind.REPORT.sop_class_uid,
        SOPInstanceUID=derived_uid("trial", site.installation, at.isoformat()),
        InstanceCreationDate=day,
        InstanceCreationTime=time,
        PatientName=PATIENT_NAME,
        PatientID=PATIENT_ID,
        PatientBirthDate="",
        PatientSex="",
        StudyInstanceUID=derived_uid("trial study", site.installation, day),
        StudyDate=day,
        StudyTime="000000",
        ReferringPhysicianName="",
        StudyID="TEST",
        AccessionNumber="",
        StudyDescription=WORDS,
        Modality=ObjectKind.REPORT.modality,
        SeriesInstanceUID=derived_uid("trial series", site.installation, day),
        SeriesNumber=site.series_number,
        SeriesDescription=WORDS,
        Manufacturer=site.manufacturer,
        ManufacturerModelName=site.model_name,
        DeviceSerialNumber=site.installation,
        SoftwareVersions=long_string(site.software_version),
        ReferencedPerformedProcedureStepSequence=[],
        PerformedProcedureCodeSequence=[],
        InstanceNumber=1,
        ContentDate=day,
        ContentTime=time,
        CompletionFlag="COMPLETE",
        VerificationFlag="UNVERIFIED",
        PreliminaryFlag="PRELIMINARY",
    )
    sentence = f"{WORDS}. It shows that {site.ae_title} can send reports here, and says nothing about any film."
    instance.update(
        container(
            None,
            codes.DIAGNOSTIC_IMAGING_REPORT,
            [
                code(HAS_CONCEPT_MOD, codes.LANGUAGE, codes.ENGLISH),
                *observer(site),
                container(CONTAINS, codes.CONCLUSIONS, [text(CONTAINS, codes.CONCLUSION, sentence)]),
            ],
            template="2000",
        )
    )
    return BuiltObject(
        kind=TRIAL,
        sop_class_uid=instance["SOPClassUID"],
        sop_instance_uid=instance["SOPInstanceUID"],
        series_instance_uid=instance["SeriesInstanceUID"],
        file=part10_file(instance),
    )
