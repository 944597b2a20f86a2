"""The overlay: a Secondary Capture of a film with the class activation map and the result, for viewers without SR."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from scp_node.dicom.writing import Dataset
from scp_node.domain import BuiltObject, Finding, ReportedImage
from scp_node.report.attributes import dataset
from scp_node.report.content.attention import CONTOUR, activation_map
from scp_node.report.content.measurements import DIGEST_LENGTH
from scp_node.report.content.regions import reported_regions
from scp_node.report.content.wording import REMARKS, image_sentence, operating_point, percent, short_comment
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.common import (
    built_object,
    envelope,
    image_key,
    quiet_pydicom,
    source_image,
)
from scp_node.report.objects.drawing import Text, draw, heading, warning
from scp_node.report.source.source import SourceImage, read_source
from scp_node.report.version import ReportVersion

BANNER: Final = "AI RESULT - NOT FOR DIAGNOSTIC USE"
_DERIVATION: Final = (
    "Film reduced to 8 bits and 1024 pixels, class activation map of a neural network in colour, text of the AI result"
)
_INSTANCES_A_VERSION: Final = 1000  # Instance Number: version of the report, then the film's place in it


@quiet_pydicom()
def build_overlay(
    version: ReportVersion, *, image: ReportedImage, number: int, display: NDArray[np.uint8]
) -> BuiltObject:
    """Return the picture of one analysed film; equal arguments give equal bytes.

    Nothing of the patient is in its pixels. It is written uncompressed (PS3.3 Section A.8.1).

    Args:
        version: of the report that the picture goes with.
        image: the film with its finding, whose `attention` is drawn.
        number: of the film in the report, from 1.
        display: the film as people see it, shape (rows, columns), air dark.

    Raises:
        UnreportableHeader: the header cannot carry a report.
        ValueError: the film has no finding or no activation map.
    """
    finding = image.outcome
    if not isinstance(finding, Finding) or not finding.attention:
        raise ValueError("only an analysed film with its activation map has an overlay")
    source = read_source(image)
    # a viewer may show nothing of the report but its pictures: they say what the report says of missing images
    key = [*image_key(version, image, source), *version.remarks]
    picture = envelope(ObjectKind.OVERLAY, version, source, key)
    picture["InstanceNumber"] = version.number * _INSTANCES_A_VERSION + number
    picture.update(_image(source, _pixels(version, finding, display)))
    return built_object(ObjectKind.OVERLAY, picture)


def _pixels(version: ReportVersion, finding: Finding, display: NDArray[np.uint8]) -> NDArray[np.uint8]:
    model = version.model
    shown = percent(finding.probability, *finding.limits)
    decided = operating_point(finding).capitalize()
    return draw(
        display,
        activation_map(finding.attention),
        reported_regions(finding),
        above=[
            heading(f"{short_comment(finding)} - {shown} %"),
            warning(BANNER),
            *(warning(REMARKS[remark]) for remark in version.remarks),
            Text(image_sentence(finding, model)),
        ],
        below=[
            Text(f"{decided}. Model {model.bundle}, {model.digest[:DIGEST_LENGTH]}, {model.status}."),
            Text(f"Colour: class activation map, logits. Line: logit {CONTOUR:g}. Attention, not a segmentation."),
        ],
    )


def _image(source: SourceImage, pixels: NDArray[np.uint8]) -> Dataset:
    """Return the General Image, Image Pixel and SC Image modules; no spacing, for the film is made smaller."""
    image = dataset(
        ConversionType="WSD",  # workstation
        ImageType=["DERIVED", "SECONDARY"],
        DerivationDescription=_DERIVATION,
        SourceImageSequence=[source_image(source, same_place=False)],
        PatientOrientation=[],  # type 2C: text stands around the film, whose orientation is not the picture's
        BodyPartExamined="CHEST",
        BurnedInAnnotation="YES",
        RecognizableVisualFeatures="NO",
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        Rows=pixels.shape[0],
        Columns=pixels.shape[1],
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=pixels.data.cast("B"),  # copied once, into the file
    )
    if source.attributes.text("LossyImageCompression") == "01":  # once lossy, always lossy: PS3.3 Section C.7.6.1.1.5
        image["LossyImageCompression"] = "01"
    return image
