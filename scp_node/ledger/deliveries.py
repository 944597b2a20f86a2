"""Hands reports out for sending, one queue for each destination, and notes the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, update

from scp_node.ledger import queue
from scp_node.ledger.database.schema import companion, delivery, destination, report, work
from scp_node.ledger.queue import Claim, WorkState
from scp_node.ledger.queue_kinds import UNINDEXED_NAME, commit_queue, deliver_queue, in_named_queue, in_queue
from scp_node.ledger.sweep import LONGEST_WAIT
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import of_delivery, status_text
from scp_node.ledger.transactions import Policy, Transactions

REPORT_KIND: Final = "report"  # in place of the word of a companion
_CHUNK: Final = 500  # rows in one transaction
_CLAIM_LOCK: Final = 0x5C9_0D0  # any constant: one sender at a time chooses from a queue


def _described() -> Select[Any]:
    """Return the query for deliveries, with the study and the identity of each object."""
    identity = func.coalesce(companion.c.sop_instance_uid, report.c.sop_instance_uid).label("sop_instance_uid")
    columns = (delivery.c.id, delivery.c.created_at, delivery.c.last_attempt_at, report.c.study_uid, identity)
    joined = select(*columns).join(report, report.c.id == delivery.c.report_id)
    return joined.outerjoin(companion, companion.c.id == delivery.c.companion_id)


# Statements that each delivery needs are built once, as in `queue`.
_TO_SEND: Final = (
    _described()
    .add_columns(
        func.coalesce(companion.c.file, report.c.file).label("file"),
        func.coalesce(companion.c.kind, REPORT_KIND).label("kind"),
    )
    .where(delivery.c.id == bindparam("delivery"))
)
_STATE: Final = select(destination.c.failures, destination.c.paused_until, destination.c.detail).where(
    destination.c.name == bindparam("destination")
)
_IN_FLIGHT: Final = (
    select(work.c.ref_id)
    .where(in_named_queue(queue_name=UNINDEXED_NAME), work.c.state == WorkState.LEASED)
    .order_by(work.c.lease_until)
)
_TRIED: Final = update(delivery).where(delivery.c.id == bindparam("tried_id")).values(attempts=delivery.c.attempts + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTask:
    """One report, or one of its companions, to send to one destination."""

    claim: Claim
    delivery_id: int
    destination: str
    study_uid: str
    kind: str  # "report", or the word of its companion
    sop_instance_uid: str  # of the object to send
    file: bytes
    opened_at: datetime  # start of the first try
    tried_at: datetime | None  # start of the last try


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationState:
    """The state of one destination's circuit breaker."""

    failures: int = 0  # in a row
    paused: bool = False
    probe_due: bool = False  # the pause is over: a C-ECHO may find out whether the destination is back
    detail: str = ""  # of the last failure


