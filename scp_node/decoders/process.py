"""One decoder process, seen from the node."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO, Final, cast

from scp_node.analysis.answers import Film, Picture, Prepared
from scp_node.decoders.wire import (
    NO_PIXELS,
    Compared,
    GarbledReplyError,
    OutOfMemory,
    Question,
    Ready,
    Request,
    Setup,
    most_pixel_bytes,
    take_reply,
)
from scp_node.domain import NotAnalysed

START_SECONDS: Final = 60.0
_KILL_SECONDS: Final = 5.0
_CHUNK: Final = 262_144
_PIPE_BYTES: Final = 1 << 20  # for a whole picture: the two processes take turns 16 times as often at the usual 64 KiB
# The variables that a decoder process needs. Others may hold the password of the database.
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR")
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class DecoderStartError(Exception):
    """A decoder process does not start: the installation or the machine is at fault, not an image."""


class DecoderEndedError(Exception):
    """The decoder process ended, or wrote something other than a reply to its request."""


class DecoderProcess:
    """A process that is starting, idle, or busy with one image; for one thread only."""

    def __init__(self, program: Sequence[str], setup: Setup) -> None:
        """Start the process, without waiting until it is ready.

        Raises:
            DecoderStartError: the system cannot start a process.
        """
        lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with arguments from this program
                [sys.executable, *program, str(lifeline)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=[lifeline],
                start_new_session=True,  # a Ctrl-C at the terminal must reach only the node
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _ONE_THREAD,
            )
        except OSError as error:
            os.close(self._lifeline)
            raise DecoderStartError(f"no decoder process: {error.strerror}") from error
        finally:
            os.close(lifeline)
        self._input, self._output = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        _widen(self._output)
        self._received = bytearray()
        self._requests = 0
        self._most_pixel_bytes = NO_PIXELS
        self._ready = False
        self._waited_for = True
        self.deadline = time.monotonic() + START_SECONDS
        self._send(setup.encode())

    @property
    def is_idle(self) -> bool:
        """Whether the process waits for an image."""
        return not self._waited_for

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to `receive`."""
        return self._output.fileno()

    def ask(self, question: Question, seconds: float) -> bool:
        """Give the process an image; return False if it did not take it, since somebody may have ended it."""
        self._requests += 1
        self._most_pixel_bytes = most_pixel_bytes(question.wanted)
        self._waited_for = True
        self.deadline = time.monotonic() + seconds
        return self._send(Request(number=self._requests, question=question).encode())

    def receive(self) -> Prepared | Picture | Film | Compared | NotAnalysed | OutOfMemory | None:
        """Read what the process has written; return its answer about the image once that is complete, else None.

        Raises:
            DecoderEndedError: the process cannot answer any more.
        """
        chunk = os.read(self.fileno(), _CHUNK)
        if not chunk:
            raise DecoderEndedError
        self._received += chunk
        try:
            reply = take_reply(self._received, self._most_pixel_bytes)
        except GarbledReplyError as error:
            raise DecoderEndedError from error
        if reply is None:
            return None
        number, answer = reply
        if number != self._requests or isinstance(answer, Ready) is self._ready or self._received:
            raise DecoderEndedError  # an answer about another image is worse than no answer
        self._ready, self._waited_for = True, False
        return None if isinstance(answer, Ready) else answer

    def stop(self) -> int | None:
        """End the process, and return its exit status in the form of `subprocess`."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is stuck in the kernel
            self._process.wait(_KILL_SECONDS)
        self._input.close()
        self._output.close()
        os.close(self._lifeline)
        return self._process.returncode

    def _send(self, line: bytes) -> bool:
        try:
            self._input.write(line)  # the pipe is empty and the line fits, so this does not block
        except BrokenPipeError:
            return False
        return True


def _widen(pipe: IO[bytes]) -> None:
    """Have the pipe hold `_PIPE_BYTES`, where the system grants that."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
