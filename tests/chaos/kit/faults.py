"""Faults armed from outside: the node's processes kill themselves at the points that `site/sitecustomize.py` sets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.kit.site.sitecustomize import ANY, SEPARATOR, VARIABLE

SITE: Final = Path(__file__).resolve().parent / "site"
BEFORE: Final = "before"
AFTER: Final = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a process is: which part of the node, at which step, on which side of it."""

    phase: str
    step: str = ANY
    when: str = ANY

    def __str__(self) -> str:
        return f"{self.phase}: {self.when} {self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A kill at a point, or some milliseconds after it was passed."""

    number: int
    at: Point
    milliseconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """A fault that a process took."""

    fault: Fault
    at: Point  # where it was
    pid: int


class Faults:
    """The folder through which test and processes talk."""

    def __init__(self, folder: Path) -> None:
        """Make the folder; start the node with `environment`."""
        self._folder = folder
        self._number = 0
        for name in ("armed", "fired", "passed"):
            (folder / name).mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to have fault points."""
        path = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH")]))
        return {VARIABLE: str(self._folder), "PYTHONPATH": path}

    def arm(self, at: Point, milliseconds: int = 0) -> Fault:
        """Let the first process that comes to `at` die."""
        self._number += 1
        fault = Fault(number=self._number, at=at, milliseconds=milliseconds)
        parts = (f"{fault.number:04d}", at.phase, at.step, at.when, str(milliseconds))
        (self._folder / "armed" / SEPARATOR.join(parts)).touch()
        return fault

    def disarm(self) -> None:
        """Take back what has not fired."""
        for path in (self._folder / "armed").iterdir():
            path.unlink(missing_ok=True)

    def fired(self) -> dict[int, Fired]:
        """Return the faults that were taken, by number."""
        return {fired.fault.number: fired for fired in map(_read, (self._folder / "fired").iterdir())}

    def is_working(self, phases: Sequence[str], since: float) -> bool:
        """Return whether a process that started after `since` (Unix time) has come to a point of one of `phases`."""
        names = [path for path in (self._folder / "passed").iterdir() if path.name.split(SEPARATOR)[0] in phases]
        return any(path.stat().st_mtime > since for path in names)

    def passed(self) -> set[Point]:
        """Return every point that some process has passed."""
        names = (path.name.split(SEPARATOR) for path in (self._folder / "passed").iterdir())
        return {Point(phase=phase, step=step, when=when) for phase, step, when in names}


def _read(path: Path) -> Fired:
    number, phase, wanted_step, wanted_when, milliseconds, step, when, pid = path.name.split(SEPARATOR)
    wanted = Point(phase=phase, step=wanted_step, when=wanted_when)
    fault = Fault(number=int(number), at=wanted, milliseconds=int(milliseconds))
    return Fired(fault=fault, at=Point(phase=phase, step=step, when=when), pid=int(pid))