class Deliveries:
    """The queues of reports, one for each destination."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def claim(self, name: str, *, owner: str) -> DeliveryTask | None:
        """Take the next object for this destination: urgent ones first, then the oldest.

        Of a study one object is in flight at a time: no version overtakes the one before, nor a picture its report.
        """
        waiting = deliver_queue(name)
        if not self._transactions.ready(waiting):
            return None
        with self._transactions.writing() as (connection, now):
            free = _of_other_studies(connection, name)
            lease = self._policy.lease
            claims = queue.claim(connection, waiting, owner=owner, limit=1, lease=lease, at=now, among=free)
            if not claims:
                return None
            row = connection.execute(_TO_SEND, {"delivery": claims[0].ref_id}).one()
        return DeliveryTask(
            claim=claims[0],
            delivery_id=row.id,
            destination=name,
            study_uid=row.study_uid,
            kind=row.kind,
            sop_instance_uid=row.sop_instance_uid,
            file=row.file,
            opened_at=row.created_at,
            tried_at=row.last_attempt_at,
        )

    def delivered(
        self,
        task: DeliveryTask,
        *,
        status: int,
        sop_class_uid: str,
        remark: str = "",
        check_after: timedelta | None = None,
    ) -> bool:
        """Note that the destination took the object; return False if the claim was lost, since another sender notes it.

        `remark` is what the destination said beside success. After `check_after`, if given, it is asked whether it has
        the object; see `Commitments`.
        """
        with self._transactions.writing() as (connection, now):
            if not queue.complete(connection, task.claim, at=now):
                return False
            _note(
                connection,
                task,
                now,
                state="delivered",
                dimse_status=status,
                detail=remark,
                sop_class_uid=sop_class_uid,
                delivered_at=now,
            )
            _record(connection, now, "delivered", task, status=status, detail=remark)
            if check_after is not None:
                self._open_commitment(connection, task, now + check_after, now)
        return True

    def retry(
        self, task: DeliveryTask, *, status: int | None, detail: str, pause: timedelta, keep_attempt: bool = False
    ) -> None:
        """Note a failed try and try again after `pause`; with `keep_attempt` the failed try does not count."""
        with self._transactions.writing() as (connection, now):
            if queue.release_until(connection, task.claim, due=now + pause, error=detail, keep_attempt=keep_attempt):
                _note(connection, task, now, state="waiting", dimse_status=status, detail=detail)
                _record(connection, now, "delivery-delayed", task, status=status, detail=detail)

    def put_back(self, task: DeliveryTask) -> None:
        """Have the object sent by another association, as if it had not been tried."""
        with self._transactions.writing() as (connection, now):
            queue.release_until(connection, task.claim, due=now, keep_attempt=True)

    def bury(self, task: DeliveryTask, *, status: int | None, detail: str) -> None:
        """Give the delivery up: it becomes a dead letter for a person to look at."""
        with self._transactions.writing() as (connection, now):
            if queue.bury(connection, task.claim, error=detail, at=now):
                _note(connection, task, now, state="dead", dimse_status=status, detail=detail)
                _record(connection, now, "delivery-dead", task, status=status, detail=detail)

    def give_up(self, name: str, *, older_than: timedelta, detail: str) -> list[str]:
        """Bury up to `_CHUNK` waiting deliveries that are older than `older_than`; return their SOP Instance UIDs."""
        waiting = in_queue(deliver_queue(name)) & work.c.state.in_([WorkState.READY, WorkState.DELAYED])
        with self._transactions.writing() as (connection, now):
            old = _described().join(work, work.c.ref_id == delivery.c.id).add_columns(work.c.id.label("work_id"))
            old = old.where(waiting, delivery.c.created_at < now - older_than).order_by(work.c.id).limit(_CHUNK)
            rows = connection.execute(old.with_for_update(of=work, skip_locked=True)).all()
            queue.bury_waiting(connection, [row.work_id for row in rows], error=detail, at=now)
            dead = update(delivery).where(delivery.c.id.in_([row.id for row in rows]))
            connection.execute(dead.values(state="dead", detail=detail))
            for row in rows:
                _tell(connection, now, "delivery-dead", row.id, status=None, detail=detail)
        return [row.sop_instance_uid for row in rows]

    def took_since(self, name: str, instant: datetime) -> bool:
        """Return whether the destination took anything after `instant`; a delivery in the future does not count."""
        taken = select(delivery.c.id).where(delivery.c.destination == name, delivery.c.delivered_at > instant)
        with self._transactions.reading() as (connection, now):
            return connection.execute(taken.where(delivery.c.delivered_at <= now).limit(1)).first() is not None

    def now(self) -> datetime:
        """Return the time of the ledger's clock."""
        with self._transactions.reading() as (_connection, now):
            return now

    def waited(self, task: DeliveryTask) -> timedelta:
        """Return how long this delivery has waited, by its row: a jump of the clock moves the start."""
        since = select(delivery.c.created_at).where(delivery.c.id == task.delivery_id)
        with self._transactions.reading() as (connection, now):
            opened_at: datetime = connection.execute(since).scalar_one()
        return now - opened_at

    def destination(self, name: str) -> DestinationState:
        """Return the state of the destination's circuit breaker."""
        with self._transactions.reading() as (connection, now):
            row = connection.execute(_STATE, {"destination": name}).first()
        if row is None:
            return DestinationState()
        paused = row.paused_until is not None
        probe_due = paused and not now < row.paused_until <= now + LONGEST_WAIT
        return DestinationState(failures=row.failures, paused=paused, probe_due=probe_due, detail=row.detail)

    def destination_failed(self, name: str, *, detail: str, enough: int, pause: Callable[[int], timedelta]) -> bool:
        """Count a failure of the destination and pause it from failure `enough` on; return True at that failure.

        `pause` takes the number of this pause in the outage, 1 at first, and returns its length.
        """
        with self._transactions.writing() as (connection, now):
            count = 1 + _failures(connection, name)
            until = now + pause(count - enough + 1) if count >= enough else None
            _set_destination(connection, name, now, failures=count, paused_until=until, detail=detail)
            if count == enough:
                record_event(connection, now, "destination-paused", detail={"destination": name, "reason": detail})
        return count == enough

    def destination_on_trial(self, name: str, *, hasten: bool = False) -> None:
        """Let a paused destination be used again; its next failure pauses it at once.

        With `hasten` everything that waits is due at once, so that the oldest is tried first. Leave it out if the
        oldest may have caused the failure: nothing else would be tried then.
        """
        with self._transactions.writing() as (connection, now):
            connection.execute(update(destination).where(destination.c.name == name).values(paused_until=None))
            if hasten:
                queue.hasten(connection, deliver_queue(name), at=now)

    def destination_answered(self, name: str, *, enough: int) -> bool:
        """Forget the failures of the destination; return whether there were `enough` of them to pause it.

        If so, everything that waits for the destination is due at once.
        """
        with self._transactions.writing() as (connection, now):
            is_back = _failures(connection, name) >= enough
            _set_destination(connection, name, now, failures=0, paused_until=None, detail="")
            if is_back:
                queue.hasten(connection, deliver_queue(name), at=now)
                record_event(connection, now, "destination-recovered", detail={"destination": name})
        return is_back

    def _open_commitment(self, connection: Connection, task: DeliveryTask, due: datetime, now: datetime) -> None:
        """Open the question; of an object that was sent again it is the old one, with the tries that it had."""
        asked = commit_queue(task.destination)
        queue.schedule(
            connection,
            queue=asked,
            dedup=str(task.delivery_id),
            ref_id=task.delivery_id,
            priority=task.claim.priority,
            max_attempts=self._policy.most_tries(asked),
            due=due,
            at=now,
            keep_attempt=True,
        )


