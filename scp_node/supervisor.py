"""One process for each role, started again when it dies.

A child learns from the end of its standard input that its parent is gone, whatever way that went: no role outlives the
node, and none is orphaned by a kill -9 of the parent.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

REFUSED = 2  # exit status of a role that cannot start: a setting, the database, the bundle; trying again is useless
SUPERVISED = "--supervised"
_SHORTEST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0
_STEADY = 60.0  # seconds after which an earlier death is forgotten
_GRACE = 30.0  # seconds that a role has to finish when told to stop


@dataclass(slots=True)
class _Child:
    role: str
    process: subprocess.Popen[bytes]
    started: float
    pause: float = _SHORTEST_PAUSE
    restart_at: float | None = field(default=None)


class Supervisor:
    """Starts the roles, restarts them, and stops them together."""

    def __init__(self, commands: Mapping[str, Sequence[str]]) -> None:
        """Run each command under its role's name."""
        self._commands = commands
        self._children: list[_Child] = []

    def run(self, stop: threading.Event) -> int:
        """Keep all roles running until `stop`; return the exit status for the whole node."""
        self._children = [self._start(role) for role in self._commands]
        try:
            while not stop.wait(0.1):
                for child in self._children:
                    if self._look_after(child) == REFUSED:
                        log.error("role cannot start, node stops role=%s", child.role)
                        return REFUSED
        finally:
            self._stop_all()
        return 0

    def _start(self, role: str) -> _Child:
        process = subprocess.Popen(list(self._commands[role]), stdin=subprocess.PIPE)  # noqa: S603 - our own program
        log.debug("role started role=%s pid=%d", role, process.pid)
        return _Child(role=role, process=process, started=time.monotonic())

    def _look_after(self, child: _Child) -> int | None:
        """Restart the role when it ended, later each time; return its exit status when it has just ended."""
        if child.restart_at is not None:
            if time.monotonic() >= child.restart_at:
                again = self._start(child.role)
                child.process, child.started, child.restart_at = again.process, again.started, None
            return None
        status = child.process.poll()
        if status is None or status == REFUSED:
            return status
        if time.monotonic() - child.started > _STEADY:
            child.pause = _SHORTEST_PAUSE
        log.error("role ended, will be restarted role=%s status=%d pause=%.1f", child.role, status, child.pause)
        self._close_input(child)
        child.restart_at = time.monotonic() + child.pause
        child.pause = min(2 * child.pause, _LONGEST_PAUSE)
        return status

    def _stop_all(self) -> None:
        for child in self._children:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + _GRACE
        for child in self._children:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("role did not stop, killed role=%s", child.role)  # noqa: TRY400 - no traceback of interest
                child.process.kill()
                child.process.wait()
            self._close_input(child)

    @staticmethod
    def _close_input(child: _Child) -> None:
        if child.process.stdin:
            child.process.stdin.close()


def stop_when_orphaned(stop: threading.Event) -> None:
    """Set `stop` when standard input ends: the parent of a supervised role is gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        stop.set()

    threading.Thread(target=wait, name="parent", daemon=True).start()
