"""Keeps the leases of claimed work alive while the work is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from scp_node.ledger import Claim, Ledger
from scp_node.logs import get_logger

log = get_logger(__name__)

_CLOSE_SECONDS: Final = 2.0  # a renewal that hangs in the database does not keep the process alive


class LeaseKeeper:
    """One thread that renews every held lease at a third of its length, as long as the process works."""

    def __init__(self, ledger: Ledger, lease: timedelta, *, hangs: Callable[[], object] = lambda: False) -> None:
        """Renew in `ledger` unless `hangs` returns something true; call `start` before the first `hold`."""
        self._ledger = ledger
        self._hangs = hangs
        self._period = lease.total_seconds() / 3
        self._held: dict[int, Claim] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> LeaseKeeper:
        """Start renewing."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop renewing; leases that are still held run out."""
        self._stop.set()
        self._thread.join(_CLOSE_SECONDS)

    @contextmanager
    def hold(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Keep `claims` alive until the block ends."""
        with self._lock:
            self._held.update((claim.id, claim) for claim in claims)
        try:
            yield
        finally:
            with self._lock:
                for claim in claims:
                    self._held.pop(claim.id, None)

    def _run(self) -> None:
        pause = self._period
        while not self._stop.wait(pause):
            pause = self._period
            with self._lock:
                claims = list(self._held.values())
            if not claims or self._hangs():  # a loop that hangs would keep its work from all others for ever
                continue
            try:
                self._ledger.upkeep.renew(claims)
            except SQLAlchemyError as error:
                pause = self._period / 4  # soon, before somebody takes the leases for lost
                log.warning("leases not renewed", count=len(claims), error=type(error).__name__)
