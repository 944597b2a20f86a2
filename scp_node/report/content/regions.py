"""Where the opacities of a positive image lie, one measurement group each (PS3.16 TID 1410)."""

from __future__ import annotations

from typing import Final

from scp_node.dicom.writing import Dataset
from scp_node.domain import Finding, ModelIdentity, Outcome, Region
from scp_node.report import codes
from scp_node.report.content.items import (
    CONTAINS,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    SELECTED_FROM,
    code,
    container,
    image,
    number,
    polyline,
    text,
    uid_reference,
)
from scp_node.report.content.measurements import algorithm
from scp_node.report.source.source import SourceImage
from scp_node.report.uids import derived_uid

TRACKING_IDENTIFIER: Final = "Opacity"


def reported_regions(outcome: Outcome) -> tuple[Region, ...]:
    """Return the regions that belong in a report: those of a positive image, whatever else holds some."""
    if isinstance(outcome, Finding) and outcome.is_positive:
        return outcome.regions
    return ()


def region_groups(source: SourceImage, outcome: Outcome, model: ModelIdentity, occurrence: str) -> list[Dataset]:
    """Return a group for each region of one image; `occurrence` tells images under one UID apart."""
    regions = reported_regions(outcome)
    return [_group(source, region, model, number, occurrence) for number, region in enumerate(regions, start=1)]


def region_identifier(number: int) -> str:
    """Return the Tracking Identifier of a region, from 1."""
    return f"{TRACKING_IDENTIFIER} {number}"


def region_uid(source: SourceImage, region: Region, occurrence: str = "0") -> str:
    """Return the Tracking Unique Identifier of a region: the same in every object that shows it."""
    # the place is in the key: another model's box is another statement, not the same opacity followed up
    place = [repr(coordinate) for point in corners(source, region) for coordinate in point]
    return derived_uid("tracking", source.sop_instance_uid, codes.OPACITY.value, occurrence, *place)


def _group(source: SourceImage, region: Region, model: ModelIdentity, index: int, occurrence: str) -> Dataset:
    outline, uid = corners(source, region), region_uid(source, region, occurrence)
    reference = image(SELECTED_FROM, None, source.sop_class_uid, source.sop_instance_uid)
    threshold = {} if model.region_threshold is None else {"region_threshold": repr(model.region_threshold)}
    return container(
        CONTAINS,
        codes.MEASUREMENT_GROUP,
        [
            text(HAS_OBS_CONTEXT, codes.TRACKING_IDENTIFIER, region_identifier(index)),
            uid_reference(HAS_OBS_CONTEXT, codes.TRACKING_UNIQUE_IDENTIFIER, uid),
            code(CONTAINS, codes.FINDING, codes.OPACITY),
            polyline(CONTAINS, codes.IMAGE_REGION, outline, reference),
            code(HAS_CONCEPT_MOD, codes.FINDING_SITE, codes.LUNG),
            *algorithm(model, threshold),
            number(CONTAINS, codes.CERTAINTY_OF_FINDING, f"{100 * region.score:.1f}", codes.PERCENT),
        ],
        template="1410",
    )


def corners(source: SourceImage, region: Region) -> list[tuple[float, float]]:
    """Return the closed outline in pixels of the image, to a tenth.

    The network's input is the whole image, resized without regard to its aspect ratio: a share of the input is the
    same share of the image. (0, 0) is the outer corner of the first pixel (PS3.3 Section C.18.6.1.1).
    """
    columns = source.attributes.unsigned_short("Columns") or 1
    rows = source.attributes.unsigned_short("Rows") or 1
    left, right = (round(share * columns, 1) for share in (region.left, region.right))
    top, bottom = (round(share * rows, 1) for share in (region.top, region.bottom))
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
