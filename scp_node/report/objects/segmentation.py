"""The regions of a film as a Segmentation (PS3.3 Section A.51), one segment each, for what reads no coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from scp_node.domain import BuiltObject, ModelIdentity, Region, ReportedImage
from scp_node.report import codes
from scp_node.report.attributes import code_item, dataset, put
from scp_node.report.content.regions import corners, region_identifier, region_uid, reported_regions
from scp_node.report.objects.common import (
    equipment,
    identity,
    part10_file,
    quiet_pydicom,
    referenced_instances,
    referenced_series,
    result_key,
    series,
)
from scp_node.report.site import Site
from scp_node.report.source.header import local_time, patient_and_study
from scp_node.report.source.mending import long_string
from scp_node.report.source.source import SourceImage, read_source
from scp_node.report.uids import derived_uid, digest

KIND: Final = "segmentation"
SERIES_OFFSET: Final = 3  # to the number of the report's series
_SEGMENT_NUMBER: Final = 0x0062000B  # Referenced Segment Number
_SEGMENT_IDENTIFICATION: Final = 0x0062000A


@quiet_pydicom()
def build_segmentation(
    *, image: ReportedImage, model: ModelIdentity, site: Site, version: int, at: datetime
) -> BuiltObject | None:
    """Return the regions of one film as filled rectangles, None where it has none; equal arguments give equal bytes.

    Raises:
        UnreportableHeader: the header cannot carry a report.
    """
    regions = reported_regions(image.outcome)
    source = read_source(image)
    rows, columns = (source.attributes.unsigned_short(keyword) for keyword in ("Rows", "Columns"))
    if not (regions and rows and columns):
        return None
    key = (source.sop_instance_uid, model.digest, digest(result_key(image)), str(version))
    instance_uid = derived_uid(KIND, site.installation, *key)
    series_uid = derived_uid("segmentation series", site.installation, source.study_instance_uid, model.digest)
    made = patient_and_study(source)
    for keyword, value in {
        **series("SEG", series_uid, site.series_number + SERIES_OFFSET, f"AI PNEUMONIA regions {model.version}"),
        **equipment(site, model, source),
        **identity(SegmentationStorage, instance_uid, local_time(at, source, site.time_zone)),
        "InstanceNumber": version,
        **_image(rows, columns, len(regions)),
        "SegmentSequence": [_segment(source, region, number, model) for number, region in enumerate(regions, start=1)],
        **_frames(source, len(regions), derived_uid("dimensions", instance_uid)),
        "PixelData": _packed([_mask(source, region, rows, columns) for region in regions]),
    }.items():
        put(made, keyword, value)
    made["PixelData"].VR = "OB"
    return BuiltObject(
        kind=KIND,
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=instance_uid,
        series_instance_uid=series_uid,
        file=part10_file(made),
    )


def _image(rows: int, columns: int, frames: int) -> dict[str, Any]:
    return {
        "ImageType": ["DERIVED", "PRIMARY"],
        "ContentLabel": "AI_REGIONS",
        "ContentDescription": "AI result, not for diagnostic use",
        "ContentCreatorName": "",
        "SegmentationType": "BINARY",
        "LossyImageCompression": "00",
        "PatientOrientation": [],
        "NumberOfFrames": frames,
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "PixelRepresentation": 0,
    }


def _segment(source: SourceImage, region: Region, number: int, model: ModelIdentity) -> Dataset:
    algorithm = dataset(
        AlgorithmFamilyCodeSequence=[code_item(codes.ARTIFICIAL_INTELLIGENCE)],
        AlgorithmName=long_string(model.name),
        AlgorithmVersion=long_string(model.version),
    )
    return dataset(
        SegmentNumber=number,
        SegmentLabel=f"AI opacity {100 * region.score:.0f} %",
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=long_string(model.bundle),
        SegmentationAlgorithmIdentificationSequence=[algorithm],
        SegmentedPropertyCategoryCodeSequence=[code_item(codes.MORPHOLOGICALLY_ABNORMAL)],
        SegmentedPropertyTypeCodeSequence=[code_item(codes.OPACITY)],
        TrackingID=region_identifier(number),
        TrackingUID=region_uid(source, region),
    )


def _frames(source: SourceImage, frames: int, organization_uid: str) -> dict[str, Any]:
    """Return the functional groups: frame n is segment n, derived from the film."""
    derived = dataset(
        DerivationCodeSequence=[code_item(codes.SEGMENTATION)],
        SourceImageSequence=[_source_image(source)],
    )
    per_frame = [
        dataset(
            FrameContentSequence=[dataset(DimensionIndexValues=[number])],
            SegmentIdentificationSequence=[dataset(ReferencedSegmentNumber=number)],
            DerivationImageSequence=[derived],
        )
        for number in range(1, frames + 1)
    ]
    index = dataset(
        DimensionOrganizationUID=organization_uid,
        DimensionIndexPointer=_SEGMENT_NUMBER,
        FunctionalGroupPointer=_SEGMENT_IDENTIFICATION,
        DimensionDescriptionLabel="Segment Number",
    )
    images = {source.sop_instance_uid: source.sop_class_uid}
    reference = referenced_series(source.series_instance_uid, images)
    instances = dataset(
        SeriesInstanceUID=reference.SeriesInstanceUID, ReferencedInstanceSequence=referenced_instances(images)
    )
    return {
        "SharedFunctionalGroupsSequence": [dataset()],
        "PerFrameFunctionalGroupsSequence": per_frame,
        "DimensionOrganizationSequence": [dataset(DimensionOrganizationUID=organization_uid)],
        "DimensionIndexSequence": [index],
        "ReferencedSeriesSequence": [instances],
    }


def _source_image(source: SourceImage) -> Dataset:
    return dataset(
        ReferencedSOPClassUID=source.sop_class_uid,
        ReferencedSOPInstanceUID=source.sop_instance_uid,
        SpatialLocationsPreserved="YES",
        PurposeOfReferenceCodeSequence=[code_item(codes.SOURCE_IMAGE)],
    )


def _mask(source: SourceImage, region: Region, rows: int, columns: int) -> NDArray[np.bool_]:
    (left, top), _, (right, bottom), *_ = corners(source, region)
    mask = np.zeros((rows, columns), bool)
    mask[round(top) : max(round(bottom), round(top) + 1), round(left) : max(round(right), round(left) + 1)] = True
    return mask


def _packed(masks: Sequence[NDArray[np.bool_]]) -> bytes:
    """Return the frames, one bit a pixel, without gaps between them (PS3.5 Section 8.1.1), of even length."""
    packed = np.packbits(np.stack(masks).ravel(), bitorder="little").tobytes()
    return packed + b"\0" * (len(packed) % 2)
