"""A film with an oddity of its sender ends as the film without it: same pixels, same patient."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pytest

from scp_node.analysis.analyse import analyse_file, picture_file
from scp_node.analysis.answers import Picture, Prepared
from scp_node.dicom.inspection import Origin
from scp_node.dicom.part10 import repaired_file
from scp_node.dicom.repairs import Repairs, end_of_data
from scp_node.domain import NotAnalysed, Priority, Reason, ReceivedInstance, ReportedImage
from scp_node.report.source.source import read_source
from scp_node.settings import AnalysisSettings
from scp_node.spool import Spool
from tests.scp_node.analysis.films import MISSING, radiograph
from tests.scp_node.listener.datasets import encoded, implicit_oddities, oddities, without_bits_allocated
from tests.scp_node.listener.peer import EXPLICIT, IMPLICIT
from tests.scp_node.spooled import put

FILM: Final = encoded(radiograph())
IMPLICIT_FILM: Final = encoded(radiograph(), implicit=True)


def spooled(folder: Path, data: bytes, syntax: str) -> tuple[ReceivedInstance, Path]:
    spool = Spool(folder, low_water_bytes=0)
    origin = Origin(
        calling_ae="CR1", called_ae="PNEUMONIA", peer="127.0.0.1", transfer_syntax=syntax, priority=Priority.ROUTINE
    )
    received = put(spool, memoryview(data), origin)
    return received, folder / received.spool_path


def outcome(folder: Path, data: bytes, syntax: str) -> tuple[Prepared, Picture, str]:
    """Return what is analysed, what is shown, and the name that a report repeats."""
    received, file = spooled(folder, data, syntax)
    prepared, picture = analyse_file(file, AnalysisSettings()), picture_file(file)
    assert isinstance(prepared, Prepared), prepared
    assert isinstance(picture, Picture), picture
    image = ReportedImage(
        sop_instance_uid=received.sop_instance_uid,
        header=received.header,
        transfer_syntax=syntax,
        outcome=NotAnalysed(reason=Reason.VIEW),
    )
    return prepared, picture, read_source(image).attributes.text("PatientName")


ODD: Final = {
    **{f"explicit: {what}": (data, EXPLICIT) for what, data in oddities(FILM).items()},
    **{f"implicit: {what}": (data, IMPLICIT) for what, data in implicit_oddities(IMPLICIT_FILM).items()},
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_film_ends_as_the_film_without_its_oddity(tmp_path: Path, what: str) -> None:
    plain, plain_picture, name = outcome(tmp_path / "plain", FILM, EXPLICIT)
    odd, odd_picture, odd_name = outcome(tmp_path / "odd", *ODD[what])
    assert np.array_equal(odd.inputs, plain.inputs)
    assert odd.notes == plain.notes
    assert np.array_equal(odd_picture.display, plain_picture.display)
    assert odd_name == name == "Doe^Jane"


def test_a_film_without_samples_per_pixel_is_analysed_as_the_grayscale_film_that_it_is(tmp_path: Path) -> None:
    plain, _, _ = outcome(tmp_path / "plain", FILM, EXPLICIT)
    bare, _, _ = outcome(tmp_path / "bare", encoded(radiograph(SamplesPerPixel=MISSING)), EXPLICIT)
    assert np.array_equal(bare.inputs, plain.inputs)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (encoded(radiograph(Rows=MISSING)), Reason.UNREADABLE_HEADER, "Rows missing"),
        (encoded(radiograph(Columns=MISSING)), Reason.UNREADABLE_HEADER, "Columns missing"),
        (without_bits_allocated(FILM), Reason.UNREADABLE_HEADER, "BitsAllocated"),
        (encoded(radiograph(PhotometricInterpretation=MISSING)), Reason.UNREADABLE_HEADER, "PhotometricInterpretation"),
    ],
    ids=["rows", "columns", "bits allocated", "photometric interpretation"],
)
def test_a_film_that_is_badly_described_has_its_own_reason(
    tmp_path: Path, data: bytes, reason: Reason, detail: str
) -> None:
    _, file = spooled(tmp_path, data, EXPLICIT)
    refused = analyse_file(file, AnalysisSettings())
    assert isinstance(refused, NotAnalysed)
    assert (refused.reason, refused.detail) == (reason, detail)


def test_a_sound_file_is_read_as_it_is(tmp_path: Path) -> None:
    _, file = spooled(tmp_path, FILM, EXPLICIT)
    assert repaired_file(memoryview(file.read_bytes())) is None
    assert repaired_file(memoryview(b"no DICOM file")) is None


def test_a_repaired_file_is_the_file_of_the_sound_dataset(tmp_path: Path) -> None:
    _, plain = spooled(tmp_path / "plain", FILM, EXPLICIT)
    _, odd = spooled(tmp_path / "odd", oddities(FILM)["all of it"], EXPLICIT)
    assert repaired_file(memoryview(odd.read_bytes())) == plain.read_bytes()


def test_repairs_of_a_beginning_reach_only_as_far_as_it() -> None:
    repairs = Repairs(end=9, left_out=((2, 4), (6, 8)), vrs=((0, b"XY"), (8, b"Z")))
    assert bytes(repairs.applied(memoryview(b"0123456789"))) == b"XY45Z"
    assert bytes(repairs.applied(memoryview(b"01234"))) == b"XY4"
    assert bytes(repairs.applied(memoryview(b""))) == b""


@pytest.mark.parametrize("zeros", [0, 1, 4_095, 4_096, 4_097, 20_000])
def test_the_end_of_the_data_is_behind_the_last_byte_that_is_not_nul(zeros: int) -> None:
    assert end_of_data(memoryview(b"\0\1" + bytes(zeros))) == 2
    assert end_of_data(memoryview(bytes(zeros))) == 0
