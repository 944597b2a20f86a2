"""Checks after the response to C-STORE whether the destination really has the object.

delivered -> committed: the destination commits itself to keep it
delivered -> found: C-FIND shows it there
delivered -> waiting: the destination lacks it; it is sent again, or dead after a few times
delivered -> delivered: no answer, however often the destination was asked; the question becomes a dead letter
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, case, func, select, update

from scp_node.domain import CLASS_NOT_SUPPORTED, DUPLICATE_TRANSACTION_UID, LARGEST_REQUEST, CommitmentReport, Reference
from scp_node.ledger import queue
from scp_node.ledger.database.schema import companion, delivery, report, work
from scp_node.ledger.queue import Claim
from scp_node.ledger.queue_kinds import commit_queue, deliver_queue, in_queue
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import of_delivery
from scp_node.ledger.transactions import Policy, Transactions

_NOT_COMMITTED: Final = "not committed: "  # how the detail of a delivery begins that the destination denied


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentTask:
    """One delivered object to ask its destination about."""

    claim: Claim
    delivery_id: int
    destination: str
    study_uid: str
    series_instance_uid: str
    reference: Reference  # the class and UID that were sent
    sha256: str
    transaction_uid: str | None  # of the previous request, which was not answered
    delivered_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentOutcome:
    """The new state of a delivery after an answer."""

    destination: str
    sop_instance_uid: str
    state: str  # of the delivery: committed, found, delivered (without a promise), waiting (sent again), dead
    reason: str = ""


class Commitments:
    """The queues of questions whether destinations have the objects that were sent to them."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def claim(self, name: str, *, owner: str) -> list[CommitmentTask]:
        """Take the questions that are due for this destination, up to the size of one request."""
        waiting = commit_queue(name)
        if not self._transactions.ready(waiting):
            return []
        with self._transactions.writing() as (connection, now):
            claims = queue.claim(
                connection, waiting, owner=owner, limit=LARGEST_REQUEST, lease=self._policy.lease, at=now
            )
            chosen = _described().where(delivery.c.id.in_([claim.ref_id for claim in claims]))
            rows = {row.id: row for row in connection.execute(chosen)}
            tasks = []
            for claim in claims:
                row = rows[claim.ref_id]
                if row.state == "delivered":
                    tasks.append(_task(claim, row))
                else:  # answered, or waits to be sent again
                    queue.complete(connection, claim, at=now)
        return tasks

    def request(self, tasks: Sequence[CommitmentTask], transaction_uid: str) -> list[CommitmentTask]:
        """Note the Transaction UID before the request is sent; return the tasks whose claim still holds."""
        with self._transactions.writing() as (connection, now):
            ours = [task for task in tasks if queue.renew(connection, [task.claim], lease=self._policy.lease, at=now)]
            for task in ours:
                if task.transaction_uid:
                    _record(connection, now, "commitment-unanswered", task, transaction_uid=task.transaction_uid)
                _update(connection, task.delivery_id, transaction_uid=transaction_uid)
                _record(connection, now, "commitment-requested", task, transaction_uid=transaction_uid)
        return ours

    def await_answer(self, tasks: Sequence[CommitmentTask], *, wait: timedelta) -> None:
        """Ask again after `wait` unless the answer comes first."""
        with self._transactions.writing() as (connection, now):
            for task in tasks:
                queue.release_until(connection, task.claim, due=now + wait)

    def refused(self, tasks: Sequence[CommitmentTask], *, wait: timedelta, detail: str) -> None:
        """Ask again after `wait`: the destination refused the request."""
        with self._transactions.writing() as (connection, now):
            for task in tasks:
                if queue.release_until(connection, task.claim, due=now + wait, error=detail):
                    _record(connection, now, "commitment-refused", task, reason=detail)

    def put_back(self, tasks: Sequence[CommitmentTask], *, pause: timedelta, detail: str) -> None:
        """Ask again after `pause` without counting the try: the destination could not be reached."""
        with self._transactions.writing() as (connection, now):
            for task in tasks:
                if queue.release_until(connection, task.claim, due=now + pause, error=detail, keep_attempt=True):
                    _record(connection, now, "commitment-delayed", task, reason=detail)

    def close(self, tasks: Sequence[CommitmentTask], *, detail: str) -> None:
        """Leave the objects delivered for good: the destination offers no way to learn more."""
        with self._transactions.writing() as (connection, now):
            for task in tasks:
                if queue.complete(connection, task.claim, error=detail, at=now):
                    _record(connection, now, "commitment-not-offered", task, reason=detail)

    def give_up(self, tasks: Sequence[CommitmentTask], *, detail: str) -> None:
        """Leave the objects delivered, and make the unanswered question a dead letter for a person to look at."""
        with self._transactions.writing() as (connection, now):
            for task in tasks:
                if queue.bury(connection, task.claim, error=detail, at=now):
                    known = {"transaction_uid": task.transaction_uid} if task.transaction_uid else {}
                    _record(connection, now, "commitment-unanswered", task, reason=detail, **known)

    def looked_for(self, task: CommitmentTask, *, found: bool) -> CommitmentOutcome | None:
        """Note the result of C-FIND and return its effect; None if the claim was lost."""
        with self._transactions.writing() as (connection, now):
            if not queue.renew(connection, [task.claim], lease=self._policy.lease, at=now):
                return None
            row = connection.execute(_described().where(delivery.c.id == task.delivery_id)).one()
            if found:
                return _confirm(connection, row, now, state="found")
            return self._send_again(connection, row, now, reason="not found by C-FIND")

    def answered(self, answer: CommitmentReport, destinations: Collection[str]) -> list[CommitmentOutcome] | None:
        """Note the answer of one of `destinations` about its transaction; None if no delivery has this Transaction UID.

        An answer that comes twice, or late, changes nothing the second time.
        """
        with self._transactions.writing() as (connection, now):
            asked = _described().where(
                delivery.c.transaction_uid == answer.transaction_uid, delivery.c.destination.in_(destinations)
            )
            rows = connection.execute(asked.order_by(delivery.c.id)).all()
            outcomes = [self._conclude(connection, row, answer, now) for row in rows if row.state == "delivered"]
        return [outcome for outcome in outcomes if outcome] if rows else None

    def _conclude(
        self, connection: Connection, row: Row[Any], answer: CommitmentReport, now: datetime
    ) -> CommitmentOutcome | None:
        reference = Reference(sop_class_uid=row.sop_class_uid, sop_instance_uid=row.sop_instance_uid)
        if reference in answer.committed:
            return _confirm(connection, row, now, state="committed")
        if (reason := answer.failed.get(reference)) is None:
            return None  # not mentioned: the destination is asked again when the wait is over
        message = f"failure reason 0x{reason:04X}"
        if reason in {CLASS_NOT_SUPPORTED, DUPLICATE_TRANSACTION_UID}:
            return _stay_delivered(connection, row, now, reason=message, ask_again=reason == DUPLICATE_TRANSACTION_UID)
        return self._send_again(connection, row, now, reason=message)

    def _send_again(
        self, connection: Connection, row: Row[Any], now: datetime, *, reason: str
    ) -> CommitmentOutcome | None:
        """Send the object again, since its destination lacks it, or give it up after a few times."""
        asked, sent = commit_queue(row.destination), deliver_queue(row.destination)
        tries = queue.attempts(connection, queue=asked, dedup=str(row.id))
        queue.close_unclaimed(connection, queue=asked, dedup=str(row.id), error=reason, at=now)
        if not reopen_delivery(connection, row.id, detail=f"{_NOT_COMMITTED}{reason}", now=now, was="delivered"):
            return None
        _record(connection, now, "not-committed", row, reason=reason, tries=tries)
        if tries < self._policy.commit_attempts:
            this = in_queue(sent) & (work.c.ref_id == row.id)
            queue.wake(connection, this, at=now)
            return _outcome(row, "waiting", reason)
        queue.mark_done_as_dead(connection, queue=sent, dedup=str(row.id), error=f"{_NOT_COMMITTED}{reason}", at=now)
        _update(connection, row.id, state="dead")
        _record(connection, now, "delivery-dead", row, status=None, detail=f"{_NOT_COMMITTED}{reason}")
        return _outcome(row, "dead", reason)


