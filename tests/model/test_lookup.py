"""Lookup tables whose descriptor and entries disagree show the same picture, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.decoding import Mended, PixelDefect
from pneumonia_model.preprocessing import Display, UnreadablePixels, read_display, to_display
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.model import images

PICTURE: Final = images.picture()
STORED: Final[NDArray[np.uint16]] = np.rint(PICTURE / 255 * 4095).astype(np.uint16)
RAMP: Final = np.arange(4096)
SEQUENCES: Final = ("VOILUTSequence", "ModalityLUTSequence")

both = pytest.mark.parametrize("keyword", SEQUENCES)


def words(entries: NDArray[np.integer[Any]], order: str = "<") -> bytes:
    return entries.astype(f"{order}u2").tobytes()


def packed(entries: NDArray[np.integer[Any]]) -> bytes:
    """Return entries of 8 bits, two in a little-endian word, the first one in its lower half."""
    octets = entries.astype(np.uint8).tobytes()
    return octets + b"\0" * (len(octets) % 2)


def film(keyword: str, item: Dataset, stored: images.Pixels = STORED, *, bits: int = 12) -> Dataset:
    return images.radiograph(stored, bits=bits, **{keyword: [item]})


def received(image: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """Return the image as it is after its way through a file."""
    image.file_meta.TransferSyntaxUID = UID(syntax)
    file = BytesIO()
    dcmwrite(file, image, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    file.seek(0)
    return dcmread(file, force=True)


def shown(image: Dataset, *, within: int = 0) -> Display:
    read = read_display(image)
    assert np.abs(read.greys.astype(int) - PICTURE).max() <= within
    return read


def refused(image: Dataset) -> tuple[str, ...]:
    """Return the attribute for which the image is refused."""
    with pytest.raises(UnreadablePixels) as refusal:
        to_display(image)
    assert refusal.value.defect is PixelDefect.DISPLAY
    return refusal.value.attributes


@both
@pytest.mark.parametrize(
    ("declared", "scale"), [(16, 1), (16, 4), (16, 8), (15, 1), (14, 1), (13, 1), (12, 16), (10, 1), (8, 1), (8, 16)]
)
def test_entries_that_do_not_fit_the_declared_bits_are_scaled_by_the_largest(
    keyword: str, declared: int, scale: int
) -> None:
    for entries in (RAMP * scale, RAMP[::-1] * scale):
        stored = STORED if entries[0] == 0 else 4095 - STORED
        read = shown(film(keyword, images.lookup_table(entries, first=0, bits=declared), stored))
        assert read.mended == {Mended.TABLE}


@both
@pytest.mark.parametrize(("declared", "largest"), [(12, 4095), (12, 2100), (16, 65535), (16, 40000), (12, 4096)])
def test_entries_that_use_their_declared_bits_are_scaled_by_these(keyword: str, declared: int, largest: int) -> None:
    entries = np.rint(RAMP / 4095 * largest).astype(int)
    read = read_display(film(keyword, images.lookup_table(entries, first=0, bits=declared)))
    expected = np.minimum(np.rint(255 * entries[STORED] / (2**declared - 1)), 255)
    assert np.array_equal(read.greys, expected)
    assert read.mended == frozenset()


@both
def test_a_table_that_ends_one_above_a_power_of_two_is_not_shown_half_as_bright(keyword: str) -> None:
    shown(film(keyword, images.lookup_table(RAMP + 1, first=0, bits=16)), within=1)


@both
def test_a_few_entries_above_the_declared_bits_do_not_darken_all_others(keyword: str) -> None:
    entries = RAMP.copy()
    entries[-3:] = 65535
    assert refused(film(keyword, images.lookup_table(entries, first=0, bits=12))) == (keyword,)


@both
@pytest.mark.parametrize(
    "item",
    [
        images.stored_table(packed(RAMP >> 4), count=4096, bits=8),
        images.stored_table(packed(RAMP >> 4), count=4096, bits=8, vr="OB"),
        images.stored_table(words(RAMP >> 4), count=4096, bits=8),
        images.stored_table(words(RAMP >> 4), count=4096, bits=8, vr="OB"),
        images.lookup_table(RAMP >> 4, first=0, bits=8),
        images.stored_table(packed(RAMP[:4095] >> 4), count=4095, bits=8),
        images.stored_table(packed(RAMP[:4095] >> 4), count=4095, bits=8, vr="OB"),
    ],
    ids=["OW", "OB", "OW, one in a word", "OB, one in a word", "US, one in a word", "odd count", "OB, odd count"],
)
def test_entries_of_8_bits_are_read_in_words_and_in_halves_of_words(keyword: str, item: Dataset) -> None:
    assert shown(film(keyword, item)).mended == frozenset()


@both
def test_two_entries_in_a_word_may_be_stored_as_numbers(keyword: str) -> None:
    item = images.lookup_table(np.frombuffer(packed(RAMP >> 4), "<u2"), first=0, bits=8)
    item.LUTDescriptor = [4096, 0, 8]
    shown(film(keyword, item))


@both
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    "item",
    [
        images.stored_table(packed(RAMP >> 4), count=4096, bits=8),
        images.stored_table(words(RAMP), count=4096, bits=12),
        images.stored_table(words(RAMP), count=4096, bits=16),
    ],
    ids=["packed", "12 bits", "16 bits for 12"],
)
def test_a_table_is_the_same_after_its_way_through_a_file(keyword: str, syntax: str, item: Dataset) -> None:
    shown(received(film(keyword, item), syntax))


@both
@pytest.mark.parametrize(
    ("octets", "bits"),
    [(np.frombuffer(packed(RAMP >> 4), "<u2").astype(">u2").tobytes(), 8), (words(RAMP, ">"), 12)],
    ids=["packed", "words"],
)
@pytest.mark.parametrize("through_a_file", [True, False])
def test_a_big_endian_table_has_its_first_entry_in_the_lower_half(
    keyword: str, octets: bytes, bits: int, through_a_file: bool
) -> None:
    image = images.big_endian(film(keyword, images.stored_table(octets, count=4096, bits=bits)))
    shown(received(image, ExplicitVRBigEndian) if through_a_file else image)


@both
def test_a_count_of_0_means_65536_entries(keyword: str) -> None:
    stored = (PICTURE.astype(np.uint16) << 8) | PICTURE
    table = images.stored_table(words(np.arange(65536)), count=0, bits=16)
    shown(film(keyword, table, stored, bits=16))


SIGNED: Final = (STORED.astype(np.int32) - 2048).astype(np.int16)


@both
@pytest.mark.parametrize(("vr", "first"), [("US", 63488), ("SS", -2048), ("US or SS", -2048)])
def test_the_first_input_value_has_the_sign_of_the_stored_values(keyword: str, vr: str, first: int) -> None:
    item = images.lookup_table(RAMP, first=0, bits=12)
    item.add_new("LUTDescriptor", vr, [4096, first, 12])
    shown(film(keyword, item, SIGNED))


def test_the_first_input_value_is_signed_where_only_the_rescaled_values_are() -> None:
    image = film("VOILUTSequence", images.lookup_table(RAMP, first=64512, bits=12))
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    shown(image)


def test_the_first_input_value_of_an_unsigned_film_is_unsigned() -> None:
    stored = (STORED + 60000).astype(np.uint16)
    for vr, first in (("US", 60000), ("SS", 60000 - 65536)):
        item = images.lookup_table(RAMP, first=0, bits=12)
        item.add_new("LUTDescriptor", vr, [4096, first, 12])
        shown(film("VOILUTSequence", item, stored, bits=16))


@both
def test_values_outside_the_table_get_its_ends(keyword: str) -> None:
    table = images.lookup_table(np.arange(3072) * 4 // 3, first=512, bits=12)
    expected = np.rint(255 * (np.clip(STORED.astype(int) - 512, 0, 3071) * 4 // 3) / 4095)
    assert np.array_equal(to_display(film(keyword, table)), expected)


@both
@pytest.mark.parametrize(
    ("entries", "first"),
    [
        (RAMP, 2000),  # begins in the middle of the film
        (np.arange(1024) * 4, 1024),  # misses both ends
        (np.arange(256) * 16, 0),  # ends near its beginning
        (RAMP, -2500),  # ends in its middle
    ],
)
def test_a_table_that_leaves_a_part_of_the_film_without_entries_is_refused(
    keyword: str, entries: NDArray[np.integer[Any]], first: int
) -> None:
    table = images.lookup_table(entries, first=max(first, 0), bits=12)
    if first < 0:
        table.add_new("LUTDescriptor", "SS", [len(entries), first, 12])
    assert refused(film(keyword, table)) == (keyword,)


@both
def test_a_table_of_16_bits_whose_last_entries_only_reach_the_top_is_used_as_it_is(keyword: str) -> None:
    entries = RAMP * 8
    entries[-4:] = 65535
    greys = to_display(film(keyword, images.lookup_table(entries, first=0, bits=16)))
    assert np.array_equal(greys, np.rint(255 * entries[STORED] / 65535))


@both
def test_air_below_a_table_is_its_first_entry_however_much_there_is(keyword: str) -> None:
    stored = STORED.copy()
    stored[:, :120] = np.arange(120) % 5  # nearly half of the film
    table = images.lookup_table(RAMP[500:], first=500, bits=12)
    shown_greys = to_display(film(keyword, table, stored))
    assert np.array_equal(shown_greys, np.rint(255 * np.maximum(stored.astype(int), 500) / 4095))


def test_a_table_of_8_bits_reaches_all_its_entries() -> None:
    entries = np.minimum(np.arange(4096) // 8, 255)
    expected = entries[STORED]
    assert np.array_equal(to_display(film("VOILUTSequence", images.lookup_table(entries, first=0, bits=8))), expected)


@both
def test_fewer_entries_than_declared_do_where_the_film_needs_no_more(keyword: str) -> None:
    shown(film(keyword, images.stored_table(words(RAMP), count=0, bits=12)))
    shown(film(keyword, images.stored_table(packed(RAMP >> 4), count=0, bits=8)))


@both
@pytest.mark.parametrize(
    "item",
    [
        images.stored_table(words(RAMP[:4000]), count=4096, bits=12),
        images.stored_table(words(RAMP[:2048]), count=4096, bits=12),
        images.stored_table(words(RAMP[:100]), count=0, bits=16),
        images.stored_table(packed(RAMP >> 4), count=4096, bits=16),
        images.stored_table(packed(RAMP[:4000] >> 4), count=4096, bits=8),
        images.stored_table(words(RAMP), count=1024, bits=12),
        images.stored_table(words(RAMP), count=1024, bits=16),
        images.stored_table(words(0 * RAMP), count=4096, bits=12),
        images.stored_table(b"", count=4096, bits=12),
        images.stored_table(words(RAMP), count=4096, bits=0),
        images.stored_table(words(RAMP), count=4096, bits=32),
        Dataset(),
    ],
    ids=[
        "some missing",
        "half missing",
        "most missing",
        "packed, 16 bits said",
        "packed, some missing",
        "not all counted",
        "not all counted, 16 bits",
        "all zero",
        "empty",
        "no bits",
        "32 bits",
        "nothing",
    ],
)
def test_a_table_that_does_not_say_how_bright_the_film_is_is_refused_by_name(keyword: str, item: Dataset) -> None:
    assert refused(film(keyword, item)) == (keyword,)


@both
@pytest.mark.parametrize("descriptor", [[4096, 0], [4096], [4096, 0, 12, 1]])
def test_a_descriptor_has_three_values(keyword: str, descriptor: list[int]) -> None:
    item = images.lookup_table(RAMP, first=0, bits=12)
    item.add_new("LUTDescriptor", "US", descriptor)
    assert refused(film(keyword, item)) == (keyword,)


def _texts(item: Dataset) -> None:
    item.add_new("LUTData", "LO", "none")


@both
def test_a_sequence_that_is_none_is_refused_by_name(keyword: str) -> None:
    image = images.radiograph(STORED, bits=12)
    assert refused(images.stored_as(image, keyword, b"none", "LO")) == (keyword,)


def test_values_that_are_rescaled_beyond_all_tables_get_its_ends() -> None:
    image = film("VOILUTSequence", images.lookup_table(RAMP, first=0, bits=12))
    image.RescaleSlope, image.RescaleIntercept = 1e300, -2048e300
    assert set(np.unique(to_display(image))) == {0, 255}


def _no_data(item: Dataset) -> None:
    del item.LUTData


def _words_of_text(item: Dataset) -> None:
    images.stored_as(item, "LUTDescriptor", b"a\\b\\c ", "LO")


@both
@pytest.mark.parametrize("spoil", [_texts, _no_data, _words_of_text])
def test_a_table_of_something_else_is_refused_by_name(keyword: str, spoil: Callable[[Dataset], None]) -> None:
    item = images.lookup_table(RAMP, first=0, bits=12)
    spoil(item)
    assert refused(film(keyword, item)) == (keyword,)


@both
def test_half_as_many_words_as_entries_may_be_packed_and_are_refused_whatever_the_film_needs(keyword: str) -> None:
    dark = STORED // 4
    for octets in (packed(RAMP >> 4), words(RAMP[:2048])):
        assert refused(film(keyword, images.stored_table(octets, count=4096, bits=12), dark)) == (keyword,)


def test_padding_needs_no_entry() -> None:
    stored = STORED.copy()
    stored[:, :20] = 65535
    image = film("VOILUTSequence", images.stored_table(words(RAMP), count=0, bits=12), stored, bits=16)
    image.PixelPaddingValue = 65535
    assert np.array_equal(to_display(image)[:, 20:], PICTURE[:, 20:])


def test_a_window_after_a_modality_lut_is_in_units_of_its_entries() -> None:
    image = film("ModalityLUTSequence", images.lookup_table(RAMP, first=0, bits=16))
    image.WindowCenter, image.WindowWidth = 2047.5, 4096
    assert shown(image, within=1).mended == frozenset()  # nothing is scaled by the table's largest entry


def test_a_voi_lut_after_a_modality_lut_takes_its_entries() -> None:
    image = film("ModalityLUTSequence", images.lookup_table(RAMP * 2, first=0, bits=16))
    image.VOILUTSequence = [images.lookup_table(np.arange(8192) // 2, first=0, bits=12)]
    assert shown(image).mended == frozenset()


def test_a_window_beside_a_voi_lut_is_not_looked_at() -> None:
    image = film("VOILUTSequence", images.lookup_table(RAMP, first=0, bits=12))
    shown(images.stored_as(image, "WindowCenter", b"4,096 "))
