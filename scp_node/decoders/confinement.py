"""Takes from a decoder process what decoding does not need, as far as the kernel can.

A decoder reads the bytes of a peer with C libraries. If such bytes ever make one of them run foreign code, that code
finds no network, no other program or process, and no file that it could write. A refused call fails with EPERM, as if
the user had no right to it: a library that tries something harmless goes on, and the image keeps its outcome.

Two barriers of the kernel do it: a filter of system calls (seccomp), and a domain (Landlock) from which the memory and
the environment of the node, which may hold the password of the database, cannot be read.
"""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass
from threading import Thread
from typing import Final

from landlockpy import AccessFS, Ruleset

try:
    import pyseccomp
except (ImportError, RuntimeError, OSError):  # without the package; it raises the others where libseccomp is missing
    pyseccomp = None

# What an interpreter with numpy, OpenCV and the decoders asks of the kernel while it reads a file and answers: memory,
# reading, its own signals, clocks, and its end. Whatever is not here is refused, sockets and new processes among it.
_ALLOWED: Final = (
    *("brk", "mmap", "mmap2", "munmap", "mprotect", "mremap", "madvise"),
    *("read", "readv", "pread64", "preadv", "write", "writev", "close", "lseek", "_llseek"),
    *("access", "faccessat", "faccessat2", "fstat", "fstat64", "fstatat64", "fstatfs", "getcwd", "getdents64"),
    *("lstat", "lstat64", "newfstatat", "readlink", "readlinkat", "stat", "stat64", "statx"),
    *("poll", "ppoll", "select", "pselect6"),
    *("futex", "futex_time64", "membarrier", "rseq", "sched_getaffinity", "sched_yield", "set_robust_list"),
    *("restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "sigreturn"),
    *("clock_getres", "clock_gettime", "clock_gettime64", "clock_nanosleep", "gettimeofday", "nanosleep", "time"),
    *("getcpu", "getegid", "geteuid", "getgid", "getpid", "getrandom", "getrusage", "gettid", "getuid"),
    *("sysinfo", "uname"),
    *("exit", "exit_group"),
)
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC  # O_TRUNC empties a file that is opened to be read
_HARMLESS_CONTROL: Final = (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL)  # F_SETSIG would send signals to others
_TERMINAL_ATTRIBUTES: Final = 0x5401  # TCGETS: Python asks of each file that it opens whether it is a terminal
_RESOURCE_GET: Final = 0  # prlimit64 without new limits
# All rights of Landlock but those of a reader. A kernel that does not know one leaves it out.
_CHANGES: Final = ~(AccessFS.READ_FILE | AccessFS.READ_DIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """Why a barrier is not there on this machine; "" for one that is."""

    calls: str  # the filter of system calls
    domain: str  # the domain that keeps the node's memory from it


def confine() -> Gaps:
    """Take from this process, for good, what decoding does not need; return what could not be taken.

    Call it before a second thread begins: the domain holds for the calling thread and those that it begins.
    """
    return _confine(every_thread=True)


def gaps_here() -> Gaps:
    """Return what of the confinement this machine does not have.

    A thread that ends at once tries it: both barriers hold for the thread that asks for them.
    """
    found: list[Gaps] = []
    thread = Thread(target=lambda: found.append(_confine(every_thread=False)))
    thread.start()
    thread.join()
    return found[0]


def _confine(*, every_thread: bool) -> Gaps:
    domain = _enter_domain()  # by system calls that the filter refuses
    return Gaps(domain=domain, calls=_filter_calls(every_thread=every_thread))


def _enter_domain() -> str:
    """Refuse changes of files and TCP, and hide processes outside; return why not, if the kernel cannot."""
    try:
        with Ruleset(handled_fs=_CHANGES) as rules:
            rules.restrict()
    except OSError as error:
        return f"the kernel has no Landlock: {error.strerror or error}"
    return ""


def _filter_calls(*, every_thread: bool) -> str:
    """Refuse each system call that is not allowed; return why not, if this machine cannot."""
    if pyseccomp is None:
        return "libseccomp is not installed"
    try:
        calls = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
        calls.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ERRNO(errno.EPERM))  # calls of the 32-bit kind
        calls.set_attr(pyseccomp.Attr.CTL_TSYNC, int(every_thread))
        _allow(calls)
        calls.load()
    except OSError as error:
        return f"the kernel takes no filter of system calls: {error.strerror}"
    return ""


def _allow(calls: pyseccomp.SyscallFilter) -> None:
    def allow(name: str, *arguments: pyseccomp.Arg) -> None:
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        if number >= 0:  # it exists on this architecture
            calls.add_rule(pyseccomp.ALLOW, number, *arguments)

    for name in _ALLOWED:
        allow(name)
    allow("open", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _WRITING, 0))
    allow("openat", pyseccomp.Arg(2, pyseccomp.MASKED_EQ, _WRITING, 0))
    allow("ioctl", pyseccomp.Arg(1, pyseccomp.EQ, _TERMINAL_ATTRIBUTES))
    for operation in _HARMLESS_CONTROL:
        allow("fcntl", pyseccomp.Arg(1, pyseccomp.EQ, operation))
    allow("prlimit64", pyseccomp.Arg(2, pyseccomp.EQ, _RESOURCE_GET))
    allow("tgkill", pyseccomp.Arg(0, pyseccomp.EQ, os.getpid()))  # abort() ends this process by it
