"""The report of a study: one DICOM Structured Report (PS3.16 TID 1500), from values to bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from scp_node.domain import BuiltReport, Finding, ModelIdentity, PreviousReport, ReportedImage
from scp_node.report.attributes import dataset, put
from scp_node.report.content.tree import content
from scp_node.report.objects.common import (
    document,
    equipment,
    evidence,
    identity,
    part10_file,
    quiet_pydicom,
    referenced_series,
    result_key,
    series,
)
from scp_node.report.site import Site
from scp_node.report.source.header import local_time, patient_and_study
from scp_node.report.source.source import SourceImage, read_source
from scp_node.report.uids import derived_uid, digest

SOP_CLASS_UID: Final = Comprehensive3DSRStorage  # the same bytes serve two more classes: see `sop_class`


def build_report(
    *,
    study_images: Sequence[ReportedImage],
    model: ModelIdentity,
    site: Site,
    previous: PreviousReport | None,
    at: datetime,
    incomplete: bool = False,
) -> BuiltReport:
    """Return the report of these images of one study; equal arguments give equal bytes.

    Patient and study are the first image's. `at` is an aware time. `incomplete` means that images may be missing: the
    association of the sender ended early.

    Raises:
        UnreportableHeader: the header of an image cannot carry a report.
        ValueError: no image, images of several studies, a probability that is none, or a time without a zone.
    """
    if not study_images or at.tzinfo is None:
        raise ValueError("a report needs an image and a time with its zone")
    with quiet_pydicom():
        return _build(study_images, model, site, previous, at, incomplete=incomplete)


def warm_up() -> None:
    """Build one report and throw it away: what pydicom loads at first use is then loaded."""
    header = BytesIO()
    source = dataset(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", SeriesInstanceUID="1.2", StudyInstanceUID="1.2", PatientName="A"
    )
    dcmwrite(header, source, implicit_vr=False, little_endian=True)
    image = ReportedImage(
        sop_instance_uid="1.2.3",
        header=header.getvalue(),
        transfer_syntax=ExplicitVRLittleEndian,
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
    build_report(study_images=[image], model=model, site=site, previous=None, at=datetime(2000, 1, 1, tzinfo=UTC))


def _build(
    images: Sequence[ReportedImage],
    model: ModelIdentity,
    site: Site,
    previous: PreviousReport | None,
    at: datetime,
    *,
    incomplete: bool,
) -> BuiltReport:
    sources = [read_source(image) for image in images]
    first = sources[0]
    if any(source.study_instance_uid != first.study_instance_uid for source in sources):
        raise ValueError("a report is of one study")
    content_digest = _content_digest(first.study_instance_uid, images, model, incomplete=incomplete)
    version = previous.version + 1 if previous else 1
    # the version is in the key: a third version that says what the first said is another object
    instance_uid = derived_uid("report", site.installation, content_digest, str(version))
    series_uid = derived_uid("report series", site.installation, first.study_instance_uid, model.digest)
    report = patient_and_study(first)
    for keyword, value in {
        **_series_and_equipment(site, model, first, series_uid),
        **identity(SOP_CLASS_UID, instance_uid, local_time(at, first, site.time_zone)),
        **document(images, first, incomplete=incomplete),
        **_references(sources, previous),
        "InstanceNumber": version,
    }.items():
        put(report, keyword, value)
    report.update(content(images, sources, model, site, incomplete=incomplete))
    return BuiltReport(
        study_uid=first.study_instance_uid,
        sop_class_uid=SOP_CLASS_UID,
        sop_instance_uid=instance_uid,
        series_instance_uid=series_uid,
        content_digest=content_digest,
        file=part10_file(report),
    )


def _content_digest(study_uid: str, images: Sequence[ReportedImage], model: ModelIdentity, *, incomplete: bool) -> str:
    # The result is part of it: with the sources alone, the retry of a failed analysis would get the failed report's
    # UID, and the archive would keep the first of the two without a word.
    results = sorted([image.sop_instance_uid, *result_key(image)] for image in images)
    operation = [model.digest, model.status, model.calibration, repr(model.threshold)]  # the detector is in the digest
    if model.grey_zone:
        operation.append(f"grey zone {model.grey_zone!r}")
    if incomplete:
        operation.append("study may be incomplete")
    return digest(["report", study_uid, results, operation])


def _series_and_equipment(site: Site, model: ModelIdentity, source: SourceImage, series_uid: str) -> dict[str, Any]:
    # a series' attributes are those of all its instances: the model's version stands here, a report's is its number
    return {
        **series("SR", series_uid, site.series_number, f"{site.series_description} {model.version}"),
        **equipment(site, model, source),
    }


def _references(sources: Sequence[SourceImage], previous: PreviousReport | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {"CurrentRequestedProcedureEvidenceSequence": [evidence(sources)]}
    if previous:
        attributes["PredecessorDocumentsSequence"] = [_predecessor(previous, sources[0].study_instance_uid)]
    return attributes


def _predecessor(previous: PreviousReport, study_uid: str) -> Dataset:
    series = referenced_series(previous.series_instance_uid, {previous.sop_instance_uid: previous.sop_class_uid})
    return dataset(StudyInstanceUID=study_uid, ReferencedSeriesSequence=[series])
