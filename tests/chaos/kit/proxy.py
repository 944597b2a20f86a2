"""A TCP proxy on loopback that does to a connection what networks do: it delays, cuts, resets, drips, stops.

    with Proxy(pacs.port) as proxy:
        proxy.faults = Faults(up=Fault(reset_at=5_000))  # of connections that come from now on
        ...  # the client connects to proxy.port
        assert proxy.links[0].up == 5_000

"Up" is from the client to the peer, "down" is back. A fault with nothing set passes every byte at once. A proxy that
begins with its door closed refuses connections, one whose queue is full lets connect() hang, until `open`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"
_PATIENCE: Final = 0.2  # seconds after which a connect() on loopback hangs
_CHUNK: Final = 65_536  # bytes
_SLICE: Final = 0.05  # seconds: how finely a drip is cut
_GLANCE: Final = 0.05  # seconds after which a thread that waits looks whether it is over
_SMALL_BUFFER: Final = 16_384  # bytes: a peer that reads no more is felt soon, not after megabytes
_SEGMENT: Final = 1_400  # bytes, as on a real line; loopback's 64 kB stall in a small buffer
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one direction of a connection; positions are bytes that were passed on."""

    delay: float = 0.0  # seconds before each piece is passed on
    rate: float | None = None  # bytes a second
    cut_at: int | None = None  # both sides are closed here
    reset_at: int | None = None  # both sides are reset here (RST)
    stop_at: int | None = None  # nothing more is read here, and the connection stays open


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What happens to one connection."""

    up: Fault = Fault()
    down: Fault = Fault()
    blackhole: bool = False  # accepted, and nothing else ever


class Door(Enum):
    """What happens to whoever wants to connect."""

    OPEN = auto()
    CLOSED = auto()  # refused
    FULL = auto()  # neither taken nor refused: the queue of connections is full, and what comes is dropped


@dataclass(slots=True)
class Link:
    """One connection that came, and the bytes that were passed on."""

    client: socket.socket
    peer: socket.socket
    faults: Faults
    up: int = 0
    down: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    _ending: threading.Lock = field(default_factory=threading.Lock)

    def end(self, *, reset: bool = False) -> None:
        """Close both sides; how the first call says, for the other direction notices and ends the connection too."""
        with self._ending:
            if not self.ended.is_set():
                self.ended.set()
                self._close(reset=reset)

    def _close(self, *, reset: bool) -> None:
        for side in (self.client, self.peer):
            with contextlib.suppress(OSError):
                if reset:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                else:
                    side.shutdown(socket.SHUT_RDWR)
            side.close()


class Proxy:
    """Listens on `port` of loopback and passes connections on to a peer; a context manager."""

    def __init__(self, peer_port: int, faults: Faults | None = None, *, door: Door = Door.OPEN) -> None:
        """Pass on to `peer_port` of loopback."""
        self.faults = faults or Faults()
        self.links: list[Link] = []
        self._peer_port = peer_port
        self._server = _slim_socket()
        self._server.bind((LOOPBACK, 0))  # without listen() connections are refused, and nobody else gets the port
        self._door = door
        self._crowd = contextlib.ExitStack()  # fills the queue
        self.port: int = self._server.getsockname()[1]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        if self._door is Door.OPEN:
            self.open()
        elif self._door is Door.FULL:
            self._fill()
        return self

    def open(self) -> None:
        """Take connections from now on."""
        self._crowd.close()
        self._server.listen(64)
        self._run(self._accept)

    def __exit__(self, *_exception: object) -> None:
        self._crowd.close()
        with contextlib.suppress(OSError):  # it never listened
            self._server.shutdown(socket.SHUT_RDWR)
        for link in list(self.links):
            link.end(reset=True)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), thread.name
        self._server.close()

    @property
    def passed(self) -> int:
        """Return the bytes that were passed on to the peer, over all connections."""
        return sum(link.up for link in self.links)

    def _fill(self) -> None:
        self._server.listen(0)
        for _ in range(32):
            waiting = self._crowd.enter_context(socket.socket())
            waiting.settimeout(_PATIENCE)
            try:
                waiting.connect((LOOPBACK, self.port))
            except TimeoutError:
                return
        raise AssertionError("the queue of connections does not fill")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the server is shut down
            while True:
                client = self._server.accept()[0]
                client.settimeout(_GLANCE)
                link = Link(client=client, peer=_slim_socket(), faults=self.faults)
                self.links.append(link)
                if not link.faults.blackhole:
                    self._connect(link)

    def _connect(self, link: Link) -> None:
        try:
            link.peer.connect((LOOPBACK, self._peer_port))
        except OSError:
            link.end(reset=True)  # the peer is not there: the nearest to it, for a client that got through to us
            return
        link.peer.settimeout(_GLANCE)
        for side in (link.client, link.peer):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._run(self._up, link)
        self._run(self._down, link)

    def _up(self, link: Link) -> None:
        for count in _pumped(link, link.client, link.peer, link.faults.up):
            link.up += count

    def _down(self, link: Link) -> None:
        for count in _pumped(link, link.peer, link.client, link.faults.down):
            link.down += count

    def _run(self, target: Callable[..., None], *arguments: Link) -> None:
        thread = threading.Thread(target=target, args=arguments, name=f"proxy {self.port}", daemon=True)
        self._threads.append(thread)
        thread.start()


def _pumped(link: Link, source: socket.socket, sink: socket.socket, fault: Fault) -> Iterator[int]:
    """Pass bytes on and yield how many, until the connection or the fault ends it."""
    passed, began = 0, time.monotonic()
    limits = [at for at in (fault.cut_at, fault.reset_at, fault.stop_at) if at is not None]
    limit = min(limits, default=None)
    while limit is None or passed < limit:
        data = _received(link, source, _piece(fault, None if limit is None else limit - passed))
        passed += len(data)
        pace = began + passed / fault.rate - time.monotonic() if fault.rate else 0.0
        link.ended.wait(fault.delay + max(0.0, pace))
        if not data or not _sent(link, sink, data):
            link.end()
            return
        yield len(data)
    if limit in (fault.cut_at, fault.reset_at):
        link.end(reset=limit == fault.reset_at)


def _received(link: Link, source: socket.socket, size: int) -> bytes:
    """Return what came, empty: the connection is over."""
    while not link.ended.is_set():
        try:
            return source.recv(size)
        except TimeoutError:
            continue
        except OSError:
            break
    return b""


def _sent(link: Link, sink: socket.socket, data: bytes) -> bool:
    """Return whether all of it was passed on."""
    while data and not link.ended.is_set():
        try:
            data = data[sink.send(data) :]
        except TimeoutError:
            continue
        except OSError:
            break
    return not data


def _slim_socket() -> socket.socket:
    slim = socket.socket()
    slim.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    slim.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
    return slim


def _piece(fault: Fault, left: int | None) -> int:
    size = _CHUNK if fault.rate is None else max(1, int(fault.rate * _SLICE))
    return size if left is None else min(size, left)
