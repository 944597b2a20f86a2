"""The overlay: a Secondary Capture of a film with the class activation map and the result, for viewers without SR."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import SecondaryCaptureImageStorage

from scp_node.domain import BuiltObject, Finding, ModelIdentity, ReportedImage
from scp_node.report.attributes import code_item, dataset, put
from scp_node.report.codes import SOURCE_IMAGE
from scp_node.report.content.attention import CONTOUR, activation_map
from scp_node.report.content.measurements import DIGEST_LENGTH
from scp_node.report.content.regions import reported_regions
from scp_node.report.content.wording import INCOMPLETE, image_sentence, operating_point, percent, short_comment
from scp_node.report.objects.common import equipment, identity, part10_file, quiet_pydicom, result_key, series
from scp_node.report.objects.drawing import Text, draw, heading, warning
from scp_node.report.site import Site
from scp_node.report.source.header import local_time, patient_and_study
from scp_node.report.source.source import SourceImage, read_source
from scp_node.report.uids import derived_uid, digest

KIND: Final = "overlay"
BANNER: Final = "AI RESULT - NOT FOR DIAGNOSTIC USE"
SERIES_OFFSET: Final = 1  # to the number of the report's series
_DERIVATION: Final = (
    "Film reduced to 8 bits and 1024 pixels, class activation map of a neural network in colour, text of the AI result"
)
_INSTANCES_A_VERSION: Final = 1000  # Instance Number: version of the report, then the film's place in it


@quiet_pydicom()
def build_overlay(
    *,
    image: ReportedImage,
    display: NDArray[np.uint8],
    model: ModelIdentity,
    site: Site,
    version: int,
    number: int,
    at: datetime,
    incomplete: bool = False,
) -> BuiltObject:
    """Return the picture of one analysed film; equal arguments give equal bytes.

    Nothing of the patient is in its pixels. It is written uncompressed (PS3.3 Section A.8.1).

    Args:
        image: the film with its finding, whose `attention` is drawn.
        display: the film as people see it, shape (rows, columns), air dark.
        model: the model that spoke.
        site: this installation.
        version: of the report that the picture goes with.
        number: of the film in that report, from 1.
        at: an aware time.
        incomplete: images of the study may be missing; a viewer may show nothing of the report but its pictures.

    Raises:
        UnreportableHeader: the header cannot carry a report.
        ValueError: the film has no finding or no activation map.
    """
    finding = image.outcome
    if not isinstance(finding, Finding) or not finding.attention:
        raise ValueError("only an analysed film with its activation map has an overlay")
    source = read_source(image)
    pixels = _pixels(finding, display, model, incomplete=incomplete)
    instance_uid = derived_uid(
        KIND,
        site.installation,
        source.sop_instance_uid,
        model.digest,
        digest(result_key(image)),
        str(version),
        *(["study may be incomplete"] if incomplete else []),
    )
    series_uid = derived_uid("overlay series", site.installation, source.study_instance_uid, model.digest)
    picture = patient_and_study(source)
    for keyword, value in {
        **series("OT", series_uid, site.series_number + SERIES_OFFSET, f"AI PNEUMONIA overlay {model.version}"),
        **equipment(site, model, source),
        **identity(SecondaryCaptureImageStorage, instance_uid, local_time(at, source, site.time_zone)),
        **_image(source),
        "InstanceNumber": version * _INSTANCES_A_VERSION + number,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "PixelData": pixels.tobytes(),
    }.items():
        put(picture, keyword, value)
    picture["PixelData"].VR = "OB"
    return BuiltObject(
        kind=KIND,
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=instance_uid,
        series_instance_uid=series_uid,
        file=part10_file(picture),
    )


def _pixels(
    finding: Finding, display: NDArray[np.uint8], model: ModelIdentity, *, incomplete: bool
) -> NDArray[np.uint8]:
    shown = percent(finding.probability, *finding.limits)
    decided = operating_point(finding).capitalize()
    return draw(
        display,
        activation_map(finding.attention),
        reported_regions(finding),
        above=[
            heading(f"{short_comment(finding)} - {shown} %"),
            warning(BANNER),
            *([warning(INCOMPLETE)] if incomplete else []),
            Text(image_sentence(finding, model)),
        ],
        below=[
            Text(f"{decided}. Model {model.bundle}, {model.digest[:DIGEST_LENGTH]}, {model.status}."),
            Text(f"Colour: class activation map, logits. Line: logit {CONTOUR:g}. Attention, not a segmentation."),
        ],
    )


def _image(source: SourceImage) -> dict[str, Any]:
    """Return the General Image, Image Pixel and SC Image modules; no spacing, for the film is made smaller."""
    film = dataset(
        ReferencedSOPClassUID=source.sop_class_uid,
        ReferencedSOPInstanceUID=source.sop_instance_uid,
        SpatialLocationsPreserved="NO",
        PurposeOfReferenceCodeSequence=[code_item(SOURCE_IMAGE)],
    )
    return {
        "ConversionType": "WSD",  # workstation
        "ImageType": ["DERIVED", "SECONDARY"],
        "DerivationDescription": _DERIVATION,
        "SourceImageSequence": [film],
        "PatientOrientation": [],  # type 2C: text stands around the film, whose orientation is not the picture's
        "BodyPartExamined": "CHEST",
        "BurnedInAnnotation": "YES",
        "RecognizableVisualFeatures": "NO",
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        **_lossy(source),
    }


def _lossy(source: SourceImage) -> dict[str, Any]:
    # PS3.3 Section C.7.6.1.1.5: once lossy, always lossy
    return {"LossyImageCompression": "01"} if source.attributes.text("LossyImageCompression") == "01" else {}
