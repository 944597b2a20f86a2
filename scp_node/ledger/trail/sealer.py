"""Seals events on PostgreSQL: gives each its place in the hash chain, soon after the transaction that wrote it.

Writers insert their events without a place, so that none waits for another one's commit. The sealer takes them in the
order of their ids, in transactions of its own. Ids become visible out of order: the transaction with the lower one may
commit later, and is sealed then. So whoever follows the events goes by `event.seq`, which is given here, one after the
other, and committed in that order.

One process seals at a time, by a lease in the row of `chain`. The lease only spreads the work. What keeps two sealers
apart is the lock of that row, which each transaction holds from its first statement to its commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, select, update

from scp_node.ledger.database.schema import chain, event
from scp_node.ledger.following import is_free
from scp_node.ledger.trail.chain import RAW, BrokenChainError, ChainEnd, chain_end, hash_of, refuse_unsealable
from scp_node.ledger.trail.events import seals_at_once
from scp_node.ledger.transactions import Transactions

LEASE: Final = timedelta(seconds=3)  # the next one goes on so long after a sealer that was killed
BATCH: Final = 1_000  # events of one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsealed:
    """The events that have no place in the chain yet."""

    events: int
    oldest_at: datetime | None
    seconds: float  # for which the oldest waits


class Sealer:
    """Gives events their place in the chain; one works at a time, and the next goes on when its lease is lost."""

    def __init__(self, transactions: Transactions, *, owner: str) -> None:
        """Work on `transactions`; `owner` names this process among those of the ledger."""
        self._transactions = transactions
        self._owner = owner

    def step(self) -> bool:
        """Seal the next events unless another process does; return whether more may wait.

        On SQLite none waits.

        Raises:
            BrokenChainError: the row that says where the chain ends is gone, or the next event cannot be read.
        """
        if seals_at_once(self._transactions.engine.dialect):
            return False
        with self._transactions.reading() as (connection, now):
            if not _has_unsealed(connection):
                return False
            chain_end(connection)  # which says so if its row is gone
            if not connection.scalar(select(self._is_mine(now))):
                return False
        with self._transactions.writing() as (connection, now):
            taken = select(chain.c.length, chain.c.head).where(self._is_mine(now))
            row = connection.execute(taken.with_for_update(skip_locked=True)).first()
            if row is None:
                return False
            end = ChainEnd(length=row.length, head=row.head)
            return _seal(connection, end, owner=self._owner, lease_until=now + LEASE) == BATCH

    def _is_mine(self, now: datetime) -> ColumnElement[bool]:
        return is_free(chain, self._owner, at=now, lease=LEASE)


def seal_all(transactions: Transactions) -> None:
    """Seal every event that waits, whoever has the lease: for a process that ends, and where no node runs.

    Raises:
        BrokenChainError: see `Sealer.step`.
    """
    while not seals_at_once(transactions.engine.dialect):
        with transactions.reading() as (connection, _now):
            if not _has_unsealed(connection):
                return
        with transactions.writing() as (connection, _now):
            row = connection.execute(select(chain.c.length, chain.c.head).with_for_update()).first()
            if row is None:
                raise BrokenChainError("the row of table chain, which says where the events end, was removed")
            _seal(connection, ChainEnd(length=row.length, head=row.head))


def unsealed(connection: Connection, *, at: datetime) -> Unsealed:
    """Return how many events have no place in the chain yet, and since when, at the instant `at`."""
    waiting = select(func.count().label("events"), func.min(event.c.at).label("oldest_at"))
    row = connection.execute(waiting.where(event.c.seq.is_(None))).one()
    seconds = max(0.0, (at - row.oldest_at).total_seconds()) if row.oldest_at else 0.0
    return Unsealed(events=row.events, oldest_at=row.oldest_at, seconds=seconds)


def _has_unsealed(connection: Connection) -> bool:
    """Return whether an event has no place in the chain yet."""
    return connection.execute(select(event.c.id).where(event.c.seq.is_(None)).limit(1)).first() is not None


def _seal(connection: Connection, end: ChainEnd, **lease: Any) -> int:
    """Chain the next events to `end`, in a transaction that has locked the row of the chain; return their number."""
    waiting = select(*RAW).where(event.c.seq.is_(None)).order_by(event.c.id).limit(BATCH)
    rows = connection.execute(waiting).all()  # after the lock: it sees all that the sealer before has sealed
    if not rows:
        return 0
    places = _chained(rows, end)
    connection.execute(
        update(event)
        .where(event.c.id == bindparam("event_id"), event.c.seq.is_(None))
        .values({name: bindparam(name) for name in ("seq", "previous_hash", "hash")}),
        places,
    )
    # the end cannot have moved while its row was locked; if it had, nothing of this is kept
    unmoved = (chain.c.length == end.length) & (chain.c.head == end.head)
    values = {"length": end.length + len(rows), "head": places[-1]["hash"], **lease}
    if connection.execute(update(chain).where(unmoved).values(**values)).rowcount != 1:
        raise BrokenChainError("the end of the chain was moved by somebody else while events were sealed")
    return len(rows)


def _chained(rows: Sequence[Row[Any]], end: ChainEnd) -> list[dict[str, Any]]:
    head, places = end.head, []
    for number, row in enumerate(rows, end.length + 1):
        refuse_unsealable(row)
        previous, head = head, hash_of(row, head)
        places.append({"event_id": row.id, "seq": number, "previous_hash": previous, "hash": head})
    return places
