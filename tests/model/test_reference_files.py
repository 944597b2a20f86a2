"""Real films and hard cases, stored in every way: the same film has the same input (read from the shared test data)."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.decoding import PixelDefect
from pneumonia_model.preprocessing import UnreadablePixels, to_display, to_input
from pydicom import Dataset, dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGBaseline8Bit

from tests.model import images

# Largest difference, in the 256 greys, from the film in Explicit VR Little Endian with 8 bits.
SAME_PIXELS: Final = 0
SHIFTED_TO_MORE_BITS: Final = 2  # the files hold the greys shifted left by 4 or 6 bits: 255 is not their full range
LOSSY: Final = 3

DIFFERENCES: Final = {
    "ts_implicit_le": SAME_PIXELS,
    "ts_j2k_lossless": SAME_PIXELS,
    "ts_jpegls_near": 2,
    "ts_jpeg_baseline": LOSSY,
    "ts_jpeg_extended_12bit": SHIFTED_TO_MORE_BITS,
    "ts_jpeg_lossless_sv1": SHIFTED_TO_MORE_BITS,
    "ts_big_endian_12bit": SHIFTED_TO_MORE_BITS,
    "bits8_mono1": SAME_PIXELS,
    "bits12_mono1": SHIFTED_TO_MORE_BITS,
    "bits12_mono2": SHIFTED_TO_MORE_BITS,
    "bits12_narrow_range_window": SAME_PIXELS,
    "bits12_signed_rescale": SHIFTED_TO_MORE_BITS,
    "bits12_voilut_sequence": SHIFTED_TO_MORE_BITS,
    "bits14": SHIFTED_TO_MORE_BITS,
    "bits16": SAME_PIXELS,
    "sc_modality_cr": SAME_PIXELS,
    "rgb_gray": SAME_PIXELS,
    "private_and_nested40": SAME_PIXELS,
    "age_without_unit": SAME_PIXELS,
}

UNREADABLE: Final = {
    "truncated_pixels": PixelDefect.LENGTH,
    "short_pixeldata": PixelDefect.LENGTH,
    "rows_bomb": PixelDefect.SIZE,
    "jpeg_corrupt": PixelDefect.DAMAGED,
    "unsupported_ts_htj2k": PixelDefect.SYNTAX,
}


def read(shared_data: Path, name: str) -> Dataset:
    return dcmread(shared_data / "robustness" / "derived" / f"{name}.dcm")


@pytest.mark.parametrize(("name", "greys"), DIFFERENCES.items(), ids=DIFFERENCES.keys())
def test_the_same_film_gives_the_same_input(shared_data: Path, name: str, greys: int) -> None:
    reference = to_input(read(shared_data, "ref_explicit_le"))
    found = to_input(read(shared_data, name))
    assert np.abs(found - reference).max() * 255 <= greys + 1e-3
    assert abs(float(found.mean() - reference.mean())) * 255 < 0.5


@pytest.mark.parametrize(("name", "defect"), UNREADABLE.items(), ids=UNREADABLE.keys())
def test_a_damaged_file_gives_no_input(shared_data: Path, name: str, defect: PixelDefect) -> None:
    with pytest.raises(UnreadablePixels) as refusal:
        to_input(read(shared_data, name))
    assert refusal.value.defect is defect


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:End of file reached before delimiter")
def test_no_file_at_all_makes_it_fail_in_another_way(shared_data: Path) -> None:
    with (shared_data / "robustness" / "manifest.csv").open(encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    readable = []
    for path in paths:
        with contextlib.suppress(EOFError, OSError, ValueError, NotImplementedError):  # what pydicom cannot read either
            readable.append(dcmread(shared_data / "robustness" / path, force=True))
    assert len(readable) > len(paths) * 0.9
    for image in readable:
        with contextlib.suppress(UnreadablePixels):
            inputs = to_input(image)
            assert inputs.shape == (224, 224)
            assert np.isfinite(inputs).all()


@pytest.mark.parametrize("name", ["RG1_J2KI", "RG1_JLSN", "CR-MONO1-10-chest"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_real_cr_without_its_window_looks_much_as_with_it(shared_data: Path, name: str) -> None:
    image = dcmread(shared_data / "dicom" / "real_cr" / f"{name}.dcm", force=True)
    image.file_meta.TransferSyntaxUID = image.file_meta.get("TransferSyntaxUID", "1.2.840.10008.1.2")
    windowed = to_input(image)
    del image.WindowCenter, image.WindowWidth
    plain = to_input(image)
    assert np.corrcoef(windowed.ravel(), plain.ravel())[0, 1] > 0.99
    assert abs(float(windowed.mean() - plain.mean())) < 0.08


def test_an_rsna_film_reaches_the_network_as_its_8_bits(shared_data: Path) -> None:
    path = sorted((shared_data / "dicom" / "rsna_original").glob("*.dcm"))[0]
    image = dcmread(path)
    assert np.array_equal(to_input(image), _reduced(image))


def test_real_jpeg_films_have_the_greys_of_the_reference_decoder_to_the_last_bit(shared_data: Path) -> None:
    films = [dcmread(path) for path in sorted((shared_data / "dicom").glob("rsna*/*.dcm"))[::10]]
    assert {film.file_meta.TransferSyntaxUID for film in films} == {JPEGBaseline8Bit}
    for film in films:
        by_gdcm, _ = get_decoder(JPEGBaseline8Bit).as_array(film, raw=True, decoding_plugin="gdcm")
        assert np.array_equal(to_display(film), by_gdcm)


def _reduced(image: Dataset) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(cv2.resize(image.pixel_array, (224, 224), interpolation=cv2.INTER_AREA) / np.float32(255))


def real_films(shared_data: Path) -> Iterator[NDArray[np.uint8]]:
    """Return the pictures of real films, each 15th one, 512 by 480 pixels."""
    for file in sorted((shared_data / "dicom").glob("rsna*/*.dcm"))[::15]:
        yield np.asarray(
            cv2.resize(to_display(dcmread(file)), (480, 512), interpolation=cv2.INTER_AREA), dtype=np.uint8
        )


def test_a_real_film_that_is_filled_up_is_told_from_one_whose_rows_are_stated_too_short(shared_data: Path) -> None:
    for film in real_films(shared_data):
        for surplus in (2, 512, 4096):
            image = images.radiograph(film)
            image.PixelData += bytes(surplus)
            assert np.array_equal(to_display(image), film)
        for missing in (1, 2, 3, 16):
            black = film.copy()
            black[-missing - 2 :] = 0
            image = images.radiograph(black)
            image.Columns -= missing
            with pytest.raises(UnreadablePixels) as refusal:
                to_display(image)
            assert refusal.value.defect is PixelDefect.LENGTH


def test_a_real_film_with_more_bits_than_are_stored_is_told_from_one_with_an_overlay(shared_data: Path) -> None:
    for film in real_films(shared_data):
        words = np.rint(cv2.GaussianBlur(film.astype(np.float32), (3, 3), 0) / 255 * 4095).astype(np.uint16)
        expected = to_display(images.radiograph(words, bits=12))
        overlay = np.zeros_like(words)
        overlay[100:140, 50:90] = overlay[200:203, 60:400] = 0x9000
        noise = np.random.default_rng(2).integers(0, 16, words.shape).astype(np.uint16) << 12
        for above in (overlay, noise):
            assert np.array_equal(to_display(images.radiograph(words | above, bits=12)), expected)
        for bits in (11, 10):
            with pytest.raises(UnreadablePixels) as refusal:
                to_display(images.radiograph(words, bits=bits))
            assert refusal.value.attributes == ("BitsStored",)
