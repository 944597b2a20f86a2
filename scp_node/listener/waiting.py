"""Where connections of an address that has many, or fails, wait without a thread until they begin with a request."""

from __future__ import annotations

import selectors
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

PLACES: Final = 256  # of all addresses
PLACES_OF_ONE: Final = 32  # beyond them, the one that has said nothing for longest makes way
PACE_SECONDS: Final = 0.1  # between two connections of an address that are let in


@dataclass(frozen=True, slots=True)
class Waiting:
    """A connection that waits."""

    connection: socket.socket
    client_address: tuple[str, int]  # as the socket gave it
    since: float  # monotonic


@dataclass(slots=True)
class _Line:
    """The connections of one address, the oldest first."""

    silent: OrderedDict[int, Waiting] = field(default_factory=OrderedDict)  # by descriptor
    asking: deque[Waiting] = field(default_factory=deque)  # whose first byte is there
    next_at: float = 0.0  # monotonic: when another one may be let in

    def __len__(self) -> int:
        return len(self.silent) + len(self.asking)


class WaitingRoom:
    """Tells by the first byte which connections ask for something, and lets these in; for one thread."""

    def __init__(
        self, first_byte: int, seconds: float, *, processes: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Let in what begins with `first_byte` within `seconds`; of the places, each of `processes` has its part."""
        self._first_byte = bytes([first_byte])
        self._seconds = seconds
        self._places, self._places_of_one = PLACES // processes, PLACES_OF_ONE // processes
        self._pace_seconds = PACE_SECONDS * processes
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._lines: dict[str, _Line] = {}
        self._number = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return self._number

    def add(self, address: str, connection: socket.socket, client_address: tuple[str, int]) -> Waiting | None:
        """Have a connection wait, and return the one that has no place any more: perhaps this one."""
        new = Waiting(connection, client_address, self._clock())
        line = self._lines.setdefault(address, _Line())
        gone = None
        if len(line) >= self._places_of_one or self._number >= self._places:
            if not line.silent:
                return new
            gone = self._without(line, next(iter(line.silent)))
        line.silent[connection.fileno()] = new
        self._selector.register(connection, selectors.EVENT_READ, address)
        self._number += 1
        return gone

    def turn_away(self) -> list[tuple[str, Waiting]]:
        """Take out, and return with their addresses, those that began with something else, or with nothing in time."""
        away = []
        for key, _ in self._selector.select(0) if self._number else ():
            line = self._lines[key.data]
            waiting = self._without(line, key.fd)
            if beginning_of(waiting.connection, 1) == self._first_byte:
                line.asking.append(waiting)
                self._number += 1
            else:
                away.append((key.data, waiting))
        late = self._clock() - self._seconds
        for address, line in self._lines.items():
            while line.silent and next(iter(line.silent.values())).since < late:
                away.append((address, self._without(line, next(iter(line.silent)))))
        return away

    def let_in(self, *, slowly: Callable[[str], bool]) -> Iterator[Waiting]:
        """Take out those that may begin now; where an address is let in `slowly`, one of it at a time."""
        now = self._clock()
        for address, line in list(self._lines.items()):
            is_slow = slowly(address)
            while line.asking and not (is_slow and now < line.next_at):
                line.next_at = now + self._pace_seconds
                self._number -= 1
                yield line.asking.popleft()
            if not len(line) and now >= line.next_at:
                del self._lines[address]

    def close(self) -> None:
        """Close all connections that wait."""
        for line in self._lines.values():
            for each in (*line.silent.values(), *line.asking):
                each.connection.close()
        self._lines.clear()
        self._number = 0
        self._selector.close()

    def _without(self, line: _Line, descriptor: int) -> Waiting:
        waiting = line.silent.pop(descriptor)
        self._selector.unregister(waiting.connection)
        self._number -= 1
        return waiting


def beginning_of(connection: socket.socket, most: int) -> bytes:
    """Return up to `most` bytes of what a peer says next, and leave them there; none where none has come."""
    try:
        return connection.recv(most, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return b""
