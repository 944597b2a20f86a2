"""What is wrong with the pixels of an image, and what is said of it: each reason is true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pytest
from pneumonia_model.decoding import Mended, PixelDefect
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, HTJ2KLossless, JPEG2000Lossless

from scp_node.analysis.analyse import analyse
from scp_node.analysis.answers import Picture, Prepared
from scp_node.analysis.pixels import picture, prepare
from scp_node.analysis.refusals import NOTES, REASONS
from scp_node.domain import Completion, NotAnalysed, Note, Reason
from scp_node.settings import AnalysisSettings
from tests.model import images
from tests.scp_node.analysis import films
from tests.scp_node.analysis.films import MISSING, radiograph

RULES: Final = AnalysisSettings()
NOT_SUPPORTED: Final = "Photometric Interpretation or Samples per Pixel is not supported"
SEVERAL: Final = "image has more than one frame, or is of a multi-frame class"
UNREAD: Final = "pixel data cannot be read"
NO_HEADER: Final = "header, or an attribute in it, is missing or cannot be read"
NO_DISPLAY: Final = "display attributes (rescale, window, lookup table, padding) are invalid"
EMPTY: Final = "image is empty: all pixels have one value"


def coloured() -> Dataset:
    grey = films.picture().astype(np.uint8)
    pixels = np.dstack([grey, grey, 255 - grey]).tobytes()
    return radiograph(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, PixelData=pixels)


def transferred(syntax: str, pixels: bytes | None = None) -> Dataset:
    image = radiograph()
    image.file_meta.TransferSyntaxUID = UID(syntax)
    if pixels is not None:
        image.PixelData = encapsulate([pixels])
    return image


def of_another_size() -> Dataset:
    image = images.jpeg2000(films.picture().astype(np.uint8)[:400])
    film = radiograph(PixelData=image.PixelData)
    film.file_meta = image.file_meta
    return film


CASES: Final[Mapping[PixelDefect, tuple[Dataset, Reason, str, str]]] = {
    PixelDefect.MISSING: (radiograph(PixelData=MISSING), Reason.NOT_AN_IMAGE, "object has no pixel data", ""),
    PixelDefect.ATTRIBUTE: (
        radiograph(PixelRepresentation=MISSING),
        Reason.UNREADABLE_HEADER,
        NO_HEADER,
        "PixelRepresentation",
    ),
    PixelDefect.NOT_ONE_FRAME: (radiograph(NumberOfFrames=2), Reason.MULTI_FRAME, SEVERAL, "NumberOfFrames"),
    PixelDefect.COLOUR: (coloured(), Reason.COLOUR, "image is in colour", ""),
    PixelDefect.FORM: (
        radiograph(PhotometricInterpretation="PALETTE COLOR"),
        Reason.PIXEL_FORM,
        NOT_SUPPORTED,
        "PhotometricInterpretation",
    ),
    PixelDefect.SIZE: (
        radiograph(Rows=9000),
        Reason.IMAGE_SIZE,
        "image size is out of bounds",
        "Rows, Columns",
    ),
    PixelDefect.DEPTH: (radiograph(BitsAllocated=32, BitsStored=32, HighBit=31), Reason.UNREADABLE_PIXELS, UNREAD, ""),
    PixelDefect.SYNTAX: (transferred(HTJ2KLossless), Reason.UNREADABLE_PIXELS, UNREAD, ""),
    PixelDefect.LENGTH: (radiograph(PixelData=b"\0\1" * 100), Reason.UNREADABLE_PIXELS, UNREAD, ""),
    PixelDefect.DAMAGED: (transferred(JPEG2000Lossless, b"\xff\x4f" * 100), Reason.UNREADABLE_PIXELS, UNREAD, ""),
    PixelDefect.MISMATCH: (of_another_size(), Reason.UNREADABLE_PIXELS, UNREAD, ""),
    PixelDefect.BITS: (radiograph(BitsStored=7, HighBit=6), Reason.UNREADABLE_PIXELS, UNREAD, "BitsStored"),
    PixelDefect.DISPLAY: (
        radiograph(WindowCenter=100, WindowWidth=0),
        Reason.DISPLAY_ATTRIBUTES,
        NO_DISPLAY,
        "WindowWidth",
    ),
}


@pytest.mark.parametrize("defect", PixelDefect)
def test_each_defect_has_one_reason_and_one_sentence_that_is_true_of_it(defect: PixelDefect) -> None:
    image, reason, sentence, named = CASES[defect]
    in_full = f"{defect}: {named}" if named else str(defect)
    expected = NotAnalysed(reason=reason, detail=named if reason.names_attributes else in_full)
    assert prepare(image) == picture(image) == expected
    assert reason.sentence == sentence
    assert REASONS[defect] is reason
    outcome = analyse(image, RULES)
    assert isinstance(outcome, NotAnalysed)
    assert outcome.reason is reason


def test_every_defect_has_its_reason_and_no_default_hides_a_new_one() -> None:
    assert set(REASONS) == set(CASES) == set(PixelDefect)
    assert set(NOTES) == set(Mended)


@pytest.mark.parametrize(
    ("image", "reason", "completion", "sentence"),
    [
        (radiograph(NumberOfFrames=-3), Reason.UNREADABLE_HEADER, Completion.FAILED, NO_HEADER),
        (radiograph(PhotometricInterpretation=""), Reason.UNREADABLE_HEADER, Completion.FAILED, NO_HEADER),
        (radiograph(PhotometricInterpretation="GREY"), Reason.UNREADABLE_HEADER, Completion.FAILED, NO_HEADER),
        (radiograph(SamplesPerPixel=0), Reason.UNREADABLE_HEADER, Completion.FAILED, NO_HEADER),
        (radiograph(BitsStored=MISSING), Reason.UNREADABLE_HEADER, Completion.FAILED, NO_HEADER),
        (radiograph(SamplesPerPixel=2), Reason.PIXEL_FORM, Completion.NOT_ATTEMPTED, NOT_SUPPORTED),
        (radiograph(SamplesPerPixel=4), Reason.PIXEL_FORM, Completion.NOT_ATTEMPTED, NOT_SUPPORTED),
        (radiograph(PhotometricInterpretation="RGB"), Reason.PIXEL_FORM, Completion.NOT_ATTEMPTED, NOT_SUPPORTED),
        (
            radiograph(WindowCenter=9000, WindowWidth=9),
            Reason.DISPLAY_ATTRIBUTES,
            Completion.FAILED,
            NO_DISPLAY,
        ),
        (
            radiograph(RescaleSlope=1, RescaleIntercept=9000, WindowCenter=40, WindowWidth=80),
            Reason.DISPLAY_ATTRIBUTES,
            Completion.FAILED,
            NO_DISPLAY,
        ),
        (
            radiograph(VOILUTSequence=[images.lookup_table(np.full(256, 200), first=0, bits=8)]),
            Reason.DISPLAY_ATTRIBUTES,
            Completion.FAILED,
            NO_DISPLAY,
        ),
        (
            radiograph(PixelPaddingValue=0, PixelPaddingRangeLimit=255),
            Reason.DISPLAY_ATTRIBUTES,
            Completion.FAILED,
            NO_DISPLAY,
        ),
        (
            radiograph(PixelData=bytes([77]) * 512 * 512),
            Reason.EMPTY_PIXELS,
            Completion.NOT_ATTEMPTED,
            EMPTY,
        ),
        (
            radiograph(PixelData=bytes([77]) * 512 * 512, WindowCenter=9000, WindowWidth=9),
            Reason.EMPTY_PIXELS,
            Completion.NOT_ATTEMPTED,
            EMPTY,
        ),
    ],
)
def test_what_is_said_of_an_image_is_true_of_it(
    image: Dataset, reason: Reason, completion: Completion, sentence: str
) -> None:
    outcome = analyse(image, RULES)
    assert isinstance(outcome, NotAnalysed)
    assert (outcome.reason, outcome.reason.completion, outcome.reason.sentence) == (reason, completion, sentence)


def test_stored_values_that_differ_too_little_to_be_seen_are_not_called_empty() -> None:
    words = np.full((512, 512), 40000, dtype=np.uint16)
    words[:, :256] = 40001
    image = radiograph(BitsAllocated=16, BitsStored=16, HighBit=15, PixelData=words.tobytes())
    outcome = analyse(image, RULES)
    assert isinstance(outcome, NotAnalysed)
    assert outcome.reason is Reason.IMPLAUSIBLE_PIXELS
    assert outcome.detail.startswith("contrast 0.00")


def test_one_value_beside_padding_is_neither_called_empty_nor_badly_displayed() -> None:
    pixels = np.zeros((512, 512), dtype=np.uint8)
    pixels[:, :100] = 255
    outcome = analyse(radiograph(PixelData=pixels.tobytes(), PixelPaddingValue=255), RULES)
    assert isinstance(outcome, NotAnalysed)
    assert outcome.reason is Reason.IMPLAUSIBLE_PIXELS


def test_the_attributes_that_show_one_grey_are_named() -> None:
    outcome = prepare(radiograph(RescaleSlope=1, RescaleIntercept=9000, WindowCenter=40, WindowWidth=80))
    assert isinstance(outcome, NotAnalysed)
    assert outcome.detail == ("RescaleSlope, RescaleIntercept, WindowCenter, WindowWidth")


def comma(image: Dataset) -> Dataset:
    images.stored_as(image, "WindowCenter", b"127,5 ")
    return images.stored_as(image, "WindowWidth", b"256,0 ")


@pytest.mark.parametrize(
    ("image", "note", "sentence"),
    [
        (radiograph(NumberOfFrames=0), Note.NO_FRAMES, "Number of Frames is 0: read as one frame."),
        (
            radiograph(PixelData=films.picture().astype(np.uint8).tobytes() + bytes(512)),
            Note.PIXELS_PADDED,
            "Pixel Data is longer than the image: what follows the image was not read.",
        ),
        (
            comma(radiograph()),
            Note.DISPLAY_MENDED,
            "A window or rescale value has a comma or lacks its counterpart: read in its only sense.",
        ),
        (
            radiograph(VOILUTSequence=[images.lookup_table(np.arange(256), first=0, bits=16)]),
            Note.TABLE_SCALED,
            "A lookup table does not fit the bits that it declares: scaled by its largest entry.",
        ),
    ],
)
def test_what_was_read_in_its_only_sense_is_said_beside_the_result(image: Dataset, note: Note, sentence: str) -> None:
    plain, mended = analyse(radiograph(), RULES), analyse(image, RULES)
    assert isinstance(plain, Prepared)
    assert isinstance(mended, Prepared), mended
    assert np.abs(mended.inputs - plain.inputs).max() * 255 <= 1 + 1e-3
    assert mended.notes == (note,)
    assert note.sentence == sentence
    assert isinstance(picture(image), Picture)
