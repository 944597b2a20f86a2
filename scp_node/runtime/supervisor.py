"""Runs one process for each role, starts it again when it dies, and kills it first when it hangs.

A role and its supervisor share a socket, the role's standard input. When the supervisor is gone, for whatever reason,
the role sees the socket close. So no role outlives the node, and a kill -9 of the parent leaves no orphan. The role
writes its heartbeat to the socket: see `scp_node.runtime.heartbeat`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from scp_node.logs import get_logger
from scp_node.runtime.heartbeat import START_SECONDS, WORKING

log = get_logger(__name__)

# Exit status of a role that cannot start, because of a setting, the database or the bundle: it is useless to try again.
REFUSED: Final = 2
SILENT_SECONDS: Final = 30.0  # by default
_SHORTEST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 30.0  # by default
_STEADY: Final = 60.0  # seconds of life after which an earlier death no longer counts
_GRACE: Final = 30.0  # seconds for a role to end after it was asked to
_LOOK: Final = 0.5  # seconds between two looks at the roles; one that ends, or a stop, is noticed at once
_LOOK_AT_AN_END: Final = 0.05  # the same of one that has hung up
_ITS_END_ALONE: Final = 0  # of the events of a poll, those that it tells unasked: poll(2)
_LONGEST_LOOK: Final = 1.0  # most silence counted at one look: a machine that was frozen could not hear its roles


@dataclass(slots=True)
class _Child:
    role: str
    process: subprocess.Popen[bytes]
    line: socket.socket
    started: float
    silent: float = 0.0  # seconds
    has_hung_up: bool = False  # its end of the line is closed: it has ended, or is about to
    works: bool = False  # this process has reported that it is working
    has_worked: bool = False  # this process or an earlier one has
    killed: bool = False
    pause: float = _SHORTEST_PAUSE
    restart_at: float | None = field(default=None)

    def listen(self, seconds: float) -> None:
        """Read what the role has written since the last look, `seconds` ago."""
        self.silent += min(seconds, _LONGEST_LOOK)
        try:
            said = self.line.recv(4096)
        except BlockingIOError:  # it wrote nothing
            return
        except ConnectionResetError:
            said = b""
        if said:
            self.silent = 0.0
        self.has_hung_up = not said
        if WORKING in said:
            self.works = self.has_worked = True


class Supervisor:
    """Starts the roles, restarts them, and stops them together."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        silent_seconds: float = SILENT_SECONDS,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        """Run each command under its role's name.

        A role that is silent for `silent_seconds` is killed; one that dies repeatedly waits up to `longest_pause`.
        """
        self._commands = commands
        self._silent_seconds = silent_seconds
        self._longest_pause = longest_pause
        self._children: list[_Child] = []
        self._looked = 0.0  # monotonic

    def run(self, stop: threading.Event, renew: threading.Event | None = None) -> int:
        """Keep all roles running until `stop`; return the exit status for the whole node.

        When `renew` is set, the roles that work get a SIGHUP; one that begins reads its files anyway.
        """
        self._children = [_start(role, self._commands[role]) for role in self._commands]
        self._looked = time.monotonic()
        stopped = _line_that_ends(stop)
        try:
            while not stop.is_set():
                self._await_an_end(stopped)
                looked, self._looked = self._looked, time.monotonic()
                if renew and renew.is_set():
                    renew.clear()
                    self._tell_to_renew()
                for child in self._children:
                    if self._look_after(child, self._looked - looked) == REFUSED:
                        log.error("role cannot start, node stops", role=child.role)
                        return REFUSED
        finally:
            self._stop_all()
            stopped.close()
        return 0

    def _await_an_end(self, stopped: socket.socket) -> None:
        """Wait until `stopped` or a role ends, or for the next look or restart."""
        ends = select.poll()
        ends.register(stopped, select.POLLIN)
        longest = _LOOK
        for child in self._children:
            if child.restart_at is not None:
                longest = min(longest, max(0.0, child.restart_at - time.monotonic()))
            elif child.has_hung_up:
                longest = min(longest, _LOOK_AT_AN_END)
            else:
                ends.register(child.line, _ITS_END_ALONE)
        ends.poll(1_000 * longest)

    def _tell_to_renew(self) -> None:
        for child in self._children:
            if child.works and child.process.poll() is None:
                child.process.send_signal(signal.SIGHUP)

    def _look_after(self, child: _Child, seconds: float) -> int | None:
        """Restart a role that has ended, later each time; return REFUSED if that is useless."""
        if child.restart_at is not None:
            if time.monotonic() >= child.restart_at:
                self._restart(child)
            return None
        status = child.process.poll()
        if status is None:
            child.listen(seconds)
            self._kill_if_silent(child)
            return None
        if status == REFUSED and not child.has_worked:  # a role that has worked is set up well
            return REFUSED
        if time.monotonic() - child.started > _STEADY:
            child.pause = _SHORTEST_PAUSE
        log.error("role ended, will be restarted", role=child.role, status=status, pause=round(child.pause, 1))
        child.line.close()
        self._put_off(child)
        return None

    def _restart(self, child: _Child) -> None:
        try:
            again = _start(child.role, self._commands[child.role])
        except OSError as error:
            log.error("role not restarted, will be tried again", role=child.role, error=error)  # noqa: TRY400 - no bug
            self._put_off(child)
            return
        child.process, child.line, child.started, child.restart_at = again.process, again.line, again.started, None
        child.silent, child.has_hung_up, child.works, child.killed = 0.0, False, False, False

    def _put_off(self, child: _Child) -> None:
        child.restart_at = time.monotonic() + child.pause
        child.pause = min(2 * child.pause, self._longest_pause)

    def _kill_if_silent(self, child: _Child) -> None:
        limit = self._silent_seconds if child.works else max(self._silent_seconds, START_SECONDS)
        if child.silent > limit and not child.killed:
            log.error("role hangs, killed", role=child.role, silent_seconds=round(child.silent, 1))
            child.process.kill()  # also ends a process that is stopped
            child.killed = True

    def _stop_all(self) -> None:
        for child in self._children:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + _GRACE
        for child in self._children:
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("role did not stop, killed", role=child.role)  # noqa: TRY400 - no traceback of interest
                child.process.kill()
                child.process.wait()
            child.line.close()


def _start(role: str, command: Sequence[str]) -> _Child:
    ours, its = socket.socketpair()
    try:
        process = subprocess.Popen(list(command), stdin=its.fileno())  # noqa: S603 - our own program
    except OSError:
        ours.close()
        raise
    finally:
        its.close()
    ours.setblocking(False)  # noqa: FBT003 - the standard library's
    log.debug("role started", role=role, pid=process.pid)
    return _Child(role=role, process=process, line=ours, started=time.monotonic())


def _line_that_ends(stop: threading.Event) -> socket.socket:
    """Return a socket that ends when `stop` is set: a poll does not hear an event."""
    ours, its = socket.socketpair()

    def end() -> None:
        stop.wait()
        its.close()

    threading.Thread(target=end, name="stop", daemon=True).start()
    return ours


def stop_when_orphaned(stop: threading.Event) -> None:
    """Set `stop` when standard input ends: the parent of a supervised role is gone."""

    def wait() -> None:
        with contextlib.suppress(ConnectionResetError):  # it ended without reading the last heartbeat
            while os.read(sys.stdin.fileno(), 1):
                pass
        stop.set()

    threading.Thread(target=wait, name="parent", daemon=True).start()
