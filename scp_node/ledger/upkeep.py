"""Keeps the queues moving, and carries out an operator's commands on them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Select, false, func, or_, select, update

from scp_node.domain import Actor, Completion, ModelIdentity, NotAnalysed, Reason
from scp_node.ledger import queue
from scp_node.ledger.analyses import ANALYSED, insert_result, open_report
from scp_node.ledger.audit_rows import DeliveryState
from scp_node.ledger.commitments import reopen_delivery
from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.database.schema import companion, delivery, instance, report, result, study_patient, work
from scp_node.ledger.dispatch import is_undeliverable
from scp_node.ledger.queue import Claim, WorkState
from scp_node.ledger.queue_kinds import ANALYSE, REPORT, Queue, QueueKind, Subject, commit_queue, in_queue, is_about
from scp_node.ledger.retention import hold_originals
from scp_node.ledger.selection import Matching, Trouble, WorkSelection, failed_images, given_up, undeliverable_reports
from scp_node.ledger.sweep import Expired, Outlook, outlook, sweep
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import of_report_file, of_work
from scp_node.ledger.transactions import Policy, Transactions
from scp_node.ledger.watch import Standing, Watch

BATCH: Final = 200  # rows that a selection changes in one transaction
LONGEST_REST_SECONDS: Final = 2.0  # another process may have made work, though only out of work that is under way
LEASES_OF_PAUSE: Final = 2  # leases for which an image waits that stopped a worker when it was alone

_Act = Callable[[Connection, Sequence[Any], Actor | None, datetime], None]


class Upkeep:
    """Sweeps all queues and carries out commands on them."""

    def __init__(
        self, transactions: Transactions, policy: Policy, watch: Watch | None = None, *, rest_seconds: float = 0.0
    ) -> None:
        """Work on `transactions` by `policy`; `watch` says when a lease may count as lost, by default always.

        With `rest_seconds` a sweep so soon after the last one does nothing: the loops of a process sweep at each step.
        Where the last one found nothing under way, that lasts until the first work is due, at most
        `LONGEST_REST_SECONDS`, or until this process writes.
        """
        self._rest_seconds = rest_seconds
        self._looked_at = -math.inf  # time.monotonic()
        self._idle_seconds = 0.0  # after the last look, during which nothing comes by itself
        self._writes = 0  # of this process before the last look
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
        if self.rest() > 0:
            return
        self._looked_at, self._idle_seconds, self._writes = time.monotonic(), 0.0, self._transactions.writes
        with self._transactions.reading() as (connection, now):
            standing = self._look(connection, now)
            found = outlook(connection, at=now, lost=standing.is_proven)
        if self._rest_seconds:
            self._idle_seconds = _idle_seconds(found, now)
        if self._watch and standing.is_due and found.leased:
            self._watch.prove(self._transactions)
        if not found.needed:
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

    def rest(self) -> float:
        """Return the seconds for which `sweep` still does nothing."""
        is_idle = self._writes == self._transactions.writes
        seconds = max(self._rest_seconds, self._idle_seconds) if is_idle else self._rest_seconds
        return max(0.0, self._looked_at + seconds - time.monotonic())

    def _look(self, connection: Connection, now: datetime) -> Standing:
        return self._watch.look(connection, now) if self._watch else Standing(is_due=False, is_proven=True)

    def _abandon(self, connection: Connection, lost: Expired, model: ModelIdentity, now: datetime) -> None:
        """Give dead analysis work the result that the worker stopped."""
        image: Any = connection.execute(select(*ANALYSED).where(instance.c.id == lost.ref_id)).one()
        outcome = NotAnalysed(reason=Reason.ABANDONED, detail=f"the worker stopped {lost.attempt} times")
        insert_result(connection, image, outcome, model, now)
        open_report(connection, self._policy, image.study_patient_id, now)

    def requeue(self, chosen: str | WorkSelection | None = None, *, actor: Actor | None = None) -> int:
        """Put back work that was given up: all of it, or what `chosen` names; return the number of rows.

        `chosen` is a selection, a work id, the SOP Instance UID of an image, a report or a companion, or a Study
        Instance UID. An image that it names and that ended as failed is analysed again although its work is done,
        unless its original was removed: `without_original` counts those. A selection is worked off in transactions of
        `BATCH` rows, so that others may write in between.
        """
        if isinstance(chosen, WorkSelection):
            return self._requeue_selected(chosen, actor)
        with self._transactions.writing() as (connection, now):
            dead = work.c.state == WorkState.DEAD
            failed = _failed_analysis() & work.c.ref_id.in_(_hold_failed(connection, chosen)) if chosen else false()
            named = dead if chosen is None else _named(chosen) & (dead | failed)
            rows = connection.execute(_CLOSED.where(named)).all()
            _wake(connection, rows, actor, now)
            again = connection.execute(_undeliverable(chosen)).all()
            self._route_again(connection, again, actor, now)
        return len(rows) + len(again)

    def _requeue_selected(self, selection: WorkSelection, actor: Actor | None) -> int:
        match selection.trouble:
            case Trouble.GIVEN_UP:
                return self._in_batches(_CLOSED.where(given_up(selection)), work.c.id, _wake, actor)
            case Trouble.FAILED:
                kept = failed_images(selection).where(instance.c.purging_at.is_(None))
                return self._in_batches(kept, instance.c.id, _analyse_again, actor)
            case Trouble.UNDELIVERABLE:
                return self._in_batches(undeliverable_reports(selection), report.c.id, self._route_again, actor)

    def _in_batches(self, query: Select[Any], key: Column[Any], act: _Act, actor: Actor | None) -> int:
        """Do `act` to each row of `query` once, in the order of `key`, their first column; return their number."""
        number, after = 0, 0
        while True:
            with self._transactions.writing() as (connection, now):
                batch = query.where(key > after).order_by(None).order_by(key).limit(BATCH)
                rows = connection.execute(batch.with_for_update(of=key.table)).all()
                act(connection, rows, actor, now)
            number += len(rows)
            if len(rows) < BATCH:
                return number
            after = rows[-1][0]

    def _route_again(self, connection: Connection, rows: Sequence[Any], actor: Actor | None, now: datetime) -> None:
        """Have undeliverable reports looked at again: they go to the destinations that the settings name now."""
        for row in rows:
            open_report(connection, self._policy, row.study_patient_id, now)
            _record_report(connection, now, "requeued", row, actor)

    def without_original(self, selector: str) -> int:
        """Return the number of named images that ended as failed and have lost their original; see `requeue`."""
        failed = select(work.c.ref_id).where(_named(selector), _failed_analysis())
        gone = select(func.count()).where(instance.c.id.in_(failed), instance.c.purging_at.is_not(None))
        with self._transactions.reading() as (connection, _now):
            return connection.execute(gone).scalar_one()

    def matching(self, selection: WorkSelection) -> Matching:
        """Return how much `requeue` or `discard` would find by this selection."""
        with self._transactions.reading() as (connection, _now):
            match selection.trouble:
                case Trouble.GIVEN_UP:
                    found = select(func.count()).select_from(work).where(given_up(selection))
                    return Matching(number=connection.execute(found).scalar_one())
                case Trouble.FAILED:
                    images = failed_images(selection).add_columns(instance.c.purging_at).subquery()
                    counted = select(func.count(), func.count(images.c.purging_at)).select_from(images)
                    number, gone = connection.execute(counted).one()
                    return Matching(number=number - gone, without_original=gone)
                case Trouble.UNDELIVERABLE:
                    found = select(func.count()).select_from(undeliverable_reports(selection).subquery())
                    return Matching(number=connection.execute(found).scalar_one())

    def discard(self, chosen: str | WorkSelection, *, actor: Actor | None = None) -> int:
        """Close work that was given up, and that `chosen` names (see `requeue`), without a result; return the number.

        Raises:
            LedgerError: `chosen` selects failed analyses, which are closed already.
        """
        if isinstance(chosen, WorkSelection):
            return self._discard_selected(chosen, actor)
        with self._transactions.writing() as (connection, now):
            named = _named(chosen) & (work.c.state == WorkState.DEAD)
            rows = connection.execute(_CLOSED.where(named)).all()
            _cancel(connection, rows, actor, now)
            undelivered = connection.execute(_undeliverable(chosen)).all()
            _give_to_nobody(connection, undelivered, actor, now)
        return len(rows) + len(undelivered)

    def _discard_selected(self, selection: WorkSelection, actor: Actor | None) -> int:
        match selection.trouble:
            case Trouble.GIVEN_UP:
                return self._in_batches(_CLOSED.where(given_up(selection)), work.c.id, _cancel, actor)
            case Trouble.UNDELIVERABLE:
                return self._in_batches(undeliverable_reports(selection), report.c.id, _give_to_nobody, actor)
            case Trouble.FAILED:
                raise LedgerError(
                    "an analysis that failed is closed and reported as failed: there is nothing to discard"
                )

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


def _idle_seconds(found: Outlook, now: datetime) -> float:
    """Return the seconds after `now` for which there will be nothing to sweep."""
    if found.needed or found.under_way:
        return 0.0
    return (
        min(LONGEST_REST_SECONDS, (found.first_due - now).total_seconds()) if found.first_due else LONGEST_REST_SECONDS
    )


_CLOSED: Final = select(work.c.id, work.c.queue, work.c.ref_id)


def _wake(connection: Connection, rows: Sequence[Any], actor: Actor | None, now: datetime) -> None:
    """Put closed work back, with all its tries; a delivery gets its full time."""
    for row in rows:
        queue.wake(connection, work.c.id == row.id, at=now)
        closed = Queue.named(row.queue)
        if closed.kind is QueueKind.DELIVER:
            reopen_delivery(connection, row.ref_id, detail="requeued", now=now)
            queue.forget_attempts(connection, queue=commit_queue(closed.destination), dedup=str(row.ref_id))
        _record(connection, now, "requeued", row, actor)


def _analyse_again(connection: Connection, images: Sequence[Any], actor: Actor | None, now: datetime) -> None:
    """Put the analyses of these images back, whose originals the caller has locked."""
    ids = [image.id for image in images]
    done = in_queue(ANALYSE) & (work.c.state == WorkState.DONE) & work.c.ref_id.in_(ids)
    _wake(connection, connection.execute(_CLOSED.where(done).order_by(work.c.id)).all(), actor, now)


def _cancel(connection: Connection, rows: Sequence[Any], actor: Actor | None, now: datetime) -> None:
    """Close dead work for good."""
    for row in rows:
        queue.cancel(connection, work.c.id == row.id, at=now)
        if Queue.named(row.queue).kind is QueueKind.DELIVER:
            closed = update(delivery).where(delivery.c.id == row.ref_id)
            connection.execute(closed.values(state=DeliveryState.DISCARDED))
        _record(connection, now, "discarded", row, actor)


def _give_to_nobody(connection: Connection, rows: Sequence[Any], actor: Actor | None, now: datetime) -> None:
    """Close undeliverable reports for good."""
    for row in rows:
        closed = (delivery.c.report_id == row.report_id) & is_undeliverable()
        connection.execute(update(delivery).where(closed).values(state=DeliveryState.DISCARDED))
        _record_report(connection, now, "discarded", row, actor)


def _undeliverable(selector: str | None) -> Select[Any]:
    """Return the newest reports of their patients that no destination is to get: all, or those that are named."""
    chosen = undeliverable_reports()
    if selector is None:
        return chosen
    return chosen.where(or_(report.c.study_uid == selector, report.c.sop_instance_uid == selector))


def _record_report(connection: Connection, now: datetime, kind: str, row: Any, actor: Actor | None) -> None:
    """Note in the study's trail what a person did to a report that no destination is to get."""
    detail = {**of_report_file(connection, row.report_id), "queue": REPORT.name, **_by(actor)}
    record_event(connection, now, kind, study_uid=row.study_uid, detail=detail)


