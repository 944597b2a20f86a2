"""Modalities that send new studies with DCMTK's storescu, again and again until each image is acknowledged."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from pydicom import Dataset

from tests.node import radiograph
from tests.servers import run_tool

RETRY_SECONDS: Final = 0.3
BEHIND_SECONDS: Final = 5.0  # between two studies then: something is always on its way, and still the node catches up
URGENT: Final = "EMERGENCY"  # calling AE title of urgent studies
_SENDING: Final = re.compile(r"^I: Sending file: (?P<file>.+)$")
_ANSWER: Final = re.compile(r"Received Store Response \((?P<status>.+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What storescu was told about each file that it sent; empty text: nothing."""

    files: dict[Path, str]

    def acknowledged(self) -> list[Path]:
        """Return the files whose response was Success."""
        return [file for file, status in self.files.items() if status == "Success"]


def storescu(files: list[Path], *, port: int, calling: str = "MODALITY1", called: str = "PNEUMONIA") -> Told:
    """Send files over one association and return the statuses, as DCMTK names them."""
    ended = run_tool(
        "storescu",
        "-v",
        "-R",
        "-to",
        5,
        "-ta",
        10,
        "-td",
        20,
        "-aet",
        calling,
        "-aec",
        called,
        "127.0.0.1",
        port,
        *files,
    )
    told, current = dict.fromkeys(files, ""), None
    for line in ended.stdout.splitlines():
        if found := _SENDING.match(line):
            current = Path(found["file"])
        elif (answer := _ANSWER.search(line)) and current is not None:
            told[current] = answer["status"]
    return Told(files=told)


@dataclass(slots=True)
class Study:
    """One study: its images on the modality's disk, by SOP Instance UID."""

    uid: str
    images: dict[str, Path]
    calling: str


@dataclass
class Modalities:
    """Some modalities at work; `acknowledged` is what they were told: Study and SOP Instance UIDs."""

    folder: Path
    port: int
    random: Random
    is_behind: Callable[[dict[str, set[str]]], bool]  # too many studies wait for their report: slow down
    acknowledged: dict[str, set[str]] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)  # by SOP Instance UID
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)
    _template: Dataset = field(default_factory=lambda: radiograph(1, opacity=True))

    def start(self, number: int) -> None:
        """Let this many modalities send."""
        self.folder.mkdir()
        for _ in range(number):
            thread = threading.Thread(target=self._work, name="modality")
            thread.start()
            self._threads.append(thread)

    def finish(self, timeout: float) -> None:
        """Let each end the study that it is sending."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout)
            assert not thread.is_alive(), "a modality got no acknowledgement for too long"

    def _work(self) -> None:
        while not self._stop.is_set():
            if self.is_behind(self.acknowledged):
                self._stop.wait(BEHIND_SECONDS)
            study = self._new_study()
            images = list(study.images)
            late = images.pop() if len(images) > 1 and self.random.random() < 0.4 else None
            self._send(study, images)
            if late:  # perhaps after the study was reported: a second version
                self._stop.wait(self.random.uniform(0.2, 2.5))
                self._send(study, [late])
            for image in study.images.values():
                image.unlink()

    def _new_study(self) -> Study:
        uid, series = self._uid(), self._uid()
        images = {}
        for number in range(self.random.choice([1, 1, 2, 3])):
            instance = self._uid()
            file = self.folder / f"{instance}.dcm"
            with self._lock:  # of the one template
                _renamed(self._template, uid, series, instance, number).save_as(file, enforce_file_format=True)
            images[instance] = file
        return Study(uid=uid, images=images, calling=URGENT if self.random.random() < 0.2 else "MODALITY1")

    def _send(self, study: Study, images: list[str]) -> None:
        """Send until each image is acknowledged: in one association, those that were not in another."""
        waiting = {study.images[uid]: uid for uid in images}
        while waiting:
            self.attempts.update(waiting.values())
            told = storescu(list(waiting), port=self.port, calling=study.calling)
            for file in told.acknowledged():
                with self._lock:
                    self.acknowledged.setdefault(study.uid, set()).add(waiting.pop(file))
            if waiting:
                time.sleep(RETRY_SECONDS)

    def _uid(self) -> str:
        return f"2.25.{self.random.getrandbits(120)}"


def _renamed(image: Dataset, study: str, series: str, instance: str, number: int) -> Dataset:
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = study, series, instance
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.PatientID = study[-16:]
    image.InstanceNumber = number + 1
    return image
