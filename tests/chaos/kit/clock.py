"""A wall clock in the hands of a test, and what else it takes to see that nothing hangs on it."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any, Final

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.dsutils import encode
from sqlalchemy import Row, text

from scp_node.delivery.association import RequestedAssociation
from scp_node.ledger.database.engine import create_ledger_engine, reading
from tests.chaos.kit.preload import build
from tests.node import Node
from tests.scp_node.delivery.scp import EXPLICIT, Scp
from tests.servers import Postgres

_DECODER: Final = b"scp_node.decoders.program"


class SetClock:
    """The wall clock of the programs that are started with its environment; the test's own stays as it is."""

    def __init__(self, folder: Path) -> None:
        """Build what is preloaded, in `folder`, which those programs must be able to read."""
        self._file = folder / "wall-clock"
        self.seconds = 0.0  # from the real time
        self._write()
        self._library = build("wall_clock", folder)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment; its children live by the same clock."""
        return {"LD_PRELOAD": str(self._library), "TEST_WALL_CLOCK": str(self._file)}

    def jump(self, seconds: float) -> None:
        """Set the clock, for all of them in one moment."""
        self.seconds += seconds
        self._write()

    def _write(self) -> None:
        """Write in place, in one call: the file is mapped."""
        file = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(file, struct.pack("=q", int(self.seconds * 1e9)), 0)
        os.close(file)


class PostgresWithClock(Postgres):
    """A PostgreSQL server that lives by a clock of the test's."""

    def __init__(self, folder: Path, clock: SetClock) -> None:
        self._clock = clock
        super().__init__(folder)

    def run_as(self) -> Mapping[str, Any]:
        return {**super().run_as(), "env": {**os.environ, **self._clock.environment}}


class Pacs(Scp):
    """A Storage SCP that answers when and what the test wants, and notes the monotonic second of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, float]] = []  # Study Instance UID
        self._answers = threading.Event()
        self._answers.set()
        self.on_store = self._note

    def _note(self, event: evt.Event) -> None:
        self.asked.append((str(event.dataset.StudyInstanceUID), time.monotonic()))
        self._answers.wait(60)

    def tries(self, study_uid: str) -> list[float]:
        """Return when the report of the study was sent."""
        return [at for study, at in self.asked if study == study_uid]

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Take what comes, and answer at the end of the block only."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()


class Modality:
    """Sends images over one association that it never opens anew."""

    def __init__(self, node: Node, sop_class_uid: str) -> None:
        self._association = RequestedAssociation.request(
            "127.0.0.1",
            node.settings.listen.port,
            calling_ae="MODALITY1",
            called_ae=node.settings.node.ae_title,
            contexts=[(sop_class_uid, [EXPLICIT])],
            seconds=30,
        )
        [self._context] = self._association.accepted
        self.statuses: list[int] = []

    def store(self, image: Dataset) -> str:
        """Send an image and return its Study Instance UID."""
        dataset = encode(image, is_implicit_vr=False, is_little_endian=True)
        assert dataset is not None
        status = self._association.store(dataset, image.SOPInstanceUID, self._context, seconds=30)
        self.statuses.append(status)
        return str(image.StudyInstanceUID)

    def release(self) -> None:
        self._association.release()


def rows(node: Node, statement: str) -> list[Row[Any]]:
    """Read the node's database as it is: a ledger of the test's own would take its clock for one that jumped."""
    engine = create_ledger_engine(node.settings.database_url)
    with reading(engine).connect() as connection:
        found = list(connection.execute(text(statement)))
    engine.dispose()
    return found


@contextmanager
def decoders_stopped(node: Node) -> Iterator[None]:
    """Freeze the processes that read images: an analysis that has begun goes on at the end of the block."""
    pids = _decoders(node)
    assert pids, "the node has no decoder process"
    for pid in pids:
        os.kill(pid, SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, SIGCONT)


def _decoders(node: Node) -> list[int]:
    assert node.process is not None
    root = node.process.pid
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_one = entry.name.isdecimal() and _DECODER in (entry / "cmdline").read_bytes()
            if is_one and _parent(_parent(int(entry.name))) == root:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
