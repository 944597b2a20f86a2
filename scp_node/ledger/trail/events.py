"""The audit trail: events are added, never changed, and each is chained to the one before it.

An event's hash is made of its contents and of the hash of the event before, so that none can be edited, removed or
moved without a trace. `scp_node.ledger.trail.chain` looks for such traces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from scp_node.ledger.database.schema import chain, event

GENESIS: Final = ""  # what the first event names as the hash before it
_PENDING: Final = "ledger_events"
_UID_LENGTH: Final = 64  # PS3.5 Table 6.2-1; of a refused object's UID this much is kept


def record_event(
    connection: Connection,
    at: datetime,
    kind: str,
    *,
    study_uid: str = "",
    sop_instance_uid: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add one event to the trail, in the transaction of what it tells.

    `detail` is JSON; docs/decisions/0009-a-hash-chain.md lists the keys that all kinds of events share.

    Raises:
        RuntimeError: the transaction was not begun by `Transactions.writing`, so that nothing would chain the event.
        ValueError: `detail` holds a number that JSON has not.
    """
    pending = connection.info.get(_PENDING)
    if pending is None:
        raise RuntimeError(f"event {kind!r} outside of Transactions.writing()")
    told = json.dumps(dict(detail or {}), allow_nan=False)
    row = {"at": at, "kind": kind, "study_uid": _storable(study_uid), "sop_instance_uid": _storable(sop_instance_uid)}
    pending.append({**row, "detail": json.loads(told)})  # as it will be read back


@contextmanager
def recording(connection: Connection) -> Iterator[None]:
    """Collect the events of a transaction, and append them to the chain as its last statements.

    The chain's one row is locked last, for the time of one commit: two transactions that wait for it cannot wait for
    each other, and events have their ids in the order of the chain.
    """
    info = connection.info  # of a connection that broke meanwhile nothing can be asked any more
    pending: list[dict[str, Any]] = []
    info[_PENDING] = pending
    try:
        yield
        if pending:
            _append(connection, pending)
    finally:
        del info[_PENDING]


def event_hash(
    previous_hash: str, *, at: datetime, kind: str, study_uid: str, sop_instance_uid: str, detail: Mapping[str, Any]
) -> str:
    """Return the SHA-256 of an event's canonical JSON: the same for every database that keeps it.

    Raises:
        ValueError: the event holds a number that JSON has not.
    """
    instant = at.astimezone(UTC).isoformat(timespec="microseconds")
    told = [previous_hash, instant, kind, study_uid, sop_instance_uid, detail]
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _append(connection: Connection, pending: Sequence[Mapping[str, Any]]) -> None:
    end = connection.execute(select(chain.c.length, chain.c.head).with_for_update()).one()
    head, rows = end.head, []
    for told in pending:
        previous, head = head, event_hash(head, **told)
        rows.append({**told, "previous_hash": previous, "hash": head})
    connection.execute(event.insert(), rows)
    connection.execute(chain.update().values(length=end.length + len(rows), head=head))


def _storable(uid: str) -> str:
    """Return a UID as every database keeps it: a peer may have sent anything under that name."""
    return uid.replace("\0", "")[:_UID_LENGTH]
