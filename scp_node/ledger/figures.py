"""Counts for the metrics: what the trail says happened since a position, and the totals before it.

Events have their places in the chain in the order in which these become visible
(docs/decisions/0024-events-are-sealed.md), so that nothing between two positions is counted twice or left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, select

from scp_node.ledger.database.schema import (
    Use,
    chain,
    destination,
    event,
    instance,
    report,
    report_result,
    result,
    web_session,
)
from scp_node.ledger.problems import QueueDepth, depths_of
from scp_node.ledger.selection import undeliverable_reports
from scp_node.ledger.trail.feed import count_waiting
from scp_node.ledger.trail.sealer import Unsealed, unsealed
from scp_node.ledger.transactions import Transactions
from scp_node.ledger.unregistrable import count_unregistrable

CHUNK: Final = 2_000  # events that one step reads
_ANALYSED: Final = "analysed"  # kind of event
_DELIVERIES: Final[Mapping[str, str]] = {  # kind of an event -> what became of the object
    "delivered": "delivered",
    "delivery-delayed": "delayed",
    "delivery-dead": "dead",
    "committed": "committed",
    "found": "found",
    "not-committed": "not-committed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultKey:
    """What results are counted by."""

    outcome: str  # "finding", or the completion of an image without a score
    verdict: str  # "" without a score
    reason: str  # "" with a score


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryKey:
    """What the tries of deliveries are counted by."""

    destination: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What the trail says between two positions."""

    position: int  # place in the chain of the last event that was read
    more: bool  # whether there is more to read now
    results: Mapping[ResultKey, int]
    deliveries: Mapping[DeliveryKey, int]
    seconds: Sequence[float]  # of each delivered report: from the arrival of its last image


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where counting begins, and how many results the events up to there speak of."""

    position: int
    results: Mapping[ResultKey, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is the case at one instant."""

    at: datetime
    depths: tuple[QueueDepth, ...]
    failures: Mapping[str, int]  # of destinations, in a row
    paused: frozenset[str]  # names of destinations
    undeliverable: int  # reports
    conflicts: int  # images
    unregistrable: int  # files
    events: int  # length of the chain
    unsealed: Unsealed  # events behind its end
    unsent: int  # events that a collector of audit messages has not got
    newest_image: datetime | None
    sessions: int  # of the web page, that are not idle


class Figures:
    """Reads figures, and changes nothing."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def start(self) -> Start:
        """Return where counting begins; counts all results once, which takes seconds where there are millions."""
        columns = (result.c.outcome, result.c.verdict, result.c.reason)
        with self._transactions.snapshot() as connection:
            position = connection.execute(select(chain.c.length)).scalar_one()
            rows = connection.execute(select(*columns, func.count()).group_by(*columns)).all()
            ahead = select(event.c.detail).where(event.c.seq.is_(None), event.c.kind == _ANALYSED)
            not_yet = Counter(map(_result_of, connection.scalars(ahead)))
        counted = Counter({_result_key(outcome, verdict, reason): number for outcome, verdict, reason, number in rows})
        counted.subtract(not_yet)  # they come behind the position, and are counted then
        return Start(position=position, results=counted)

    def happened(self, after: int) -> Happened:
        """Return what the next `CHUNK` events behind the position `after` say."""
        columns = (event.c.seq, event.c.at, event.c.kind, event.c.detail)
        behind = select(*columns).where(event.c.seq > after).order_by(event.c.seq).limit(CHUNK)
        results: Counter[ResultKey] = Counter()
        deliveries: Counter[DeliveryKey] = Counter()
        delivered: dict[str, datetime] = {}
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(behind).all()
            for row in rows:
                if row.kind == _ANALYSED:
                    results[_result_of(row.detail)] += 1
                elif outcome := _DELIVERIES.get(row.kind):
                    deliveries[DeliveryKey(destination=row.detail.get("destination", ""), outcome=outcome)] += 1
                    if outcome == "delivered" and row.detail.get("sent_uid") == row.detail.get("report_uid"):
                        delivered[row.detail["report_uid"]] = row.at
            seconds = _seconds(connection, delivered)
        return Happened(
            position=rows[-1].seq if rows else after,
            more=len(rows) == CHUNK,
            results=results,
            deliveries=deliveries,
            seconds=seconds,
        )

    def state(self, *, idle: timedelta) -> State:
        """Return what is the case now; a session that asked nothing for `idle` does not count."""
        in_conflict = select(func.count()).select_from(instance).where(instance.c.use == Use.CONFLICT)
        breakers = select(destination.c.name, destination.c.failures, destination.c.paused_until)
        nobody = select(func.count()).select_from(undeliverable_reports().subquery())
        with self._transactions.reading() as (connection, now):
            rows = connection.execute(breakers).all()
            alive = select(func.count()).select_from(web_session).where(web_session.c.seen_at > now - idle)
            return State(
                at=now,
                depths=depths_of(connection, now),
                failures={row.name: row.failures for row in rows},
                paused=frozenset(row.name for row in rows if row.paused_until is not None),
                undeliverable=connection.execute(nobody).scalar_one(),
                conflicts=connection.execute(in_conflict).scalar_one(),
                unregistrable=count_unregistrable(connection),
                events=connection.execute(select(chain.c.length)).scalar_one(),
                unsealed=unsealed(connection, at=now),
                unsent=count_waiting(connection),
                newest_image=connection.execute(select(func.max(instance.c.received_at))).scalar_one(),
                sessions=connection.execute(alive).scalar_one(),
            )


def _result_of(detail: Mapping[str, Any]) -> ResultKey:
    return _result_key(*(detail.get(name) for name in ("outcome", "verdict", "reason")))


def _result_key(outcome: object, verdict: object, reason: object) -> ResultKey:
    return ResultKey(outcome=str(outcome or ""), verdict=str(verdict or ""), reason=str(reason or ""))


def _seconds(connection: Connection, delivered: Mapping[str, datetime]) -> list[float]:
    """Return for each report, given with the instant of its delivery, the seconds since its last image came."""
    if not delivered:
        return []
    joined: Any = report.join(report_result, report_result.c.report_id == report.c.id)
    joined = joined.join(result, result.c.id == report_result.c.result_id)
    joined = joined.join(instance, instance.c.id == result.c.instance_id)
    columns = (report.c.sop_instance_uid, func.max(instance.c.received_at))
    chosen = select(*columns).select_from(joined).where(report.c.sop_instance_uid.in_(delivered))
    rows = connection.execute(chosen.group_by(report.c.sop_instance_uid))
    return [max(0.0, (delivered[uid] - received_at).total_seconds()) for uid, received_at in rows]
