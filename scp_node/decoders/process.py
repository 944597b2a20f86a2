"""One decoder process, as the node sees it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final, cast

from scp_node.analysis.pixels import Picture, Prepared
from scp_node.decoders.wire import GarbledReplyError, OutOfMemory, Ready, Request, Setup, take_reply
from scp_node.domain import NotAnalysed

START_SECONDS: Final = 60.0
_KILL_SECONDS: Final = 5.0
_CHUNK: Final = 262_144
# What a decoder process needs of our environment. The rest may hold the password of the database.
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR")
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class DecoderStartError(Exception):
    """A decoder process does not start: the installation or the machine is at fault, no image is."""


class DecoderEndedError(Exception):
    """The decoder process ended, or wrote something that is no reply to its request."""


class DecoderProcess:
    """A process that is starting, idle, or busy with one image; not safe for several threads."""

    def __init__(self, program: Sequence[str], setup: Setup) -> None:
        """Start it, without waiting until it is ready.

        Raises:
            DecoderStartError: the system starts no process.
        """
        lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, with arguments of the program's author
                [sys.executable, *program, str(lifeline)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=[lifeline],
                start_new_session=True,  # a Ctrl-C at the terminal is for the node
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _ONE_THREAD,
            )
        except OSError as error:
            os.close(self._lifeline)
            raise DecoderStartError(f"no decoder process: {error.strerror}") from error
        finally:
            os.close(lifeline)
        self._input, self._output = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        self._received = bytearray()
        self._requests = 0
        self._ready = False
        self._waited_for = True
        self.deadline = time.monotonic() + START_SECONDS
        self._send(setup.encode())

    @property
    def is_idle(self) -> bool:
        """Whether it waits for an image."""
        return not self._waited_for

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to `receive`."""
        return self._output.fileno()

    def ask(self, path: Path, seconds: float, *, picture: bool = False) -> bool:
        """Give it an image; return whether it took it: an idle process may have been ended by somebody else."""
        self._requests += 1
        self._waited_for = True
        self.deadline = time.monotonic() + seconds
        return self._send(Request(number=self._requests, path=path, picture=picture).encode())

    def receive(self) -> Prepared | Picture | NotAnalysed | OutOfMemory | None:
        """Read what there is; return its answer about the image once that is whole.

        Raises:
            DecoderEndedError: nothing useful will come any more.
        """
        chunk = os.read(self.fileno(), _CHUNK)
        if not chunk:
            raise DecoderEndedError
        self._received += chunk
        try:
            reply = take_reply(self._received)
        except GarbledReplyError as error:
            raise DecoderEndedError from error
        if reply is None:
            return None
        number, answer = reply
        if number != self._requests or isinstance(answer, Ready) is self._ready or self._received:
            raise DecoderEndedError  # an answer about another image is worse than none
        self._ready, self._waited_for = True, False
        return None if isinstance(answer, Ready) else answer

    def stop(self) -> int | None:
        """End it, and return its exit status as `subprocess` gives it."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it ends when that lets it
            self._process.wait(_KILL_SECONDS)
        self._input.close()
        self._output.close()
        os.close(self._lifeline)
        return self._process.returncode

    def _send(self, line: bytes) -> bool:
        try:
            self._input.write(line)  # fits into the pipe, which is empty: does not block
        except BrokenPipeError:
            return False
        return True
