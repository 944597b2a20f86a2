"""A measure for what a peer can cause at will: a few of a kind each minute, then the number of the others."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from structlog.stdlib import BoundLogger

EVERY_SECONDS: Final = 60.0
MOST_KEYS: Final = 1_024  # kinds that are counted at the same time

_Told = TypeVar("_Told")
_Key = tuple[str, str]  # an address and a reason


@dataclass(frozen=True, slots=True)
class Untold(Generic[_Told]):
    """How many like `last` came within a minute and were not told."""

    last: _Told
    number: int


@dataclass(frozen=True, slots=True)
class _Kind(Generic[_Told]):
    since: float  # when the first of them was told
    told: int
    last: _Told
    untold: int


class Repeated(Generic[_Told]):
    """Counts what comes again within a minute; safe for many threads."""

    def __init__(self, *, most: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """Have `most` of each address and reason told within a minute; `clock` gives monotonic seconds."""
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: OrderedDict[_Key, _Kind[_Told]] = OrderedDict()
        self._crowded_out: list[Untold[_Told]] = []

    def is_news(self, address: str, reason: str, what: _Told) -> bool:
        """Return True if few of this address and reason came within a minute; else count it and return False."""
        now, key = self._clock(), (address, reason)
        with self._lock:
            kind = self._kinds.get(key)
            if kind and now - kind.since < EVERY_SECONDS:
                is_told = kind.told < self._most
                self._kinds[key] = replace(
                    kind, told=kind.told + is_told, last=what, untold=kind.untold + (not is_told)
                )
                return is_told
            if kind:
                self._drop(key)
            self._kinds[key] = _Kind(now, 1, what, 0)
            while len(self._kinds) > MOST_KEYS:
                self._drop(next(iter(self._kinds)))
        return True

    def take_untold(self, *, at_once: bool = False) -> list[Untold[_Told]]:
        """Return what was only counted and has not been told since, once its minute is over, or `at_once`."""
        now = self._clock()
        with self._lock:
            while self._kinds:
                key, kind = next(iter(self._kinds.items()))
                if now - kind.since < EVERY_SECONDS and not at_once:
                    break
                self._drop(key)
            taken, self._crowded_out = self._crowded_out, []
        return taken

    def _drop(self, key: _Key) -> None:
        kind = self._kinds.pop(key)
        if kind.untold:
            self._crowded_out.append(Untold(kind.last, kind.untold))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log."""

    level: int  # of `logging`
    event: str
    fields: dict[str, object]


class RepeatedLines:
    """A log that a peer cannot fill: one line of an address and reason a minute, then the number of others."""

    def __init__(self, log: BoundLogger, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `log`; `clock` gives monotonic seconds."""
        self._log = log
        self._repeated = Repeated[Line](clock=clock)

    def warn(self, event: str, *, peer: str, reason: str, **fields: object) -> None:
        """Write a warning, or count it."""
        self.write(Line(logging.WARNING, event, {**fields, "peer": peer, "reason": reason}), peer, reason)

    def write(self, line: Line, address: str, reason: str) -> None:
        """Write a line that this address is the cause of, or count it."""
        self.write_numbers()
        if self._repeated.is_news(address, f"{line.event}: {reason}", line):
            self._log.log(line.level, line.event, **line.fields)

    def write_numbers(self, *, at_once: bool = False) -> None:
        """Write how many lines were left out, as the last of them with `unsaid`: after their minute, or `at_once`."""
        for untold in self._repeated.take_untold(at_once=at_once):
            line = untold.last
            self._log.log(line.level, line.event, **line.fields, unsaid=untold.number)
