"""Presentation state, segmentation, key images: what they say, and that they are only where there is something."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any, Final

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, config, dcmread

from scp_node.domain import BuiltObject, Finding, Region, ReportedImage
from scp_node.report import codes
from scp_node.report.content.attention import attention_outlines
from scp_node.report.objects.key_object import build_key_object
from scp_node.report.objects.presentation_state import build_presentation_state
from scp_node.report.objects.segmentation import build_segmentation
from tests.scp_node.report.reports import (
    IMAGE,
    NEGATIVE,
    POSITIVE,
    SITE,
    STUDY,
    every_item,
    found,
    lateral,
    radiograph,
    report,
    said,
    version_of,
)

LEFT: Final = Region(left=0.125, top=0.4, right=0.375, bottom=0.8, score=0.62)
EDGE: Final = Region(left=0.6, top=0.0, right=1.0, bottom=1.0, score=0.31)
SEEN: Final = replace(POSITIVE, regions=(LEFT, EDGE))


def film(finding: Finding = SEEN, **attributes: Any) -> ReportedImage:
    return radiograph(finding, **({"Rows": 40, "Columns": 80} | attributes))


def state(image: ReportedImage | None = None, *, attention: bool = False) -> BuiltObject | None:
    shown = image or film()
    return build_presentation_state(version_of(shown), image=shown, attention=attention)


def segmentation(image: ReportedImage | None = None) -> BuiltObject | None:
    shown = image or film()
    return build_segmentation(version_of(shown), image=shown)


def key_object(*images: ReportedImage, pictures: tuple[BuiltObject, ...] = ()) -> BuiltObject | None:
    return build_key_object(version_of(*images or (film(),)), pictures=pictures)


def read(made: BuiltObject | None) -> Dataset:
    assert made is not None
    return dcmread(BytesIO(made.file))


@pytest.mark.parametrize("build", [state, segmentation, key_object])
def test_equal_arguments_give_equal_bytes(build: Any) -> None:
    assert build() == build()


@pytest.mark.parametrize("build", [state, segmentation, key_object])
def test_a_negative_film_gets_none(build: Any) -> None:
    assert build(film(replace(NEGATIVE, regions=(LEFT,)))) is None


@pytest.mark.parametrize("build", [state, segmentation])
def test_a_positive_film_without_regions_has_nothing_to_show(build: Any) -> None:
    assert build(film(POSITIVE)) is None


@pytest.mark.parametrize("build", [state, segmentation, key_object])
def test_it_is_of_the_patient_and_study_with_the_issuer_and_no_verdict_in_its_description(build: Any) -> None:
    made = read(build(film(IssuerOfPatientID="HOSPITAL", PatientName="Yamada^Tarou=山田^太郎")))
    assert (made.StudyInstanceUID, made.PatientID, made.IssuerOfPatientID) == (STUDY, "P-0815", "HOSPITAL")
    assert str(made.PatientName) == "Yamada^Tarou=山田^太郎"
    assert made.SeriesDescription.startswith("AI PNEUMONIA ")
    assert "present" not in made.SeriesDescription.lower()


def test_each_kind_has_a_series_of_its_own() -> None:
    made = [read(build()) for build in (state, segmentation, key_object)]
    assert [each.Modality for each in made] == ["PR", "SEG", "KO"]
    assert [each.SeriesNumber - SITE.series_number for each in made] == [2, 3, 4]
    assert len({each.SeriesInstanceUID for each in made}) == 3
    assert len({each.SeriesDescription[:18] for each in made}) == 3


def test_outlines_are_closed_lines_in_pixels_of_the_film() -> None:
    made = read(state())
    [annotation] = made.GraphicAnnotationSequence
    outlines = [item.GraphicData for item in annotation.GraphicObjectSequence]
    assert outlines[0] == [10, 16, 30, 16, 30, 32, 10, 32, 10, 16]
    assert min(outlines[1]) == 0
    assert max(outlines[1]) <= 80
    assert [text.UnformattedTextValue for text in annotation.TextObjectSequence] == [
        "AI opacity 62 %",
        "AI opacity 31 %",
    ]
    assert made.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID == IMAGE
    assert made.DisplayedAreaSelectionSequence[0].DisplayedAreaBottomRightHandCorner == [80, 40]


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_the_film_keeps_its_polarity_and_window(photometric: str, shape: str) -> None:
    made = read(
        state(film(PhotometricInterpretation=photometric, WindowCenter=["600", "1"], WindowWidth=["1600", "2"]))
    )
    assert made.PresentationLUTShape == shape
    [window] = made.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (600, 1600)
    assert "SoftcopyVOILUTSequence" not in read(state(film(WindowCenter=17 * "1", WindowWidth="1")))


def test_the_film_keeps_what_is_analysed_though_it_is_not_as_the_standard_says() -> None:
    with config.disable_value_validation():
        image = film(PhotometricInterpretation="Monochrome1", WindowCenter="1", WindowWidth="1", RescaleSlope="2")
    made = read(state(replace(image, header=_with_commas(image.header))))
    assert made.PresentationLUTShape == "INVERSE"
    assert (made.RescaleSlope, made.RescaleIntercept) == (2, 0)
    [window] = made.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (7.5, 9)


def _with_commas(header: bytes) -> bytes:
    """Return a header with the window 7,5 and 9,0 in place of 1 and 1 (Explicit VR Little Endian)."""
    for tag, comma in ((b"\x28\x00\x50\x10", b"7,5 "), (b"\x28\x00\x51\x10", b"9,0 ")):
        header = header.replace(tag + b"DS\x02\x001 ", tag + b"DS\x04\x00" + comma)
    return header


def test_attention_is_outlined_on_request_only_and_is_named_so() -> None:
    hot = np.full((14, 14), -2, "<f4")
    hot[3:6, 8:11] = 3
    seen = film(replace(POSITIVE, attention=hot.tobytes()))
    assert state(seen) is None
    [annotation] = read(state(seen, attention=True)).GraphicAnnotationSequence
    [text] = annotation.TextObjectSequence
    assert text.UnformattedTextValue == "AI attention region"
    points = np.array(annotation.GraphicObjectSequence[0].GraphicData).reshape(-1, 2)
    assert (points[0] == points[-1]).all()
    assert points.mean(axis=0) == pytest.approx((9.5 / 14 * 80, 4.5 / 14 * 40), abs=3)
    assert "attention" not in str(report(seen)).lower()


def test_a_map_without_evidence_has_no_outline() -> None:
    assert attention_outlines(np.full((14, 14), -0.1, "<f4").tobytes()) == []


def test_a_region_is_a_segment_of_filled_pixels_with_the_tracking_uid_of_the_report() -> None:
    made = read(segmentation())
    assert made.SegmentationType == "BINARY"
    pixels = made.pixel_array
    assert pixels.shape == (2, 40, 80)
    rows, columns = np.nonzero(pixels[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 10, 29)
    assert pixels[0].sum() == 16 * 20
    tracked = said(report(film()), codes.TRACKING_UNIQUE_IDENTIFIER)
    assert [segment.TrackingUID for segment in made.SegmentSequence] == tracked[1:]
    assert [segment.SegmentAlgorithmType for segment in made.SegmentSequence] == ["AUTOMATIC"] * 2


def test_odd_sizes_are_packed_without_gaps() -> None:
    made = read(segmentation(film(Rows=7, Columns=5)))
    assert len(made.PixelData) % 2 == 0
    assert made.pixel_array[1].sum() == 7 * 2


def test_key_images_are_the_positive_films_and_their_pictures() -> None:
    picture = BuiltObject(
        kind="overlay",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        sop_instance_uid="2.25.5",
        series_instance_uid="2.25.6",
        file=b"",
    )
    made = read(key_object(film(), lateral(NEGATIVE), pictures=(picture,)))
    images = [item for item in every_item(made) if item.ValueType == "IMAGE"]
    assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images] == [IMAGE, "2.25.5"]
    assert not any("ConceptNameCodeSequence" in item for item in images)  # TID 2010 forbids a purpose of reference
    assert len(found(made, codes.KEY_OBJECT_DESCRIPTION)) == 1
    [study] = made.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence) == 2


def test_highdicom_reads_segments_and_key_images() -> None:
    made = segmentation()
    assert made is not None
    segments: Any = highdicom.seg.segread(BytesIO(made.file))
    assert segments.number_of_segments == 2
    assert {name for name, _ in segments.get_tracking_ids()} == {"Opacity 1", "Opacity 2"}  # in no order
    pixels = segments.get_pixels_by_source_instance([IMAGE])
    assert pixels[0, :, :, 0].sum() == 16 * 20
    selection: Any = highdicom.ko.KeyObjectSelectionDocument.from_dataset(read(key_object()))
    assert selection.content.get_references()[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == IMAGE
