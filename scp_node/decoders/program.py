"""The program of a decoder process: reads one image after another, and any of them may kill it.

`scp_node.decoders.pool` starts it. The first line of its input is a `Setup`, every other line a request. It ends when
its input ends, and at once when the node is gone, even in the middle of an image.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

import cv2

from scp_node.analysis.analyse import analyse_file, film_file, picture_file
from scp_node.analysis.answers import Equipment, Prepared
from scp_node.analysis.same_film import same_film
from scp_node.decoders.confinement import confine
from scp_node.decoders.wire import Answer, Compared, OutOfMemory, Question, Ready, Request, Setup, Wanted, encode_reply
from scp_node.domain import NotAnalysed
from scp_node.settings import AnalysisSettings

Analyse = Callable[[Path, AnalysisSettings, Equipment | None], Prepared | NotAnalysed]

_MIB: Final = 1024 * 1024
_STATM: Final = Path("/proc/self/statm")  # its first number is the size of this process's address space in pages


def main(analyse: Analyse = analyse_file) -> None:
    """Answer requests until the input ends; the program's argument is the descriptor of the lifeline."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group; the node ends this process later
    end_with_parent(int(sys.argv[1]))
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    setup = Setup.decode(requests.readline())
    cv2.setNumThreads(1)
    _limit(setup.memory_mib)
    _silence()
    if setup.rules.confine_decoders:
        confine()  # `scp-node doctor` says what of it this machine does not have
    _write(replies, encode_reply(0, Ready()))
    for line in requests:
        request = Request.decode(line)
        try:
            reply = encode_reply(request.number, _answer(request.question, setup, analyse))
        except MemoryError:
            reply = encode_reply(request.number, OutOfMemory())
        except cv2.error as error:
            if error.code != cv2.Error.StsNoMem:
                raise
            reply = encode_reply(request.number, OutOfMemory())
        _write(replies, reply)


def _answer(question: Question, setup: Setup, analyse: Analyse) -> Answer:
    if question.other is not None:
        return Compared(same=same_film(question.path, question.other, setup.rules, setup.own))
    match question.wanted:
        case Wanted.PICTURE:
            return picture_file(question.path)
        case Wanted.FILM | Wanted.WHOLE_FILM:
            return film_file(question.path, full=question.wanted is Wanted.WHOLE_FILM)
        case _:
            return analyse(question.path, setup.rules, setup.own)


def end_with_parent(lifeline: int) -> None:
    """Let the kernel end this process when the other end of the pipe `lifeline` closes: then the node is dead.

    A thread that waits for that could not run while a decoder holds the interpreter. PR_SET_PDEATHSIG would fire when
    the thread ends that started this process. Where a pipe cannot send signals (not on Linux), the process ends with
    its input.
    """
    if hasattr(os, "O_ASYNC"):
        signal.signal(signal.SIGIO, signal.SIG_DFL)  # ends the process
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _limit(memory_mib: int) -> None:
    """Limit the growth of this process, and forbid it to write files: a core dump would hold a patient's data."""
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
    if _STATM.exists():  # Linux; other systems do not tell the size, and do not enforce the limit
        pages = int(_STATM.read_text(encoding="ascii").split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory_mib * _MIB
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _silence() -> None:
    """Drop what libraries print about an image, also on standard output; start errors were reported before."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(nothing)


def _write(replies: BinaryIO, reply: bytes) -> None:
    rest = memoryview(reply)
    while rest:
        rest = rest[replies.write(rest) :]


if __name__ == "__main__":
    main()
