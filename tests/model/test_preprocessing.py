"""What a radiograph looks like to the network, however it was stored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pneumonia_model.decoding import Mended, PixelDefect
from pneumonia_model.preprocessing import (
    Display,
    UnreadablePixels,
    input_from_display,
    read_display,
    to_display,
    to_input,
)
from pydicom import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from tests.model import images

PICTURE: Final = images.picture()


def twelve_bits(picture: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the picture with 12 bits, every grey at the middle of those that are shown as it."""
    return np.rint(picture / 255 * 4095).astype(np.uint16)


def test_an_input_is_224_square_in_single_precision_between_0_and_1() -> None:
    inputs = to_input(images.radiograph(PICTURE))
    assert inputs.shape == (224, 224)
    assert inputs.dtype == np.float32
    assert inputs.min() == 0
    assert inputs.max() <= 1


def test_an_8_bit_film_is_shown_as_it_is() -> None:
    assert np.array_equal(to_display(images.radiograph(PICTURE)), PICTURE)


def test_a_film_of_224_square_reaches_the_network_unchanged() -> None:
    square = images.picture(224, 224)
    assert np.array_equal(to_input(images.radiograph(square)), square / np.float32(255))


def test_reduction_averages_areas_so_that_no_fine_line_is_lost() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (448, 224))
    assert np.allclose(to_input(images.radiograph(stripes)), 0.5, atol=1 / 255)


def test_training_pictures_and_dicom_films_go_through_the_same_reduction() -> None:
    assert np.array_equal(input_from_display(PICTURE), to_input(images.radiograph(PICTURE)))


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15, 16])
def test_more_bits_show_the_same_picture(bits: int) -> None:
    stored = np.rint(PICTURE / 255 * (2**bits - 1)).astype(np.uint16)
    assert np.array_equal(to_display(images.radiograph(stored, bits=bits)), PICTURE)


def test_a_film_of_12_bits_that_declares_16_is_not_shown_nearly_black() -> None:
    assert np.array_equal(to_display(images.radiograph(twelve_bits(PICTURE), bits=16)), PICTURE)


