"""The report as a Basic Text SR (PS3.16 TID 2000), for a PACS that shows no other: its words, the conclusion first."""

from __future__ import annotations

from collections.abc import Sequence

from scp_node.dicom.writing import Dataset
from scp_node.domain import BuiltObject, ModelIdentity, ReportedImage
from scp_node.report import codes
from scp_node.report.content.items import CONTAINS, HAS_CONCEPT_MOD, INFERRED_FROM, code, container, image, text
from scp_node.report.content.measurements import DIGEST_LENGTH
from scp_node.report.content.tree import observer
from scp_node.report.content.wording import image_sentence, study_sentence
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.common import built_object, document, envelope, quiet_pydicom, study_key
from scp_node.report.source.identity import remarks
from scp_node.report.source.source import SourceImage, read_source
from scp_node.report.version import ReportVersion


@quiet_pydicom()
def build_text_report(version: ReportVersion) -> BuiltObject:
    """Return what the report says in words alone; equal versions give equal bytes.

    Raises:
        UnreportableHeader: the header of an image cannot carry a report.
    """
    sources = [read_source(image) for image in version.images]
    instance = envelope(ObjectKind.TEXT, version, sources[0], study_key(version, sources[0]))
    instance.update(document(version, sources))
    instance.update(_content(version, sources))
    return built_object(ObjectKind.TEXT, instance)


def _content(version: ReportVersion, sources: Sequence[SourceImage]) -> Dataset:
    model, site = version.model, version.site
    outcomes = [image.outcome for image in version.images]
    findings = [_finding(image, source, model) for image, source in zip(version.images, sources, strict=True)]
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
                    text(CONTAINS, codes.CONCLUSION, study_sentence(outcomes, model, remarks(version, sources))),
                    text(CONTAINS, codes.CONCLUSION, made_by),
                ],
            ),
            container(CONTAINS, codes.FINDINGS, findings),
        ],
        template="2000",
    )


def _finding(reported: ReportedImage, source: SourceImage, model: ModelIdentity) -> Dataset:
    sentence = text(CONTAINS, codes.FINDING, image_sentence(reported.outcome, model))
    sentence["ContentSequence"] = [image(INFERRED_FROM, None, source.sop_class_uid, source.sop_instance_uid)]
    return sentence
