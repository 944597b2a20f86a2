"""The heartbeat of a role: without it, whatever the cause, the supervisor kills the role and starts it again.

The supervisor holds the other end of the role's standard input, a socket. Bytes on it are the heartbeat. A thread of
the role writes them, but only while no loop is past its deadline. So three faults look the same from outside: a loop
that hangs, a library that keeps the interpreter to itself, and a process that is stopped. See docs/decisions/0012.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scp_node.logs import get_logger

log = get_logger(__name__)

STARTING: Final = b"s"  # alive, but not yet working
WORKING: Final = b"w"  # all loops are alive
BEAT_SECONDS: Final = 0.5
START_SECONDS: Final = 300.0  # to load the model; a wait for the database renews it

_LINE: Final = 0  # standard input
_FRAMES: Final = 3  # logged of a hanging loop


class Progress:
    """One loop's promise to report in time that it is alive."""

    def __init__(self, name: str, seconds: float = math.inf) -> None:
        """Promise to call `renew`, or to enter a stage, at least every `seconds`."""
        self.name = name
        self._seconds = seconds
        self._thread = threading.get_ident()
        self._deadline = time.monotonic() + seconds

    def renew(self, seconds: float | None = None) -> None:
        """Report that the loop is alive, and will report again within `seconds`, or else within the usual time."""
        self._thread = threading.get_ident()
        self._deadline = time.monotonic() + (self._seconds if seconds is None else seconds)

    @contextmanager
    def stage(self, seconds: float) -> Iterator[None]:
        """Allow the block `seconds` instead of the usual time."""
        self.renew(seconds)
        try:
            yield
        finally:
            self.renew()

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() > self._deadline

    @property
    def place(self) -> str:
        """Return the lines of the program where the loop is, innermost last."""
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - no public way to look at another thread
        stack = traceback.extract_stack(frame)[-_FRAMES:] if frame else []
        return " > ".join(f"{Path(entry.filename).name}:{entry.lineno}:{entry.name}" for entry in stack)


class Heartbeat:
    """The loops of this process, and the thread that writes the heartbeat for them."""

    def __init__(self, at_work: Callable[[], None] = lambda: None) -> None:
        """Nothing is written before `start`; `at_work` is called when the role has started."""
        self._at_work = at_work
        self._starting = Progress("start", START_SECONDS)
        self._loops: list[Progress] = []
        self._working = False
        self._line: int | None = None

    def loop(self, name: str, seconds: float) -> Progress:
        """Return the progress of a new loop; its time begins when the role has started."""
        progress = Progress(name, seconds)
        self._loops.append(progress)
        return progress

    def still_starting(self, seconds: float) -> None:
        """Report that the role is still starting, and may take `seconds` more."""
        self._starting.renew(seconds)

    def working(self) -> None:
        """Report at once that the role has started; from now on its loops decide about the heartbeat."""
        for progress in self._loops:
            progress.renew()
        self._working = True
        self._beat()
        self._at_work()

    def late(self) -> list[Progress]:
        """Return the loops that hang."""
        return [progress for progress in (self._loops if self._working else [self._starting]) if progress.is_late]

    def start(self, stop: threading.Event, line: int = _LINE) -> None:
        """Write to the descriptor `line` until `stop`; after that, a role that does not end is killed as well."""
        self._line = line
        threading.Thread(target=self._run, args=(stop,), name="heartbeat", daemon=True).start()

    def _run(self, stop: threading.Event) -> None:
        logged: list[Progress] = []
        while not stop.wait(BEAT_SECONDS):
            if late := self.late():
                for progress in late:
                    if progress not in logged:
                        log.error("loop hangs", loop=progress.name, place=progress.place)
                logged = late
                continue
            logged = []
            self._beat()

    def _beat(self) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):  # the supervisor is gone: `stop_when_orphaned` ends the role
                os.write(self._line, WORKING if self._working else STARTING)
