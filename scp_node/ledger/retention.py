"""Marks originals that nothing needs any more, and notes their removal; rows, results and reports stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, case, exists, func, or_, select, update

from scp_node.ledger.database.schema import Use, delivery, instance, report, work
from scp_node.ledger.queue import OPEN_STATES, WorkState, cancel_unneeded
from scp_node.ledger.queue_kinds import ANALYSE, SHADOW, Subject, in_queue, is_about
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

BATCH: Final = 100  # originals in one transaction
ORIGINAL_REMOVED: Final = "its original was removed"
_CLOSED_ANALYSES: Final = (WorkState.DONE, WorkState.CANCELLED)
_OPEN_REPORTS: Final = (*OPEN_STATES, WorkState.DEAD)
_OPEN_DELIVERIES: Final = ("waiting", "dead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """One file to remove."""

    instance_id: int
    spool_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """How many originals are kept beyond their age, and by what; a person may have to look."""

    older: int
    analysis: int  # with work that is not done; dead work counts
    report: int
    delivery: int


class Retention:
    """Marks originals before their files are removed, and closes them afterwards.

    In this order a file on disk always has its row. Nothing reads an original that is marked, and it is closed once its
    file is gone. If the node is killed in between, `unfinished` names the originals that are marked but not closed.
    """

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def mark(self, older_than: timedelta) -> list[Original]:
        """Mark up to `BATCH` originals that are older than `older_than` and that nothing needs; return them.

        A bundle on trial holds no original back: its work on these ends here.
        """
        with self._transactions.writing() as (connection, now):
            old = (instance.c.received_at < now - older_than) & instance.c.purging_at.is_(None)
            kept = instance.c.purged_at.is_(None)  # the index has this condition
            chosen = select(instance.c.id).where(kept, old, ~_needed()).order_by(instance.c.received_at).limit(BATCH)
            ids = connection.scalars(chosen.with_for_update(skip_locked=True)).all()
            # now they are locked, so nobody can ask for an analysis of them; but somebody may have done so just before
            ids = connection.scalars(select(instance.c.id).where(instance.c.id.in_(ids), ~_needed())).all()
            connection.execute(update(instance).where(instance.c.id.in_(ids)).values(purging_at=now))
            trials = in_queue(SHADOW) & work.c.ref_id.in_(ids)
            cancel_unneeded(connection, trials, error=ORIGINAL_REMOVED, at=now)
            return _originals(connection, instance.c.id.in_(ids))

    def unfinished(self) -> list[Original]:
        """Return up to `BATCH` originals that are marked but not closed."""
        with self._transactions.reading() as (connection, _now):
            return _originals(connection, instance.c.purging_at.is_not(None) & instance.c.purged_at.is_(None))

    def close(self, originals: Sequence[Original]) -> int:
        """Note that the files of these originals are gone; return the number that nobody else had noted."""
        ids = [original.instance_id for original in originals]
        marked = instance.c.id.in_(ids) & instance.c.purging_at.is_not(None) & instance.c.purged_at.is_(None)
        columns = (instance.c.study_uid, instance.c.sop_instance_uid, instance.c.sha256)
        with self._transactions.writing() as (connection, now):
            closed = connection.execute(update(instance).where(marked).values(purged_at=now).returning(*columns)).all()
            for row in closed:
                record_event(
                    connection,
                    now,
                    "purged",
                    study_uid=row.study_uid,
                    sop_instance_uid=row.sop_instance_uid,
                    detail={"input_sha256": [row.sha256]},
                )
        return len(closed)

    def held_back(self, older_than: timedelta) -> HeldBack:
        """Return the number of originals that are older than `older_than`, and the work that keeps them."""
        counted = [func.coalesce(func.sum(case((needs, 1), else_=0)), 0) for needs in _needs()]
        with self._transactions.reading() as (connection, now):
            old = instance.c.purged_at.is_(None) & (instance.c.received_at < now - older_than)
            older, *needs = connection.execute(select(func.count(), *counted).where(old)).one()
        analysis, reports, deliveries = (int(number) for number in needs)
        return HeldBack(older=older, analysis=analysis, report=reports, delivery=deliveries)


def hold_originals(connection: Connection, condition: ColumnElement[bool]) -> Sequence[int]:
    """Return the ids of the instances that meet `condition` and have their original; keep it during this transaction.

    Hold the original before you ask for an analysis: otherwise it may be removed before the analysis begins.
    """
    return connection.scalars(holding_originals(condition)).all()


def holding_originals(condition: ColumnElement[bool]) -> Select[Any]:
    """Return the query of `hold_originals`."""
    kept = select(instance.c.id).where(condition, instance.c.purging_at.is_(None)).order_by(instance.c.id)
    return kept.with_for_update(read=True)


def _needs() -> tuple[ColumnElement[bool], ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions under which analysis, report or delivery may still need an original.

    No report and no delivery needs one that nobody reads.
    """
    analysed = and_(in_queue(ANALYSE), work.c.ref_id == instance.c.id, work.c.state.not_in(_CLOSED_ANALYSES))
    reported = and_(
        is_about(Subject.STUDY), work.c.ref_id == instance.c.study_patient_id, work.c.state.in_(_OPEN_REPORTS)
    )
    of_study = select(delivery.c.id).join(report, report.c.id == delivery.c.report_id)
    sent = of_study.where(
        report.c.study_patient_id == instance.c.study_patient_id, delivery.c.state.in_(_OPEN_DELIVERIES)
    )
    is_read = instance.c.use == Use.READ
    return exists().where(analysed), is_read & exists().where(reported), is_read & sent.correlate(instance).exists()


def _needed() -> ColumnElement[bool]:
    return or_(*_needs())


def _originals(connection: Connection, condition: ColumnElement[bool]) -> list[Original]:
    columns = select(instance.c.id, instance.c.spool_path).where(condition).order_by(instance.c.id).limit(BATCH)
    return [Original(instance_id=row.id, spool_path=row.spool_path) for row in connection.execute(columns)]
