"""Which originals are not needed any more, and that they are gone; the rows, the results and the reports stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, or_, select, update

from scp_node.ledger.database.schema import delivery, instance, report, work
from scp_node.ledger.queue import OPEN_STATES, WorkState
from scp_node.ledger.queue_kinds import ANALYSE, REPORT, in_queue
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

BATCH: Final = 100  # originals in one transaction
_CLOSED_ANALYSES: Final = (WorkState.DONE, WorkState.CANCELLED)
_OPEN_REPORTS: Final = (*OPEN_STATES, WorkState.DEAD)
_OPEN_DELIVERIES: Final = ("waiting", "dead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """One file that is being removed."""

    instance_id: int
    spool_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """How many originals are older than they should become, and what keeps them; a person may have to look."""

    older: int
    analysis: int  # work that is not done, dead work among it
    report: int
    delivery: int


class Retention:
    """Marks originals before their files are removed, and closes them after: a file without a row never is.

    An original that is marked is not read any more; it is closed once its file is gone. A node may be killed in
    between: `unfinished` names what is marked and not closed.
    """

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def mark(self, older_than: timedelta) -> list[Original]:
        """Mark up to `BATCH` originals that were received longer ago and that nothing needs, and return them."""
        with self._transactions.writing() as (connection, now):
            old = (instance.c.received_at < now - older_than) & instance.c.purging_at.is_(None)
            kept = instance.c.purged_at.is_(None)  # says the index, too
            chosen = select(instance.c.id).where(kept, old, ~_needed()).order_by(instance.c.received_at).limit(BATCH)
            ids = connection.scalars(chosen.with_for_update(skip_locked=True)).all()
            # once they are locked nobody can ask for an analysis of them; somebody may have done so just before
            ids = connection.scalars(select(instance.c.id).where(instance.c.id.in_(ids), ~_needed())).all()
            connection.execute(update(instance).where(instance.c.id.in_(ids)).values(purging_at=now))
            return _originals(connection, instance.c.id.in_(ids))

    def unfinished(self) -> list[Original]:
        """Return up to `BATCH` originals that are marked and not closed."""
        with self._transactions.reading() as (connection, _now):
            return _originals(connection, instance.c.purging_at.is_not(None) & instance.c.purged_at.is_(None))

    def close(self, originals: Sequence[Original]) -> int:
        """Note that the files of these are gone; return of how many nobody else had noted it."""
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
        """Return what keeps originals that were received longer ago."""
        counted = [func.coalesce(func.sum(case((needs, 1), else_=0)), 0) for needs in _needs()]
        with self._transactions.reading() as (connection, now):
            old = instance.c.purged_at.is_(None) & (instance.c.received_at < now - older_than)
            older, *needs = connection.execute(select(func.count(), *counted).where(old)).one()
        analysis, reports, deliveries = (int(number) for number in needs)
        return HeldBack(older=older, analysis=analysis, report=reports, delivery=deliveries)


def hold_originals(connection: Connection, condition: ColumnElement[bool]) -> Sequence[int]:
    """Return the ids of the instances that meet `condition` and have their original, and keep it in this transaction.

    Who asks for an analysis has to hold the original first, or it may be gone before the analysis begins.
    """
    kept = select(instance.c.id).where(condition, instance.c.purging_at.is_(None)).order_by(instance.c.id)
    return connection.scalars(kept.with_for_update(read=True)).all()


def _needs() -> tuple[ColumnElement[bool], ColumnElement[bool], ColumnElement[bool]]:
    """Return whether analysis, report or delivery may still want the original; nothing ever wants a conflicting one."""
    analysed = and_(in_queue(ANALYSE), work.c.ref_id == instance.c.id, work.c.state.not_in(_CLOSED_ANALYSES))
    reported = and_(in_queue(REPORT), work.c.dedup == instance.c.study_uid, work.c.state.in_(_OPEN_REPORTS))
    of_study = select(delivery.c.id).join(report, report.c.id == delivery.c.report_id)
    sent = of_study.where(report.c.study_uid == instance.c.study_uid, delivery.c.state.in_(_OPEN_DELIVERIES))
    analysis, reports, deliveries = (
        ~instance.c.conflict & each
        for each in (exists().where(analysed), exists().where(reported), sent.correlate(instance).exists())
    )
    return analysis, reports, deliveries


def _needed() -> ColumnElement[bool]:
    return or_(*_needs())


def _originals(connection: Connection, condition: ColumnElement[bool]) -> list[Original]:
    columns = select(instance.c.id, instance.c.spool_path).where(condition).order_by(instance.c.id).limit(BATCH)
    return [Original(instance_id=row.id, spool_path=row.spool_path) for row in connection.execute(columns)]
