"""An image that could not be analysed makes way for the next one with its SOP Instance UID: the film, sent again."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select, update

from scp_node.domain import Completion, Reason
from scp_node.ledger import queue
from scp_node.ledger.database.schema import WITHOUT_HEADER, Use, instance, result, work
from scp_node.ledger.queue import WorkState
from scp_node.ledger.queue_kinds import ANALYSE, in_queue
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Policy

_ITSELF: Final = "node"  # in place of the person who chooses otherwise
_NOT_THE_FILM: Final = frozenset({Reason.ORIGINAL_REMOVED, Reason.CONFLICTING_INSTANCE})

MAKES_WAY: Final = frozenset(
    {reason for reason in Reason if reason.completion is Completion.FAILED} - _NOT_THE_FILM | {Reason.NOT_AN_IMAGE}
)
"""Outcomes of an image of which nothing was read."""


def make_way(connection: Connection, policy: Policy, sop_instance_uid: str, now: datetime) -> bool:
    """Have the oldest image in conflict read in place of one that could not be analysed; return whether there was one.

    Both must be of one patient and study: another patient's image is for a person to look at. An image that is still to
    be compared is left alone: whoever compares it asks again.
    """
    chosen = select(*WITHOUT_HEADER).where(instance.c.sop_instance_uid == sop_instance_uid).order_by(instance.c.id)
    rows = connection.execute(chosen.with_for_update()).all()
    read = next((row for row in rows if row.use == Use.READ), None)
    if read is None:
        return False
    newest = select(result.c.reason).where(result.c.instance_id == read.id).order_by(result.c.id.desc()).limit(1)
    if connection.scalar(newest) not in MAKES_WAY:
        return False
    of_patient = [row for row in rows if row.use == Use.CONFLICT and row.study_patient_id == read.study_patient_id]
    for row in of_patient:
        done = select(work.c.state).where(in_queue(ANALYSE), work.c.dedup == str(row.id))
        if row.purging_at is None and connection.scalar(done) == WorkState.DONE:
            break
    else:
        return False
    connection.execute(update(instance).where(instance.c.id == read.id).values(use=Use.SET_ASIDE))
    connection.execute(update(instance).where(instance.c.id == row.id).values(use=Use.READ))
    queue.schedule(
        connection,
        queue=ANALYSE,
        dedup=str(row.id),
        ref_id=row.id,
        priority=row.priority,
        max_attempts=policy.most_tries(ANALYSE),
        due=now,
        at=now,
    )
    detail = {
        "input_sha256": [row.sha256],
        "set_aside_sha256": [read.sha256],
        "number": rows.index(row) + 1,
        "by": _ITSELF,
        "address": "",
    }
    record_event(connection, now, "resolved", study_uid=row.study_uid, sop_instance_uid=sop_instance_uid, detail=detail)
    return True
