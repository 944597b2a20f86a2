"""A role tells its supervisor that all its loops go on; silence, whatever its cause, gets it killed and started again.

The supervisor holds the other end of the role's standard input, a socket. Bytes on it are the heartbeat. A thread of
the role writes them, and only while no loop is past its deadline: a loop that hangs, a library that keeps the
interpreter to itself and a process that is stopped all look the same from outside. See docs/decisions/0012.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

STARTING: Final = b"s"  # alive, not yet at work
WORKING: Final = b"w"  # all loops go on
BEAT_SECONDS: Final = 0.5
START_SECONDS: Final = 300.0  # to load the model; whoever waits for the database renews

_LINE: Final = 0  # standard input
_FRAMES: Final = 3  # of a loop that hangs, in the log


class Progress:
    """One loop's promise: to say within its time that it goes on."""

    def __init__(self, name: str, seconds: float = math.inf) -> None:
        """Promise to call `renew`, or to enter a stage, at least every `seconds`."""
        self.name = name
        self._seconds = seconds
        self._thread = threading.get_ident()
        self._deadline = time.monotonic() + seconds

    def renew(self, seconds: float | None = None) -> None:
        """Say that the loop goes on, and has `seconds`, where it is not as usual, until it says so again."""
        self._thread = threading.get_ident()
        self._deadline = time.monotonic() + (self._seconds if seconds is None else seconds)

    @contextmanager
    def stage(self, seconds: float) -> Iterator[None]:
        """Take `seconds` for what the block does, more or less than usual."""
        self.renew(seconds)
        try:
            yield
        finally:
            self.renew()

    @property
    def is_late(self) -> bool:
        """Whether the promise is broken."""
        return time.monotonic() > self._deadline

    @property
    def place(self) -> str:
        """Return where in the program the loop is, innermost last."""
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - no public way to look at another thread
        stack = traceback.extract_stack(frame)[-_FRAMES:] if frame else []
        return " > ".join(f"{Path(entry.filename).name}:{entry.lineno}:{entry.name}" for entry in stack)


class Heartbeat:
    """The loops of this process, and the thread that answers for them."""

    def __init__(self) -> None:
        """Nothing is told before `start`."""
        self._starting = Progress("start", START_SECONDS)
        self._loops: list[Progress] = []
        self._working = False
        self._line: int | None = None

    def loop(self, name: str, seconds: float) -> Progress:
        """Return the progress of one more loop; its time counts from when the role is at work."""
        progress = Progress(name, seconds)
        self._loops.append(progress)
        return progress

    def still_starting(self, seconds: float) -> None:
        """Say that the role goes on with what it cannot start without, and has so many seconds for it."""
        self._starting.renew(seconds)

    def working(self) -> None:
        """Say, at once, that the role has started: from now on its loops answer for it."""
        for progress in self._loops:
            progress.renew()
        self._working = True
        self._beat()

    def late(self) -> list[Progress]:
        """Return the loops that hang."""
        return [progress for progress in (self._loops if self._working else [self._starting]) if progress.is_late]

    def start(self, stop: threading.Event, line: int = _LINE) -> None:
        """Beat on the descriptor `line` until `stop`: what hangs while the role ends is killed, too."""
        self._line = line
        threading.Thread(target=self._run, args=(stop,), name="heartbeat", daemon=True).start()

    def _run(self, stop: threading.Event) -> None:
        told: list[Progress] = []
        while not stop.wait(BEAT_SECONDS):
            if late := self.late():
                for progress in late:
                    if progress not in told:
                        log.error("loop hangs loop=%s at=%s", progress.name, progress.place)
                told = late
                continue
            told = []
            self._beat()

    def _beat(self) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):  # the supervisor is gone: `stop_when_orphaned` ends the role
                os.write(self._line, WORKING if self._working else STARTING)