def test_one_overexposed_pixel_does_not_darken_an_8_bit_film() -> None:
    spotted = (PICTURE // 2).astype(np.uint8)
    spotted[5, 5] = 255
    assert np.array_equal(to_display(images.radiograph(spotted)), spotted)


def test_monochrome1_is_inverted_so_that_air_is_dark() -> None:
    negative = images.radiograph(255 - PICTURE, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(to_display(negative), PICTURE)


def test_monochrome1_with_an_inverse_presentation_is_inverted_once() -> None:
    negative = images.radiograph(255 - PICTURE, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert np.array_equal(to_display(negative), PICTURE)


def test_an_inverse_presentation_alone_inverts_too() -> None:
    assert np.array_equal(to_display(images.radiograph(255 - PICTURE, PresentationLUTShape="INVERSE")), PICTURE)


def test_signed_values_with_a_rescale_intercept_show_the_same_picture() -> None:
    signed = (twelve_bits(PICTURE).astype(np.int32) - 2048).astype(np.int16)
    image = images.radiograph(signed, bits=12, RescaleSlope=1, RescaleIntercept=2048)
    assert np.array_equal(to_display(image), PICTURE)


@pytest.mark.parametrize("bits", [13, 14, 16])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": -1024}])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_signed_film_without_negative_values_is_shown_as_the_unsigned_one(
    bits: int, rescale: dict[str, Any], photometric: str
) -> None:
    film = images.film()
    signed = images.radiograph(film.astype(np.int16), bits=bits, PhotometricInterpretation=photometric, **rescale)
    unsigned = images.radiograph(film, bits=bits, PhotometricInterpretation=photometric, **rescale)
    assert np.array_equal(to_display(signed), to_display(unsigned))


def test_a_falling_rescale_slope_turns_the_picture_round() -> None:
    image = images.radiograph(4095 - twelve_bits(PICTURE), bits=12, RescaleSlope=-1, RescaleIntercept=4095)
    assert np.array_equal(to_display(image), PICTURE)


def test_what_stands_in_unused_bits_is_not_part_of_the_picture() -> None:
    overlaid = twelve_bits(PICTURE) | np.uint16(0xA000)
    assert np.array_equal(to_display(images.radiograph(overlaid, bits=12)), PICTURE)


def test_values_at_the_top_of_their_words_are_found_by_the_high_bit() -> None:
    raised = (twelve_bits(PICTURE) << 4).astype(np.uint16)
    assert np.array_equal(to_display(images.radiograph(raised, bits=12, HighBit=15)), PICTURE)


def test_a_big_endian_film_shows_the_same_picture() -> None:
    image = images.big_endian(images.radiograph(twelve_bits(PICTURE), bits=12))
    assert np.array_equal(to_display(image), PICTURE)


def test_padding_becomes_air_in_either_photometric_interpretation() -> None:
    padded = PICTURE.copy()
    padded[:, :20] = 200
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        image = images.radiograph(padded, PhotometricInterpretation=photometric, PixelPaddingValue=200)
        assert (to_display(image)[:, :20] == 0).all()


def test_a_range_of_padding_values_becomes_air() -> None:
    padded = np.full((300, 260), 128, dtype=np.uint8)
    padded[:, :20] = np.arange(200, 220)
    image = images.radiograph(padded, PixelPaddingValue=219, PixelPaddingRangeLimit=200)
    shown = to_display(image)
    assert (shown[:, :20] == 0).all()
    assert (shown[:, 20:] == 128).all()


def test_padding_does_not_stretch_the_range_of_an_image_without_a_window() -> None:
    stored = np.where(PICTURE == 0, 65535, twelve_bits(PICTURE)).astype(np.uint16)
    assert np.array_equal(to_display(images.radiograph(stored, bits=16, PixelPaddingValue=65535)), PICTURE)


@pytest.mark.parametrize("store", [images.radiograph, images.rle_words, images.jpeg_ls_words, images.jpeg2000_91])
@pytest.mark.parametrize("value", [65535, -1])
def test_a_padding_value_outside_the_stored_range_is_compared_with_the_whole_word(
    store: Callable[..., Dataset], value: int
) -> None:
    film = images.film()
    film[5, 30:40] = 4095  # white in the picture is not padding
    words = film.copy()
    words[:, :20] = 65535
    film[:, :20] = 0
    image = store(words, bits=12)
    images.stored_as(image, "PixelPaddingValue", (value & 0xFFFF).to_bytes(2, "little"), "US" if value > 0 else "SS")
    assert np.array_equal(to_display(image), to_display(images.radiograph(film, bits=12)))


def test_a_range_of_padding_values_outside_the_stored_range_is_compared_with_the_whole_word() -> None:
    film = images.film()
    words = film.copy()
    words[:, :20] = np.arange(20) + 40000
    film[:, :20] = 0
    image = images.radiograph(words, bits=12, PixelPaddingValue=40000, PixelPaddingRangeLimit=40019)
    assert np.array_equal(to_display(image), to_display(images.radiograph(film, bits=12)))


def test_a_signed_padding_value_outside_the_stored_range_is_compared_with_the_whole_word() -> None:
    film = (images.film().astype(np.int32) - 2048).astype(np.int16)
    words = film.copy()
    words[:, :20] = -32768
    image = images.radiograph(words, bits=12)
    image.add_new("PixelPaddingValue", "SS", -32768)
    shown = to_display(image)
    assert (shown[:, :20] == 0).all()
    assert np.array_equal(shown[:, 20:], to_display(images.radiograph(film, bits=12))[:, 20:])


def test_a_padding_value_within_the_stored_range_is_no_whole_word() -> None:
    words = images.film() | np.uint16(0x8000)
    image = images.radiograph(words, bits=12, PixelPaddingValue=0)
    assert np.array_equal(to_display(image), to_display(images.radiograph(images.film(), bits=12)))


@pytest.mark.parametrize("function", ["LINEAR-EXACT", "LINEAREXACT", "LINEAR EXACT", "linear_exact", "LINEAR_EXACT\\"])
def test_a_function_of_the_window_is_known_however_its_words_are_joined(function: str) -> None:
    window: dict[str, Any] = {"WindowCenter": 128, "WindowWidth": 0.5}
    exact = images.radiograph(PICTURE, VOILUTFunction="LINEAR_EXACT", **window)
    image = images.stored_as(images.radiograph(PICTURE, **window), "VOILUTFunction", function.encode(), "CS")
    assert np.array_equal(to_display(image), to_display(exact))


@pytest.mark.parametrize(
    ("keyword", "written", "alone"),
    [
        ("VOILUTFunction", b"LINEAR\\", b"LINEAR"),
        ("VOILUTFunction", b"\\SIGMOID ", b"SIGMOID "),
        ("PresentationLUTShape", b"IDENTITY\\", b"IDENTITY"),
        ("PresentationLUTShape", b"INVERSE\\", b"INVERSE "),
        ("RescaleSlope", b"2\\", b"2 "),
    ],
)
def test_one_value_beside_empty_ones_is_the_value(keyword: str, written: bytes, alone: bytes) -> None:
    shown = []
    for octets in (written, alone):
        image = images.radiograph(PICTURE, WindowCenter=150, WindowWidth=180)
        shown.append(to_display(images.stored_as(image, keyword, octets, None)))
    assert np.array_equal(shown[0], shown[1])


@pytest.mark.parametrize("second", [b"abc", b"4,096", b"nan", b"1,2,3"])
@pytest.mark.parametrize("keyword", ["WindowCenter", "WindowWidth"])
def test_a_second_window_is_not_used_and_need_not_be_readable(keyword: str, second: bytes) -> None:
    window = {"WindowCenter": b"150\\99", "WindowWidth": b"180\\99"}
    expected = to_display(images.radiograph(PICTURE, WindowCenter=150, WindowWidth=180))
    image = images.radiograph(PICTURE)
    for name, written in (window | {keyword: window[keyword][:4] + second}).items():
        images.stored_as(image, name, written)
    assert np.array_equal(to_display(image), expected)
    images.stored_as(image, keyword, second + b"\\150")
    with pytest.raises(UnreadablePixels) as refusal:
        to_display(image)
    assert refusal.value.attributes == (keyword,)


def test_the_first_of_several_windows_is_shown() -> None:
    stored = twelve_bits(PICTURE)
    one = images.radiograph(stored, bits=12, WindowCenter=2000, WindowWidth=1000)
    two = images.radiograph(stored, bits=12, WindowCenter=[2000, 100], WindowWidth=[1000, 50])
    assert np.array_equal(to_display(one), to_display(two))
    assert not np.array_equal(to_display(one), PICTURE)


def test_a_voi_lut_is_shown_rather_than_the_window_beside_it() -> None:
    stored = twelve_bits(PICTURE)
    gamma = np.rint(65535 * (np.arange(4096) / 4095) ** 2).astype(np.uint16)
    image = images.radiograph(stored, bits=12, WindowCenter=100, WindowWidth=50)
    image.VOILUTSequence = [images.lookup_table(gamma, first=0, bits=16)]
    expected = np.rint(255 * (stored / 4095) ** 2)
    assert np.abs(to_display(image) - expected).max() <= 1


def reference_display(image: Dataset) -> NDArray[np.float64]:
    """Return what pydicom's own functions show, 0 to 1."""
    shown = apply_voi_lut(apply_modality_lut(image.pixel_array, image), image).astype(np.float64)
    if image.get("VOILUTSequence"):
        return np.asarray(shown / (2 ** image.VOILUTSequence[0].LUTDescriptor[2] - 1))
    span = 2**image.BitsStored - 1
    low = -(2 ** (image.BitsStored - 1)) if image.PixelRepresentation else 0
    slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
    return np.asarray((shown - (low * slope + intercept)) / (span * slope))


@settings(max_examples=40, deadline=None)
@given(
    bits=st.integers(9, 16),
    signed=st.booleans(),
    slope=st.sampled_from([0.5, 1.0, 2.0]),
    intercept=st.sampled_from([-1024.0, 0.0, 100.0]),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    share=st.tuples(st.floats(0.2, 0.8), st.floats(0.1, 1.5)),
)
def test_the_lookup_table_shows_what_pydicom_shows(
    *, bits: int, signed: bool, slope: float, intercept: float, function: str, share: tuple[float, float]
) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    stored = np.rint(low + PICTURE / 255 * (2**bits - 1)).astype(np.int16 if signed else np.uint16)
    image = images.radiograph(stored, bits=bits, RescaleSlope=slope, RescaleIntercept=intercept)
    image.WindowCenter = round(((low + share[0] * 2**bits) * slope) + intercept, 2)
    image.WindowWidth = round(share[1] * 2**bits * slope, 2)
    image.VOILUTFunction = function
    # Two roundings to 8 bits of numbers that differ in their last digits: never more than one grey apart.
    assert np.abs(to_display(image) - 255 * reference_display(image)).max() <= 0.5 + 1e-6


def test_a_modality_lut_shows_what_pydicom_shows() -> None:
    stored = twelve_bits(PICTURE)
    image = images.radiograph(stored, bits=12, WindowCenter=30000, WindowWidth=50000)
    curve = np.rint(65535 * np.sqrt(np.arange(4096) / 4095)).astype(np.uint16)
    image.ModalityLUTSequence = [images.lookup_table(curve, first=0, bits=16)]
    shown = apply_voi_lut(apply_modality_lut(image.pixel_array, image), image) / 65535
    assert np.abs(to_display(image) - 255 * shown).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"WindowCenter": 100, "WindowWidth": 0}, "WindowWidth"),
        ({"WindowCenter": 100, "WindowWidth": -50}, "WindowWidth"),
        ({"WindowCenter": 100, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, "WindowWidth"),
        ({"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "CUBIC"}, "VOILUTFunction"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0, "WindowCenter": 0, "WindowWidth": 5}, "RescaleSlope"),
        ({"RescaleSlope": [1, 2], "RescaleIntercept": 0}, "RescaleSlope"),
        ({"VOILUTSequence": [Dataset()]}, "VOILUTSequence"),
        ({"ModalityLUTSequence": [Dataset()]}, "ModalityLUTSequence"),
    ],
)
def test_display_attributes_that_make_no_sense_are_refused_rather_than_guessed_at(
    attributes: dict[str, Any], named: str
) -> None:
    image = images.radiograph(twelve_bits(PICTURE), bits=12, **attributes)
    with pytest.raises(UnreadablePixels) as refusal:
        to_display(image)
    assert refusal.value.defect is PixelDefect.DISPLAY
    assert refusal.value.attributes == (named,)


@pytest.mark.parametrize("keyword", ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("written", [b"4,096", b"wide", b"nan"])
def test_a_number_that_cannot_be_understood_is_refused_by_name(keyword: str, written: bytes) -> None:
    image = images.radiograph(twelve_bits(PICTURE), bits=12, WindowCenter=2047.5, WindowWidth=4096)
    with pytest.raises(UnreadablePixels) as refusal:
        to_display(images.stored_as(image, keyword, written))
    assert (refusal.value.defect, refusal.value.attributes) == (PixelDefect.DISPLAY, (keyword,))


def written(**attributes: bytes) -> Display:
    """Return what is shown of a film of 12 bits with these attributes."""
    image = images.radiograph(twelve_bits(PICTURE), bits=12)
    for keyword, octets in attributes.items():
        images.stored_as(image, keyword, octets, "CS" if keyword == "VOILUTFunction" else "DS")
    return read_display(image)


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": b"2047,5 ", "WindowWidth": b"4096,0"},
        {"WindowCenter": b"2047,5\\100,0", "WindowWidth": b"4096\\50 "},
        {"WindowCenter": b"1023,75 ", "WindowWidth": b"2048", "RescaleSlope": b"0,5 ", "RescaleIntercept": b"0,0 "},
        {"WindowCenter": b"4095", "WindowWidth": b"8192", "RescaleSlope": b"2 "},
        {"WindowCenter": b"4095", "WindowWidth": b"8192", "RescaleSlope": b"2 ", "RescaleIntercept": b""},
        {"WindowCenter": b"1047.5", "WindowWidth": b"4096", "RescaleIntercept": b"-1000"},
        {"WindowCenter": b"1047.5", "WindowWidth": b"4096", "RescaleSlope": b"  ", "RescaleIntercept": b"-1000"},
        {"RescaleIntercept": b"-1000"},
        {"RescaleSlope": b"0,5 ", "RescaleIntercept": b"0 "},
    ],
)
def test_a_comma_and_a_missing_counterpart_have_one_sense(attributes: dict[str, bytes]) -> None:
    shown = written(**attributes)
    assert np.abs(shown.greys.astype(int) - PICTURE).max() <= 1
    assert shown.mended == {Mended.NUMBERS}


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": b"", "WindowWidth": b""},
        {"WindowCenter": b"  ", "WindowWidth": b"  "},
        {"WindowCenter": b"100 ", "WindowWidth": b""},
        {"RescaleSlope": b"", "RescaleIntercept": b"  "},
        {"WindowCenter": b"\\2047.5 ", "WindowWidth": b"\\4096"},
        {"WindowCenter": b"2047.5", "WindowWidth": b"4096", "VOILUTFunction": b"linear"},
        {"WindowCenter": b"2047.5", "WindowWidth": b"4096", "VOILUTFunction": b"  "},
        {"WindowCenter": b"2047.5", "WindowWidth": b"4095", "VOILUTFunction": b"Linear_Exact  "},
        {"WindowCenter": b"2047.5", "WindowWidth": b"4095", "VOILUTFunction": b"LINEAR_EXACT\0"},
        {"WindowCenter": b"2047.5", "WindowWidth": b"4095", "VOILUTFunction": b"LINEAR EXACT"},
    ],
)
def test_an_empty_value_counts_as_none_and_a_function_is_known_in_any_case(attributes: dict[str, bytes]) -> None:
    shown = written(**attributes)
    assert np.abs(shown.greys.astype(int) - PICTURE).max() <= 1
    assert shown.mended == frozenset()


