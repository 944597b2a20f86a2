"""Two files with one SOP Instance UID: the same film in another encoding, or another film."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from scp_node.analysis import same_film as module
from scp_node.demo.phantom import phantom_image
from scp_node.settings import AnalysisSettings


def same_film(path: Path, other: Path) -> bool:
    return module.same_film(path, other, AnalysisSettings())


ENCODINGS: Final = [ImplicitVRLittleEndian, RLELossless, JPEGLSLossless]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.dcm"
    phantom_image(1, opacity=True).save_as(path, enforce_file_format=True)
    return path


def changed(film: Path, **attributes: Any) -> Path:
    """Return a copy of the film with other attributes."""
    image = dcmread(film)
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    path = film.parent / "changed.dcm"
    image.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", ENCODINGS, ids=lambda syntax: syntax.name)
def test_another_lossless_encoding_is_the_same_film(film: Path, syntax: Any) -> None:
    image = dcmread(film)
    path = film.parent / "other.dcm"
    if syntax.is_compressed:
        image.compress(syntax, generate_instance_uid=False)
        image.save_as(path, enforce_file_format=True)
    else:
        image.file_meta.TransferSyntaxUID = syntax
        image.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    assert path.read_bytes() != film.read_bytes()
    assert same_film(film, path)


@pytest.mark.parametrize(
    "added", [{"InstitutionName": "Archive"}, {"InstanceCreationTime": "120000"}, {"StationName": "CR2"}], ids=str
)
def test_what_an_archive_adds_makes_no_other_film(film: Path, added: dict[str, Any]) -> None:
    assert same_film(film, changed(film, **added))


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientID": "ANOTHER"},
        {"PatientName": "Another^One"},
        {"IssuerOfPatientID": "ELSEWHERE"},
        {"PatientBirthDate": "19000101"},
        {"AccessionNumber": "B2"},
        {"StudyInstanceUID": "1.2.3.4"},
        {"SeriesInstanceUID": "1.2.3.4"},
        {"PatientID": "phantom-001"},
        {"ViewPosition": "LL"},
        {"DerivationDescription": "subtraction image"},
        {"PatientSpeciesDescription": "Canine"},
        {"ImagerPixelSpacing": [0.1, 0.1]},
        {"WindowCenter": 100, "WindowWidth": 200},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ],
    ids=str,
)
def test_another_identity_or_another_look_is_another_film(film: Path, attributes: dict[str, Any]) -> None:
    assert not same_film(film, changed(film, **attributes))


def test_one_other_pixel_is_another_film(film: Path) -> None:
    image = dcmread(film)
    pixels = image.pixel_array.copy()
    pixels[3, 4] ^= 1
    assert not same_film(film, changed(film, PixelData=pixels.tobytes()))


def test_what_a_sender_put_into_the_dataset_by_mistake_makes_no_other_film(film: Path) -> None:
    file = film.read_bytes()
    begin = 132 + 12 + int.from_bytes(file[140:144], "little")  # behind the file meta information
    odd = film.parent / "odd.dcm"
    odd.write_bytes(file[:begin] + b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.4.50" + file[begin:] + bytes(8))
    assert same_film(film, odd)


def test_pixels_that_nobody_can_decode_are_the_same_if_their_bytes_are(film: Path) -> None:
    unreadable = changed(film, BitsAllocated=32)
    again = film.parent / "again.dcm"
    image = dcmread(unreadable)
    image.InstitutionName = "Archive"
    image.save_as(again, enforce_file_format=True)
    assert same_film(unreadable, again)
    assert not same_film(unreadable, film)


def test_what_cannot_be_read_is_not_the_same(film: Path) -> None:
    damaged = film.parent / "damaged.dcm"
    damaged.write_bytes(film.read_bytes()[:-1000])
    assert not same_film(film, damaged)
    assert not same_film(film, film.parent / "not there.dcm")
    damaged.write_bytes(b"nothing of DICOM")
    assert not same_film(damaged, damaged)