def _record(connection: Connection, now: datetime, kind: str, row: Any, actor: Actor | None) -> None:
    """Note in the study's trail what a person did to a piece of work."""
    subject = of_work(connection, Queue.named(row.queue), row.ref_id)
    record_event(
        connection,
        now,
        kind,
        study_uid=subject.study_uid,
        sop_instance_uid=subject.sop_instance_uid,
        detail={**subject.names, "work": row.id, "queue": row.queue, **_by(actor)},
    )


def _by(actor: Actor | None) -> dict[str, str]:
    return actor.detail if actor else {}


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
        is_about(Subject.STUDY) & work.c.ref_id.in_(patients),
        is_about(Subject.DELIVERY) & work.c.ref_id.in_(deliveries),
    )


def _hold_failed(connection: Connection, selector: str) -> Sequence[int]:
    failed = select(work.c.ref_id).where(_named(selector), _failed_analysis())
    return hold_originals(connection, instance.c.id.in_(failed))


def _failed_analysis() -> ColumnElement[bool]:
    newest = select(func.max(result.c.id)).group_by(result.c.instance_id)
    failed = select(result.c.instance_id).where(result.c.id.in_(newest), result.c.outcome == Completion.FAILED)
    return in_queue(ANALYSE) & (work.c.state == WorkState.DONE) & work.c.ref_id.in_(failed)