def reopen_delivery(
    connection: Connection, delivery_id: int | None, *, detail: str, now: datetime, was: str | None = None
) -> bool:
    """Let a delivery wait to be sent again, with its full time; return False if it has left the state `was`."""
    chosen = update(delivery).where(delivery.c.id == delivery_id)
    if was is not None:
        chosen = chosen.where(delivery.c.state == was)
    values = {"state": "waiting", "detail": detail, "created_at": now}
    forgotten = {"delivered_at": None, "committed_at": None, "transaction_uid": None}
    return connection.execute(chosen.values(**values, **forgotten)).rowcount == 1


def _confirm(connection: Connection, row: Row[Any], now: datetime, *, state: str) -> CommitmentOutcome | None:
    queue.close_unclaimed(connection, queue=commit_queue(row.destination), dedup=str(row.id), at=now)
    confirmed = update(delivery).where(delivery.c.id == row.id, delivery.c.state == "delivered")
    remark = case((delivery.c.detail.startswith(_NOT_COMMITTED), ""), else_=delivery.c.detail)  # stays, a doubt goes
    if connection.execute(confirmed.values(state=state, committed_at=now, detail=remark)).rowcount == 0:
        return None
    known = {"transaction_uid": row.transaction_uid} if state == "committed" else {}
    _record(connection, now, state, row, **known)
    return _outcome(row, state)


