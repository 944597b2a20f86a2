"""The picture that goes with a report: what is drawn where, what its header says, and what is never in it."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any, Final

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from scp_node.domain import BuiltObject, Finding, ModelIdentity, Note, PreviousReport, Region, ReportedImage
from scp_node.report.content.attention import CONTOUR
from scp_node.report.content.wording import DEMONSTRATION
from scp_node.report.objects import drawing
from scp_node.report.objects.drawing import LONG_SIDE, SMOOTHED, Text, draw
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.site import Site
from tests.scp_node.report.reports import (
    LATERAL,
    MODEL,
    NEGATIVE,
    POSITIVE,
    PREVIOUS,
    SITE,
    STUDY,
    radiograph,
    version_of,
)

_HALF: Final = 3.5  # pixels of a line's width, with its black rim and what is blended with the film
GREY: Final = np.full((300, 240), 90, np.uint8)


def attention(*hot: tuple[int, int], value: float = 3.0) -> NDArray[np.float32]:
    """Return a map that is high in these places, (row, column), and low elsewhere."""
    made = np.full((14, 14), -5.0, np.float32)
    for place in hot:
        made[place] = value
    return made


def film(finding: Finding = POSITIVE, hot: tuple[int, int] = (2, 3), **attributes: Any) -> ReportedImage:
    return radiograph(replace(finding, attention=attention(hot).astype("<f4").tobytes()), **attributes)


def overlay(
    image: ReportedImage | None = None,
    *,
    display: NDArray[np.uint8] = GREY,
    number: int = 1,
    model: ModelIdentity = MODEL,
    site: Site = SITE,
    previous: PreviousReport | None = None,
) -> BuiltObject:
    shown = image or film()
    version = version_of(shown, model=model, site=site, previous=previous)
    return build_overlay(version, image=shown, number=number, display=display)


def read(made: BuiltObject) -> Dataset:
    return dcmread(BytesIO(made.file))


def test_equal_arguments_give_equal_bytes() -> None:
    assert overlay() == overlay()


def test_what_is_kept_between_pictures_changes_none() -> None:
    kept = overlay()
    drawing._tables.cache_clear()
    assert overlay() == kept


@pytest.mark.parametrize(
    "other",
    [
        {"image": film(replace(POSITIVE, probability=0.9))},
        {"image": film(SOPInstanceUID="1.2.3")},
        {"model": replace(MODEL, digest="sha256:" + 64 * "1")},
        {"previous": PREVIOUS},
        {"site": replace(SITE, installation="2.25.78")},
    ],
    ids=["probability", "film", "model", "version", "installation"],
)
def test_another_statement_is_another_instance(other: dict[str, Any]) -> None:
    assert overlay(**other).sop_instance_uid != overlay().sop_instance_uid


def test_the_pictures_of_a_study_by_one_model_are_one_series_apart_from_the_reports() -> None:
    replaced = replace(PREVIOUS, version=2)
    first, second = read(overlay()), read(overlay(film(SOPInstanceUID="1.2.3"), number=2, previous=replaced))
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert (first.StudyInstanceUID, first.SeriesNumber, first.Modality) == (STUDY, SITE.series_number + 1, "OT")
    assert first.SeriesDescription == second.SeriesDescription == f"AI PNEUMONIA overlay {MODEL.version}"
    assert (first.InstanceNumber, second.InstanceNumber) == (1001, 3002)


def test_the_header_names_the_film_and_says_what_the_picture_is() -> None:
    image = film(PatientName="Yamada^Tarou=山田^太郎", TimezoneOffsetFromUTC="+0900")
    made = read(overlay(image))
    assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == image.sop_instance_uid
    assert made.ImageType == ["DERIVED", "SECONDARY"]
    assert (made.BurnedInAnnotation, made.ConversionType) == ("YES", "WSD")
    assert str(made.PatientName) == "Yamada^Tarou=山田^太郎"
    assert (made.ContentDate, made.ContentTime) == ("20260501", "213000")
    assert made.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert "PixelSpacing" not in made
    assert "ImagerPixelSpacing" not in made


def test_a_picture_of_a_lossy_film_is_lossy() -> None:
    assert read(overlay(film(LossyImageCompression="01"))).LossyImageCompression == "01"
    assert "LossyImageCompression" not in read(overlay())


def test_nothing_of_the_patient_is_in_the_pixels() -> None:
    other = film(
        PatientName="Other^Name", PatientID="X", PatientBirthDate="19700101", AccessionNumber="B", StudyDate=""
    )
    assert read(overlay(other)).PixelData == read(overlay()).PixelData


def test_only_a_film_with_its_map_has_a_picture() -> None:
    for image in (radiograph(POSITIVE), radiograph(LATERAL)):
        with pytest.raises(ValueError, match="activation map"):
            overlay(image)


@pytest.mark.parametrize("finding", [POSITIVE, NEGATIVE])
@pytest.mark.parametrize("size", [(1024, 1024), (2500, 2048), (300, 900), (1024, 200)])
def test_the_film_has_a_long_side_of_1024_and_keeps_its_shape(finding: Finding, size: tuple[int, int]) -> None:
    display = np.full(size, 200, np.uint8)
    pixels = read(overlay(film(finding), display=display)).pixel_array
    assert pixels.shape[2] == 3
    assert pixels.shape[0] % 2 == pixels.shape[1] % 2 == 0
    band = _film_in(pixels, 200)
    assert max(band) == LONG_SIDE
    assert band[0] / band[1] == pytest.approx(size[0] / size[1], rel=0.01)


def _film_in(pixels: NDArray[np.uint8], grey: int) -> tuple[int, int]:
    """Return the size of the area that is `grey`, but for what is drawn in it."""
    same = (np.abs(pixels.astype(int) - grey) <= 1).all(axis=2)
    rows, columns = np.flatnonzero(same.sum(axis=1) > 100), np.flatnonzero(same.sum(axis=0) > 100)
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def coloured(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    spread: NDArray[np.bool_] = np.ptp(pixels.astype(int), axis=2) > 12
    return spread


def bare(map_: NDArray[np.float32], *regions: Region, size: tuple[int, int] = (1024, 1024)) -> NDArray[np.uint8]:
    """Return the film's part of a picture without text."""
    picture = draw(np.full(size, 90, np.uint8), map_, regions, above=[], below=[])
    top = (len(picture) - size[0]) // 2
    return picture[top : top + size[0], : size[1]]


