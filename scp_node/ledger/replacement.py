"""An image that could not be analysed makes way for the next one with its SOP Instance UID: the film, sent again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, update

from scp_node.domain import Actor, Completion, Reason
from scp_node.ledger import queue
from scp_node.ledger.database.schema import WITHOUT_HEADER, Use, instance, result, work
from scp_node.ledger.queue import WorkState
from scp_node.ledger.queue_kinds import ANALYSE, in_queue
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Policy

_ITSELF: Final = Actor(name="node", address="").detail  # in place of the person who chooses otherwise
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
    rows = images_of(connection, sop_instance_uid, lock=True)
    read = next((row for row in rows if row.use == Use.READ), None)
    if read is None:
        return False
    newest = select(result.c.reason).where(result.c.instance_id == read.id).order_by(result.c.id.desc()).limit(1)
    if connection.scalar(newest) not in MAKES_WAY:
        return False
    candidates = (row for row in rows if row.use == Use.CONFLICT and row.study_patient_id == read.study_patient_id)
    chosen = next((row for row in candidates if row.purging_at is None and _is_compared(connection, row.id)), None)
    if chosen is None:
        return False
    read_instead(connection, policy, chosen, [read], now, number=rows.index(chosen) + 1, by=_ITSELF)
    return True


def read_instead(
    connection: Connection,
    policy: Policy,
    chosen: Any,
    others: Sequence[Any],
    now: datetime,
    *,
    number: int,
    by: Mapping[str, str],
) -> None:
    """Have an image read in place of others of its SOP Instance UID, which are set aside; all are rows of `instance`.

    It is queued for its analysis, unless it was read all along. `number` is its place in the order of arrival, `by` the
    keys of the event that say who decided.
    """
    if chosen.use != Use.READ:
        connection.execute(update(instance).where(instance.c.id == chosen.id).values(use=Use.READ))
        queue.schedule(
            connection,
            queue=ANALYSE,
            dedup=str(chosen.id),
            ref_id=chosen.id,
            priority=chosen.priority,
            max_attempts=policy.most_tries(ANALYSE),
            due=now,
            at=now,
        )
    ids = [row.id for row in others]
    connection.execute(update(instance).where(instance.c.id.in_(ids)).values(use=Use.SET_ASIDE))
    detail = {
        "input_sha256": [chosen.sha256],
        "set_aside_sha256": [row.sha256 for row in others],
        "number": number,
        **by,
    }
    record_event(
        connection,
        now,
        "resolved",
        study_uid=chosen.study_uid,
        sop_instance_uid=chosen.sop_instance_uid,
        detail=detail,
    )


def images_of(connection: Connection, sop_instance_uid: str, *, lock: bool = False) -> Sequence[Any]:
    """Return the rows of `instance` with this UID, without their headers, in order of arrival."""
    named = select(*WITHOUT_HEADER).where(instance.c.sop_instance_uid == sop_instance_uid).order_by(instance.c.id)
    return connection.execute(named.with_for_update() if lock else named).all()


def _is_compared(connection: Connection, instance_id: int) -> bool:
    state = select(work.c.state).where(in_queue(ANALYSE), work.c.dedup == str(instance_id))
    return connection.scalar(state) == WorkState.DONE
