"""Whether this process may take a lease for lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from scp_node.ledger.clock import host_seconds


class Watch:
    """Knows since when this process has looked at the database without a long pause; for many threads.

    While the database is away nobody can renew a lease, and when it is back its clock says that all of them are over.
    Who holds one renews it within a third of its length then, and once more within the next third. So a lease is lost
    only to who has seen both chances pass; after a kill of the whole node that is still before the lease ends.
    """

    def __init__(self, lease: timedelta, monotonic: Callable[[], float] = host_seconds) -> None:
        """Watch over leases of that length."""
        self._longest_pause = lease.total_seconds() / 2
        self._enough = lease.total_seconds() * 2 / 3
        self._monotonic = monotonic
        self._last: float | None = None
        self._since = 0.0

    def look(self) -> bool:
        """Note that the database has answered just now; return whether it was watched for long enough."""
        now = self._monotonic()
        if self._last is None or now - self._last > self._longest_pause:
            self._since = now
        self._last = now
        return now - self._since >= self._enough
