"""Reports are claimed for sending, one queue for each destination, and what became of them is noted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, update

from scp_node.ledger import work as queue
from scp_node.ledger.events import record_event
from scp_node.ledger.provenance import of_delivery, status_text
from scp_node.ledger.schema import companion, delivery, destination, report
from scp_node.ledger.transactions import Policy, Transactions
from scp_node.ledger.work import Claim, commit_queue, deliver_queue


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTask:
    """One report, or one of its companions, to send to one destination."""

    claim: Claim
    delivery_id: int
    destination: str
    study_uid: str
    sop_instance_uid: str  # of what is sent
    file: bytes
    opened_at: datetime  # since when it is tried


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationState:
    """What the circuit breaker of one destination knows."""

    failures: int = 0  # in a row
    paused: bool = False
    probe_due: bool = False  # the pause is over: one C-ECHO may tell whether it is back


class Deliveries:
    """The queues of reports."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def claim(self, name: str, *, owner: str) -> DeliveryTask | None:
        """Take the next report for this destination: urgent ones first, then the oldest."""
        waiting = deliver_queue(name)
        if not self._transactions.ready(waiting):
            return None
        with self._transactions.writing() as (connection, now):
            claims = queue.claim(connection, waiting, owner=owner, limit=1, lease=self._policy.lease, at=now)
            if not claims:
                return None
            columns = (
                delivery.c.id,
                delivery.c.created_at,
                report.c.study_uid,
                func.coalesce(companion.c.sop_instance_uid, report.c.sop_instance_uid).label("sop_instance_uid"),
                func.coalesce(companion.c.file, report.c.file).label("file"),
            )
            joined = select(*columns).join(report, report.c.id == delivery.c.report_id)
            joined = joined.outerjoin(companion, companion.c.id == delivery.c.companion_id)
            row = connection.execute(joined.where(delivery.c.id == claims[0].ref_id)).one()
        return DeliveryTask(
            claim=claims[0], delivery_id=row.id, destination=name, study_uid=row.study_uid,
            sop_instance_uid=row.sop_instance_uid, file=row.file, opened_at=row.created_at,
        )  # fmt: skip

    def delivered(
        self, task: DeliveryTask, *, status: int, sop_class_uid: str, check_after: timedelta | None = None
    ) -> bool:
        """Note that the destination took the report; False: the claim was lost, another sender notes it.

        Where `check_after` is given the destination is asked then whether it has it; see `Commitments`.
        """
        with self._transactions.writing() as (connection, now):
            if not queue.complete(connection, task.claim, at=now):
                return False
            _note(connection, task, now, state="delivered", dimse_status=status, detail="",
                  sop_class_uid=sop_class_uid, delivered_at=now)  # fmt: skip
            _record(connection, now, "delivered", task, status=status)
            if check_after is not None:
                _open_commitment(connection, task, now + check_after, now)
            _set_destination(connection, task.destination, now, failures=0, paused_until=None, detail="")
        return True

    def retry(
        self, task: DeliveryTask, *, status: int | None, detail: str, pause: timedelta, keep_attempt: bool = False
    ) -> None:
        """Note a failed try that is worth another one after `pause`; with `keep_attempt` it is not counted."""
        with self._transactions.writing() as (connection, now):
            if queue.delay(connection, task.claim, due=now + pause, error=detail, keep_attempt=keep_attempt):
                _note(connection, task, now, state="waiting", dimse_status=status, detail=detail)
                _record(connection, now, "delivery-delayed", task, status=status, detail=detail)

    def bury(self, task: DeliveryTask, *, status: int | None, detail: str) -> None:
        """Give the delivery up: a dead letter that a person has to look at."""
        with self._transactions.writing() as (connection, now):
            if queue.bury(connection, task.claim, error=detail, at=now):
                _note(connection, task, now, state="dead", dimse_status=status, detail=detail)
                _record(connection, now, "delivery-dead", task, status=status, detail=detail)

    def now(self) -> datetime:
        """Return the ledger's clock."""
        with self._transactions.reading() as (_connection, now):
            return now

    def waited(self, task: DeliveryTask) -> timedelta:
        """Return for how long it is tried; looked up, since a jump of the clock moves its beginning."""
        since = select(delivery.c.created_at).where(delivery.c.id == task.delivery_id)
        with self._transactions.reading() as (connection, now):
            opened_at: datetime = connection.execute(since).scalar_one()
        return now - opened_at

    def destination(self, name: str) -> DestinationState:
        """Return the state of the destination's circuit breaker."""
        columns = select(destination.c.failures, destination.c.paused_until)
        with self._transactions.reading() as (connection, now):
            row = connection.execute(columns.where(destination.c.name == name)).first()
        if row is None:
            return DestinationState()
        paused = row.paused_until is not None
        probe_due = paused and not now < row.paused_until <= now + queue.LONGEST_WAIT
        return DestinationState(failures=row.failures, paused=paused, probe_due=probe_due)

    def destination_failed(self, name: str, *, pause: timedelta | None, detail: str) -> None:
        """Count a failure of the destination itself, and pause it when told for how long."""
        failures = select(destination.c.failures).where(destination.c.name == name)
        with self._transactions.writing() as (connection, now):
            count = 1 + (connection.scalar(failures) or 0)
            until = None if pause is None else now + pause
            _set_destination(connection, name, now, failures=count, paused_until=until, detail=detail)
            if pause is not None:
                record_event(connection, now, "destination-paused", detail={"destination": name, "reason": detail})

    def destination_recovered(self, name: str) -> None:
        """Let the destination be used again, and everything that waits for it at once."""
        with self._transactions.writing() as (connection, now):
            _set_destination(connection, name, now, failures=0, paused_until=None, detail="")
            queue.hasten(connection, deliver_queue(name), at=now)
            record_event(connection, now, "destination-recovered", detail={"destination": name})


def _open_commitment(connection: Connection, task: DeliveryTask, due: datetime, now: datetime) -> None:
    """Open the question; of an object that was sent again it is the old one, with the tries that it had."""
    queue.put_off(
        connection, queue=commit_queue(task.destination), dedup=str(task.delivery_id), ref_id=task.delivery_id,
        priority=task.claim.priority, max_attempts=None, due=due, at=now, keep_attempt=True,
    )  # fmt: skip


def _note(connection: Connection, task: DeliveryTask, now: datetime, **values: Any) -> None:
    connection.execute(
        update(delivery)
        .where(delivery.c.id == task.delivery_id)
        .values(attempts=delivery.c.attempts + 1, last_attempt_at=now, **values)
    )


def _record(
    connection: Connection, now: datetime, kind: str, task: DeliveryTask, *, status: int | None, detail: str = ""
) -> None:
    names = of_delivery(connection, task.delivery_id).names
    told = {**names, "status": status_text(status), "detail": detail}
    record_event(connection, now, kind, study_uid=task.study_uid, detail=told)


def _set_destination(connection: Connection, name: str, now: datetime, **values: Any) -> None:
    row = {"at": now, **values}
    if connection.execute(update(destination).where(destination.c.name == name).values(**row)).rowcount == 0:
        connection.execute(destination.insert().values(name=name, **row))
