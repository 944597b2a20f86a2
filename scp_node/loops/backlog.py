"""A queue of arrivals for the ledger that never blocks a producer, and the earliest instant among them."""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")


class Backlog(Generic[T]):
    """Items in order, limited in number and in bytes; for many producers and one consumer."""

    def __init__(self, most: int, most_bytes: int) -> None:
        """Hold at most `most` items, and at most `most_bytes` of them in all."""
        self._most = most
        self._most_bytes = most_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._filled = threading.Condition()
        self._waits = True

    def put(self, item: T, size: int) -> bool:
        """Add an item of `size` bytes; return False if the backlog has no room for it."""
        with self._filled:
            if len(self._items) >= self._most or self._bytes + size > self._most_bytes:
                return False
            self._items.append((item, size))
            self._bytes += size
            self._filled.notify()
            return True

    def take(self, most: int, *, wait: float = 0.0) -> list[T]:
        """Return up to `most` items, oldest first; an empty list if nothing came within `wait` seconds.

        After `wait_no_more` it does not wait.
        """
        with self._filled:
            if not self._items and wait and self._waits:
                self._filled.wait(wait)
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._bytes -= sum(size for _, size in taken)
        return [item for item, _ in taken]

    def wait_no_more(self) -> None:
        """Have `take` return at once from now on."""
        with self._filled:
            self._waits = False
            self._filled.notify()

    def is_empty(self) -> bool:
        """Return whether nothing waits."""
        return not self._items


class Earliest:
    """The earliest instant since the last `take`; for many threads."""

    def __init__(self) -> None:
        """Begin without an instant."""
        self._lock = threading.Lock()
        self._instant: datetime | None = None

    def add(self, instant: datetime) -> None:
        """Note an instant."""
        with self._lock:
            self._instant = min(self._instant or instant, instant)

    def take(self, now: datetime) -> datetime:
        """Return the earliest instant, at most `now`, and start again from `now`."""
        with self._lock:
            earliest, self._instant = min(self._instant or now, now), now
        return earliest