def _of_other_studies(connection: Connection, name: str) -> ColumnElement[bool] | None:
    """Return the SQL condition of work for a destination whose study has nothing in flight to it, None for all work."""
    waiting = deliver_queue(name)
    if connection.dialect.name == "postgresql":  # SQLite has one writer; here two claims would not see each other
        connection.execute(select(func.pg_advisory_xact_lock(_CLAIM_LOCK, func.hashtext(waiting.name))))
    in_flight = connection.scalars(_IN_FLIGHT, {"queue_name": waiting.name}).all()
    if not in_flight:
        return None
    with_report = select(delivery.c.id).join(report, report.c.id == delivery.c.report_id)
    studies = select(report.c.study_uid).join(delivery, delivery.c.report_id == report.c.id)
    in_flight_too = report.c.study_uid.in_(studies.where(delivery.c.id.in_(in_flight)))
    return work.c.ref_id.not_in(with_report.where(delivery.c.destination == name, in_flight_too))


def _note(connection: Connection, task: DeliveryTask, now: datetime, **values: Any) -> None:
    connection.execute(_TRIED, {"tried_id": task.delivery_id, "last_attempt_at": now, **values})


def _record(
    connection: Connection, now: datetime, kind: str, task: DeliveryTask, *, status: int | None, detail: str = ""
) -> None:
    _tell(connection, now, kind, task.delivery_id, status=status, detail=detail)


def _tell(
    connection: Connection, now: datetime, kind: str, delivery_id: int, *, status: int | None, detail: str
) -> None:
    subject = of_delivery(connection, delivery_id)
    facts = {**subject.names, "status": status_text(status), "detail": detail}
    record_event(connection, now, kind, study_uid=subject.study_uid, detail=facts)


def _failures(connection: Connection, name: str) -> int:
    """Return the failures in a row and lock their row, so that two senders do not count the same failure."""
    failures = select(destination.c.failures).where(destination.c.name == name)
    return connection.scalar(failures.with_for_update()) or 0


def _set_destination(connection: Connection, name: str, now: datetime, **values: Any) -> None:
    row = {"at": now, **values}
    if connection.execute(update(destination).where(destination.c.name == name).values(**row)).rowcount == 0:
        connection.execute(destination.insert().values(name=name, **row))
