"""What waits to be entered: a queue that never makes anybody wait to put something in, and since when there is more."""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")


class Backlog(Generic[T]):
    """Items in order, bounded in number and in bytes; for many threads that put and one that takes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        """Hold at most `most` items of `most_bytes` in all."""
        self._most = most
        self._most_bytes = most_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._filled = threading.Condition()

    def put(self, item: T, size: int) -> bool:
        """Add an item of `size` bytes; False: there is no room, it was not taken."""
        with self._filled:
            if len(self._items) >= self._most or self._bytes + size > self._most_bytes:
                return False
            self._items.append((item, size))
            self._bytes += size
            self._filled.notify()
            return True

    def take(self, most: int, *, wait: float = 0.0) -> list[T]:
        """Return up to `most` items, oldest first, none when none came within `wait` seconds."""
        with self._filled:
            if not self._items and wait:
                self._filled.wait(wait)
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._bytes -= sum(size for _, size in taken)
        return [item for item, _ in taken]

    def is_empty(self) -> bool:
        """Return whether nothing waits."""
        return not self._items


class Earliest:
    """The earliest instant since it was last asked; for many threads."""

    def __init__(self) -> None:
        """Know of none."""
        self._lock = threading.Lock()
        self._instant: datetime | None = None

    def add(self, instant: datetime) -> None:
        """Note an instant."""
        with self._lock:
            self._instant = min(self._instant or instant, instant)

    def take(self, now: datetime) -> datetime:
        """Return the earliest instant, `now` among them, and begin anew with `now`."""
        with self._lock:
            earliest, self._instant = min(self._instant or now, now), now
        return earliest
