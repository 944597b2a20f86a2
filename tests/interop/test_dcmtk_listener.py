"""DCMTK sends to the listener: every transfer syntax, real films, and damage."""

from __future__ import annotations

import csv
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from scp_node.dicom.syntaxes import TRANSFER_SYNTAXES
from scp_node.listener.contexts import STORAGE_CLASSES
from tests.conftest import Send
from tests.scp_node.listener.conftest import Running
from tests.scp_node.listener.datasets import encapsulated, radiograph_dataset
from tests.servers import LOOPBACK, echoes, run_tool

pytestmark = [pytest.mark.needs("storescu"), pytest.mark.needs("dcmsend"), pytest.mark.needs("echoscu")]

EXPLICIT: Final = "1.2.840.10008.1.2.1"
OPTIONS: Final = {  # transfer syntax -> storescu's option that proposes it
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
SEND_ONLY: Final = {"1.2.840.10008.1.2.4.57"}  # storescu has no option for it; dcmsend proposes what the file needs


def write_film(path: Path, syntax: str = EXPLICIT, **attributes: str) -> Path:
    """Write a radiograph as a file; compressed ones hold fragments that nothing here decodes."""
    image = radiograph_dataset(**attributes)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = UID(syntax)
    if UID(syntax).is_encapsulated:
        image.PixelData = encapsulated(b"\xff\xd8\xff\xd9")[12:-8]
        image["PixelData"].VR = "OB"
        image["PixelData"].is_undefined_length = True
    image.save_as(path, enforce_file_format=True)
    return path


def dataset_of(path: Path) -> bytes:
    """Return a file without preamble and file meta information."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_echoscu_is_answered_and_refused_with_a_wrong_title(running: Running) -> None:
    assert echoes(running.port, "PNEUMONIA")
    assert not echoes(running.port, "OTHER")


def test_storescus_options_cover_the_table() -> None:
    assert OPTIONS.keys() | SEND_ONLY == TRANSFER_SYNTAXES.keys()


@pytest.mark.parametrize("syntax", OPTIONS)
def test_storescu_sends_in_each_transfer_syntax(running: Running, storescu: Send, tmp_path: Path, syntax: str) -> None:
    film = write_film(tmp_path / "film.dcm", syntax)
    done = storescu(film, "-R", OPTIONS[syntax], port=running.port)
    assert done.returncode == 0, done.stdout
    [received] = running.received
    assert received.transfer_syntax == syntax
    assert received.calling_ae == "MODALITY1"
    assert running.spool.read(received.spool_path) == received


@pytest.mark.parametrize("sop_class", STORAGE_CLASSES)
def test_storescu_sends_each_class_with_all_of_its_own_contexts_proposed(
    running: Running, storescu: Send, tmp_path: Path, sop_class: str
) -> None:
    done = storescu(write_film(tmp_path / "film.dcm", SOPClassUID=sop_class), port=running.port)
    assert done.returncode == 0, done.stdout
    assert running.received[0].sop_class_uid == sop_class


def test_dcmsend_sends_jpeg_lossless_of_any_prediction(running: Running, dcmsend: Send, tmp_path: Path) -> None:
    [syntax] = SEND_ONLY
    done = dcmsend(write_film(tmp_path / "film.dcm", syntax), "--decompress-never", port=running.port)
    assert done.returncode == 0, done.stdout
    assert running.received[0].transfer_syntax == syntax


def test_a_class_that_is_not_offered_is_not_sent(running: Running, storescu: Send, tmp_path: Path) -> None:
    ct = write_film(tmp_path / "ct.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    done = storescu(ct, "-R", port=running.port)
    assert done.returncode != 0
    assert "No Acceptable Presentation Contexts" in done.stdout
    assert not running.received


def test_a_report_without_study_is_refused_as_not_understood(
    running: Running, storescu: Send, shared_data: Path
) -> None:
    film = shared_data / "robustness" / "derived" / "missing_study_uid.dcm"
    done = storescu(film, "-R", "-d", port=running.port)
    assert "DIMSE Status                  : 0xc000" in done.stdout
    assert "(0000,0902) LO [Study Instance UID is missing]" in done.stdout
    assert [rejected.status for rejected in running.rejected] == [0xC000]


def test_a_deep_private_header_is_taken(running: Running, storescu: Send, shared_data: Path) -> None:
    film = shared_data / "robustness" / "derived" / "private_and_nested40.dcm"
    assert storescu(film, "-R", port=running.port).returncode == 0


def test_dcmsend_brings_real_films_as_they_are(running: Running, dcmsend: Send, shared_data: Path) -> None:
    films = sorted((shared_data / "dicom").glob("rsna_*/*.dcm"))[:40]
    done = dcmsend(films, port=running.port)
    assert done.returncode == 0, done.stdout
    assert len(running.received) == len(films)
    sent = {hashlib.sha256(dataset_of(film)).hexdigest() for film in films}
    kept = {received.sha256 for received in running.received}
    assert len(sent & kept) > len(films) // 2  # DCMTK encodes some elements anew
    for received in running.received:
        assert running.spool.read(received.spool_path) == received
        with running.spool.open([received.spool_path]) as [file]:
            assert received.study_uid == dcmread(file).StudyInstanceUID


def test_hard_cases_are_refused_or_kept_as_the_catalogue_of_them_says(
    running: Running, dcmsend: Send, shared_data: Path
) -> None:
    with (shared_data / "robustness" / "manifest.csv").open(newline="") as file:
        cases = [row for row in csv.DictReader(file) if row["path"].startswith("derived/")]
    dcmsend([shared_data / "robustness" / case["path"] for case in cases], "-nh", port=running.port)
    kept = {received.sop_instance_uid for received in running.received}
    for case in cases:
        path = shared_data / "robustness" / case["path"]
        image = dcmread(path, force=True, stop_before_pixels=True)
        if case["action"] == "REJECT" or image.get("SOPClassUID") not in STORAGE_CLASSES:
            assert image.get("SOPInstanceUID") not in kept, path
        elif case["action"] in ("ANALYSE", "ANALYSE_WARN", "SKIP"):
            assert image.SOPInstanceUID in kept, path


def test_eight_senders_at_once_lose_nothing(running: Running, tmp_path: Path) -> None:
    films = [write_film(tmp_path / f"{number}.dcm", SOPInstanceUID=f"1.2.3.{number}") for number in range(10)]
    arguments: list[str | int | Path] = ["-R", "-aec", "PNEUMONIA", LOOPBACK, running.port, *films]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: run_tool("storescu", *arguments), range(8)))
    assert [one.returncode for one in done] == [0] * 8
    assert len(running.received) == 80
    assert len(list(running.spool.paths())) == 80