_KEYWORDS: Final = [
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "HighBit",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PlanarConfiguration",
    "PresentationLUTShape",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "VOILUTFunction",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
]
_VRS: Final = [None, "AT", "CS", "DS", "FD", "FL", "IS", "LO", "OB", "OW", "PN", "SS", "UL", "UN", "US", "ZZ"]


@settings(max_examples=300, deadline=None)
@given(
    elements=st.lists(
        st.tuples(
            st.sampled_from(_KEYWORDS),
            st.sampled_from(_VRS),
            st.one_of(st.binary(max_size=12), st.from_regex(rb"[-0-9,.\\ ]{0,9}", fullmatch=True)),
            st.booleans(),
        ),
        max_size=4,
    )
)
def test_no_value_of_any_attribute_makes_it_fail_in_another_way(
    elements: list[tuple[str, str | None, bytes, bool]],
) -> None:
    image = images.radiograph(twelve_bits(PICTURE), bits=12, WindowCenter=2047.5, WindowWidth=4096)
    for keyword, vr, octets, little in elements:
        images.stored_as(image, keyword, octets, vr, little=little)
    with contextlib.suppress(UnreadablePixels):
        assert to_display(image).shape == PICTURE.shape


def test_an_inverse_presentation_is_known_in_any_case() -> None:
    image = images.stored_as(images.radiograph(255 - PICTURE), "PresentationLUTShape", b"Inverse ", "CS")
    assert np.array_equal(to_display(image), PICTURE)


