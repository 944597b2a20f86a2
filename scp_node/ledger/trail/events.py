"""The audit trail: events are added, never changed, and each is chained to the one before it.

The hash of an event covers its contents and the hash of the event before it, so that nobody can edit, remove or move an
event without a trace. `scp_node.ledger.trail.chain` looks for such traces. An event is written in the transaction that
it describes. On SQLite it gets its place in the chain there too. On PostgreSQL transactions would have to wait for each
other's commit for that, so that `scp_node.ledger.trail.sealer` gives it its place soon after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Dialect, select

from scp_node.ledger.database.schema import ACTOR_LENGTH, chain, event

GENESIS: Final = ""  # the previous hash of the first event
_PENDING: Final = "ledger_events"
_END: Final = select(chain.c.length, chain.c.head)
_INSERT: Final = event.insert()
_MOVE_END: Final = chain.update()
_UID_LENGTH: Final = 64  # PS3.5 Table 6.2-1; a longer UID of a refused object is cut


def record_event(
    connection: Connection,
    at: datetime,
    kind: str,
    *,
    study_uid: str = "",
    sop_instance_uid: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add one event to the trail, in the transaction that it describes.

    `detail` is JSON; docs/decisions/0009-a-hash-chain.md lists the keys that all kinds of events share.

    Raises:
        RuntimeError: `Transactions.writing` did not begin the transaction, so that nothing would write the event.
        ValueError: `detail` holds a number that JSON does not have.
    """
    pending = connection.info.get(_PENDING)
    if pending is None:
        raise RuntimeError(f"event {kind!r} outside of Transactions.writing()")
    text = json.dumps(dict(detail or {}), allow_nan=False)
    kept = json.loads(text)  # as it will be read back
    row = {"at": at, "kind": kind, "study_uid": _storable(study_uid), "sop_instance_uid": _storable(sop_instance_uid)}
    pending.append({**row, "detail": kept, "actor": actor_of(kept)})


def actor_of(detail: Mapping[str, Any]) -> str:
    """Return the person who did what an event is about; "" where that is the node itself."""
    return str(detail.get("by", ""))[:ACTOR_LENGTH]


@contextmanager
def recording(connection: Connection) -> Iterator[list[dict[str, Any]]]:
    """Collect the events of a transaction, yield them, and write them in its last statements.

    So an event that follows from another one has the higher id: the other one was committed before.
    """
    info = connection.info  # kept here, since a connection that breaks meanwhile has no `info` any more
    pending: list[dict[str, Any]] = []
    info[_PENDING] = pending
    try:
        yield pending
        if pending and seals_at_once(connection.dialect):
            _append(connection, pending)
        elif pending:
            connection.execute(event.insert(), pending)
    finally:
        del info[_PENDING]


def seals_at_once(dialect: Dialect) -> bool:
    """Return whether events are sealed in the transaction that writes them: on SQLite, which has one writer anyway."""
    return dialect.name == "sqlite"


def event_hash(
    previous_hash: str, *, at: datetime, kind: str, study_uid: str, sop_instance_uid: str, detail: Mapping[str, Any]
) -> str:
    """Return the SHA-256 of an event's canonical JSON, which is the same in every database.

    Raises:
        ValueError: the event holds a number that JSON does not have.
    """
    instant = at.astimezone(UTC).isoformat(timespec="microseconds")
    contents = [previous_hash, instant, kind, study_uid, sop_instance_uid, detail]
    canonical = json.dumps(contents, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _append(connection: Connection, pending: Sequence[dict[str, Any]]) -> None:
    end = connection.execute(_END).one()
    head, rows = end.head, []
    for number, each in enumerate(pending, end.length + 1):
        contents = {name: value for name, value in each.items() if name != "actor"}
        previous, head = head, event_hash(head, **contents)
        rows.append({**each, "seq": number, "previous_hash": previous, "hash": head})
    connection.execute(_INSERT, rows)
    connection.execute(_MOVE_END, {"length": rows[-1]["seq"], "head": head})


def _storable(uid: str) -> str:
    """Return a UID that every database can keep: a peer may have sent anything in its place."""
    return uid.replace("\0", "")[:_UID_LENGTH]
