"""Opens the deliveries of stored reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, select

from scp_node.ledger import queue
from scp_node.ledger.audit_rows import DeliveryState
from scp_node.ledger.database.schema import companion, delivery
from scp_node.ledger.queue_kinds import deliver_queue
from scp_node.ledger.transactions import Policy, insert_row

_NOBODY: Final = ""  # in place of the name of a destination

Takes = Callable[[str, str], bool]  # of a destination's name and the word of a kind


def takes_all(_destination: str, _kind: str) -> bool:
    """Return that every destination takes every kind of companion."""
    return True


def dispatch(
    connection: Connection,
    policy: Policy,
    report_id: int,
    destinations: Sequence[str],
    *,
    priority: int,
    now: datetime,
) -> None:
    """Open the deliveries of a report.

    One that no destination is to get has a delivery that says so, for a person to see.
    """
    opening = _Opening(connection, policy, report_id, now)
    if not destinations:
        opening.insert(None, _NOBODY, DeliveryState.UNDELIVERABLE)
    for name in destinations:
        opening.open(None, name, priority)


def dispatch_companions(
    connection: Connection, policy: Policy, report_id: int, *, takes: Takes, priority: int, now: datetime
) -> list[str]:
    """Open the deliveries of a report's companions wherever the report goes; return the names of its destinations.

    Each counts as opened with that of the report, behind which it is sent.
    """
    of_report = select(delivery.c.destination, delivery.c.created_at).where(
        delivery.c.report_id == report_id, delivery.c.companion_id.is_(None), delivery.c.destination != _NOBODY
    )
    names = []
    for row in connection.execute(of_report.order_by(delivery.c.id)).all():
        opening = _Opening(connection, policy, report_id, now, opened_at=row.created_at)
        opening.open_companions(row.destination, takes=takes, priority=priority)
        names.append(row.destination)
    return names


def is_undeliverable() -> ColumnElement[bool]:
    """Return the SQL condition of the delivery that says that no destination was to get a report."""
    # the index of reports by destination begins with the first two
    without_name = (delivery.c.destination == _NOBODY) & delivery.c.companion_id.is_(None)
    return without_name & (delivery.c.state == DeliveryState.UNDELIVERABLE)


def withdraw(connection: Connection, report_id: int) -> bool:
    """Forget that no destination was to get the report; return whether that was so."""
    gone = delete(delivery).where(delivery.c.report_id == report_id, is_undeliverable())
    return connection.execute(gone).rowcount > 0


class _Opening:
    def __init__(
        self,
        connection: Connection,
        policy: Policy,
        report_id: int,
        now: datetime,
        *,
        opened_at: datetime | None = None,
    ) -> None:
        self._opened_at = opened_at or now
        self._connection = connection
        self._policy = policy
        self._report_id = report_id
        self._now = now

    def open_companions(self, name: str, *, takes: Takes, priority: int) -> None:
        of_report = select(companion.c.id, companion.c.kind).where(companion.c.report_id == self._report_id)
        for row in self._connection.execute(of_report.order_by(companion.c.id)).all():
            if takes(name, row.kind):
                self.open(row.id, name, priority + queue.BEHIND_REPORTS)

    def open(self, companion_id: int | None, name: str, priority: int) -> None:
        delivery_id = self.insert(companion_id, name, DeliveryState.WAITING)
        waiting = deliver_queue(name)
        queue.enqueue(
            self._connection,
            [(delivery_id, priority)],
            queue=waiting,
            max_attempts=self._policy.most_tries(waiting),
            at=self._now,
        )

    def insert(self, companion_id: int | None, name: str, state: DeliveryState) -> int:
        return insert_row(
            self._connection,
            delivery,
            report_id=self._report_id,
            companion_id=companion_id,
            destination=name,
            state=state,
            attempts=0,
            detail="",
            created_at=self._opened_at,
        )
