"""Names of all scripts come out of a report as they went in."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Final

import pytest
from pydicom import dcmread

from scp_node.domain import Finding, ReportedImage
from scp_node.report.source.source import UnreportableHeader, read_source
from tests.scp_node.report.reports import LATERAL, SEEN, built, every_object, radiograph, report, stored, unvalidated

NAMES: Final = {
    "name_ar.dcm": "قباني^لنزار",
    "name_jp.dcm": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "name_ko.dcm": "Hong^Gildong=洪^吉洞=홍^길동",
    "name_latin.dcm": "Müller^Jörg",
    "name_utf8.dcm": "Wang^XiaoDong=王^小东",
}

NEVER_ANALYSED: Final = {"rows_bomb.dcm"}  # it claims 60,000 rows: nothing finds a region in it


def _with_name(declared: str, name: bytes) -> ReportedImage:
    """Return a film whose name is these bytes, under this Specific Character Set, right or wrong."""
    image = radiograph(LATERAL, SpecificCharacterSet=None, PatientName="x" * len(name))
    padded = declared.encode() + b" " * (len(declared) % 2)
    character_set = b"\x08\x00\x05\x00CS" + len(padded).to_bytes(2, "little") + padded
    return ReportedImage(
        sop_instance_uid=image.sop_instance_uid,
        header=character_set + image.header.replace(b"x" * len(name), name),
        transfer_syntax=image.transfer_syntax,
        outcome=image.outcome,
    )


@pytest.mark.parametrize(
    ("declared", "codec", "name"),
    [
        ("ISO_IR 100", "latin-1", "Müller^Jörg"),
        ("ISO_IR 101", "iso8859-2", "Dvořák^Antonín"),
        ("ISO_IR 144", "iso8859-5", "Люкceмбypг"),  # noqa: RUF001  # Cyrillic is the point
        ("ISO_IR 126", "iso8859-7", "Διονυσιος"),
        ("ISO_IR 192", "utf-8", "Wang^XiaoDong=王^小东"),
        ("GB18030", "gb18030", "Wang^XiaoDong=王^小东"),
        ("GBK", "gbk", "Wang^XiaoDong=王^小东"),
        ("\\ISO 2022 IR 87", "iso2022_jp", "Yamada^Tarou=山田^太郎"),
    ],
)
def test_a_name_is_unchanged(declared: str, codec: str, name: str) -> None:
    read = report(_with_name(declared, name.encode(codec)))
    assert read.SpecificCharacterSet == "ISO_IR 192"
    assert str(read.PatientName) == name


def test_a_japanese_name_with_an_equals_sign_among_its_bytes_is_unchanged() -> None:
    name = "Yamada^Haruo=山田^春男"
    encoded = name.encode("iso2022_jp")
    assert encoded.count(b"=") == 2  # the delimiter, and half of the character for spring
    assert str(report(_with_name("\\ISO 2022 IR 87", encoded)).PatientName) == name


def test_a_name_without_a_declared_character_set_is_read_as_latin() -> None:
    assert str(report(_with_name("", "Müller^Jörg".encode("latin-1"))).PatientName) == "Müller^Jörg"


def test_a_name_in_latin_that_is_declared_as_unicode_is_not_lost() -> None:
    assert str(report(_with_name("ISO_IR 192", "Müller^Jörg".encode("latin-1"))).PatientName) == "Müller^Jörg"


@pytest.mark.parametrize("declared", ["ISO-IR 100", "ISO_IR 999", "NONSENSE", "hex", "ISO_IR 192\\ISO 2022 IR 87"])
def test_a_misspelt_character_set_does_not_lose_the_report(declared: str) -> None:
    assert str(report(_with_name(declared, "Müller^Jörg".encode("latin-1"))).PatientName) == "Müller^Jörg"


def test_a_codec_of_python_is_no_character_set() -> None:
    assert unvalidated(report(_with_name("hex", b"Doe\x1bJohn")), "PatientName") == "Doe\x1bJohn"


@pytest.mark.parametrize(("file", "name"), NAMES.items())
def test_the_name_of_a_real_file_is_unchanged(shared_data: Path, file: str, name: str) -> None:
    path = shared_data / "robustness" / "derived" / file
    assert str(dcmread(path, stop_before_pixels=True).PatientName) == name
    assert str(report(stored(path)).PatientName) == name


@pytest.mark.filterwarnings("ignore")  # pydicom's about these files are many
def test_the_name_of_every_hard_case_is_unchanged_in_every_object(shared_data: Path) -> None:
    compared = 0
    for path in sorted((shared_data / "robustness").rglob("*")):
        image = _reportable(path)
        if image is None:
            continue
        name = str(dcmread(path, stop_before_pixels=True, force=True).get("PatientName", ""))
        files = every_object(image).values() if isinstance(image.outcome, Finding) else [built(image).file]
        read = [dcmread(BytesIO(file)) for file in files]
        assert {str(each.PatientName) for each in read} == {name}, path.name
        compared += 1
    assert compared > 80


def _reportable(path: Path) -> ReportedImage | None:
    """Return the film of a file, as the node can report it at most; None where no report can be made of it."""
    if path.suffix != ".dcm":
        return None
    try:
        image = stored(path, LATERAL if path.name in NEVER_ANALYSED else SEEN)
        read_source(image)
    except AttributeError:  # no file meta information: such a file says nothing of its transfer syntax
        return None
    except UnreportableHeader:
        return None
    return image