def _stay_delivered(
    connection: Connection, row: Row[Any], now: datetime, *, reason: str, ask_again: bool
) -> CommitmentOutcome:
    """Leave the object delivered: to send it again would not change the answer."""
    if not ask_again:
        queue.close_unclaimed(connection, queue=commit_queue(row.destination), dedup=str(row.id), error=reason, at=now)
    _update(connection, row.id, transaction_uid=None, detail=f"{_NOT_COMMITTED}{reason}")
    _record(connection, now, "not-committed", row, reason=reason, transaction_uid=row.transaction_uid)
    return _outcome(row, "delivered", reason)


def _described() -> Select[Any]:
    """Return the query for deliveries, with the identity of each sent object."""
    columns = (
        delivery.c.id,
        delivery.c.destination,
        delivery.c.state,
        delivery.c.sop_class_uid,
        delivery.c.transaction_uid,
        delivery.c.delivered_at,
        report.c.study_uid,
        func.coalesce(companion.c.series_instance_uid, report.c.series_instance_uid).label("series_instance_uid"),
        func.coalesce(companion.c.sop_instance_uid, report.c.sop_instance_uid).label("sop_instance_uid"),
        func.coalesce(companion.c.sha256, report.c.sha256).label("sha256"),
    )
    joined = select(*columns).join(report, report.c.id == delivery.c.report_id)
    return joined.outerjoin(companion, companion.c.id == delivery.c.companion_id)


def _task(claim: Claim, row: Row[Any]) -> CommitmentTask:
    return CommitmentTask(
        claim=claim,
        delivery_id=row.id,
        destination=row.destination,
        study_uid=row.study_uid,
        series_instance_uid=row.series_instance_uid,
        sha256=row.sha256,
        transaction_uid=row.transaction_uid,
        reference=Reference(sop_class_uid=row.sop_class_uid, sop_instance_uid=row.sop_instance_uid),
        delivered_at=row.delivered_at,
    )


def _outcome(row: Row[Any], state: str, reason: str = "") -> CommitmentOutcome:
    return CommitmentOutcome(
        destination=row.destination, sop_instance_uid=row.sop_instance_uid, state=state, reason=reason
    )


def _update(connection: Connection, delivery_id: int, **values: Any) -> None:
    connection.execute(update(delivery).where(delivery.c.id == delivery_id).values(**values))


def _record(connection: Connection, now: datetime, kind: str, what: CommitmentTask | Row[Any], **detail: Any) -> None:
    delivery_id = what.delivery_id if isinstance(what, CommitmentTask) else what.id
    subject = of_delivery(connection, delivery_id)
    record_event(connection, now, kind, study_uid=subject.study_uid, detail={**subject.names, **detail})
