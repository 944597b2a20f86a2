"""How many connections of an address may come to nothing: a token bucket for each, asked before a thread begins."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MOST_ADDRESSES: Final = 4_096  # that are remembered: beyond them, the one that failed longest ago is forgotten

_A_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Spent:
    tokens: float
    at: float  # monotonic


class FailedConnections:
    """Counts, for each address, the connections that ended without an association that was of use.

    Each takes a token, which comes back with time, or with an association that was of use. Safe for many threads.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Give each address `per_minute` tokens, and as many again in each minute; 0 sets no limit."""
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._spent: OrderedDict[str, _Spent] = OrderedDict()  # the address that failed last is the last

    def are_too_many(self, address: str) -> bool:
        """Return whether the address has no token left."""
        with self._lock:
            return bool(self._per_minute) and self._tokens_spent(address) > self._per_minute - 1

    def add(self, address: str) -> None:
        """Note a connection that failed."""
        with self._lock:
            spent = min(self._tokens_spent(address) + 1, self._per_minute)
            self._spent[address] = _Spent(spent, self._clock())
            self._spent.move_to_end(address)
            if len(self._spent) > MOST_ADDRESSES:
                self._spent.popitem(last=False)

    def make_good(self, address: str) -> None:
        """Note an association that was of use: it makes good one that failed."""
        with self._lock:
            if address not in self._spent:
                return
            if (left := self._tokens_spent(address) - 1) > 0:
                self._spent[address] = _Spent(left, self._clock())
            else:
                del self._spent[address]

    def _tokens_spent(self, address: str) -> float:
        """Return how many tokens of the address have not come back."""
        if (spent := self._spent.get(address)) is None:
            return 0.0
        return max(0.0, spent.tokens - (self._clock() - spent.at) * self._per_minute / _A_MINUTE)
