"""Decides when a lease counts as lost: only if its holder could have renewed it."""

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
    """What is known about the database at one instant."""

    is_due: bool  # it is time for the next proof that the database can be written to
    is_proven: bool  # it could be written to for long enough, until a short while ago


class Watch:
    """Knows since when the database can be written to without a long pause.

    While nobody can write, nobody can renew a lease. Afterwards the clock says that all leases are over, although the
    database may have answered readers all the time. A holder then renews its lease within a third of its length, and
    once more within the next third. So a lease counts as lost only after both chances. If the whole node was killed,
    that is still before the lease ends.

    The process that proves it writes the proof beside the rows, for all processes: where processes die young, none of
    them lives long enough to see two thirds of a lease alone.
    """

    def __init__(self, lease: timedelta) -> None:
        """Watch over leases of this length."""
        self._period = lease / 6
        self._longest_pause = lease / 2
        self._enough = lease * 2 / 3

    def look(self, connection: Connection, at: datetime) -> Standing:
        """Return what is known at `at`."""
        last, since = connection.execute(_PROOF).one()
        if last is None:
            return Standing(is_due=True, is_proven=False)
        return Standing(
            is_due=abs(at - last) >= self._period,  # a proof in the future was written by another clock
            is_proven=abs(at - last) <= self._longest_pause and at - since >= self._enough,
        )

    def prove(self, transactions: Transactions) -> None:
        """Write where a renewal would write, and note the time.

        A write that had to wait for the tables proves nothing: others waited as well, and its start is long past.
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
