"""Whether this process may take a lease for lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

from scp_node.ledger.clock import host_seconds


class Watch:
    """Knows since when this process could write to the database without a long pause; for many threads.

    While nobody can write nobody can renew a lease, and afterwards the clock says that all of them are over, though
    the database may have answered readers all the time. Who holds one renews it within a third of its length then, and
    once more within the next third. So a lease is lost only to who has seen both chances pass; after a kill of the
    whole node that is still before the lease ends.
    """

    def __init__(self, lease: timedelta, monotonic: Callable[[], float] = host_seconds) -> None:
        """Watch over leases of that length."""
        self._period = lease.total_seconds() / 6
        self._longest_pause = lease.total_seconds() / 2
        self._enough = lease.total_seconds() * 2 / 3
        self._monotonic = monotonic
        self._last = -math.inf
        self._since = math.inf

    @property
    def is_due(self) -> bool:
        """Whether it is time to write something again."""
        return self._monotonic() - self._last >= self._period

    def wrote(self) -> None:
        """Note that something was committed just now."""
        now = self._monotonic()
        if now - self._last > self._longest_pause:
            self._since = now
        self._last = now

    def is_long_enough(self) -> bool:
        """Return whether this process could write for long enough, and until a short while ago."""
        now = self._monotonic()
        return now - self._last <= self._longest_pause and now - self._since >= self._enough
