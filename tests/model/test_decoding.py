"""Every transfer syntax gives the same pixels, and damaged or lying ones give none."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from pneumonia_model.decoding import MAX_SIDE, PixelDefect
from pneumonia_model.preprocessing import UnreadablePixels, to_display
from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import MPEG2MPML, UID, HTJ2KLossless, JPEG2000Lossless, JPEGBaseline8Bit

from tests.model import images

PICTURE: Final = images.picture()
SIXTEEN_BITS: Final = (PICTURE.astype(np.uint16) << 8) | PICTURE


def defect(image: Dataset) -> PixelDefect:
    """Return why the image cannot be read; fail if it can."""
    with pytest.raises(UnreadablePixels) as refusal:
        to_display(image)
    assert str(refusal.value) == refusal.value.defect.value
    return refusal.value.defect


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


@pytest.mark.parametrize("frames", [2, 0, 1000000])
def test_anything_but_one_frame_is_refused(frames: int) -> None:
    assert defect(images.radiograph(PICTURE, NumberOfFrames=frames)) is PixelDefect.NOT_ONE_FRAME


def test_a_second_frame_that_only_the_offset_table_knows_of_is_refused() -> None:
    image = images.jpeg(PICTURE)
    stream = images.jpeg_stream(PICTURE)
    image.PixelData = encapsulate([stream, stream])
    assert defect(image) is PixelDefect.NOT_ONE_FRAME


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, PixelDefect.COLOUR),
        ({"PhotometricInterpretation": "RGB"}, PixelDefect.COLOUR),
        ({"SamplesPerPixel": 4}, PixelDefect.COLOUR),
        ({"BitsAllocated": 32}, PixelDefect.DEPTH),
        ({"BitsAllocated": 1}, PixelDefect.DEPTH),
        ({"BitsStored": 9}, PixelDefect.DEPTH),
        ({"BitsStored": 0}, PixelDefect.DEPTH),
        ({"HighBit": 8}, PixelDefect.DEPTH),
        ({"PixelRepresentation": 2}, PixelDefect.DEPTH),
        ({"Rows": 0}, PixelDefect.SIZE),
        ({"Rows": MAX_SIDE + 1}, PixelDefect.SIZE),
        ({"Columns": None}, PixelDefect.SIZE),
        ({"Columns": [3, 4]}, PixelDefect.SIZE),
    ],
)
def test_attributes_that_no_radiograph_has_are_refused(attributes: dict[str, Any], expected: PixelDefect) -> None:
    assert defect(images.radiograph(PICTURE, **attributes)) is expected


@pytest.mark.parametrize("syntax", [HTJ2KLossless, MPEG2MPML, "1.2.3", None])
def test_a_transfer_syntax_without_a_decoder_is_refused(syntax: str | None) -> None:
    image = images.radiograph(PICTURE)
    if syntax is None:
        del image.file_meta.TransferSyntaxUID
    else:
        image.file_meta.TransferSyntaxUID = UID(syntax)
    assert defect(image) is PixelDefect.SYNTAX


@pytest.mark.parametrize("change", [lambda octets: octets[:-2], lambda octets: octets + b"\0\0", lambda _: b"\0\0"])
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
