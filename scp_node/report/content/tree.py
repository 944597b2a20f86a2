"""The content tree of a report (PS3.16 TID 1500)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scp_node.dicom.writing import Dataset
from scp_node.report import codes
from scp_node.report.content.image_library import image_library
from scp_node.report.content.items import (
    CONTAINS,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    code,
    container,
    text,
    uid_reference,
)
from scp_node.report.content.measurements import conclusion, measurement_group
from scp_node.report.content.regions import region_groups
from scp_node.report.site import Site
from scp_node.report.source.header import procedures
from scp_node.report.source.identity import remarks
from scp_node.report.source.source import SourceImage
from scp_node.report.uids import derived_uid
from scp_node.report.version import ReportVersion


def content(version: ReportVersion, sources: Sequence[SourceImage]) -> Dataset:
    """Return the root of the tree: who observed, the images, each image's result, and the conclusion."""
    groups, seen = [], Counter[str]()
    for image, source in zip(version.images, sources, strict=True):
        # two images that came under one UID (a conflict) are two groups: viewers merge equal tracking UIDs
        occurrence = str(seen[source.sop_instance_uid])
        seen[source.sop_instance_uid] += 1
        tracking_uid = derived_uid("tracking", source.sop_instance_uid, codes.PNEUMONIA.value, occurrence)
        groups.append(measurement_group(source, image.outcome, version.model, tracking_uid))
        groups += region_groups(source, image.outcome, version.model, occurrence)
    distinct = {source.sop_instance_uid: source for source in reversed(sources)}
    return container(
        None,
        codes.IMAGING_MEASUREMENT_REPORT,
        [
            code(HAS_CONCEPT_MOD, codes.LANGUAGE, codes.ENGLISH),
            *observer(version.site),
            *_procedures(sources[0]),
            image_library([*reversed(distinct.values())]),
            container(CONTAINS, codes.IMAGING_MEASUREMENTS, groups),
            conclusion([image.outcome for image in version.images], version.model, remarks(version, sources)),
        ],
        template="1500",
    )


def observer(site: Site) -> list[Dataset]:
    """Return who observed (PS3.16 TID 1002)."""
    # a device and no person: nobody has verified
    return [
        code(HAS_OBS_CONTEXT, codes.OBSERVER_TYPE, codes.DEVICE),
        uid_reference(HAS_OBS_CONTEXT, codes.DEVICE_OBSERVER_UID, site.device_uid),
        text(HAS_OBS_CONTEXT, codes.DEVICE_OBSERVER_NAME, site.ae_title),
        text(HAS_OBS_CONTEXT, codes.DEVICE_OBSERVER_MANUFACTURER, site.manufacturer),
        text(HAS_OBS_CONTEXT, codes.DEVICE_OBSERVER_MODEL_NAME, site.model_name),
        text(HAS_OBS_CONTEXT, codes.DEVICE_OBSERVER_SERIAL_NUMBER, site.installation),
    ]


def _procedures(source: SourceImage) -> list[Dataset]:
    reported = procedures(source) or [codes.IMAGING_PROCEDURE]
    return [code(HAS_CONCEPT_MOD, codes.PROCEDURE_REPORTED, procedure) for procedure in reported]
