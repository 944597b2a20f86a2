"""Doorbells: a loop that waits for work hears at once that there is some, from any process on the same machine.

A bell is a datagram socket in the data folder, one for each loop. Whoever commits work for a loop rings its bells. No
result depends on a bell: one that is full, gone, or on another machine is not heard, and the loop looks by itself a
little later. What a datagram says is not read.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Final, Self

from scp_node.logs import get_logger
from scp_node.private_files import make_private_folder

log = get_logger(__name__)

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")  # a socket is heard only where the kernel runs that bound it
_RING: Final = b"!"


class Bell:
    """One loop's bell."""

    def __init__(self, bound: socket.socket, *, is_alone: bool) -> None:
        """Hear what is sent to `bound`; `is_alone`: nobody on another machine may have work for the loop."""
        self._socket = bound
        self._ready = select.poll()
        self._ready.register(bound, select.POLLIN)
        self.is_alone = is_alone

    def wait(self, seconds: float) -> bool:
        """Wait until it rings, at most `seconds`; however often it rang, it has rung once."""
        if not self._ready.poll(1_000 * seconds):
            return False
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
        return True


class Bells:
    """The bells of one data folder, and those of this process among them."""

    def __init__(self, folder: Path, *, one_machine: bool) -> None:
        """Keep the sockets in `folder`; `one_machine`: no process on another one works on this ledger."""
        self._one_machine = one_machine
        self._hung: dict[str, socket.socket] = {}  # by the name of its file
        self._folder: int | None = None
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)  # noqa: FBT003 - the standard library's
        try:
            self._boot = _BOOT.read_text(encoding="ascii")[:8]
            make_private_folder(folder)
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            log.warning("no doorbell, loops look by themselves", folder=folder, reason=error.strerror)
        if one_machine:
            self._remove_of_earlier_boots()

    def hang(self, loop: str) -> Bell | None:
        """Return a new bell of the loop `loop`; None where there can be none."""
        if self._folder is None:
            return None
        name = f"{loop}@{self._boot}-{uuid.uuid4().hex[:8]}"
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)  # noqa: FBT003 - the standard library's
            bound.bind(self._address(name))
        except OSError as error:
            log.warning("no doorbell, the loop looks by itself", loop=loop, reason=error.strerror)
            bound.close()
            return None
        self._hung[name] = bound
        return Bell(bound, is_alone=self._one_machine)

    def ring(self, loops: Collection[str]) -> None:
        """Ring all bells of these loops; never blocks and never fails."""
        for name in self._names():
            loop, _, place = name.rpartition("@")
            if loop in loops and place.startswith(self._boot):
                self._ring(name)

    def ring_own(self) -> None:
        """Ring the bells of this process: its loops have to look whether they are to end."""
        for name in list(self._hung):
            self._ring(name)

    def close(self) -> None:
        """Take the bells of this process down."""
        for name, bound in self._hung.items():
            self._remove(name)
            bound.close()
        self._hung.clear()
        self._sender.close()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _names(self) -> list[str]:
        if self._folder is None:
            return []
        with contextlib.suppress(OSError):
            return os.listdir(self._folder)  # noqa: PTH208 - a descriptor, which has no Path
        return []

    def _address(self, name: str) -> str:
        """Return the path of a socket, short however long that of the data folder is: unix(7) allows 107 bytes."""
        return f"/proc/self/fd/{self._folder}/{name}"

    def _ring(self, name: str) -> None:
        try:
            self._sender.sendto(_RING, self._address(name))
        except ConnectionRefusedError:  # of a process that was killed
            self._remove(name)
        except OSError:  # it is full, and rings already; or it was taken down
            pass

    def _remove_of_earlier_boots(self) -> None:
        for name in self._names():
            if not name.rpartition("@")[2].startswith(self._boot):
                self._remove(name)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._folder)
