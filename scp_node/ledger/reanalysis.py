"""Analyses images again on request: results are added, and a report follows if it says something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, or_, select, update

from scp_node.domain import Reason
from scp_node.ledger import queue
from scp_node.ledger.database.schema import Use, instance, result, work
from scp_node.ledger.queue import AFTER_ALL_ELSE, WorkState
from scp_node.ledger.queue_kinds import ANALYSE, in_queue
from scp_node.ledger.retention import hold_originals
from scp_node.ledger.selecting import chunks
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

_ENDED: Final = (WorkState.DONE, WorkState.DEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAnalysis:
    """One image whose analysis has ended."""

    instance_id: int
    study_uid: str
    spool_path: str
    kept: bool = True  # whether its original is kept; without it there is nothing to analyse


class Reanalysis:
    """Finds images that were analysed, and requests a new analysis of them."""

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def ended(
        self, *, study_uid: str | None = None, since: datetime | None = None, model: str | None = None
    ) -> list[PastAnalysis]:
        """Return the images whose analysis has ended, oldest first; all given conditions must hold.

        Args:
            study_uid: the image belongs to this study.
            since: the image was received at or after this instant.
            model: the newest result is by this bundle, given as "name-version" or as its digest.
        """
        newest = select(func.max(result.c.id)).group_by(result.c.instance_id)
        conditions: list[ColumnElement[bool]] = [
            result.c.id.in_(newest),
            func.coalesce(result.c.reason, "") != Reason.OWN_OBJECT,
            work.c.state.in_(_ENDED),
            instance.c.use == Use.READ,
        ]
        if study_uid is not None:
            conditions.append(instance.c.study_uid == study_uid)
        if since is not None:
            conditions.append(instance.c.received_at >= since)
        if model is not None:
            conditions.append(or_(result.c.bundle == model, result.c.bundle_digest == model))
        statement = (
            select(instance.c.id, instance.c.study_uid, instance.c.spool_path, instance.c.purging_at)
            .join(result, result.c.instance_id == instance.c.id)
            .join(work, (work.c.ref_id == instance.c.id) & in_queue(ANALYSE))
            .where(*conditions)
            .order_by(instance.c.id)
        )
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(statement).all()
        return [
            PastAnalysis(
                instance_id=row.id, study_uid=row.study_uid, spool_path=row.spool_path, kept=row.purging_at is None
            )
            for row in rows
        ]

    def request(self, images: Sequence[PastAnalysis]) -> int:
        """Queue these images for a new analysis, after everything that arrives meanwhile; return the number queued.

        An image stays as it is if its analysis is open, was discarded, or its original was removed.
        """
        woken = 0
        for chunk in chunks(images):
            wanted = instance.c.id.in_([image.instance_id for image in chunk])
            with self._transactions.writing() as (connection, now):
                held = hold_originals(connection, wanted)
                ids = in_queue(ANALYSE) & work.c.ref_id.in_(held)
                connection.execute(update(work).where(ids, work.c.state.in_(_ENDED)).values(priority=AFTER_ALL_ELSE))
                woken += queue.wake(connection, ids & work.c.state.in_(_ENDED), at=now)
                for study_uid, inputs in _inputs(connection, held).items():
                    detail = {"input_sha256": inputs, "images": len(inputs)}
                    record_event(connection, now, "reanalysis-requested", study_uid=study_uid, detail=detail)
        return woken


def _inputs(connection: Connection, ids: Sequence[int]) -> dict[str, list[str]]:
    """Return the digests of the images, by Study Instance UID."""
    columns = select(instance.c.study_uid, instance.c.sha256).where(instance.c.id.in_(ids)).order_by(instance.c.id)
    inputs: dict[str, list[str]] = {}
    for row in connection.execute(columns):
        inputs.setdefault(row.study_uid, []).append(row.sha256)
    return inputs
