"""The report as a Basic Text SR (PS3.16 TID 2000), for a PACS that shows no other: its words, the conclusion first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

from scp_node.domain import BuiltObject, BuiltReport, ModelIdentity, ReportedImage
from scp_node.report import codes
from scp_node.report.attributes import put
from scp_node.report.content.items import CONTAINS, HAS_CONCEPT_MOD, INFERRED_FROM, code, container, image, text
from scp_node.report.content.measurements import DIGEST_LENGTH
from scp_node.report.content.tree import observer
from scp_node.report.content.wording import image_sentence, study_sentence
from scp_node.report.objects.common import document, equipment, evidence, identity, part10_file, quiet_pydicom, series
from scp_node.report.site import Site
from scp_node.report.source.header import local_time, patient_and_study
from scp_node.report.source.source import SourceImage, read_source
from scp_node.report.uids import derived_uid

KIND: Final = "text"
SERIES_OFFSET: Final = -1  # to the number of the report's series


@quiet_pydicom()
def build_text_report(
    *,
    images: Sequence[ReportedImage],
    report: BuiltReport,
    model: ModelIdentity,
    site: Site,
    version: int,
    at: datetime,
    incomplete: bool = False,
) -> BuiltObject:
    """Return what `report` says of these images in words alone; equal arguments give equal bytes.

    Raises:
        UnreportableHeader: the header of an image cannot carry a report.
    """
    sources = [read_source(image) for image in images]
    first = sources[0]
    instance_uid = derived_uid(KIND, site.installation, report.content_digest, str(version))
    series_uid = derived_uid("text series", site.installation, report.study_uid, model.digest)
    made = patient_and_study(first)
    for keyword, value in {
        **series("SR", series_uid, site.series_number + SERIES_OFFSET, f"AI PNEUMONIA text {model.version}"),
        **equipment(site, model, first),
        **identity(BasicTextSRStorage, instance_uid, local_time(at, first, site.time_zone)),
        **document(images, first, incomplete=incomplete),
        "CurrentRequestedProcedureEvidenceSequence": [evidence(sources)],
        "InstanceNumber": version,
    }.items():
        put(made, keyword, value)
    made.update(_content(images, sources, model, site, incomplete=incomplete))
    return BuiltObject(
        kind=KIND,
        sop_class_uid=BasicTextSRStorage,
        sop_instance_uid=instance_uid,
        series_instance_uid=series_uid,
        file=part10_file(made),
    )


def _content(
    images: Sequence[ReportedImage],
    sources: Sequence[SourceImage],
    model: ModelIdentity,
    site: Site,
    *,
    incomplete: bool,
) -> Dataset:
    outcomes = [image.outcome for image in images]
    findings = [_finding(image, source, model) for image, source in zip(images, sources, strict=True)]
    made_by = (
        f"Made by {model.bundle} ({model.digest[:DIGEST_LENGTH]}), {model.status}. {site.model_name} {site.ae_title}."
    )
    return container(
        None,
        codes.DIAGNOSTIC_IMAGING_REPORT,
        [
            code(HAS_CONCEPT_MOD, codes.LANGUAGE, codes.ENGLISH),
            *observer(site),
            container(
                CONTAINS,
                codes.CONCLUSIONS,
                [
                    text(CONTAINS, codes.CONCLUSION, study_sentence(outcomes, model, incomplete=incomplete)),
                    text(CONTAINS, codes.CONCLUSION, made_by),
                ],
            ),
            container(CONTAINS, codes.FINDINGS, findings),
        ],
        template="2000",
    )


def _finding(reported: ReportedImage, source: SourceImage, model: ModelIdentity) -> Dataset:
    said = text(CONTAINS, codes.FINDING, image_sentence(reported.outcome, model))
    put(said, "ContentSequence", [image(INFERRED_FROM, None, source.sop_class_uid, source.sop_instance_uid)])
    return said
