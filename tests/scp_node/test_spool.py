"""What the spool promises: safely on disk, named by us, and telling everything by itself."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from scp_node.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_node.dicom.inspection import Origin, inspect
from scp_node.dicom.part10 import decode_head, encode_head
from scp_node.domain import Priority, ReceivedInstance
from scp_node.spool import Spool, SpoolError, SpoolFileGoneError, SpoolFiles, SpoolFullError
from tests.scp_node.listener.datasets import radiograph
from tests.scp_node.listener.peer import EXPLICIT
from tests.scp_node.spooled import put

ORIGIN: Final = Origin(
    calling_ae="MODALITY1", called_ae="PNEUMONIA", peer="10.1.2.3", transfer_syntax=EXPLICIT, priority=Priority.ROUTINE
)
FILMS_BESIDE_A_SWEEP: Final = 150
SWEEPS: Final = """
from pathlib import Path
from scp_node.spool import Spool
spool = Spool(Path({folder!r}), low_water_bytes=0)
print(flush=True)
while True:
    spool.sweep()
"""
NOW: Final = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path, clock: Clock) -> Spool:
    return Spool(tmp_path / "spool", low_water_bytes=0, clock=clock)


def store(spool: Spool, data: bytes = b"", **origin: Any) -> ReceivedInstance:
    dataset = memoryview(data or radiograph())
    fields = {name: getattr(ORIGIN, name) for name in ORIGIN.__slots__}
    return put(spool, dataset, Origin(**{**fields, **origin}))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_is_a_dicom_file_with_the_dataset_as_it_came(spool: Spool, tmp_path: Path) -> None:
    data = radiograph()
    path = tmp_path / "spool" / store(spool, data).spool_path
    assert path.read_bytes().endswith(data)
    image = dcmread(path)
    assert image.PatientID == "CANARY-ID"
    meta = image.file_meta
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.MediaStorageSOPClassUID == image.SOPClassUID
    assert meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == meta.SendingApplicationEntityTitle == "MODALITY1"
    assert meta.ReceivingApplicationEntityTitle == "PNEUMONIA"
    assert meta.SourcePresentationAddress == "dicom://10.1.2.3"
    assert meta.FileMetaInformationGroupLength == len(path.read_bytes()) - len(data) - 144


@pytest.mark.needs("dcmdump")
def test_a_file_is_one_for_others_too(spool: Spool, tmp_path: Path) -> None:
    path = tmp_path / "spool" / store(spool).spool_path
    done = subprocess.run(["dcmdump", "-M", path], capture_output=True, text=True, check=True)
    assert "# Used TransferSyntax: Little Endian Explicit" in done.stdout
    assert not done.stderr


def test_a_name_carries_the_time_and_nothing_of_the_peer(spool: Spool) -> None:
    name = store(spool, calling_ae="SECRET", priority=Priority.STAT).spool_path
    assert re.fullmatch(r"2026-02-03/040506\.000789Z-[0-9a-f]{16}-stat\.dcm", name)


def test_only_the_owner_may_look(spool: Spool, tmp_path: Path) -> None:
    received = store(spool)
    folder = tmp_path / "spool"
    for path in (folder, folder / "tmp", folder / "2026-02-03"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (folder / received.spool_path).stat().st_mode & 0o777 == 0o600


@given(
    calling=st.from_regex(r"[A-Za-z0-9_ -]{0,14}[A-Za-z0-9_]", fullmatch=True),
    peer=st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str),
    priority=st.sampled_from(Priority),
)
def test_an_origin_is_read_back_from_the_file_meta(calling: str, peer: str, priority: Priority) -> None:
    origin = Origin(
        calling_ae=calling.strip(), called_ae="PNEUMONIA", peer=peer, transfer_syntax=EXPLICIT, priority=priority
    )
    data = radiograph()
    inspected = inspect(memoryview(data), EXPLICIT)
    head = encode_head(inspected.sop_class_uid, inspected.sop_instance_uid, origin)
    decoded = decode_head(memoryview(head + data))
    assert decoded.origin(priority) == origin
    assert decoded.offset == len(head)


@pytest.mark.parametrize("priority", Priority)
def test_a_file_alone_gives_the_same_received_instance(spool: Spool, priority: Priority) -> None:
    received = store(spool, peer="fd00::1", priority=priority)
    assert spool.read(received.spool_path) == received


def test_a_file_is_given_as_a_dataset(spool: Spool) -> None:
    with spool.open([store(spool).spool_path]) as [file]:
        image = dcmread(file)
    assert image.file_meta.TransferSyntaxUID == EXPLICIT
    assert image.Rows == 8


class WatchedSpool(Spool):
    """A spool that notes in what order it works, and can be told to fail."""

    def __init__(self, folder: Path, failing: str = "") -> None:
        self.steps: list[str] = []
        self.failing = ""
        super().__init__(folder, low_water_bytes=0)
        self.root = folder
        self.steps.clear()
        self.failing = failing

    def _sync_file(self, descriptor: int) -> None:
        self._note(f"sync file of {os.fstat(descriptor).st_size} bytes, {len(list(self.paths()))} finished")
        super()._sync_file(descriptor)

    def _sync_folder(self, folder: Path) -> None:
        self._note(f"sync {folder.name}, {len(list(self.paths()))} finished" if hasattr(self, "root") else "")
        super()._sync_folder(folder)

    def _note(self, step: str) -> None:
        self.steps.append(step)
        if self.failing and self.failing in step:
            raise OSError(errno.EIO, "Input/output error")


def test_the_file_is_synced_then_renamed_then_its_folder_synced(tmp_path: Path) -> None:
    spool = WatchedSpool(tmp_path / "spool")
    received = store(spool)
    day = received.spool_path.split("/")[0]
    size = (tmp_path / "spool" / received.spool_path).stat().st_size
    assert spool.steps == [
        "sync spool, 0 finished",
        f"sync file of {size} bytes, 0 finished",
        f"sync {day}, 1 finished",
    ]
    spool.steps.clear()
    store(spool)
    assert spool.steps == [f"sync file of {size} bytes, 1 finished", f"sync {day}, 2 finished"]


@pytest.mark.parametrize("failing", ["sync file", "sync 2", "sync spool"])
def test_a_disk_that_fails_leaves_nothing_behind(tmp_path: Path, failing: str) -> None:
    spool = WatchedSpool(tmp_path / "spool", failing)
    with pytest.raises(SpoolError, match="Input/output error"):
        store(spool)
    assert not files(tmp_path / "spool")
    spool.failing = ""
    store(spool)


def test_space_below_the_low_water_mark_is_refused_early(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", low_water_bytes=1 << 60)
    assert not spool.has_space()
    with pytest.raises(SpoolFullError):
        store(spool)
    assert not files(tmp_path / "spool")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


class HeedlessSpool(Spool):
    """A spool that finds the disk full only when it writes."""

    def _require_space(self) -> None:
        pass


def test_a_full_disk_leaves_nothing_behind(small_disk: Path) -> None:
    spool = HeedlessSpool(small_disk / "spool", low_water_bytes=0)
    kept = store(spool)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 4096))
    with pytest.raises(OSError, match="No space left on device"):
        store(spool, radiograph(Rows=100, Columns=100, PixelData=bytes(20_000)))
    assert [path for path in files(small_disk) if path != filler] == [small_disk / "spool" / kept.spool_path]
    filler.unlink()
    assert store(spool, radiograph(Rows=100, Columns=100, PixelData=bytes(20_000)))


def test_a_day_folder_that_somebody_removed_is_made_again(spool: Spool, tmp_path: Path) -> None:
    received = store(spool)
    (tmp_path / "spool" / received.spool_path).unlink()
    (tmp_path / "spool" / "2026-02-03").rmdir()
    assert spool.read(store(spool).spool_path)


def test_a_sweep_of_another_process_never_costs_a_file_that_is_being_written(spool: Spool, tmp_path: Path) -> None:
    code = SWEEPS.format(folder=str(tmp_path / "spool"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as sweeping:
        try:
            assert sweeping.stdout
            sweeping.stdout.readline()
            kept = [store(spool) for _ in range(FILMS_BESIDE_A_SWEEP)]
        finally:
            sweeping.kill()
    assert all(spool.holds(each.spool_path) for each in kept)


def test_sweep_removes_what_a_dead_process_left_and_nothing_else(spool: Spool, tmp_path: Path) -> None:
    received = store(spool)
    dead, alive = (tmp_path / "spool" / "tmp" / name for name in ("dead.dcm", "alive.dcm"))
    dead.write_bytes(b"half")
    with alive.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert spool.sweep() == 1
        assert not dead.exists()
        assert alive.exists()
    assert list(spool.paths()) == [received.spool_path]


def test_paths_come_oldest_first_and_only_those_of_the_spool(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    stored: list[str] = []
    for days in (0, 1, 1, 3):
        clock.now = NOW + timedelta(days=days, microseconds=len(stored))
        stored.append(store(spool).spool_path)
    (tmp_path / "spool" / "2026-02-03" / "notes.txt").write_text("not ours")
    (tmp_path / "spool" / "lost+found").mkdir()
    assert list(spool.paths()) == stored
    assert list(spool.paths(since=date(2026, 2, 4))) == stored[1:]
    assert list(spool.paths(since=date(2026, 2, 7))) == []


def test_remove_takes_the_day_with_it_once_that_is_past(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    first, second = store(spool).spool_path, store(spool).spool_path
    spool.remove(first)
    spool.remove(first)
    assert list(spool.paths()) == [second]
    clock.now = NOW + timedelta(days=3)
    spool.remove(second)
    assert not (tmp_path / "spool" / "2026-02-03").exists()


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "2026-02-03/../../secret", "tmp/x.dcm", "", "2026-02-03/notes.txt"]
)
def test_a_path_that_is_not_the_spools_is_refused(spool: Spool, path: str) -> None:
    for method in (spool.read, spool.holds, spool.remove):
        with pytest.raises(SpoolError, match="is no path of the spool"):
            method(path)
    with pytest.raises(SpoolError, match="is no path of the spool"), spool.open([path]):
        pass


def test_who_only_reads_finds_the_files_and_creates_nothing(spool: Spool, tmp_path: Path) -> None:
    path = store(spool).spool_path
    files = SpoolFiles(tmp_path / "spool")
    assert files.holds(path)
    with files.open([path]) as [file]:
        assert dcmread(file).SOPInstanceUID
    assert not SpoolFiles(tmp_path / "other").holds(path)
    assert not (tmp_path / "other").exists()


def test_a_file_that_was_damaged_later_is_said_to_be(spool: Spool, tmp_path: Path) -> None:
    received = store(spool)
    path = tmp_path / "spool" / received.spool_path
    content = path.read_bytes()
    for damaged in (content[:-1], content[:100], b"", content[:128] + b"XXXX" + content[132:]):
        path.write_bytes(damaged)
        with pytest.raises(SpoolError, match="is damaged"):
            spool.read(received.spool_path)
    path.unlink()
    with pytest.raises(SpoolFileGoneError, match="is gone"):
        spool.read(received.spool_path)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpoolError, match="cannot be used as spool"):
        Spool(tmp_path / "file" / "spool", low_water_bytes=0)
