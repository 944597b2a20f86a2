"""Every transfer syntax gives the same pixels, and damaged or lying ones give none."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from pneumonia_model.decoding import Mended, PixelDefect
from pneumonia_model.preprocessing import UnreadablePixels, read_display, to_display
from pneumonia_model.sizes import MAX_SAMPLES, MAX_SIDE
from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame, parse_basic_offsets
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.model import images

PICTURE: Final = images.picture()
SIXTEEN_BITS: Final = (PICTURE.astype(np.uint16) << 8) | PICTURE


def refused(image: Dataset) -> UnreadablePixels:
    """Return why the image cannot be read; fail if it can."""
    with pytest.raises(UnreadablePixels) as refusal:
        to_display(image)
    assert str(refusal.value) == refusal.value.defect.value
    return refusal.value


def defect(image: Dataset) -> PixelDefect:
    return refused(image).defect


@pytest.mark.parametrize("store", [images.jpeg2000, images.jpeg_ls, images.rle])
@pytest.mark.parametrize("stored", [PICTURE, SIXTEEN_BITS], ids=["8 bits", "16 bits"])
def test_lossless_compression_changes_no_pixel(store: Callable[..., Dataset], stored: images.Pixels) -> None:
    assert np.array_equal(to_display(store(stored)), PICTURE)


@pytest.mark.parametrize("store", [images.jpeg2000, images.jpeg_ls, images.rle])
def test_signed_values_keep_their_sign_through_compression(store: Callable[..., Dataset]) -> None:
    signed = (np.rint(PICTURE / 255 * 4095) - 2048).astype(np.int16)
    assert np.array_equal(to_display(store(signed, bits=12)), PICTURE)


def test_jpeg_baseline_stays_close() -> None:
    assert np.abs(to_display(images.jpeg(PICTURE)).astype(int) - PICTURE).max() <= 6


@pytest.mark.parametrize(
    "options",
    [{"quality": 1}, {"quality": 75}, {"quality": 100}, {"optimize": True}, {"restart_marker_blocks": 3}],
    ids=str,
)
@pytest.mark.parametrize("size", [(256, 256), (301, 257)], ids=str)
def test_the_usual_jpeg_has_the_greys_of_the_reference_decoder_to_the_last_bit(
    size: tuple[int, int], options: dict[str, int]
) -> None:
    extremes = np.random.default_rng(0).choice(np.array([0, 255], dtype=np.uint8), size)  # overshoots at each edge
    for pixels in (np.ascontiguousarray(np.resize(PICTURE, size)), extremes):
        image = images.jpeg(pixels, **options)
        assert np.array_equal(to_display(image), by_gdcm(image))


def test_a_jpeg_stream_that_is_not_as_usual_is_left_to_the_reference_decoder() -> None:
    whole = images.jpeg_stream(PICTURE)
    image = images.compressed(images.radiograph(PICTURE), whole[:-40] + whole[-2:], JPEGBaseline8Bit)
    with pytest.raises(ValueError, match="premature end"):
        simplejpeg.decode_jpeg(get_frame(image.PixelData, 0, number_of_frames=1), colorspace="GRAY")
    assert np.array_equal(to_display(image), by_gdcm(image))


def by_gdcm(image: Dataset) -> NDArray[np.generic]:
    greys, _ = get_decoder(JPEGBaseline8Bit).as_array(image, raw=True, decoding_plugin="gdcm")
    return greys


def test_a_grey_screen_capture_in_colour_jpeg_is_read() -> None:
    shown = to_display(images.jpeg(np.dstack([PICTURE] * 3), subsampling="4:2:2"))
    assert np.abs(shown.astype(int) - PICTURE).max() <= 6


def test_a_film_in_several_fragments_is_put_together() -> None:
    whole, parts = images.jpeg(PICTURE), images.jpeg(PICTURE)
    stream = get_frame(whole.PixelData, 0, number_of_frames=1)
    parts.PixelData = encapsulate([stream], fragments_per_frame=4)
    assert np.array_equal(to_display(parts), to_display(whole))


def test_an_image_without_pixels_is_refused() -> None:
    image = images.radiograph(PICTURE)
    del image.PixelData
    assert defect(image) is PixelDefect.MISSING


@pytest.mark.parametrize("frames", [2, 1000000])
def test_more_than_one_frame_is_refused(frames: int) -> None:
    assert defect(images.radiograph(PICTURE, NumberOfFrames=frames)) is PixelDefect.NOT_ONE_FRAME


@pytest.mark.parametrize("written", [b"0", b"0 ", b"00", b"+0"])
def test_no_frames_can_only_mean_one(written: bytes) -> None:
    image = images.stored_as(images.radiograph(PICTURE), "NumberOfFrames", written, "IS")
    read = read_display(image)
    assert np.array_equal(read.greys, PICTURE)
    assert read.mended == {Mended.FRAMES}


@pytest.mark.parametrize(
    "written", [b"1\\", b"\\1", b"\\", b"1\\1", b"", b"  ", b"\0\0", b"1", b"01", b" 1", b"+1", b"1\0", b"1."]
)
def test_one_frame_is_one_however_it_is_written(written: bytes) -> None:
    read = read_display(images.stored_as(images.radiograph(PICTURE), "NumberOfFrames", written, "IS"))
    assert np.array_equal(read.greys, PICTURE)
    assert read.mended == frozenset()


@pytest.mark.parametrize("written", [b"one", b"-1", b"1\\2", b"1.5", b"1,5", b"?"])
def test_a_number_of_frames_that_cannot_be_read_is_not_taken_for_several(written: bytes) -> None:
    refusal = refused(images.stored_as(images.radiograph(PICTURE), "NumberOfFrames", written, "IS"))
    assert (refusal.defect, refusal.attributes) == (PixelDefect.ATTRIBUTE, ("NumberOfFrames",))


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("store", [images.jpeg, images.jpeg2000, images.jpeg_ls, images.rle])
def test_a_second_frame_that_only_the_pixel_data_knows_of_is_refused(
    store: Callable[..., Dataset], has_table: bool
) -> None:
    image = store(PICTURE)
    stream = get_frame(image.PixelData, 0, number_of_frames=1)
    image.PixelData = encapsulate([stream, stream], has_bot=has_table)
    assert defect(image) is PixelDefect.NOT_ONE_FRAME


@pytest.mark.parametrize("store", [images.jpeg, images.jpeg2000, images.jpeg_ls, images.rle])
def test_an_offset_table_that_counts_fragments_makes_no_frames_of_them(store: Callable[..., Dataset]) -> None:
    whole, parts = store(PICTURE), store(PICTURE)
    stream = get_frame(whole.PixelData, 0, number_of_frames=1)
    third = len(stream) // 6 * 2
    parts.PixelData = encapsulate([stream[:third], stream[third : 2 * third], stream[2 * third :]])
    assert len(parse_basic_offsets(parts.PixelData)) == 3
    assert np.array_equal(to_display(parts), to_display(whole))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, PixelDefect.FORM),
        ({"PhotometricInterpretation": "CMYK", "SamplesPerPixel": 4}, PixelDefect.FORM),
        ({"PhotometricInterpretation": "RGB"}, PixelDefect.FORM),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": None}, PixelDefect.ATTRIBUTE),
        ({"PhotometricInterpretation": ""}, PixelDefect.ATTRIBUTE),
        ({"PhotometricInterpretation": "MONOCHROME3"}, PixelDefect.ATTRIBUTE),
        ({"PhotometricInterpretation": ["MONOCHROME1", "MONOCHROME2"]}, PixelDefect.ATTRIBUTE),
        ({"SamplesPerPixel": 4}, PixelDefect.FORM),
        ({"SamplesPerPixel": 2}, PixelDefect.FORM),
        ({"SamplesPerPixel": 0}, PixelDefect.ATTRIBUTE),
        ({"BitsAllocated": 32}, PixelDefect.DEPTH),
        ({"BitsAllocated": 1}, PixelDefect.DEPTH),
        ({"BitsStored": 9}, PixelDefect.DEPTH),
        ({"BitsStored": 0}, PixelDefect.DEPTH),
        ({"HighBit": 8}, PixelDefect.DEPTH),
        ({"PixelRepresentation": 2}, PixelDefect.DEPTH),
        ({"PixelRepresentation": None}, PixelDefect.ATTRIBUTE),
        ({"BitsStored": [8, 12]}, PixelDefect.ATTRIBUTE),
        ({"Rows": 0}, PixelDefect.SIZE),
        ({"Rows": MAX_SIDE + 1}, PixelDefect.SIZE),
        ({"Columns": None}, PixelDefect.ATTRIBUTE),
        ({"Columns": [3, 4]}, PixelDefect.ATTRIBUTE),
    ],
)
def test_attributes_that_no_radiograph_has_are_refused(attributes: dict[str, Any], expected: PixelDefect) -> None:
    assert defect(images.radiograph(PICTURE, **attributes)) is expected


def test_a_picture_in_colour_has_no_more_samples_than_the_largest_film() -> None:
    side = 4_800
    assert side * side < MAX_SAMPLES < 3 * side * side
    grey, colour = images.radiograph(PICTURE), images.radiograph(np.dstack([PICTURE] * 3))
    for image, expected in ((grey, PixelDefect.LENGTH), (colour, PixelDefect.SIZE)):
        image.Rows = image.Columns = side
        assert defect(image) is expected


@pytest.mark.parametrize("syntax", [HTJ2KLossless, MPEG2MPML, "1.2.3", None])
def test_a_transfer_syntax_without_a_decoder_is_refused(syntax: str | None) -> None:
    image = images.radiograph(PICTURE)
    if syntax is None:
        del image.file_meta.TransferSyntaxUID
    else:
        image.file_meta.TransferSyntaxUID = UID(syntax)
    assert defect(image) is PixelDefect.SYNTAX


def test_a_refusal_names_the_attribute_at_fault() -> None:
    assert refused(images.radiograph(PICTURE, BitsStored=None)).attributes == ("BitsStored",)
    assert refused(images.stored_as(images.radiograph(PICTURE), "BitsStored", b"\x08", "US")).attributes == (
        "BitsStored",
    )
    assert refused(images.stored_as(images.radiograph(PICTURE), "HighBit", b"?", "ZZ")).attributes == ("HighBit",)
    assert refused(images.radiograph(PICTURE, SamplesPerPixel=4)).attributes == ("SamplesPerPixel",)
    assert refused(images.radiograph(PICTURE, PhotometricInterpretation="HSV")).attributes == (
        "PhotometricInterpretation",
    )


@pytest.mark.parametrize(
    "written",
    [
        b"MONOCHROME2\\",
        b"\\MONOCHROME2",
        b"Monochrome2",
        b"monochrome2 ",
        b" MONOCHROME2",
        b"MONOCHROME2\0",
        b"MONOCHROME 2",
    ],
)
def test_a_photometric_interpretation_is_known_in_any_case_and_padding(written: bytes) -> None:
    image = images.stored_as(images.radiograph(PICTURE), "PhotometricInterpretation", written, "CS")
    assert np.array_equal(to_display(image), PICTURE)
    negative = images.radiograph(255 - PICTURE)
    images.stored_as(negative, "PhotometricInterpretation", written.replace(b"2", b"1"), "CS")
    assert np.array_equal(to_display(negative), PICTURE)


def test_a_grayscale_image_without_samples_per_pixel_has_one() -> None:
    image = images.radiograph(PICTURE)
    del image.SamplesPerPixel
    assert np.array_equal(to_display(image), PICTURE)


def test_three_samples_of_16_bits_are_not_said_to_be_coloured() -> None:
    image = images.radiograph(np.dstack([SIXTEEN_BITS] * 3))
    assert defect(image) is PixelDefect.DEPTH


@pytest.mark.parametrize("stated", [None, 0, 1])
@pytest.mark.parametrize("true", [0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_equal_channels_are_found_by_pixel_or_by_plane_whatever_is_stated(
    stated: int | None, true: int, photometric: str
) -> None:
    channels = [PICTURE] * 3 if photometric == "RGB" else [PICTURE, *[np.full_like(PICTURE, 128)] * 2]
    image = images.radiograph(np.dstack(channels), PhotometricInterpretation=photometric)
    image.PixelData = np.stack(channels, axis=0 if true else -1).tobytes()
    image.PlanarConfiguration = stated
    assert np.array_equal(to_display(image), PICTURE)
    if stated is None:
        del image.PlanarConfiguration
        assert np.array_equal(to_display(image), PICTURE)


def test_channels_that_differ_by_pixel_and_by_plane_are_in_colour() -> None:
    image = images.radiograph(np.dstack([PICTURE, PICTURE, 255 - PICTURE]))
    del image.PlanarConfiguration
    assert defect(image) is PixelDefect.COLOUR


def test_compressed_colours_need_no_planar_configuration_and_no_other_than_0_and_1_is_read() -> None:
    stream, native = images.jpeg(np.dstack([PICTURE] * 3)), images.radiograph(np.dstack([PICTURE] * 3))
    del stream.PlanarConfiguration
    native.PlanarConfiguration = 2
    assert np.abs(to_display(stream).astype(int) - PICTURE).max() <= 6
    assert refused(native).attributes == ("PlanarConfiguration",)


@pytest.mark.parametrize("surplus", [bytes(2), bytes(512), 512 * b"\xff", 2 * b" ", bytes(PICTURE.size - 2)])
def test_native_pixel_data_that_is_filled_up_is_read(surplus: bytes) -> None:
    image = images.radiograph(PICTURE)
    image.PixelData += surplus
    read = read_display(image)
    assert np.array_equal(read.greys, PICTURE)
    assert read.mended == {Mended.PADDING}


def test_filled_up_words_of_either_byte_order_and_equal_channels_are_read() -> None:
    little, colour = images.radiograph(SIXTEEN_BITS), images.radiograph(np.dstack([PICTURE] * 3))
    big = images.big_endian(images.radiograph(SIXTEEN_BITS))
    for image in (little, big, colour):
        image.PixelData += bytes(510)
        assert np.array_equal(to_display(image), PICTURE)


def test_uncompressed_colours_that_two_pixels_share_are_read() -> None:
    shared = np.full((PICTURE.shape[0], PICTURE.shape[1] // 2, 4), 128, dtype=np.uint8)
    shared[..., 0], shared[..., 1] = PICTURE[:, ::2], PICTURE[:, 1::2]
    image = images.radiograph(np.dstack([PICTURE] * 3), PhotometricInterpretation="YBR_FULL_422")
    image.PixelData = shared.tobytes()
    assert np.array_equal(to_display(image), PICTURE)


@pytest.mark.parametrize("depth", [8, 12])
@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
@pytest.mark.parametrize("surplus", [2, 510, 512, 1024, 4096])
def test_a_film_that_is_filled_up_keeps_its_rows(depth: int, byte: bytes, surplus: int) -> None:
    stored = images.film(largest=2**depth - 1)
    pixels = stored.astype(np.uint8) if depth == 8 else stored
    image = images.radiograph(pixels, bits=depth)
    expected = to_display(image)
    image.PixelData += surplus * byte
    assert np.array_equal(to_display(image), expected)


@pytest.mark.parametrize("depth", [8, 12])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("missing", [1, 2, 3, 7, 15, 20])
def test_rows_that_are_stated_too_short_are_not_read_as_padding(depth: int, signed: bool, missing: int) -> None:
    stored = images.film(largest=2**depth - 1)
    pixels = stored.astype(np.uint8) if depth == 8 else stored
    image = images.radiograph(pixels ^ pixels.dtype.type(signed << (depth - 1)), bits=depth)
    image.PixelRepresentation = int(signed)
    assert to_display(image).shape == pixels.shape
    image.Columns -= missing
    if signed:  # its end, black as well, is another word
        image.PixelData = image.PixelData[: image.Rows * image.Columns * pixels.itemsize] + bytes(512)
    assert defect(image) is PixelDefect.LENGTH


def test_rows_that_are_stated_too_long_are_not_read_as_padding() -> None:
    image = images.radiograph(images.film(), bits=12)
    image.Columns += 1
    image.Rows -= 3
    assert defect(image) is PixelDefect.LENGTH


@pytest.mark.parametrize("missing", [1, 2, 20])
def test_rows_that_are_stated_too_short_are_refused_in_run_length_encoding_too(missing: int) -> None:
    image = images.rle(images.film(), bits=12)
    image.Columns -= missing
    assert defect(image) is PixelDefect.MISMATCH


def with_surplus(number: int) -> Dataset:
    """Return an RLE film of 300 x 260 whose segment goes on behind the last row."""
    stream = get_frame(images.rle(PICTURE).PixelData, 0, number_of_frames=1)
    return images.compressed(images.radiograph(PICTURE), stream + bytes((257 - number, 0)), RLELossless)


@pytest.mark.filterwarnings("ignore:The decoded RLE segment contains non-conformant padding")
def test_a_run_length_encoded_film_may_end_a_few_bytes_behind_its_last_row() -> None:
    assert np.array_equal(to_display(with_surplus(100)), PICTURE)
    image = with_surplus(128)
    image.PixelData = encapsulate([get_frame(image.PixelData, 0, number_of_frames=1) + 2 * b"\x81\0"])
    assert defect(image) is PixelDefect.MISMATCH


def rle_frame(*segments: bytes, number: int | None = None, offsets: Sequence[int] | None = None) -> Dataset:
    """Return a film with this RLE frame, whose header may say something else."""
    true = [64 + len(b"".join(segments[:before])) for before in range(len(segments))]
    stated = (list(true if offsets is None else offsets) + 15 * [0])[:15]
    header = struct.pack("<16I", len(segments) if number is None else number, *stated)
    return images.compressed(images.radiograph(PICTURE), header + b"".join(segments), RLELossless)


BLACK: Final = PICTURE.size // 128 * b"\x81\0" + bytes(
    (257 - PICTURE.size % 128, 0)
)  # runs of 128, and one of the rest


def test_a_black_film_in_run_length_encoding_is_read() -> None:
    assert to_display(rle_frame(BLACK)).max() == 0


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (rle_frame(BLACK, BLACK), PixelDefect.MISMATCH),
        (rle_frame(BLACK[:-4]), PixelDefect.DAMAGED),
        (rle_frame(2 * BLACK), PixelDefect.MISMATCH),
        (rle_frame(100 * BLACK), PixelDefect.MISMATCH),
        (rle_frame(BLACK, number=0), PixelDefect.DAMAGED),
        (rle_frame(BLACK, number=16), PixelDefect.DAMAGED),
        (rle_frame(BLACK, offsets=[66]), PixelDefect.DAMAGED),
        (rle_frame(BLACK, number=2, offsets=[64, 64]), PixelDefect.DAMAGED),
        (rle_frame(BLACK, number=2, offsets=[64, 2**32 - 1]), PixelDefect.DAMAGED),
        (rle_frame(4 * PICTURE.size * b"\x80" + BLACK), PixelDefect.DAMAGED),
    ],
)
def test_segments_that_do_not_fit_the_attributes_are_refused(image: Dataset, expected: PixelDefect) -> None:
    assert defect(image) is expected


WHOLE_WORDS: Final[dict[str, Callable[..., Dataset]]] = {
    "native": images.radiograph,
    "rle": images.rle_words,
    "jpeg-ls": images.jpeg_ls_words,
    "jpeg lossless": images.jpeg_lossless_words,
    "jpeg 2000": images.jpeg2000_words,
    "jpeg 2000, may be lossy": images.jpeg2000_91,
}


@pytest.mark.parametrize("store", WHOLE_WORDS.values(), ids=WHOLE_WORDS.keys())
@pytest.mark.parametrize("above", [0xC000, 0x8000, 0x4000])
def test_bits_above_those_stored_are_not_part_of_the_picture_in_any_lossless_syntax(
    store: Callable[..., Dataset], above: int
) -> None:
    fourteen_bits = np.rint(PICTURE / 255 * 16383).astype(np.uint16)
    assert np.array_equal(to_display(store(fourteen_bits | np.uint16(above), bits=14)), PICTURE)


@pytest.mark.parametrize("store", WHOLE_WORDS.values(), ids=WHOLE_WORDS.keys())
def test_bits_above_a_signed_value_do_not_change_its_sign(store: Callable[..., Dataset]) -> None:
    words = ((np.rint(PICTURE / 255 * 4095).astype(np.int16) - 2048) & 0x0FFF).astype(np.uint16) | np.uint16(0x5000)
    image = store(words, bits=12)
    image.PixelRepresentation = 1
    assert np.array_equal(to_display(image), PICTURE)


@pytest.mark.parametrize("store", WHOLE_WORDS.values(), ids=WHOLE_WORDS.keys())
@pytest.mark.parametrize("bits", [8, 10, 11])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_those_stored_that_continue_the_picture_are_refused(
    store: Callable[..., Dataset], bits: int, signed: bool
) -> None:
    words = images.film() - np.uint16(2048 * signed)
    image = store(words, bits=bits)
    image.PixelRepresentation = int(signed)
    refusal = refused(image)
    assert refusal.defect is PixelDefect.BITS
    assert refusal.attributes == (("BitsStored", "PixelRepresentation") if signed else ("BitsStored",))


@pytest.mark.parametrize("store", [images.jpeg2000, images.jpeg_ls, images.rle])
@pytest.mark.parametrize("bits", [10, 11])
def test_a_stream_that_states_more_bits_than_are_stored_is_refused_by_its_picture(
    store: Callable[..., Dataset], bits: int
) -> None:
    image = store(images.film(), bits=12)
    image.BitsStored, image.HighBit = bits, bits - 1
    assert refused(image).attributes == ("BitsStored",)


@pytest.mark.parametrize("ratio", [4, 10])
def test_a_lossy_picture_of_more_bits_than_are_stored_is_refused_and_not_cut_off_at_white(ratio: int) -> None:
    words = images.film()
    whole = to_display(images.jpeg2000_91(words, bits=12, ratio=ratio))
    assert np.abs(whole.astype(int) - to_display(images.radiograph(words, bits=12))).mean() < 2
    assert refused(images.jpeg2000_91(words, bits=11, ratio=ratio)).attributes == ("BitsStored",)
    assert refused(images.jpeg2000_91(words | np.uint16(0xC000), bits=12, ratio=ratio)).attributes == ("BitsStored",)


def overlays() -> dict[str, NDArray[np.uint16]]:
    y, x = np.mgrid[:512, :480]
    drawn = (abs((x - 200) ** 2 + (y - 250) ** 2 - 8000) < 500) | ((x > 300) & (y > 300) & (x < 400) & (y < 400))
    noise = np.random.default_rng(1).integers(0, 16, (512, 480))
    lines = (y % 2) ^ (x % 2)
    patterns = {
        "constant": 9 + 0 * x,
        "overlay": drawn * 1,
        "several": drawn * 8 + lines,
        "noise": noise,
        "sign": lines * 15,
    }
    return {name: (pattern << 12).astype(np.uint16) for name, pattern in patterns.items()}


@pytest.mark.parametrize("store", WHOLE_WORDS.values(), ids=WHOLE_WORDS.keys())
@pytest.mark.parametrize("above", overlays().values(), ids=overlays().keys())
@pytest.mark.parametrize("signed", [False, True])
def test_overlays_constants_and_noise_above_the_stored_bits_are_masked(
    store: Callable[..., Dataset], above: NDArray[np.uint16], signed: bool
) -> None:
    film = images.film()
    words = (film - np.uint16(2048)) & np.uint16(0xFFF) if signed else film
    image = store(words | above, bits=12)
    image.PixelRepresentation = int(signed)
    assert np.array_equal(to_display(image), to_display(images.radiograph(film, bits=12)))


def test_a_signed_value_may_repeat_its_sign_above_the_stored_bits() -> None:
    signed = (images.film().astype(np.int32) - 2048).astype(np.int16)
    expected = to_display(images.radiograph(images.film(), bits=12))
    assert np.array_equal(to_display(images.radiograph(signed, bits=12)), expected)


@pytest.mark.parametrize("store", WHOLE_WORDS.values(), ids=WHOLE_WORDS.keys())
def test_values_at_the_top_of_their_words_are_found_in_any_lossless_syntax(store: Callable[..., Dataset]) -> None:
    image = store(np.rint(PICTURE / 255 * 4095).astype(np.uint16) << 4 | 0xA, bits=12)
    image.HighBit = 15
    assert np.array_equal(to_display(image), PICTURE)


def test_values_at_the_top_of_words_that_are_not_coded_whole_are_refused() -> None:
    image = images.jpeg_ls(np.rint(PICTURE / 255 * 4095).astype(np.uint16), bits=12)
    image.HighBit = 15
    refusal = refused(image)
    assert (refusal.defect, refusal.attributes) == (PixelDefect.DEPTH, ("HighBit",))


@pytest.mark.parametrize("error", [0, 2])
def test_a_jpeg_ls_stream_itself_says_whether_it_is_exact(error: int) -> None:
    fourteen_bits = np.rint(PICTURE / 255 * 16383).astype(np.uint16) | np.uint16(0xC000)
    image = images.jpeg_ls_words(fourteen_bits, bits=14, error=error)
    image.file_meta.TransferSyntaxUID = JPEGLSLossless if error else JPEGLSNearLossless
    if error:
        assert refused(image).defect is PixelDefect.BITS
    else:
        assert np.array_equal(to_display(image), PICTURE)


def test_a_lossy_stream_that_overshoots_its_stored_range_is_white_there() -> None:
    bright = np.maximum(np.rint(PICTURE / 255 * 4095), 100).astype(np.uint16)
    bright[:50] = 4100
    exact = bright.copy()
    exact[:50] = 4095
    shown = to_display(images.jpeg_ls_words(bright, bits=12, error=2))
    assert np.abs(shown.astype(int) - to_display(images.radiograph(exact, bits=12))).max() <= 1


@pytest.mark.parametrize(
    "change",
    [
        lambda octets: octets[:-2],
        lambda octets: octets + b"\0\1",
        lambda octets: octets + bytes(range(1, 9)),
        lambda octets: 2 * octets,
        lambda octets: octets + bytes(len(octets)),
        lambda _: b"\0\0",
    ],
)
def test_native_pixels_of_another_length_are_refused(change: Callable[[bytes], bytes]) -> None:
    image = images.radiograph(PICTURE)
    image.PixelData = change(image.PixelData)
    assert defect(image) is PixelDefect.LENGTH


STREAMS: Final[dict[str, Callable[..., Dataset]]] = {
    "jpeg": images.jpeg,
    "jpeg 2000": images.jpeg2000,
    "jpeg-ls": images.jpeg_ls,
}


@pytest.mark.parametrize("store", STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_cut_stream_is_refused(store: Callable[..., Dataset], share: float) -> None:
    image = store(PICTURE)
    stream = get_frame(image.PixelData, 0, number_of_frames=1)
    image.PixelData = encapsulate([stream[: int(len(stream) * share)]])
    assert defect(image) is PixelDefect.DAMAGED


@pytest.mark.parametrize("store", STREAMS.values(), ids=STREAMS.keys())
def test_the_same_stream_uncut_is_read(store: Callable[..., Dataset]) -> None:
    assert to_display(store(PICTURE)).shape == PICTURE.shape


@pytest.mark.parametrize("store", STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("fill", [b"\xff", b"\x5a"])
def test_one_byte_that_fills_up_to_an_even_length_does_no_harm_and_more_do(
    store: Callable[..., Dataset], fill: bytes
) -> None:
    image = store(PICTURE)
    stream = get_frame(image.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    image.PixelData = encapsulate([stream + fill])
    assert to_display(image).shape == PICTURE.shape
    image.PixelData = encapsulate([stream + 4 * b"\x5a"])
    assert defect(image) is PixelDefect.DAMAGED


@pytest.mark.parametrize(
    "options",
    [
        {"tile_size": (64, 64)},
        {"tile_size": (100, 77), "num_resolutions": 3},
        {"precinct_size": (64, 64), "codeblock_size": (16, 16)},
        {"precinct_size": (32, 64), "codeblock_size": (8, 8), "num_resolutions": 2, "tile_size": (128, 128)},
        {"quality_mode": "rates", "quality_layers": [20, 10, 5, 1], "progression": "RPCL"},
        {"quality_layers": [40, 20, 1], "precinct_size": (64, 64), "tile_size": (128, 256), "progression": "LRCP"},
    ],
)
def test_a_film_that_is_cut_into_tiles_precincts_and_layers_is_read(options: dict[str, Any]) -> None:
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, format="JPEG2000", no_jp2=True, irreversible=False, **options)
    image = images.compressed(images.radiograph(PICTURE), file.getvalue(), JPEG2000Lossless)
    assert np.abs(to_display(image).astype(int) - PICTURE).max() <= 3


@pytest.mark.parametrize("store", STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_a_stream_of_another_size_than_the_attributes_is_refused(store: Callable[..., Dataset], keyword: str) -> None:
    image = store(PICTURE)
    setattr(image, keyword, getattr(image, keyword) // 2)
    assert defect(image) is PixelDefect.MISMATCH


def test_a_zeroed_tail_with_its_end_put_back_is_refused() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (512, 512), dtype=np.uint8)
    stream = images.jpeg_stream(noise)
    half = len(stream) // 2
    zeroed = stream[:half] + bytes(len(stream) - half - 2) + stream[-2:]
    assert to_display(images.jpeg(noise)).shape == noise.shape
    assert defect(images.compressed(images.radiograph(noise), zeroed, JPEGBaseline8Bit)) is PixelDefect.DAMAGED


def test_a_black_film_in_a_well_packed_jpeg_is_whole() -> None:
    black = np.zeros((1024, 1024), dtype=np.uint8)
    assert to_display(images.jpeg(black, optimize=True)).max() == 0


def test_junk_is_refused_in_every_compressed_transfer_syntax() -> None:
    for store in (*STREAMS.values(), images.rle):
        image = store(PICTURE)
        image.PixelData = encapsulate([b"\x13\x57" * 500])
        assert defect(image) is PixelDefect.DAMAGED


def test_pixel_data_that_is_not_encapsulated_at_all_is_refused() -> None:
    image = images.radiograph(PICTURE)
    image.file_meta.TransferSyntaxUID = JPEG2000Lossless
    assert defect(image) is PixelDefect.DAMAGED


def resized_header(stream: bytes, rows: int, columns: int) -> bytes:
    """Return a JPEG stream whose frame header claims another size."""
    at = stream.index(b"\xff\xc0")
    return stream[: at + 5] + struct.pack(">HH", rows, columns) + stream[at + 9 :]


def test_a_small_stream_that_claims_a_huge_image_allocates_nothing() -> None:
    bomb = resized_header(images.jpeg_stream(PICTURE), 65000, 65000)
    within = resized_header(images.jpeg_stream(PICTURE), 8000, 8000)
    native = images.radiograph(PICTURE, Rows=MAX_SIDE, Columns=MAX_SIDE)
    claimed = images.radiograph(PICTURE, Rows=65000, Columns=65000)
    tracemalloc.start()
    assert defect(images.compressed(images.radiograph(PICTURE), bomb, JPEGBaseline8Bit)) is PixelDefect.MISMATCH
    assert defect(images.compressed(images.radiograph(PICTURE), within, JPEGBaseline8Bit)) is PixelDefect.MISMATCH
    assert defect(images.compressed(claimed, bomb, JPEGBaseline8Bit)) is PixelDefect.SIZE
    assert defect(native) is PixelDefect.LENGTH
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_no_message_repeats_what_the_image_says() -> None:
    image = images.radiograph(PICTURE, PhotometricInterpretation="DOE JOHN", PatientName="DOE JOHN")
    with pytest.raises(UnreadablePixels) as refusal:
        to_display(image)
    assert "DOE" not in str(refusal.value)
