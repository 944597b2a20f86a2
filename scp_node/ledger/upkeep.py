"""Keeps the queues moving, and carries out an operator's commands on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, exists, false, func, or_, select, update

from scp_node.domain import Completion, ModelIdentity, NotAnalysed, Reason
from scp_node.ledger import queue
from scp_node.ledger.analyses import ANALYSED, insert_result, open_report
from scp_node.ledger.audit_rows import DeliveryState
from scp_node.ledger.commitments import reopen_delivery
from scp_node.ledger.database.schema import companion, delivery, instance, report, result, study_patient, work
from scp_node.ledger.dispatch import is_undeliverable
from scp_node.ledger.queue import Claim, WorkState
from scp_node.ledger.queue_kinds import ANALYSE, REPORT, Queue, QueueKind, Subject, commit_queue, in_queue, is_about
from scp_node.ledger.retention import hold_originals
from scp_node.ledger.sweep import Expired, is_leased, sweep, sweep_needed
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import of_report_file, of_work
from scp_node.ledger.transactions import Policy, Transactions
from scp_node.ledger.watch import Standing, Watch

LEASES_OF_PAUSE: Final = 2  # leases for which an image waits that stopped a worker when it was alone


class Upkeep:
    """Sweeps all queues and carries out commands on them."""

    def __init__(self, transactions: Transactions, policy: Policy, watch: Watch | None = None) -> None:
        """Work on `transactions` by `policy`; `watch` says when a lease may count as lost, by default always."""
        self._transactions = transactions
        self._policy = policy
        self._watch = watch

    def renew(self, claims: Sequence[Claim]) -> int:
        """Extend the leases of the claims that still hold; return their number."""
        with self._transactions.writing() as (connection, now):
            return queue.renew(connection, claims, lease=self._policy.lease, at=now)

    def sweep(self, model: ModelIdentity | None = None) -> None:
        """Bring back work that is due or has lost its worker; an image that has spent its tries ends as abandoned.

        Such an image needs a result, and a result names the model, so without `model` it is left to a role that has
        one. While nobody can write, nobody can renew a lease: no lease counts as lost until everybody has had the time
        to renew.
        """
        with self._transactions.reading() as (connection, now):
            standing = self._look(connection, now)
            needed = sweep_needed(connection, at=now, lost=standing.is_proven)
            proof_needed = standing.is_due and is_leased(connection)
        if self._watch and proof_needed:
            self._watch.prove(self._transactions)
        if not needed:
            return
        with self._transactions.writing() as (connection, now):
            pause = LEASES_OF_PAUSE * self._policy.lease
            may_expire = self._look(connection, now).is_proven
            for lost in sweep(connection, at=now, pause=pause, has_model=model is not None, lost=may_expire):
                if lost.dead and lost.queue.kind is QueueKind.REPORT:
                    subject = of_work(connection, lost.queue, lost.ref_id)
                    detail = {**subject.names, "error": "not built after several tries"}
                    record_event(connection, now, "report-failed", study_uid=subject.study_uid, detail=detail)
                elif lost.dead and lost.queue.kind is QueueKind.ANALYSE and model is not None:
                    self._abandon(connection, lost, model, now)

    def _look(self, connection: Connection, now: datetime) -> Standing:
        return self._watch.look(connection, now) if self._watch else Standing(is_due=False, is_proven=True)

    def _abandon(self, connection: Connection, lost: Expired, model: ModelIdentity, now: datetime) -> None:
        """Give dead analysis work the result that the worker stopped."""
        image: Any = connection.execute(select(*ANALYSED).where(instance.c.id == lost.ref_id)).one()
        outcome = NotAnalysed(reason=Reason.ABANDONED, detail=f"the worker stopped {lost.attempt} times")
        insert_result(connection, image, outcome, model, now)
        open_report(connection, self._policy, image.study_patient_id, now)

    def requeue(self, selector: str | None = None) -> int:
        """Put dead work back: all of it, or the work that `selector` names; return the number of rows.

        `selector` is a work id, the SOP Instance UID of an image, a report or a companion, or a Study Instance UID. An
        image that it names and that ended as failed is analysed again although its work is done, unless its original
        was removed: `without_original` counts those.
        """
        with self._transactions.writing() as (connection, now):
            dead = work.c.state == WorkState.DEAD
            failed = _failed_analysis() & work.c.ref_id.in_(_hold_failed(connection, selector)) if selector else false()
            chosen = dead if selector is None else _named(selector) & (dead | failed)
            rows = connection.execute(_CLOSED.where(chosen)).all()
            for row in rows:
                queue.wake(connection, work.c.id == row.id, at=now)
                closed = Queue.named(row.queue)
                if closed.kind is QueueKind.DELIVER:
                    reopen_delivery(connection, row.ref_id, detail="requeued", now=now)
                    asked = commit_queue(closed.destination)
                    queue.forget_attempts(connection, queue=asked, dedup=str(row.ref_id))
                _record(connection, now, "requeued", row)
            return len(rows) + self._route_again(connection, selector, now)

    def _route_again(self, connection: Connection, selector: str | None, now: datetime) -> int:
        """Have the undeliverable reports looked at again: they go to the destinations that the settings name now."""
        rows = connection.execute(_undeliverable(selector)).all()
        for row in rows:
            open_report(connection, self._policy, row.study_patient_id, now)
            _record_report(connection, now, "requeued", row)
        return len(rows)

    def without_original(self, selector: str) -> int:
        """Return the number of named images that ended as failed and have lost their original; see `requeue`."""
        failed = select(work.c.ref_id).where(_named(selector), _failed_analysis())
        gone = select(func.count()).where(instance.c.id.in_(failed), instance.c.purging_at.is_not(None))
        with self._transactions.reading() as (connection, _now):
            return connection.execute(gone).scalar_one()

    def discard(self, selector: str) -> int:
        """Close dead work that `selector` names (see `requeue`) without a result; return the number of rows."""
        with self._transactions.writing() as (connection, now):
            chosen = _named(selector) & (work.c.state == WorkState.DEAD)
            rows = connection.execute(_CLOSED.where(chosen)).all()
            for row in rows:
                queue.cancel(connection, work.c.id == row.id, at=now)
                if Queue.named(row.queue).kind is QueueKind.DELIVER:
                    connection.execute(update(delivery).where(delivery.c.id == row.ref_id).values(state="discarded"))
                _record(connection, now, "discarded", row)
            undelivered = connection.execute(_undeliverable(selector)).all()
            for row in undelivered:
                closed = (delivery.c.report_id == row.report_id) & is_undeliverable()
                connection.execute(update(delivery).where(closed).values(state=DeliveryState.DISCARDED))
                _record_report(connection, now, "discarded", row)
        return len(rows) + len(undelivered)

    def undeliverable(self) -> int:
        """Return the number of reports that no destination is to get; a newer version counts in their place."""
        with self._transactions.reading() as (connection, _now):
            return connection.execute(select(func.count()).select_from(_undeliverable(None).subquery())).scalar_one()

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of rows that each queue has in each state."""
        statement = select(work.c.queue, work.c.state, func.count()).group_by(work.c.queue, work.c.state)
        table: dict[str, dict[str, int]] = {}
        with self._transactions.reading() as (connection, _now):
            for name, state, number in connection.execute(statement):
                table.setdefault(name, {})[state] = number
        return table


