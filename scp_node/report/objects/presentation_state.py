"""The outlines of regions as a Grayscale Softcopy Presentation State, which a PACS lays over the film by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from scp_node.domain import BuiltObject, Finding, ModelIdentity, Outcome, ReportedImage
from scp_node.report.attributes import dataset, put
from scp_node.report.content.attention import attention_outlines
from scp_node.report.content.regions import corners, reported_regions
from scp_node.report.objects.common import (
    equipment,
    identity,
    part10_file,
    quiet_pydicom,
    referenced_instances,
    result_key,
    series,
)
from scp_node.report.site import Site
from scp_node.report.source.header import local_time, patient_and_study
from scp_node.report.source.mending import decimal_string
from scp_node.report.source.source import SourceImage, read_source
from scp_node.report.uids import derived_uid, digest

KIND: Final = "presentation-state"
SERIES_OFFSET: Final = 2  # to the number of the report's series
LAYER: Final = "AI_OUTLINES"
ATTENTION: Final = "AI attention region"

_GREEN: Final = [0xB4F8, 0x4F4F, 0xC7C7]  # CIELab, PS3.3 Section C.10.7.1.1


class Outline(NamedTuple):
    """A closed line in pixels of the film, (column, row), and what it says."""

    label: str
    points: tuple[tuple[float, float], ...]


@quiet_pydicom()
def build_presentation_state(
    *, image: ReportedImage, model: ModelIdentity, site: Site, version: int, at: datetime, attention: bool = False
) -> BuiltObject | None:
    """Return the outlines of the regions of one film, None where it has none; equal arguments give equal bytes.

    With `attention` where the activation map speaks for an opacity is outlined as well, and named so: no finding.

    Raises:
        UnreportableHeader: the header cannot carry a report.
    """
    source = read_source(image)
    outlines = _outlines(source, image.outcome, attention=attention)
    if not outlines:
        return None
    stated = digest([*result_key(image), *map(repr, outlines)])
    instance_uid = derived_uid(KIND, site.installation, source.sop_instance_uid, model.digest, stated, str(version))
    series_uid = derived_uid("presentation state series", site.installation, source.study_instance_uid, model.digest)
    local = local_time(at, source, site.time_zone)
    state = patient_and_study(source)
    for keyword, value in {
        **series("PR", series_uid, site.series_number + SERIES_OFFSET, f"AI PNEUMONIA outlines {model.version}"),
        **equipment(site, model, source),
        **identity(GrayscaleSoftcopyPresentationStateStorage, instance_uid, local),
        "Laterality": "",  # type 2C: of paired parts
        "InstanceNumber": version,
        "ContentLabel": LAYER,
        "ContentDescription": "AI result, not for diagnostic use",
        "ContentCreatorName": "",
        "PresentationCreationDate": local.strftime("%Y%m%d"),
        "PresentationCreationTime": local.strftime("%H%M%S"),
        "ReferencedSeriesSequence": [_referenced(source)],
        **_display(source),
        "GraphicAnnotationSequence": [_annotation(outlines)],
        "GraphicLayerSequence": [
            dataset(GraphicLayer=LAYER, GraphicLayerOrder=1, GraphicLayerRecommendedDisplayCIELabValue=_GREEN)
        ],
    }.items():
        put(state, keyword, value)
    for keyword in ("ContentDate", "ContentTime"):
        del state[keyword]  # the IOD has Presentation Creation Date and Time in their place
    return BuiltObject(
        kind=KIND,
        sop_class_uid=GrayscaleSoftcopyPresentationStateStorage,
        sop_instance_uid=instance_uid,
        series_instance_uid=series_uid,
        file=part10_file(state),
    )


def _referenced(source: SourceImage) -> Dataset:
    images = referenced_instances({source.sop_instance_uid: source.sop_class_uid})
    return dataset(SeriesInstanceUID=source.series_instance_uid, ReferencedImageSequence=images)


def _display(source: SourceImage) -> dict[str, Any]:
    """Return how the film is shown: as it is by itself. A viewer takes nothing of this from the film."""
    attributes = source.attributes
    shown = dataset(
        DisplayedAreaTopLeftHandCorner=[1, 1],
        DisplayedAreaBottomRightHandCorner=[
            attributes.unsigned_short("Columns") or 1,
            attributes.unsigned_short("Rows") or 1,
        ],
        PresentationSizeMode="SCALE TO FIT",
        PresentationPixelAspectRatio=[1, 1],
    )
    # MONOCHROME1 is not looked at either (PS3.4 Section N.2): without the inversion air would be bright
    inverted = attributes.text("PhotometricInterpretation") == "MONOCHROME1"
    display: dict[str, Any] = {
        "DisplayedAreaSelectionSequence": [shown],
        "PresentationLUTShape": "INVERSE" if inverted else "IDENTITY",
    }
    centre, width, slope, intercept = (
        decimal_string(next(iter(attributes.texts(keyword)), ""))
        for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept")
    )
    if centre and width:
        display["SoftcopyVOILUTSequence"] = [dataset(WindowCenter=centre, WindowWidth=width)]
    if slope and intercept:
        display |= {"RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": "US"}
    return display


def _outlines(source: SourceImage, outcome: Outcome, *, attention: bool) -> list[Outline]:
    outlines = [
        Outline(f"AI opacity {100 * region.score:.0f} %", tuple(corners(source, region)))
        for region in reported_regions(outcome)
    ]
    if attention and isinstance(outcome, Finding) and outcome.is_positive and outcome.attention:
        columns, rows = (source.attributes.unsigned_short(keyword) or 1 for keyword in ("Columns", "Rows"))
        for points in attention_outlines(outcome.attention):
            placed = tuple((round(x * columns, 1), round(y * rows, 1)) for x, y in points)
            outlines.append(Outline(ATTENTION, placed))
    return outlines


def _annotation(outlines: Sequence[Outline]) -> Dataset:
    return dataset(
        GraphicLayer=LAYER,
        TextObjectSequence=[_label(outline) for outline in outlines],
        GraphicObjectSequence=[_graphic(outline) for outline in outlines],
    )


def _graphic(outline: Outline) -> Dataset:
    return dataset(
        GraphicAnnotationUnits="PIXEL",
        GraphicDimensions=2,
        NumberOfGraphicPoints=len(outline.points),
        GraphicData=[coordinate for point in outline.points for coordinate in point],
        GraphicType="POLYLINE",
        GraphicFilled="N",
    )


def _label(outline: Outline) -> Dataset:
    return dataset(
        UnformattedTextValue=outline.label,
        AnchorPointAnnotationUnits="PIXEL",
        AnchorPoint=list(outline.points[0]),
        AnchorPointVisibility="N",
    )