@pytest.mark.parametrize(("vr", "octets"), [("SS", b"\x00\xf8"), ("US", b"\x00\xf8"), (None, b"\x00\xf8")])
def test_padding_has_the_sign_of_the_stored_values(vr: str | None, octets: bytes) -> None:
    signed = (twelve_bits(PICTURE).astype(np.int32) - 2048).astype(np.int16)
    signed[:, :20] = -2048
    image = images.stored_as(
        images.radiograph(signed, bits=12, PresentationLUTShape="INVERSE"), "PixelPaddingValue", octets, vr
    )
    assert (to_display(image)[:, :20] == 0).all()


@pytest.mark.parametrize(("vr", "octets"), [("SS", b"\x60\xea"), ("US", b"\x60\xea"), (None, b"\x60\xea")])
def test_padding_of_unsigned_values_has_no_sign(vr: str | None, octets: bytes) -> None:
    stored = twelve_bits(PICTURE)
    stored[:, :20] = 60000
    image = images.stored_as(images.radiograph(stored, bits=16), "PixelPaddingValue", octets, vr)
    assert (to_display(image)[:, :20] == 0).all()
    assert np.array_equal(to_display(image)[:, 20:], PICTURE[:, 20:])


def test_a_padding_range_may_end_at_0() -> None:
    shown = to_display(images.radiograph(PICTURE, PixelPaddingValue=90, PixelPaddingRangeLimit=0))
    assert np.array_equal(shown, np.where(PICTURE <= 90, 0, PICTURE))