_CLOSED: Final = select(work.c.id, work.c.queue, work.c.ref_id)


def _undeliverable(selector: str | None) -> Select[Any]:
    """Return the newest reports of their patients that no destination is to get: all, or those that are named."""
    newer = report.alias()
    replaced = exists().where(newer.c.study_patient_id == report.c.study_patient_id, newer.c.id > report.c.id)
    columns = select(report.c.id.label("report_id"), report.c.study_uid, report.c.study_patient_id)
    of_nobody = columns.join(delivery, delivery.c.report_id == report.c.id).where(is_undeliverable())
    chosen = of_nobody.where(~replaced).order_by(report.c.id)
    if selector is None:
        return chosen
    return chosen.where(or_(report.c.study_uid == selector, report.c.sop_instance_uid == selector))


def _record_report(connection: Connection, now: datetime, kind: str, row: Any) -> None:
    """Note in the study's trail what a person did to a report that no destination is to get."""
    detail = {**of_report_file(connection, row.report_id), "queue": REPORT.name}
    record_event(connection, now, kind, study_uid=row.study_uid, detail=detail)


def _record(connection: Connection, now: datetime, kind: str, row: Any) -> None:
    """Note in the study's trail what a person did to a piece of work."""
    subject = of_work(connection, Queue.named(row.queue), row.ref_id)
    record_event(
        connection,
        now,
        kind,
        study_uid=subject.study_uid,
        sop_instance_uid=subject.sop_instance_uid,
        detail={**subject.names, "work": row.id, "queue": row.queue},
    )


def _named(selector: str) -> ColumnElement[bool]:
    images = select(instance.c.id).where(or_(instance.c.sop_instance_uid == selector, instance.c.study_uid == selector))
    patients = select(study_patient.c.id).where(study_patient.c.study_uid == selector)
    deliveries = (
        select(delivery.c.id)
        .join(report, report.c.id == delivery.c.report_id)
        .outerjoin(companion, companion.c.id == delivery.c.companion_id)
        .where(
            or_(
                report.c.sop_instance_uid == selector,
                companion.c.sop_instance_uid == selector,
                report.c.study_uid == selector,
            )
        )
    )
    return or_(
        work.c.id == int(selector) if selector.isdecimal() and len(selector) < 18 else false(),
        is_about(Subject.IMAGE) & work.c.ref_id.in_(images),
        in_queue(REPORT) & work.c.ref_id.in_(patients),
        is_about(Subject.DELIVERY) & work.c.ref_id.in_(deliveries),
    )


def _hold_failed(connection: Connection, selector: str) -> Sequence[int]:
    failed = select(work.c.ref_id).where(_named(selector), _failed_analysis())
    return hold_originals(connection, instance.c.id.in_(failed))


def _failed_analysis() -> ColumnElement[bool]:
    newest = select(func.max(result.c.id)).group_by(result.c.instance_id)
    failed = select(result.c.instance_id).where(result.c.id.in_(newest), result.c.outcome == Completion.FAILED)
    return in_queue(ANALYSE) & (work.c.state == WorkState.DONE) & work.c.ref_id.in_(failed)