@pytest.mark.parametrize("place", [(0, 0), (0, 13), (13, 0), (6, 9)])
def test_a_place_of_the_map_colours_its_place_in_the_film(place: tuple[int, int]) -> None:
    rows, columns = np.nonzero(coloured(bare(attention(place))))
    step = 1024 / 14
    assert rows.mean() == pytest.approx((place[0] + 0.5) * step, abs=step / 2)
    assert columns.mean() == pytest.approx((place[1] + 0.5) * step, abs=step / 2)


def test_the_scale_is_the_same_for_all_films() -> None:
    weak, strong = (bare(attention((6, 6), value=value)) for value in (0.5, 3.5))
    assert strong.astype(int).sum() > weak.astype(int).sum()
    low = np.linspace(-9, -1, 196, dtype=np.float32).reshape(14, 14)
    assert not coloured(bare(low)).any()  # its highest place is no evidence, though it is its highest


def test_each_pixel_is_the_films_share_and_the_colour_of_its_level() -> None:
    film_, level = 90, 40
    value = drawing.LOWEST + level / 255 * (drawing.HIGHEST - drawing.LOWEST)
    added, left = drawing._tables()
    expected = round(film_ * int(left[0, level]) / 255) + added[:, 0, level].astype(int)
    shown = bare(np.full((14, 14), value, np.float32))
    assert (shown == expected).all()
    assert len(set(expected.tolist())) == 3  # red, green and blue are not exchanged


def test_a_line_goes_round_what_speaks_for_an_opacity_by_itself() -> None:
    def white(map_: NDArray[np.float32]) -> int:
        return int((bare(map_) == 255).all(axis=2).sum())

    assert white(attention((6, 6), value=2.0)) > 100
    assert white(attention((6, 6), value=-0.2)) == 0


def test_the_line_keeps_to_the_outline_and_all_else_is_as_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    map_ = np.random.default_rng(5).normal(0, 4, (14, 14)).astype(np.float32)
    beyond = (cv2.resize(map_, (1024, 1024), interpolation=cv2.INTER_LINEAR) > CONTOUR).astype(np.uint8)
    exact, _ = cv2.findContours(beyond, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    outline = cv2.drawContours(np.ones_like(beyond), exact, -1, 0)
    shown = bare(map_)
    monkeypatch.setattr(drawing, "CONTOUR", map_.max())
    changed = (shown != bare(map_)).any(axis=2)
    assert cv2.distanceTransform(outline, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[changed].max() <= _HALF + SMOOTHED
    line = (shown == 255).all(axis=2)
    assert cv2.distanceTransform(1 - line.astype(np.uint8), cv2.DIST_L2, 5)[outline == 0].max() <= 1 + SMOOTHED


def test_regions_are_drawn_where_they_are() -> None:
    region = Region(left=0.25, top=0.5, right=0.75, bottom=0.9, score=0.5)
    cyan = (bare(attention(), region) == (0, 229, 255)).all(axis=2)
    rows, columns = np.nonzero(cyan)
    assert (rows.min(), rows.max()) == pytest.approx((512, 921), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((256, 767), abs=2)


@pytest.mark.parametrize("size", [(1024, 1024), (1024, 200)])
def test_text_is_never_cut_however_long(size: tuple[int, int]) -> None:
    words = "W" * 300 + " " + " ".join(f"word{n}" for n in range(60))
    picture = draw(np.zeros(size, np.uint8), attention(), (), above=[Text(words)], below=[Text(words, 1.25)])
    edge = np.concatenate([picture[:, :8], picture[:, -8:]], axis=1)
    rows = picture.shape[0] - 1024
    assert rows > 300  # every word has its line
    assert not edge[: len(edge) // 5].any()
    assert not edge[-len(edge) // 5 :].any()
    assert not picture[:2].any()
    assert not picture[-2:].any()


def test_the_words_are_those_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def note(display: NDArray[np.uint8], *_: Any, above: list[Text], below: list[Text]) -> NDArray[np.uint8]:
        drawn.extend(text.words for text in (*above, *below))
        return np.zeros((*display.shape, 3), np.uint8)

    monkeypatch.setattr("scp_node.report.objects.overlay.draw", note)
    model: ModelIdentity = replace(MODEL, status="demonstration")
    overlay(film(replace(POSITIVE, notes=(Note.VIEW_MISSING,))), model=model)
    assert drawn[0] == "AI: pneumonia PRESENT - 87.3 %"
    assert drawn[1] == "AI RESULT - NOT FOR DIAGNOSTIC USE"
    assert drawn[2].startswith(DEMONSTRATION)
    assert Note.VIEW_MISSING.sentence in drawn[2]
    assert drawn[3] == "Threshold 50 %. Model pneumonia-resnet18-0.1.0, sha256:0123abcd0123, demonstration."
    assert all(words.isascii() for words in drawn)  # the font has no more
