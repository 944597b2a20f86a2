"""From a file to the network's input, and from the network's output to a finding."""

from __future__ import annotations

import logging
import math
import re
import warnings
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGBaseline8Bit

from scp_node.analysis.analyse import analyse, analyse_file, conclude
from scp_node.analysis.answers import Equipment, Prepared
from scp_node.analysis.attributes import undisturbed_reading
from scp_node.domain import Completion, Finding, NotAnalysed, Note, Reason, Verdict
from scp_node.settings import AnalysisSettings
from tests.scp_node.analysis.films import MISSING, picture, radiograph, save

RULES: Final = AnalysisSettings()


def film(pixels: NDArray[np.generic], **attributes: Any) -> Dataset:
    """Return a radiograph of these 8-bit pixels."""
    rows, columns = pixels.shape[:2]
    data = pixels.astype(np.uint8).tobytes()
    return radiograph(Rows=rows, Columns=columns, PixelData=data + b"\0" * (len(data) % 2), **attributes)


def jpeg_film(*, keep: float = 1.0) -> Dataset:
    """Return a JPEG radiograph of which only the first part was kept, with its end marker put back."""
    _, stream = cv2.imencode(".jpg", picture().astype(np.uint8))
    kept = stream.tobytes()[: int(keep * len(stream)) // 2 * 2 - 2] + b"\xff\xd9"
    image = radiograph(PixelData=encapsulate([kept]))
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    image["PixelData"].VR = "OB"
    return image


def reason(image: Dataset) -> Reason | None:
    outcome = analyse(image, RULES)
    return outcome.reason if isinstance(outcome, NotAnalysed) else None


def refusal(pixels: NDArray[np.generic]) -> NotAnalysed:
    """Return why a picture is not plausible; the detail names the number that is out of bounds."""
    outcome = analyse(film(pixels), RULES)
    assert isinstance(outcome, NotAnalysed), outcome
    assert outcome.reason is Reason.IMPLAUSIBLE_PIXELS
    return outcome


def prepared(image: Dataset) -> Prepared:
    outcome = analyse(image, RULES)
    assert isinstance(outcome, Prepared), outcome
    return outcome


def test_a_chest_film_becomes_the_networks_input() -> None:
    result = prepared(radiograph())
    assert result.inputs.shape == (224, 224)
    assert result.inputs.dtype == np.float32
    assert 0 <= result.inputs.min() < result.inputs.max() <= 1
    assert result.notes == ()


def test_the_input_is_described_in_finite_numbers() -> None:
    stats = prepared(radiograph()).input_stats
    assert {"mean", "std", "contrast", "darkest", "brightest", "sharpness"} <= stats.keys()
    assert all(isinstance(value, float) and math.isfinite(value) for value in stats.values())


def test_notes_of_the_header_and_of_the_pixels_come_together() -> None:
    rgb = np.repeat(picture()[..., None], 3, axis=2)
    image = film(rgb, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, ViewPosition=MISSING)
    assert prepared(image).notes == (Note.VIEW_MISSING, Note.COLOUR_CONVERTED)


def test_a_picture_with_colours_is_not_analysed() -> None:
    rgb = np.stack([picture(), picture(), 255 - picture()], axis=2)
    image = film(rgb, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    assert reason(image) is Reason.COLOUR


class TestImplausiblePictures:
    def test_a_picture_of_one_value_is_empty(self) -> None:
        assert reason(film(np.zeros((512, 512)))) is Reason.EMPTY_PIXELS
        assert reason(film(np.full((512, 512), 77))) is Reason.EMPTY_PIXELS

    @pytest.mark.parametrize(("grey", "number"), [(0, "darkest"), (255, "brightest"), (128, "one_grey")])
    def test_a_picture_almost_all_of_one_grey_is_not_plausible(self, grey: int, number: str) -> None:
        painted = np.full((512, 512), grey)
        painted[:, :60] = picture()[:, 200:260]
        assert refusal(painted).detail.startswith(number)

    def test_a_picture_almost_without_contrast_is_not_plausible(self) -> None:
        assert refusal(100 + picture() // 24).detail.startswith("contrast")

    def test_a_film_that_ends_halfway_is_not_plausible(self) -> None:
        half = picture().copy()
        half[256:] = 0
        assert refusal(half).detail.startswith("blank_end")

    def test_noise_is_not_plausible(self) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (512, 512))
        assert refusal(noise).detail.startswith("smoothness")

    def test_a_film_with_its_bytes_swapped_is_not_plausible(self) -> None:
        stored = picture(largest=4095)
        deep = {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
        assert reason(radiograph(PixelData=stored.tobytes(), **deep)) is None
        deep |= {"BitsStored": 16, "HighBit": 15}
        assert reason(radiograph(PixelData=stored.byteswap().tobytes(), **deep)) is Reason.IMPLAUSIBLE_PIXELS

    @pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
    def test_a_cut_jpeg_with_its_end_put_back_is_not_plausible(self, keep: float) -> None:
        assert reason(jpeg_film()) is None
        assert reason(jpeg_film(keep=keep)) is Reason.IMPLAUSIBLE_PIXELS

    def test_a_film_with_wide_black_borders_is_plausible(self) -> None:
        bordered = np.zeros((640, 800))
        bordered[64:576, 144:656] = picture()
        assert reason(film(bordered)) is None


class TestPolarity:
    @pytest.mark.parametrize(
        "attributes",
        [
            {"PhotometricInterpretation": "MONOCHROME1"},
            {"PresentationLUTShape": "INVERSE"},
            {"RescaleSlope": -1, "RescaleIntercept": 255, "WindowCenter": 128, "WindowWidth": 256},
            {"PixelData": (255 - picture()).astype(np.uint8).tobytes()},
        ],
    )
    def test_a_film_that_its_header_turns_into_a_negative_is_not_plausible(self, attributes: dict[str, Any]) -> None:
        outcome = analyse(radiograph(**attributes), RULES)
        assert isinstance(outcome, NotAnalysed)
        assert outcome.reason is Reason.IMPLAUSIBLE_PIXELS
        assert re.fullmatch(r"polarity -0\.\d\d", outcome.detail)

    def test_a_negative_that_its_header_turns_into_a_film_is_plausible(self) -> None:
        negative = (255 - picture()).astype(np.uint8).tobytes()
        for attributes in ({"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}):
            turned = prepared(radiograph(PixelData=negative, **attributes))
            assert np.array_equal(turned.inputs, prepared(radiograph()).inputs)
            assert turned.input_stats["polarity"] > 0.5


class TestFiles:
    def test_a_file_gives_what_its_dataset_gives(self, tmp_path: Path) -> None:
        from_file = analyse_file(save(radiograph(), tmp_path / "film.dcm"), RULES)
        assert isinstance(from_file, Prepared)
        assert np.array_equal(from_file.inputs, prepared(radiograph()).inputs)

    def test_the_nodes_own_overlay_is_not_analysed(self, tmp_path: Path) -> None:
        path = save(radiograph(Manufacturer="us", ManufacturerModelName="node"), tmp_path / "film.dcm")
        outcome = analyse_file(path, RULES, Equipment(manufacturer="US", model_name="Node"))
        assert isinstance(outcome, NotAnalysed)
        assert outcome.reason is Reason.OWN_OBJECT

    @pytest.mark.parametrize(
        "content", [b"", b"\0" * 128 + b"DICM", b"\xff" * 4096, b"\0" * 128 + b"DICM" + b"\xff" * 99]
    )
    def test_a_file_that_is_no_dicom_file_has_no_readable_header(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "film.dcm"
        path.write_bytes(content)
        outcome = analyse_file(path, RULES)
        assert isinstance(outcome, NotAnalysed)
        assert outcome.reason is Reason.UNREADABLE_HEADER

    def test_a_missing_file_is_a_failure_that_says_so(self, tmp_path: Path) -> None:
        outcome = analyse_file(tmp_path / "gone.dcm", RULES)
        assert outcome == NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="file: FileNotFoundError")

    @pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
    def test_a_film_that_was_cut_off_fails_wherever_the_cut_is(self, tmp_path: Path, kept: float) -> None:
        for image in (radiograph(), jpeg_film()):
            whole = save(image, tmp_path / "film.dcm").read_bytes()
            (tmp_path / "cut.dcm").write_bytes(whole[: int(kept * len(whole))])
            outcome = analyse_file(tmp_path / "cut.dcm", RULES)
            assert isinstance(outcome, NotAnalysed)
            assert outcome.reason.completion is Completion.FAILED, outcome

    def test_a_film_cut_off_in_its_header_is_told_from_an_object_without_pixels(self, tmp_path: Path) -> None:
        image = radiograph(PixelData=MISSING, ImageComments="x" * 400)  # (0020,4000): before the picture's attributes
        image.RequestedProcedureDescription = "y" * 60  # (0032,1060): after them
        whole = save(image, tmp_path / "film.dcm").read_bytes()
        assert _reason_of(tmp_path / "film.dcm") is Reason.NOT_AN_IMAGE
        (tmp_path / "cut.dcm").write_bytes(whole[:-20])
        assert _reason_of(tmp_path / "cut.dcm") is Reason.UNREADABLE_HEADER

    def test_no_value_of_the_patient_is_printed_while_reading(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        canary = "CANARY-9173"
        image = radiograph(PatientBirthDate=canary, PatientAge=canary, StudyDate=canary, PatientID=canary * 20)
        image.SpecificCharacterSet = canary
        with undisturbed_reading():
            path = save(image, tmp_path / "film.dcm")
        caplog.set_level(logging.DEBUG)
        config.settings.reading_validation_mode = config.WARN  # pydicom's default; the fixture has turned it off
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            outcome = analyse_file(path, RULES)
        printed = "".join([*(str(w.message) for w in warned), caplog.text, *capfd.readouterr(), str(outcome)])
        assert canary not in printed
        assert not warned
        with pytest.warns(UserWarning, match=canary):  # what there is to be silent about
            _ = dcmread(path).PatientAge

    def test_reading_leaves_the_processs_settings_as_they_were(self, tmp_path: Path) -> None:
        config.settings.reading_validation_mode = config.RAISE
        analyse_file(tmp_path / "gone.dcm", RULES)
        assert config.settings.reading_validation_mode == config.RAISE


class TestConclusion:
    def test_a_probability_at_the_threshold_is_present(self) -> None:
        finding = conclude(prepared(radiograph(ViewPosition=MISSING)), logit=0.0, probability=0.5, threshold=0.5)
        assert isinstance(finding, Finding)
        assert finding.verdict is Verdict.PRESENT
        assert finding.notes == (Note.VIEW_MISSING,)
        assert finding.input_stats

    def test_single_precision_becomes_an_ordinary_number(self) -> None:
        probability: Any = np.float32(0.25)
        finding = conclude(prepared(radiograph()), logit=probability, probability=probability, threshold=0.5)
        assert isinstance(finding, Finding)
        assert type(finding.probability) is type(finding.logit) is float

    @pytest.mark.parametrize(
        ("logit", "probability", "threshold"),
        [
            (math.nan, 0.5, 0.5),
            (math.inf, 1.0, 0.5),
            (0.0, math.nan, 0.5),
            (0.0, math.inf, 0.5),
            (0.0, 1.0001, 0.5),
            (0.0, -0.0001, 0.5),
            (0.0, 0.9, math.nan),
            (0.0, 0.9, 50.0),
        ],
    )
    def test_an_unusable_number_never_becomes_a_verdict(
        self, logit: float, probability: float, threshold: float
    ) -> None:
        outcome = conclude(prepared(radiograph()), logit=logit, probability=probability, threshold=threshold)
        assert isinstance(outcome, NotAnalysed)
        assert outcome.reason is Reason.INFERENCE


def _reason_of(path: Path) -> Reason | None:
    outcome = analyse_file(path, RULES)
    return outcome.reason if isinstance(outcome, NotAnalysed) else None


def test_the_film_made_by_the_tests_is_itself_plausible_in_every_form() -> None:
    frames = generate_frames(jpeg_film().PixelData, number_of_frames=1)
    assert next(frames).startswith(b"\xff\xd8")
    assert prepared(jpeg_film()).inputs == pytest.approx(prepared(radiograph()).inputs, abs=0.1)
