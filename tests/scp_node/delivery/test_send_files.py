"""The test sender: files go out as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from pynetdicom.presentation import build_context

from scp_node.delivery import send_files
from tests.scp_node.delivery.scp import EXPLICIT, IMPLICIT, Scp

CR: Final = "1.2.840.10008.5.1.4.1.1.1"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"


def write_file(path: Path, *, sop_class: str = CR, syntax: str = EXPLICIT, uid: str = "1.2.3") -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def scp() -> Iterator[Scp]:
    with Scp(sop_classes=(CR,), syntaxes=(EXPLICIT, IMPLICIT, JPEG_BASELINE)).serving() as scp:
        yield scp


def send(paths: list[Path], port: int) -> list[tuple[Path, int | None]]:
    progress: list[tuple[Path, int | None]] = []
    results = send_files(
        paths,
        host="127.0.0.1",
        port=port,
        called_ae="PACS",
        calling_ae="TESTER",
        on_progress=lambda path, status: progress.append((path, status)),
    )
    assert sorted(progress) == sorted(results)
    return results


def test_each_file_goes_out_in_its_own_transfer_syntax_without_a_change(scp: Scp, tmp_path: Path) -> None:
    paths = [write_file(tmp_path / syntax, syntax=syntax) for syntax in (EXPLICIT, IMPLICIT, JPEG_BASELINE)]
    assert send(paths, scp.port) == [(path, 0x0000) for path in paths]
    assert [syntax for _, syntax, _ in scp.stored] == [EXPLICIT, IMPLICIT, JPEG_BASELINE]
    assert all(path.read_bytes().endswith(data) for path, (_, _, data) in zip(paths, scp.stored, strict=True))
    assert scp.associations == 1


def test_what_is_no_file_or_not_accepted_has_no_status(scp: Scp, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not DICOM")
    paths = [
        write_file(tmp_path / "good"),
        text,
        tmp_path / "missing",
        write_file(tmp_path / "ct", sop_class="1.2.840.10008.5.1.4.1.1.2"),
    ]
    assert [status for _, status in send(paths, scp.port)] == [0x0000, None, None, None]


def test_statuses_are_those_of_each_file(scp: Scp, tmp_path: Path) -> None:
    scp.statuses = [0xA700, 0x0000]
    paths = [write_file(tmp_path / name) for name in "ab"]
    assert [status for _, status in send(paths, scp.port)] == [0xA700, 0x0000]


def test_a_broken_association_costs_one_file_only(scp: Scp, tmp_path: Path) -> None:
    scp.on_store = lambda event: event.assoc.abort() if not scp.stored else None
    paths = [write_file(tmp_path / name) for name in "abc"]
    assert [status for _, status in send(paths, scp.port)] == [None, 0x0000, 0x0000]


def test_an_absent_node_is_asked_once(tmp_path: Path, free_port: int) -> None:
    paths = [write_file(tmp_path / name) for name in "abc"]
    assert [status for _, status in send(paths, free_port)] == [None, None, None]


def test_more_kinds_than_one_association_can_carry_go_in_several(scp: Scp, tmp_path: Path) -> None:
    classes = [f"1.2.3.{number}" for number in range(150)]
    scp.ae.supported_contexts = [build_context(CR)]
    paths = [write_file(tmp_path / uid, sop_class=uid) for uid in (*classes, CR)]
    results = send(paths, scp.port)
    assert [path for path, _ in results] == paths
    assert results[-1][1] is not None
