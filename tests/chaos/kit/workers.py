"""A node whose worker meets poison: images that end it, stop it, take its memory, or get an answer that is no number.

As a program it is `scp-node serve` with such a network and such decoders. What an image does to the network is written
in a folder, under the name of the network's input; what it does to a decoder stands in its Image Comments (0020,4000).
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.errors import BackendError
from pydicom import Dataset, dcmread

from scp_node.analysis.analyse import analyse, analyse_file
from scp_node.analysis.answers import Equipment, Prepared
from scp_node.app import REFUSALS, Role, serve
from scp_node.cli.console import settings_of
from scp_node.decoders import program
from scp_node.domain import NotAnalysed
from scp_node.inference.ports import Scores
from scp_node.inference.served_model import ServedModel
from scp_node.roles.common import Parts
from scp_node.runtime.supervisor import REFUSED
from scp_node.settings import AnalysisSettings, InferenceSettings

MODULE: Final = "tests.chaos.kit.workers"
FOLDER_VARIABLE: Final = "TEST_POISON"
READING: Final = "reading"  # the program's argument that makes it a decoder process
_TRIES: Final = "tries"
_LOST: Final = "device-lost"


class Deed(StrEnum):
    """What an image does to who analyses it."""

    KILLS = "kills"  # the process, at once, as the kernel does when memory is short
    STOPS = "stops"  # all threads of the process
    SEIZES = "seizes"  # the interpreter, in a library that never comes back
    WAITS = "waits"  # for ever, in the one thread
    FILLS = "fills"  # more memory than there is
    BREAKS = "breaks"  # the device, until the process is a new one
    NUMBS = "numbs"  # the network: its answer is NaN


class DecoderDeed(StrEnum):
    """What an image does to who reads it."""

    HANGS = "hangs a decoder"
    FILLS = "fills a decoder"


class Poison:
    """The folder in which a test and the processes of a node agree on what an image does, and what was done."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What the node's processes need to find it."""
        return {FOLDER_VARIABLE: str(self._folder)}

    def add(self, image: Dataset, deed: Deed) -> Dataset:
        """Let the image do it whenever the network is given it."""
        prepared = analyse(image, AnalysisSettings())
        assert isinstance(prepared, Prepared)
        (self._folder / _name(prepared.inputs)).write_text(deed)
        return image

    def deed(self, inputs: NDArray[np.float32]) -> Deed | None:
        """Return what the image does whose input this is."""
        file = self._folder / _name(inputs)
        return Deed(file.read_text()) if file.exists() else None

    def lose_device(self, *, lost: bool) -> None:
        """Take the device away from all processes, or give it back."""
        if lost:
            (self._folder / _LOST).touch()
        else:
            (self._folder / _LOST).unlink()

    @property
    def has_device(self) -> bool:
        """Whether the device is there."""
        return not (self._folder / _LOST).exists()

    def note(self, deed: str, *, batch: int) -> None:
        """Write down that an image is about to do it, in a batch of so many."""
        with (self._folder / _TRIES).open("a") as file:
            file.write(f"{deed} {batch}\n")

    def tries(self, deed: str) -> list[int]:
        """Return the size of each batch in which an image did it."""
        file = self._folder / _TRIES
        told = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [int(batch) for each, batch in told if each == deed]


class PoisonedModel(ServedModel):
    """The network of the bundle, on a device that is lost at times, with images that do something to it."""

    _broken = False

    @classmethod
    def open(cls, settings: InferenceSettings) -> PoisonedModel:
        if not _poison().has_device:
            raise BackendError("no such device")
        model = super().open(settings)
        assert isinstance(model, PoisonedModel)
        return model

    def verify(self) -> None:
        self._require_device()
        super().verify()

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        self._require_device()
        poison = _poison()
        deeds = [poison.deed(each) for each in inputs]
        for deed in filter(None, deeds):
            poison.note(deed, batch=len(inputs))
            if deed is Deed.BREAKS:
                self._broken = True
                self._require_device()
            if deed is not Deed.NUMBS:
                _DEEDS[deed]()
        scores = super().scores(inputs)
        numbed = [deed is Deed.NUMBS for deed in deeds]
        return replace(scores, logits=np.where(numbed, np.float32(np.nan), scores.logits))

    def _require_device(self) -> None:
        if self._broken or not _poison().has_device:
            raise RuntimeError("device lost")


def _stop_itself(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


_DEEDS: Final[dict[Deed, Callable[[], object]]] = {
    Deed.KILLS: lambda: _stop_itself(signal.SIGKILL),
    Deed.STOPS: lambda: _stop_itself(signal.SIGSTOP),
    Deed.SEIZES: lambda: ctypes.PyDLL(None).sleep(3_600),
    Deed.WAITS: lambda: threading.Event().wait(3_600),
    Deed.FILLS: lambda: np.ones(2**50),
}


def _name(inputs: NDArray[np.float32]) -> str:
    return hashlib.sha256(inputs.tobytes()).hexdigest()


def _poison() -> Poison:
    return Poison(Path(os.environ[FOLDER_VARIABLE]))


def _read(path: Path, rules: AnalysisSettings, own: Equipment | None) -> Prepared | NotAnalysed:
    """Read an image, in a decoder process, unless it does something to that."""
    comments = dcmread(path, stop_before_pixels=True).get("ImageComments")
    if comments == DecoderDeed.HANGS:
        re.match(r"(a+)+$", "a" * 64 + "b")  # longer than anybody waits, and no other thread of the process runs
    if comments == DecoderDeed.FILLS:
        np.ones(2**50)
    return analyse_file(path, rules, own)


def main() -> int:
    """Serve; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--supervised", action="store_true")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--role", default=Role.ALL)
    arguments = parser.parse_args()
    parts = Parts(
        program=(sys.executable, "-m", MODULE), open_model=PoisonedModel.open, decoder=("-m", MODULE, READING)
    )
    config, role = arguments.config, Role(arguments.role)
    try:
        return serve(settings_of(config), config, role, supervised=arguments.supervised, parts=parts)
    except REFUSALS as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED


if __name__ == "__main__":
    if sys.argv[1] == READING:
        del sys.argv[1]
        program.main(_read)
    else:
        sys.exit(main())
