"""A decoder process that does to a file what the file's name says; every other file it reads as the real one does."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scp_node.analysis.analyse import analyse_file
from scp_node.analysis.answers import Equipment, Prepared
from scp_node.decoders.program import main
from scp_node.domain import NotAnalysed, Reason
from scp_node.settings import AnalysisSettings


def _hang(path: Path) -> None:
    path.with_suffix(".started").touch()
    re.match(r"(a+)+$", "a" * 64 + "b")  # longer than anybody waits, and no other thread of the process runs


def _crash(_: Path) -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def _crash_once(path: Path) -> None:
    if not path.with_suffix(".crashed").exists():
        path.with_suffix(".crashed").touch()
        os.abort()


def _talk(_: Path) -> None:
    os.write(1, b"printed by a C library")
    os.write(2, b"printed by a C library")


def _write(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.with_suffix(".copy").write_bytes(b"a patient's pixels")


_DEEDS: Final[dict[str, Callable[[Path], None]]] = {
    "hang": _hang,
    "crash": _crash,
    "crash_once": _crash_once,
    "talk": _talk,
    "write": _write,
}

_NODE: Final = os.getppid()  # a confined decoder may not even ask for it
_PTRACE_ATTACH: Final = 16
_IO_URING_SETUP: Final = 425  # the same number on all architectures


def _connect(_: Path) -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", 9))


def _truncate(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))


def _fork(_: Path) -> None:
    if os.fork() == 0:
        os._exit(0)


def _by_number(number: int) -> None:
    """Make a system call that Python has no name for."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 8, ctypes.create_string_buffer(120)) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _trace(_: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(_PTRACE_ATTACH, _NODE, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _change_limits(_: Path) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    except ValueError as error:  # Python's answer to EPERM
        raise PermissionError(errno.EPERM, "refused") from error


# What foreign code in a decoder would want to do: the answer says what came of it.
_TRIES: Final[dict[str, Callable[[Path], object]]] = {
    "connect": _connect,
    "open-socket": lambda _: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).close(),
    "pair-sockets": lambda _: socket.socketpair(),
    "execute": lambda _: os.execv("/bin/true", ["true"]),  # noqa: S606 - that it fails is the test
    "spawn": lambda _: subprocess.run(["true"], check=True),
    "fork": _fork,
    "create": lambda path: path.with_suffix(".copy").open("wb").close(),
    "overwrite": lambda path: path.open("r+b").close(),
    "truncate": _truncate,
    "rename": lambda path: path.rename(path.with_suffix(".moved")),
    "remove": lambda path: path.unlink(),
    "link": lambda path: path.with_suffix(".link").symlink_to(path),
    "make-folder": lambda path: path.with_suffix(".folder").mkdir(),
    "change-mode": lambda path: path.chmod(0o666),
    "signal-the-node": lambda _: os.kill(_NODE, 0),
    "trace-the-node": _trace,
    "read-memory": lambda _: Path(f"/proc/{_NODE}/mem").open("rb").close(),
    "change-the-limits": _change_limits,
    "use-io-uring": lambda _: _by_number(_IO_URING_SETUP),
}
TRIES: Final = tuple(_TRIES)


def _outcome(attempt: Callable[[Path], object], path: Path) -> str:
    try:
        attempt(path)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def analyse(path: Path, rules: AnalysisSettings, own: Equipment | None) -> Prepared | NotAnalysed:
    """Do what the file's name says, then read it."""
    if path.stem == "environment":
        return NotAnalysed(reason=Reason.INFERENCE, detail=" ".join(sorted(os.environ)))
    if path.stem == "modules":
        return NotAnalysed(reason=Reason.INFERENCE, detail=" ".join(sorted(sys.modules)))
    if attempt := _TRIES.get(path.stem):
        return NotAnalysed(reason=Reason.INFERENCE, detail=_outcome(attempt, path))
    if deed := _DEEDS.get(path.stem):
        deed(path)
    return analyse_file(path, rules, own)


if __name__ == "__main__":
    main(analyse)
