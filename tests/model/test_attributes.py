"""Single attributes as they are stored: what a value can mean, and what it cannot."""

from __future__ import annotations

import pytest
from pneumonia_model.attributes import MalformedAttribute, decimals, has_comma, text, values, whole
from pydicom import Dataset

from tests.model import images


def stored(keyword: str, octets: bytes, vr: str | None = "DS", *, little: bool = True) -> Dataset:
    return images.stored_as(Dataset(), keyword, octets, vr, little=little)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (b"2047.5", 2047.5),
        (b"2047,5", 2047.5),
        (b"4096,0 ", 4096.0),
        (b" -1024\0", -1024.0),
        (b"+1,5E2", 150.0),
        (b",5", 0.5),
        (b"0,125", 0.125),
        (b"2047,500", 2047.5),
        (b"1,000000", 1.0),
    ],
)
def test_a_comma_is_a_decimal_point_where_it_can_be_nothing_else(written: bytes, number: float) -> None:
    image = stored("WindowCenter", written)
    assert decimals(image, "WindowCenter") == [number]
    assert has_comma(image, "WindowCenter") is (b"," in written)


@pytest.mark.parametrize(
    "written", [b"4,096", b"-1,000", b"4.096,5", b"1,2,3", b"ten", b"nan", b"inf", b"1_000", b"1e999", b"12 34"]
)
def test_a_number_that_could_mean_two_things_or_none_is_malformed(written: bytes) -> None:
    with pytest.raises(MalformedAttribute) as malformed:
        decimals(stored("WindowCenter", written), "WindowCenter")
    assert malformed.value.keyword == "WindowCenter"


def test_several_values_keep_their_places_and_none_at_all_is_an_empty_list() -> None:
    assert decimals(stored("WindowCenter", b"1,5\\\\3"), "WindowCenter") == [1.5, None, 3.0]
    for empty in (b"", b"  ", b"\\", b"\0\0"):
        assert decimals(stored("WindowCenter", empty), "WindowCenter") == []
    assert decimals(Dataset(), "WindowCenter") == []


def test_values_that_were_set_are_read_as_those_that_were_received() -> None:
    image = Dataset()
    image.WindowCenter, image.WindowWidth, image.NumberOfFrames, image.Rows = [1.5, 2], "400", "1", 7
    image.ImageType, image.RescaleSlope = ["DERIVED", "PRIMARY"], None
    assert decimals(image, "WindowCenter") == [1.5, 2.0]
    assert decimals(image, "WindowWidth") == [400.0]
    assert decimals(image, "RescaleSlope") == []
    assert whole(image, "NumberOfFrames") == 1
    assert whole(image, "Rows") == 7
    assert values(image, "ImageType") == ["DERIVED", "PRIMARY"]


@pytest.mark.parametrize(
    ("vr", "octets", "little", "number"),
    [
        ("US", b"\x01\x02", True, 0x0201),
        ("US", b"\x01\x02", False, 0x0102),
        ("SS", b"\xff\xff", True, -1),
        (None, b"\x01\x02", True, 0x0201),
        ("UN", b"\x01\x02", True, 0x0201),
        ("UL", b"\x01\x02\x00\x00", True, 0x0201),
        ("IS", b"513 ", True, 0x0201),
        ("DS", b"513.0 ", True, 0x0201),
        ("FD", b"\x00\x00\x00\x00\x00\x00\x14\x40", True, 5),
    ],
)
def test_a_whole_number_is_read_in_any_representation(vr: str | None, octets: bytes, little: bool, number: int) -> None:
    assert whole(stored("Rows", octets, vr, little=little), "Rows") == number


@pytest.mark.parametrize(
    ("vr", "octets"),
    [("US", b"\x01"), ("US", b"\x01\x00\x02\x00"), ("IS", b"x"), ("FD", b"\0" * 4), ("DS", b"1.5 "), ("ZZ", b"?")],
)
def test_what_is_not_one_whole_number_is_malformed(vr: str, octets: bytes) -> None:
    with pytest.raises(MalformedAttribute):
        whole(stored("Rows", octets, vr), "Rows")


def test_the_same_whole_number_twice_is_that_number() -> None:
    assert whole(stored("Rows", b"\x05\x00\x05\x00", "US"), "Rows") == 5


def test_a_sequence_in_the_place_of_a_number_is_malformed() -> None:
    image = Dataset()
    image.add_new("Rows", "SQ", [Dataset()])
    with pytest.raises(MalformedAttribute):
        whole(image, "Rows")


def test_a_coded_value_is_in_capitals_and_single() -> None:
    assert text(stored("VOILUTFunction", b"linear_Exact ", "CS"), "VOILUTFunction") == "LINEAR_EXACT"
    assert text(stored("VOILUTFunction", b"SIGMOID\\sigmoid", "CS"), "VOILUTFunction") == "SIGMOID"
    assert text(stored("VOILUTFunction", b" ", "CS"), "VOILUTFunction") == ""
    with pytest.raises(MalformedAttribute):
        text(stored("VOILUTFunction", b"LINEAR\\SIGMOID", "CS"), "VOILUTFunction")
