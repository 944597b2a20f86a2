"""The report of a study: one DICOM Structured Report (PS3.16 TID 1500), from values to bytes."""

from __future__ import annotations

from datetime import UTC, datetime

from scp_node.dicom.syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from scp_node.dicom.writing import encoded
from scp_node.domain import BuiltReport, Finding, ModelIdentity, ReportedImage
from scp_node.report.attributes import dataset
from scp_node.report.content.tree import content
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.common import (
    built_object,
    content_digest,
    document,
    envelope,
    evidence,
    quiet_pydicom,
    study_key,
)
from scp_node.report.site import Site
from scp_node.report.source.source import read_source
from scp_node.report.version import ReportVersion


@quiet_pydicom()
def build_report(version: ReportVersion) -> BuiltReport:
    """Return the report; equal versions give equal bytes.

    Raises:
        UnreportableHeader: the header of an image cannot carry a report.
        ValueError: the images are of several studies, or a threshold is not between 0 and 1.
    """
    sources = [read_source(image) for image in version.images]
    first, study_uid = sources[0], sources[0].study_instance_uid
    if any(source.study_instance_uid != study_uid for source in sources):
        raise ValueError("a report is of one study")
    instance = envelope(ObjectKind.REPORT, version, first, study_key(version, first))
    instance.update(document(version, sources))
    if version.previous:
        instance["PredecessorDocumentsSequence"] = [evidence(study_uid, [version.previous])]
    instance.update(content(version, sources))
    built = built_object(ObjectKind.REPORT, instance)
    return BuiltReport(
        study_uid=study_uid,
        sop_class_uid=built.sop_class_uid,
        sop_instance_uid=built.sop_instance_uid,
        series_instance_uid=built.series_instance_uid,
        content_digest=content_digest(version, first),
        file=built.file,
    )


@quiet_pydicom()
def report_digest(version: ReportVersion) -> str:
    """Return the digest of what the report says, without building it.

    Raises:
        UnreportableHeader: the header of the first image cannot carry a report.
    """
    return content_digest(version, read_source(version.images[0]))


def warm_up() -> None:
    """Build one report and throw it away, so that pydicom has loaded all that it loads at first use."""
    source = dataset(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", SeriesInstanceUID="1.2", StudyInstanceUID="1.2", PatientName="A"
    )
    image = ReportedImage(
        sop_instance_uid="1.2.3",
        header=b"".join(encoded(source)),
        transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        outcome=Finding(probability=0.5, logit=0.0, threshold=0.5),
    )
    model = ModelIdentity(name="", version="", digest="", status="research", threshold=0.5, calibration="none")
    site = Site(
        installation="",
        ae_title="",
        manufacturer="",
        model_name="",
        software_version="",
        series_number=1,
        series_description="",
        time_zone=UTC,
    )
    build_report(ReportVersion(images=[image], model=model, site=site, at=datetime(2000, 1, 1, tzinfo=UTC)))
