"""Has stored objects sent again because a person wants it: what was given up, and what a destination has lost."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, exists, select

from scp_node.domain import Actor
from scp_node.ledger import queue
from scp_node.ledger.analyses import open_report
from scp_node.ledger.audit_rows import DeliveryState
from scp_node.ledger.commitments import reopen_delivery
from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.database.schema import delivery, report, work
from scp_node.ledger.queue_kinds import commit_queue, deliver_queue, in_queue
from scp_node.ledger.study_page import can_send_again
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import of_delivery
from scp_node.ledger.transactions import Policy, Transactions


class Resending:
    """Puts deliveries back into their queues."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def send_again(self, study_uid: str, delivery_id: int, *, known: Collection[str], actor: Actor) -> str:
        """Have the object of a delivery sent again, the same bytes under the same UID; return what happens now.

        A report that no destination was to get is looked at again by the settings of now.

        Args:
            study_uid: the study of the delivery.
            delivery_id: its row.
            known: the destinations that the settings name; to another one nobody sends.
            actor: who wants it.

        Raises:
            LedgerError: there is no such delivery, or it cannot be sent again.
        """
        with self._transactions.writing() as (connection, now):
            row = _delivery(connection, study_uid, delivery_id)
            state = DeliveryState(row.state)
            if state is DeliveryState.WAITING:
                raise LedgerError(f"it waits to be sent to {row.destination} already")
            if not can_send_again(state, is_newest=row.is_newest):
                raise LedgerError("a newer version has replaced this one: send that again")
            subject = of_delivery(connection, delivery_id)
            detail = {**subject.names, "delivery": delivery_id, "was": state.value, **actor.detail}
            if state is DeliveryState.UNDELIVERABLE:
                open_report(connection, self._policy, row.study_patient_id, now)
                happens = "The report is routed again: it goes to the destinations that the settings name now."
            elif row.destination not in known:
                raise LedgerError(f"the settings have no destination {row.destination} any more")
            else:
                self._reopen(connection, delivery_id, row.destination, now)
                happens = f"It waits to be sent to {row.destination} again."
            record_event(connection, now, "web-resent", study_uid=study_uid, detail=detail)
        return happens

    def _reopen(self, connection: Connection, delivery_id: int, destination: str, now: datetime) -> None:
        sent, asked = deliver_queue(destination), commit_queue(destination)
        if not queue.wake(connection, in_queue(sent) & (work.c.ref_id == delivery_id), at=now):
            raise LedgerError(f"it waits to be sent to {destination} already")
        queue.forget_attempts(connection, queue=asked, dedup=str(delivery_id))
        reopen_delivery(connection, delivery_id, detail="sent again by a person", now=now)


def _delivery(connection: Connection, study_uid: str, delivery_id: int) -> Any:
    newer = report.alias()
    is_same_patient = newer.c.study_patient_id == report.c.study_patient_id
    replaced = exists().where(newer.c.study_uid == report.c.study_uid, is_same_patient, newer.c.id > report.c.id)
    columns = (delivery.c.state, delivery.c.destination, report.c.study_patient_id, (~replaced).label("is_newest"))
    chosen = select(*columns).join(report, report.c.id == delivery.c.report_id)
    row = connection.execute(
        chosen.where(delivery.c.id == delivery_id, report.c.study_uid == study_uid).with_for_update(of=delivery)
    ).first()
    if row is None:
        raise LedgerError("this study has no such delivery")
    return row
