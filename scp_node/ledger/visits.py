"""Notes in the audit trail who saw or did what on the web page about a patient."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from scp_node.domain import Actor
from scp_node.ledger.database.schema import event
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

AGAIN_AFTER: Final = timedelta(minutes=5)  # the same person who looks at the same study meanwhile is noted once
_LATEST: Final = 20  # of a study's events of one kind that are looked at for that


class Visits:
    """What persons saw and did."""

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def note(
        self,
        kind: str,
        actor: Actor,
        *,
        study_uid: str = "",
        sop_instance_uid: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> None:
        """Add an event; `kind` begins with "web-"."""
        facts = {**(detail or {}), **actor.detail}
        with self._transactions.writing() as (connection, now):
            record_event(connection, now, kind, study_uid=study_uid, sop_instance_uid=sop_instance_uid, detail=facts)

    def note_view(self, actor: Actor, study_uid: str) -> bool:
        """Note that a person looks at a study, once in `AGAIN_AFTER`; return whether it was noted now."""
        with self._transactions.reading() as (connection, now):
            views = (event.c.study_uid == study_uid) & (event.c.kind == "web-viewed") & (event.c.at > now - AGAIN_AFTER)
            latest = select(event.c.detail).where(views).order_by(event.c.id.desc()).limit(_LATEST)
            if any(detail.get("by") == actor.name for detail in connection.scalars(latest)):
                return False
        self.note("web-viewed", actor, study_uid=study_uid)
        return True
