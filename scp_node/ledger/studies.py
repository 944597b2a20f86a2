"""Tracks whether studies were sent completely, as far as the associations show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from scp_node.domain import TransferEnded
from scp_node.ledger.analyses import open_report
from scp_node.ledger.database.schema import event, instance, study, study_patient
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import of_study
from scp_node.ledger.transactions import Policy, Transactions

INTERRUPTED: Final = "association-interrupted"
RESUMED: Final = "association-resumed"
_IN_DOUBT: Final = select(study.c.study_uid).where(study.c.interrupted).limit(1)
_IS_IN_DOUBT: Final = select(study.c.interrupted).where(study.c.study_uid == bindparam("study"))
# Within this time any association shows that the sender has gone on; later only one that sends the study's own images.
_GOES_ON_WITHIN: Final = timedelta(days=1)


class Studies:
    """Keeps a list of the studies that may be incomplete, and opens their reports when that changes."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def transfers_ended(self, endings: Sequence[TransferEnded]) -> None:
        """Note which studies were interrupted, and which of them the sender has continued since.

        A study is whole again when a later association of the same sender has ended with a release and the instance
        that was cut off has arrived. The association must have begun after the interruption: one that ran beside it
        proves nothing. It must also have sent images of this study, unless the cut-off instance is known: its arrival
        shows that the sender went on.
        """
        if all(ending.complete for ending in endings) and not self._any_in_doubt():
            return  # the usual case costs one read
        for ending in endings:
            if not ending.complete:
                self._interrupt(ending)
            elif self._whole(ending):
                self._resume(ending)

    def _any_in_doubt(self) -> bool:
        with self._transactions.snapshot() as connection:  # which needs no time
            return connection.execute(_IN_DOUBT).first() is not None

    def _whole(self, ending: TransferEnded) -> list[str]:
        with self._transactions.reading() as (connection, _now):
            return _whole(connection, ending)

    def _interrupt(self, ending: TransferEnded) -> None:
        values = {"interrupted": True, "calling_ae": ending.calling_ae, "peer": ending.peer, "at": ending.at}
        transfer = {"calling_ae": ending.calling_ae, "peer": ending.peer, "cut_instance": ending.cut_instance}
        with self._transactions.writing() as (connection, now):
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            for uid in sorted(set(ending.study_uids)):  # sorted, so that two transactions cannot deadlock
                if not _may_doubt(connection, uid, ending.calling_ae):
                    continue
                statement = insert(study).values(study_uid=uid, **values)
                connection.execute(statement.on_conflict_do_update(index_elements=[study.c.study_uid], set_=values))
                detail = {**of_study(connection, uid), **transfer}
                record_event(connection, now, INTERRUPTED, study_uid=uid, detail=detail)
                self._open_report(connection, uid, now)

    def _resume(self, ending: TransferEnded) -> None:
        transfer = {"calling_ae": ending.calling_ae, "peer": ending.peer}
        with self._transactions.writing() as (connection, now):
            for uid in _whole(connection, ending):
                connection.execute(update(study).where(study.c.study_uid == uid).values(interrupted=False))
                detail = {**of_study(connection, uid), **transfer}
                record_event(connection, now, RESUMED, study_uid=uid, detail=detail)
                self._open_report(connection, uid, now)

    def _open_report(self, connection: Connection, study_uid: str, now: datetime) -> None:
        """Open the report of each patient; where no image has come, the first one opens it."""
        patients = select(study_patient.c.id).where(study_patient.c.study_uid == study_uid).order_by(study_patient.c.id)
        for patient in connection.scalars(patients).all():
            open_report(connection, self._policy, patient, now)


def is_interrupted(connection: Connection, study_uid: str) -> bool:
    """Return whether the study may be incomplete."""
    return bool(connection.scalar(_IS_IN_DOUBT, {"study": study_uid}))


def _may_doubt(connection: Connection, study_uid: str, calling_ae: str) -> bool:
    """Return whether a sender can leave the study in doubt: it has sent of it, or nobody has yet."""
    senders = set(connection.scalars(select(instance.c.calling_ae).where(instance.c.study_uid == study_uid).distinct()))
    return calling_ae in senders or not senders


def _whole(connection: Connection, ending: TransferEnded) -> list[str]:
    """Return the doubtful studies that this ending proves whole, sorted."""
    named = study.c.study_uid.in_(ending.study_uids)
    recent = study.c.at > ending.began_at - _GOES_ON_WITHIN
    same = study.c.interrupted & (study.c.calling_ae == ending.calling_ae) & (study.c.at < ending.began_at)
    doubted = connection.scalars(select(study.c.study_uid).where(same, named | recent).order_by(study.c.study_uid))
    return [uid for uid in doubted if _is_whole(connection, uid, named=uid in ending.study_uids)]


def _is_whole(connection: Connection, study_uid: str, *, named: bool) -> bool:
    cut = _cut_instances(connection, study_uid)
    return (named or all(cut)) and _have_come(connection, {each for each in cut if each})


def _cut_instances(connection: Connection, study_uid: str) -> list[str]:
    """Return the cut-off instance of each interruption since the last resumption; "" for one that is not known."""
    kinds = (event.c.study_uid == study_uid) & event.c.kind.in_([INTERRUPTED, RESUMED])
    cut: list[str] = []
    for row in connection.execute(select(event.c.kind, event.c.detail).where(kinds).order_by(event.c.id)):
        cut = [] if row.kind == RESUMED else [*cut, row.detail["cut_instance"]]
    return cut


def _have_come(connection: Connection, sop_instance_uids: set[str]) -> bool:
    found = select(instance.c.sop_instance_uid).where(instance.c.sop_instance_uid.in_(sop_instance_uids))
    return set(connection.scalars(found)) == sop_instance_uids
