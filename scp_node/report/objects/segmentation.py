"""The regions of a film as a Segmentation (PS3.3 Section A.51), one segment each, for what reads no coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scp_node.dicom.writing import Dataset
from scp_node.domain import BuiltObject, ModelIdentity, Region, ReportedImage
from scp_node.report import codes
from scp_node.report.attributes import code_item, dataset
from scp_node.report.content.regions import corners, region_identifier, region_uid, reported_regions
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.common import (
    built_object,
    envelope,
    image_key,
    quiet_pydicom,
    reference,
    source_image,
)
from scp_node.report.source.mending import long_string
from scp_node.report.source.source import SourceImage, read_source
from scp_node.report.uids import derived_uid
from scp_node.report.version import ReportVersion

_SEGMENT_NUMBER: Final = 0x0062000B  # Referenced Segment Number
_SEGMENT_IDENTIFICATION: Final = 0x0062000A


@quiet_pydicom()
def build_segmentation(version: ReportVersion, *, image: ReportedImage) -> BuiltObject | None:
    """Return the regions of one film as filled rectangles, None where it has none; equal arguments give equal bytes.

    Raises:
        UnreportableHeader: the header cannot carry a report.
    """
    regions = reported_regions(image.outcome)
    source = read_source(image)
    rows, columns = (source.attributes.unsigned_short(keyword) for keyword in ("Rows", "Columns"))
    if not (regions and rows and columns):
        return None
    instance = envelope(ObjectKind.SEGMENTATION, version, source, image_key(version, image, source))
    instance.update(_image([_mask(source, region, rows, columns) for region in regions]))
    instance.update(_frames(source, len(regions), derived_uid("dimensions", instance["SOPInstanceUID"])))
    segments = [_segment(source, region, number, version.model) for number, region in enumerate(regions, start=1)]
    instance.update(dataset(SegmentSequence=segments))
    return built_object(ObjectKind.SEGMENTATION, instance)


def _image(masks: Sequence[NDArray[np.bool_]]) -> Dataset:
    rows, columns = masks[0].shape
    return dataset(
        ImageType=["DERIVED", "PRIMARY"],
        ContentLabel="AI_REGIONS",
        ContentDescription="AI result, not for diagnostic use",
        ContentCreatorName="",
        SegmentationType="BINARY",
        LossyImageCompression="00",
        PatientOrientation=[],
        NumberOfFrames=len(masks),
        Rows=rows,
        Columns=columns,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelRepresentation=0,
        PixelData=_packed(masks),
    )


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


def _frames(source: SourceImage, frames: int, organization_uid: str) -> Dataset:
    """Return the functional groups: frame n is segment n, derived from the film."""
    derived = dataset(
        DerivationCodeSequence=[code_item(codes.SEGMENTATION)],
        SourceImageSequence=[source_image(source, same_place=True)],
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
    film = dataset(SeriesInstanceUID=source.series_instance_uid, ReferencedInstanceSequence=[reference(source)])
    return dataset(
        SharedFunctionalGroupsSequence=[dataset()],
        PerFrameFunctionalGroupsSequence=per_frame,
        DimensionOrganizationSequence=[dataset(DimensionOrganizationUID=organization_uid)],
        DimensionIndexSequence=[index],
        ReferencedSeriesSequence=[film],
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
