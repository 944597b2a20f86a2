"""Senders that store one image after the other and note what each was told, and after how long."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydicom.uid import UID

from scp_node.delivery.association import RequestedAssociation
from scp_node.delivery.connection import AssociationError
from scp_node.dicom.part10 import decode_head
from tests.node import radiograph
from tests.servers import LOOPBACK, run_tool

ANSWER_SECONDS: Final = 30.0
_UID_LENGTH: Final = 40


@dataclass(frozen=True, slots=True)
class _Image:
    file: bytes
    sop_instance_uid: str
    study_uid: str

    @property
    def dataset(self) -> bytes:
        return self.file[decode_head(memoryview(self.file)).offset :]


def _uid(kind: int, number: int) -> str:
    return f"2.25.{kind}{number:0{_UID_LENGTH - 6}d}"


def _template() -> bytes:
    image = radiograph(1)
    image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID = (UID(_uid(kind, 0)) for kind in (1, 2, 3))
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


_TEMPLATE: Final = _template()


def _images() -> Iterator[_Image]:
    """Yield the same film under ever new identifiers of the same length."""
    for number in itertools.count(1):
        file = _TEMPLATE
        for kind in (1, 2, 3):
            file = file.replace(_uid(kind, 0).encode(), _uid(kind, number).encode())
        yield _Image(file, _uid(1, number), _uid(2, number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One C-STORE: of which study, what it was answered, and how long that took."""

    study_uid: str
    sop_instance_uid: str
    status: int | None  # None: no answer
    seconds: float | None  # None: sent by a tool that does not say it


@dataclass
class Load:
    """Senders at work on a node until the block ends: two of our own and DCMTK's storescu, a study an image."""

    folder: Path
    port: int
    called: str = "PNEUMONIA"
    pause: float = 0.4  # seconds between two images of one sender
    stores: list[Stored] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _images: Iterator[_Image] = field(default_factory=_images, repr=False)

    def __enter__(self) -> Self:
        for number, send in enumerate((self._send_many, self._send_many, self._storescu)):
            thread = threading.Thread(target=send, args=(number,), name="sender")
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_SECONDS)
            assert not thread.is_alive(), "a sender waits for its answer"

    @property
    def studies(self) -> set[str]:
        """Return the Study Instance UIDs of what was acknowledged."""
        return {stored.study_uid for stored in self.stores if stored.status == 0x0000}

    def refused(self) -> list[Stored]:
        """Return what was answered anything but Success."""
        return [stored for stored in self.stores if stored.status != 0x0000]

    def seconds(self) -> list[float]:
        """Return how long the answers took, shortest first."""
        return sorted(stored.seconds for stored in self.stores if stored.seconds is not None)

    def _send_many(self, _number: int) -> None:
        """Keep one association open, as a PACS that routes does."""
        association: RequestedAssociation | None = None
        while not self._stop.wait(self.pause):
            image = self._next()
            began = time.monotonic()
            try:
                association = association or self._associate()
                [context] = association.accepted
                status = association.store(image.dataset, image.sop_instance_uid, context, seconds=ANSWER_SECONDS)
            except AssociationError:
                association, status = None, None
            self._note(image, status, time.monotonic() - began)
        if association:
            association.release()

    def _storescu(self, number: int) -> None:
        """Open an association for each image, as many modalities do."""
        file = self.folder / f"sender-{number}.dcm"
        while not self._stop.wait(self.pause):
            image = self._next()
            file.write_bytes(image.file)
            told = run_tool("storescu", "-aet", "MODALITY2", "-aec", self.called, LOOPBACK, self.port, file)
            self._note(image, 0x0000 if told.returncode == 0 else None, None)

    def _next(self) -> _Image:
        with self._lock:
            return next(self._images)

    def _note(self, image: _Image, status: int | None, seconds: float | None) -> None:
        self.stores.append(
            Stored(study_uid=image.study_uid, sop_instance_uid=image.sop_instance_uid, status=status, seconds=seconds)
        )

    def _associate(self) -> RequestedAssociation:
        head = decode_head(memoryview(_TEMPLATE))
        return RequestedAssociation.request(
            LOOPBACK,
            self.port,
            calling_ae="MODALITY1",
            called_ae=self.called,
            contexts=[(head.sop_class_uid, [head.transfer_syntax])],
            seconds=ANSWER_SECONDS,
        )


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which this share of the ordered values lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