def test_a_padding_range_without_an_end_is_one_value() -> None:
    image = images.radiograph(PICTURE, PixelPaddingValue=200)
    assert np.array_equal(to_display(image), to_display(images.stored_as(image, "PixelPaddingRangeLimit", b"", "US")))


def test_what_makes_the_greys_is_named_and_equal_pixels_are_noticed() -> None:
    twelve = twelve_bits(PICTURE)
    plain = read_display(images.radiograph(twelve, bits=12))
    assert (plain.shaped_by, plain.one_value, plain.samples) == ((), False, 1)
    windowed = read_display(images.radiograph(twelve, bits=12, WindowCenter=9000, WindowWidth=9, RescaleSlope=1))
    assert windowed.greys.max() == 0
    assert windowed.shaped_by == ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
    assert not windowed.one_value
    flat = read_display(images.radiograph(np.full_like(PICTURE, 77), WindowCenter=9000, WindowWidth=9))
    assert (flat.shaped_by, flat.one_value) == ((), True)
    colour = read_display(images.radiograph(np.dstack([PICTURE] * 3)))
    assert (colour.samples, colour.one_value) == (3, False)


def test_words_that_differ_above_the_stored_bits_only_are_refused_and_not_called_empty() -> None:
    words = np.full(PICTURE.shape, 77, dtype=np.uint16)
    assert read_display(images.radiograph(words, bits=12)).one_value
    words[::2] |= 0xF000
    with pytest.raises(UnreadablePixels) as refusal:
        read_display(images.radiograph(words, bits=12))
    assert (refusal.value.defect, refusal.value.attributes) == (PixelDefect.BITS, ("BitsStored",))


def test_a_screen_capture_with_equal_channels_is_shown_as_grey() -> None:
    assert np.array_equal(to_display(images.radiograph(np.dstack([PICTURE] * 3))), PICTURE)


def test_real_colour_is_refused() -> None:
    tinted = np.dstack([PICTURE] * 3)
    tinted[40, 40, 2] += 3
    with pytest.raises(UnreadablePixels) as refusal:
        to_display(images.radiograph(tinted))
    assert refusal.value.defect is PixelDefect.COLOUR


def test_the_interpolation_is_the_one_that_the_bundle_states() -> None:
    reduced = cv2.resize(PICTURE, (224, 224), interpolation=cv2.INTER_AREA)
    assert np.array_equal(np.rint(to_input(images.radiograph(PICTURE)) * 255), reduced)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_film_shifted_up_into_more_bits_is_the_same_picture(bits: int, inverted: bool) -> None:
    stored = images.picture().astype(np.uint16) << (bits - 8)
    photometric = "MONOCHROME2"
    if inverted:
        stored, photometric = (1 << bits) - 1 - stored, "MONOCHROME1"
    film = images.radiograph(stored, bits=bits, PhotometricInterpretation=photometric)
    assert np.array_equal(to_display(film), images.picture())
