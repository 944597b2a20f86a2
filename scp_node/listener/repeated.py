"""A log that a peer cannot fill: the same line of the same address is written once a minute, with its number."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

EVERY_SECONDS: Final = 60.0
MOST_KEYS: Final = 1_024  # lines that are counted at the same time


class RepeatedWarnings:
    """Writes warnings; safe for many threads."""

    def __init__(self, log: logging.Logger, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `log`; `clock` gives monotonic seconds."""
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._last: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()  # when, and how many since

    def warn(self, address: str, reason: str, message: str, *details: object) -> None:
        """Write the line, unless one of this address and reason was written within the last minute: then count it."""
        now, key = self._clock(), (address, reason)
        with self._lock:
            written, unsaid = self._last.get(key, (-EVERY_SECONDS, 0))
            if now - written < EVERY_SECONDS:
                self._last[key] = written, unsaid + 1
                return
            self._last[key] = now, 0
            self._last.move_to_end(key)
            while len(self._last) > MOST_KEYS:
                self._last.popitem(last=False)
        more = f" unsaid={unsaid}" if unsaid else ""
        self._log.warning(message + more, *details)
