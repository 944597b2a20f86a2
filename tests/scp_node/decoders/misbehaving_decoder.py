"""A decoder process that does to a file what the file's name says; every other file it reads as the real one does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scp_node.analysis.analyse import analyse_file
from scp_node.analysis.answers import Equipment, Prepared
from scp_node.decoders.program import main
from scp_node.domain import NotAnalysed, Reason
from scp_node.settings import AnalysisSettings


def _hang(path: Path) -> None:
    path.with_suffix(".started").touch()
    re.match(r"(a+)+$", "a" * 64 + "b")  # longer than anybody waits, and no other thread of the process runs


def _crash(_: Path) -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def _crash_once(path: Path) -> None:
    if not path.with_suffix(".crashed").exists():
        path.with_suffix(".crashed").touch()
        os.abort()


def _talk(_: Path) -> None:
    os.write(1, b"printed by a C library")
    os.write(2, b"printed by a C library")


def _write(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.with_suffix(".copy").write_bytes(b"a patient's pixels")


_DEEDS: Final[dict[str, Callable[[Path], None]]] = {
    "hang": _hang,
    "crash": _crash,
    "crash_once": _crash_once,
    "talk": _talk,
    "write": _write,
}


def analyse(path: Path, rules: AnalysisSettings, own: Equipment | None) -> Prepared | NotAnalysed:
    """Do what the file's name says, then read it."""
    if path.stem == "environment":
        return NotAnalysed(reason=Reason.INFERENCE, detail=" ".join(sorted(os.environ)))
    if path.stem == "modules":
        return NotAnalysed(reason=Reason.INFERENCE, detail=" ".join(sorted(sys.modules)))
    if deed := _DEEDS.get(path.stem):
        deed(path)
    return analyse_file(path, rules, own)


if __name__ == "__main__":
    main(analyse)
