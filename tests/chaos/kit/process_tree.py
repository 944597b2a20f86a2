"""The processes of a running node, as the system lists them."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUPERVISOR: Final = "supervisor"
DECODER: Final = "decoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of a node."""

    pid: int
    role: str  # supervisor, decoder, or a role of the node

    def kill(self) -> bool:
        """End it by SIGKILL; return whether it was there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
            return True
        return False

    def descriptors(self) -> list[str]:
        """Return what it has open."""
        found = []
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                found.append(str(link.readlink()))
        return found

    def held(self) -> tuple[int, int]:
        """Return the number of threads, and of descriptors but for the database's, which opens as many as it needs."""
        descriptors = [each for each in self.descriptors() if "ledger.sqlite3" not in each]
        return len(list(Path(f"/proc/{self.pid}/task").iterdir())), len(descriptors)


def processes(root: int) -> list[Process]:
    """Return the process with the id `root` and all its descendants that run."""
    ids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    parents = {pid: parent for pid in ids if (parent := _parent(pid))}
    found, new = set(), {root} if root in parents else set()
    while new:
        found |= new
        new = {pid for pid, parent in parents.items() if parent in new}
    return [Process(pid=pid, role=_role(pid, root)) for pid in sorted(found)]


def is_running(pid: int) -> bool:
    """Return whether there is such a process that has not ended."""
    return _parent(pid) is not None


def _parent(pid: int) -> int | None:
    """Return its parent; None for a process that is gone or ended."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in {"Z", "X"} else int(after_name[1])


def _role(pid: int, root: int) -> str:
    if pid == root:
        return SUPERVISOR
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return arguments[arguments.index("--role") + 1] if "--role" in arguments else DECODER
