"""The outlines of regions as a Grayscale Softcopy Presentation State, which a PACS lays over the film by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from scp_node.dicom.writing import Dataset
from scp_node.domain import BuiltObject, Finding, Outcome, ReportedImage
from scp_node.report.attributes import dataset
from scp_node.report.content.attention import attention_outlines
from scp_node.report.content.regions import corners, reported_regions
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.common import built_object, envelope, image_key, quiet_pydicom, reference
from scp_node.report.source.mending import decimal_string
from scp_node.report.source.source import SourceImage, read_source
from scp_node.report.version import ReportVersion

LAYER: Final = "AI_OUTLINES"
ATTENTION: Final = "AI attention region"

_GREEN: Final = [0xB4F8, 0x4F4F, 0xC7C7]  # CIELab, PS3.3 Section C.10.7.1.1


class Outline(NamedTuple):
    """A closed line in pixels of the film, (column, row), and what it says."""

    label: str
    points: tuple[tuple[float, float], ...]


@quiet_pydicom()
def build_presentation_state(
    version: ReportVersion, *, image: ReportedImage, attention: bool = False
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
    key = image_key(version, image, source, *map(repr, outlines))
    state = envelope(ObjectKind.PRESENTATION_STATE, version, source, key)
    state.update(_identification(state))
    state.update(_display(source))
    state.update(_graphics(outlines))
    for keyword in ("ContentDate", "ContentTime"):
        del state[keyword]  # the IOD has Presentation Creation Date and Time in their place
    return built_object(ObjectKind.PRESENTATION_STATE, state)


def _identification(state: Dataset) -> Dataset:
    return dataset(
        Laterality="",  # type 2C: of paired parts
        ContentLabel=LAYER,
        ContentDescription="AI result, not for diagnostic use",
        ContentCreatorName="",
        PresentationCreationDate=state["ContentDate"],
        PresentationCreationTime=state["ContentTime"],
    )


def _display(source: SourceImage) -> Dataset:
    """Return which film is shown, and how: as it is by itself. A viewer takes nothing of this from the film."""
    attributes = source.attributes
    film = dataset(SeriesInstanceUID=source.series_instance_uid, ReferencedImageSequence=[reference(source)])
    area = dataset(
        DisplayedAreaTopLeftHandCorner=[1, 1],
        DisplayedAreaBottomRightHandCorner=[
            attributes.unsigned_short("Columns") or 1,
            attributes.unsigned_short("Rows") or 1,
        ],
        PresentationSizeMode="SCALE TO FIT",
        PresentationPixelAspectRatio=[1, 1],
    )
    # MONOCHROME1 is not looked at either (PS3.4 Section N.2): without the inversion air would be bright
    inverted = attributes.text("PhotometricInterpretation").strip().upper() == "MONOCHROME1"
    display = dataset(
        ReferencedSeriesSequence=[film],
        DisplayedAreaSelectionSequence=[area],
        PresentationLUTShape="INVERSE" if inverted else "IDENTITY",
    )
    centre, width, slope, intercept = (
        decimal_string(next(iter(attributes.texts(keyword)), ""))
        for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept")
    )
    if centre and width:
        display["SoftcopyVOILUTSequence"] = [dataset(WindowCenter=centre, WindowWidth=width)]
    if slope or intercept:
        display.update(dataset(RescaleSlope=slope or "1", RescaleIntercept=intercept or "0", RescaleType="US"))
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


def _graphics(outlines: Sequence[Outline]) -> Dataset:
    annotation = dataset(
        GraphicLayer=LAYER,
        TextObjectSequence=[_label(outline) for outline in outlines],
        GraphicObjectSequence=[_graphic(outline) for outline in outlines],
    )
    layer = dataset(GraphicLayer=LAYER, GraphicLayerOrder=1, GraphicLayerRecommendedDisplayCIELabValue=_GREEN)
    return dataset(GraphicAnnotationSequence=[annotation], GraphicLayerSequence=[layer])


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
