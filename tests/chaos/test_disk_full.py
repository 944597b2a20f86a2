"""A full disk: what cannot be kept is refused, nothing is left of it, and work goes on as soon as there is room."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from scp_node.opening import SPOOL_FOLDER
from scp_node.spool import Spool
from tests import servers
from tests.chaos.conftest import Chaos
from tests.chaos.kit.archive import Archive
from tests.chaos.kit.disk import MIB, Disk, mounted
from tests.chaos.kit.process_tree import processes
from tests.node import Node, destination, radiograph
from tests.waiting import wait_until

# PS3.4 Table B.2-1
SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
ASSOCIATIONS: Final = 3  # at the same time
PAGE: Final = 4096  # bytes
ACCEPTS_AGAIN: Final = 5.0  # seconds
LOW_WATER: Final = 48  # MiB
START_SECONDS: Final = 180.0  # at most: on a machine that has much else to do


@dataclass
class Modality:
    """Sends images that nobody has seen before, and keeps what it was told about each."""

    node: Node
    comment: str = ""  # Image Comments (0020,4000)
    statuses: dict[str, int | None] = field(default_factory=dict)  # by SOP Instance UID; None: no response
    acknowledged: list[str] = field(default_factory=list)  # Study Instance UIDs

    def send(self, number: int, *, associations: int = ASSOCIATIONS) -> Counter[int | None]:
        """Send so many images over some associations at the same time; return how often there was which status."""
        first = len(self.statuses)
        images = [radiograph(first + seed, opacity=True, ImageComments=self.comment) for seed in range(number)]
        files = [self.node.folder / f"{image.SOPInstanceUID}.dcm" for image in images]
        for image, file in zip(images, files, strict=True):
            image.save_as(file, enforce_file_format=True)
        with ThreadPoolExecutor(associations) as pool:
            shares = [files[start::associations] for start in range(associations)]
            told = pool.map(lambda share: dict(zip(share, self.node.send_files(share), strict=True)), shares)
            by_file = {file: status for share in told for file, status in share.items()}
        for image, file in zip(images, files, strict=True):
            self.statuses[image.SOPInstanceUID] = by_file[file]
            if by_file[file] == SUCCESS:
                self.acknowledged.append(image.StudyInstanceUID)
        return Counter(by_file.values())

    def seconds_until_accepted(self) -> float:
        """Send one image again and again, a new one each time, and return how long it took until one was taken."""
        began = time.monotonic()
        wait_until(lambda: self.send(1, associations=1)[SUCCESS], 2 * ACCEPTS_AGAIN, what="the node accepts again")
        return time.monotonic() - began


@dataclass
class Scene:
    """A node whose spool and database have a small disk each."""

    node: Node
    pacs: Archive
    disks: dict[str, Disk]
    modality: Modality


@pytest.fixture(params=["sqlite", "postgresql"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, chaos: Chaos) -> Iterator[Scene]:
    sizes = {"spool": chaos.amount(short=64, long=128), "database": chaos.amount(short=160, long=1_024)}
    with contextlib.ExitStack() as stack:
        disks = {name: stack.enter_context(mounted(size)) for name, size in sizes.items()}
        folder = disks["database"].folder / "database"
        folder.mkdir()
        url = f"sqlite:///{folder / 'scp_node.db'}"
        if request.param == "postgresql":
            url = stack.enter_context(stack.enter_context(servers.Postgres(folder)).database())
        yield _scene(stack, tmp_path, disks, {"database": {"url": url}}, disks["spool"].folder / "var")


def _scene(
    stack: contextlib.ExitStack, folder: Path, disks: dict[str, Disk], changes: dict[str, Any], data: Path
) -> Scene:
    pacs = Archive(folder / "pacs", Random(0))
    stack.callback(pacs.close)
    node = Node(folder, {"node": {"data_dir": str(data)}, "destinations": [destination(pacs.port)], **changes})
    stack.callback(node.end)
    node.start(wait=False)
    wait_until(node.is_listening, START_SECONDS, what="node listens")
    return Scene(node, pacs, disks, Modality(node))


def test_a_full_disk_refuses_stores_and_loses_nothing_that_was_acknowledged(scene: Scene, chaos: Chaos) -> None:
    node, modality = scene.node, scene.modality
    assert modality.send(3) == {SUCCESS: 3}
    _all_done(scene)
    descriptors = _descriptors(node)
    _breaks_off_in_the_middle_of_a_file(scene)
    for full in (["spool"], ["database"], ["spool", "database"]):
        complaints = len(_complaints(node))
        _truncate_log(node)
        for name in full:
            scene.disks[name].fill()
        told = modality.send(chaos.amount(short=6, long=60))
        kept = OUT_OF_RESOURCES if "spool" in full else SUCCESS
        assert set(told) == {kept}
        _nothing_partial(scene)
        if full == ["database"]:  # only then the node has something to write, and cannot
            wait_until(lambda seen=complaints: len(_complaints(node)) > seen, what="the database is full")  # type: ignore[misc]
        for name in full:
            scene.disks[name].make_room()
        seconds = modality.seconds_until_accepted()
        _all_done(scene)
        _nothing_partial(scene)
        wait_until(lambda: _descriptors(node) <= descriptors, what=f"no more descriptors than {descriptors}")
        chaos.figure(
            f"{' and '.join(full)} full: {told[SUCCESS]} of {sum(told.values())} images accepted, "
            f"{told[OUT_OF_RESOURCES]} refused with 0xA700, 0 partial files, {descriptors} descriptors before and "
            f"{_descriptors(node)} after; accepts again after {seconds:.2f} s"
        )
        assert seconds < ACCEPTS_AGAIN


def _breaks_off_in_the_middle_of_a_file(scene: Scene) -> None:
    """There seems to be room for an image, but not for the last bytes of its file."""
    disk, modality = scene.disks["spool"], scene.modality
    [size, *_] = [file.stat().st_size for file in disk.folder.rglob("*.dcm")]
    beyond = (
        100  # bytes in the file's last page: fewer than go before the dataset, so the look at the free space passes
    )
    modality.comment = "-" * ((beyond - size) % PAGE)
    disk.fill(leave=(size + len(modality.comment)) // PAGE * PAGE)
    assert modality.send(ASSOCIATIONS) == {OUT_OF_RESOURCES: ASSOCIATIONS}
    assert "file not stored: No space left on device" in scene.node.log
    _nothing_partial(scene)
    disk.make_room()


def test_the_low_water_mark_keeps_room_for_database_and_reports(tmp_path: Path, chaos: Chaos) -> None:
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(mounted(LOW_WATER + 64))
        changes = {"listen": {"low_water_mib": LOW_WATER}}
        scene = _scene(stack, tmp_path, {"all": disk}, changes, disk.folder / "var")
        modality = scene.modality
        assert modality.send(1) == {SUCCESS: 1}
        _all_done(scene)

        disk.fill(leave=LOW_WATER * MIB + 4 * MIB)
        told = modality.send(12, associations=1)
        assert set(told) == {SUCCESS, OUT_OF_RESOURCES}
        spare = disk.free
        _all_done(scene)
        _nothing_partial(scene)
        taken = spare - disk.free
        disk.fill(leave=LOW_WATER * MIB - 1)
        assert modality.send(1) == {None: 1}, "an association was accepted although nothing can be stored"
        assert "reason='no space to store, or stopping'" in scene.node.log
        assert not _complaints(scene.node)

        disk.make_room()
        seconds = modality.seconds_until_accepted()
        chaos.figure(
            f"{told[SUCCESS]} images accepted down to {spare / MIB:.1f} MiB of a low-water mark of {LOW_WATER} MiB, "
            f"{told[OUT_OF_RESOURCES]} refused with 0xA700; their analyses, reports and audit took "
            f"{taken / MIB:.1f} MiB of it; accepts again after {seconds:.2f} s"
        )
        assert seconds < ACCEPTS_AGAIN


def _all_done(scene: Scene) -> None:
    """Every study that was acknowledged is reported once, and every refusal is in the audit."""
    statuses = [status for status in scene.modality.statuses.values() if status is not None]
    rows = scene.node.run_until_idle(len(statuses), timeout=90 + 2 * len(statuses))
    states = {row["sop_instance_uid"]: row["state"] for row in rows}
    expected = {SUCCESS: "analysed", OUT_OF_RESOURCES: "rejected"}
    assert states == {uid: expected[told] for uid, told in scene.modality.statuses.items() if told is not None}
    reports = {study: len(held.reports) for study, held in scene.pacs.studies().items()}
    assert reports == dict.fromkeys(scene.modality.acknowledged, 1)


def _nothing_partial(scene: Scene) -> None:
    """The spool holds what was acknowledged, readable to its end, and nothing else."""
    folder = scene.node.settings.node.data_dir / SPOOL_FOLDER
    spool = Spool(folder, low_water_bytes=0)
    held = [spool.read(path).study_uid for path in spool.paths()]
    assert sorted(held) == sorted(scene.modality.acknowledged)
    assert not list((folder / "tmp").iterdir())


def _descriptors(node: Node) -> int:
    """Return how many descriptors the listener has open; none of any process is of a file of the spool."""
    assert node.process is not None
    found = {process.role: process.descriptors() for process in processes(node.process.pid)}
    spool = str(node.settings.node.data_dir / SPOOL_FOLDER)
    assert not [name for names in found.values() for name in names if name.startswith(spool)]
    return len(found["listener"])


def _truncate_log(node: Node) -> None:
    """Give SQLite's write-ahead log no room from before, in which it could go on for a while."""
    url = node.settings.database_url
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _complaints(node: Node) -> list[str]:
    """Return the lines of the log in which a step could not write."""
    return [line for line in node.log.splitlines() if "database is away" in line or "step failed" in line]
