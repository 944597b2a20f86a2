"""Fault points in the node's own processes, where Python looks for `sitecustomize`: the product has none in its code.

Where CHAOS_FAULTS names a folder, the process looks there before and after each fsync, rename and commit for a fault
that is armed for this very point, takes it (one process only: by a rename) and kills itself by SIGKILL, at once or a
little later. `tests.chaos.kit.faults` is the other side.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "CHAOS_FAULTS"
ANY: Final = "*"
SEPARATOR: Final = "~"

_PHASES: Final = {"AcceptorThread": "receive", "ReceiverThread": "receive", "MainThread": "start", "leases": "lease"}
_SENDER: Final = "deliver:"
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_LEDGER: Final = re.compile(r"/scp_node/ledger/(?!transactions)")


class FaultPoints:
    """What a process does at its fault points."""

    def __init__(self, folder: Path) -> None:
        """Look into `folder`."""
        self._armed, self._fired, self._passed = folder / "armed", folder / "fired", folder / "passed"
        self._known: set[str] = set()
        self._rename = os.rename  # not the one that is a fault point

    def look(self, step: str, when: str) -> None:
        """Note that this point was passed, and die if a fault is armed for it."""
        here = (_phase(threading.current_thread().name), step, when)
        name = SEPARATOR.join(here)
        if name not in self._known:
            self._known.add(name)
            (self._passed / name).touch()
        for fault in sorted(entry.name for entry in self._armed.iterdir()):
            _number, *wanted, delay = fault.split(SEPARATOR)
            if all(want in {ANY, found} for want, found in zip(wanted, here, strict=True)):
                self._take(fault, int(delay), step, when)

    def _take(self, fault: str, milliseconds: int, step: str, when: str) -> None:
        told = SEPARATOR.join([fault, step, when, str(os.getpid())])
        try:
            self._rename(self._armed / fault, self._fired / told)
        except FileNotFoundError:  # another process was quicker
            return
        if milliseconds == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Timer(milliseconds / 1000, os.kill, (os.getpid(), signal.SIGKILL)).start()


def _phase(thread: str) -> str:
    return "send" if thread.startswith(_SENDER) else _PHASES.get(thread, thread)


def install(points: FaultPoints) -> None:
    """Put a look before and after each fsync, rename and commit of this process."""
    fsync = os.fsync

    def watched_fsync(fd: Any) -> None:
        step = f"fsync {_place(fd)}"
        points.look(step, "before")
        fsync(fd)
        points.look(step, "after")

    os.fsync = watched_fsync
    os.rename = _watched_rename(points, os.rename)
    os.replace = _watched_rename(points, os.replace)
    _watch_commits(points)


def _watched_rename(points: FaultPoints, rename: Any) -> Any:
    def watched(source: Any, target: Any, **options: Any) -> None:
        points.look("rename", "before")
        rename(source, target, **options)
        points.look("rename", "after")

    return watched


def _watch_commits(points: FaultPoints) -> None:
    """Watch commits of what was written; a read ends in a commit, too, and is none of the points."""
    from sqlalchemy.engine import Connection  # noqa: PLC0415 - only where there are faults

    commit: Any = Connection._commit_impl

    def watched(self: Connection) -> None:
        if self.get_execution_options().get("ledger_read_only"):
            commit(self)
            return
        step = f"commit {_committer()}"
        points.look(step, "before")
        commit(self)
        points.look(step, "after")

    Connection._commit_impl = watched  # type: ignore[method-assign]


def _committer() -> str:
    """Return which method of the ledger commits, such as `Intake.register`."""
    frame = sys._getframe(1)
    while frame is not None and not _LEDGER.search(frame.f_code.co_filename):
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere" if frame is None else frame.f_code.co_qualname


def _place(descriptor: Any) -> str:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    path = Path(f"/proc/self/fd/{number}").readlink()
    if not stat.S_ISDIR(os.fstat(number).st_mode):
        return "file"
    return "folder of the day" if _DAY.fullmatch(path.name) else f"folder {path.name}"


if folder := os.environ.get(VARIABLE):
    install(FaultPoints(Path(folder)))
