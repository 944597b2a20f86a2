"""Whether leases may be taken for lost: only where their holders could have renewed them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, false, select, update

from scp_node.ledger.clock import host_seconds
from scp_node.ledger.database.schema import clock, work
from scp_node.ledger.transactions import Transactions

_PROOF: Final = select(clock.c.writable_at, clock.c.writable_since).where(clock.c.id == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of the database at one instant."""

    is_due: bool  # it is time to prove again that it can be written to
    is_proven: bool  # it could be written to for long enough, and until a short while ago


class Watch:
    """Knows since when the database can be written to without a long pause.

    While nobody can write nobody can renew a lease, and afterwards the clock says that all of them are over, though
    the database may have answered readers all the time. Who holds one renews it within a third of its length then, and
    once more within the next third. So a lease is lost only where both chances have passed; after a kill of the whole
    node that is still before the lease ends.

    Whoever proves it writes that beside the rows, for all: where processes die young none lives for long enough to
    have seen it alone.
    """

    def __init__(self, lease: timedelta) -> None:
        """Watch over leases of that length."""
        self._period = lease / 6
        self._longest_pause = lease / 2
        self._enough = lease * 2 / 3

    def look(self, connection: Connection, at: datetime) -> Standing:
        """Return what is known at `at`."""
        last, since = connection.execute(_PROOF).one()
        if last is None:
            return Standing(is_due=True, is_proven=False)
        return Standing(
            is_due=abs(at - last) >= self._period,  # one that lies ahead is of another clock
            is_proven=abs(at - last) <= self._longest_pause and at - since >= self._enough,
        )

    def prove(self, transactions: Transactions) -> None:
        """Write where a renewal would write, and note when that was.

        One that had to wait for the tables proves nothing: others waited, too, and the time it began at is long past.
        """
        with transactions.writing() as (connection, now):
            began = host_seconds()
            connection.execute(update(work).where(false()).values(attempt=work.c.attempt))
            last, since = connection.execute(_PROOF.with_for_update()).one()
            if host_seconds() - began >= self._period.total_seconds():
                return
            goes_on = last is not None and abs(now - last) <= self._longest_pause
            proof = {"writable_at": now, "writable_since": since if goes_on else now}
            connection.execute(update(clock).where(clock.c.id == 1).values(**proof))
