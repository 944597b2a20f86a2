"""The audit trail: events are added, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from scp_node.ledger.schema import event


def record_event(
    connection: Connection,
    at: datetime,
    kind: str,
    *,
    study_uid: str = "",
    sop_instance_uid: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add one event to the trail, in the transaction of what it tells."""
    row = {"at": at, "kind": kind, "study_uid": study_uid, "sop_instance_uid": sop_instance_uid}
    connection.execute(event.insert().values(detail=dict(detail or {}), **row))
