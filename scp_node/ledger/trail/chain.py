"""Walks the hash chain of the audit trail from the first event to the last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Text, cast, select, type_coerce

from scp_node.ledger.database.schema import chain, event
from scp_node.ledger.trail.events import GENESIS, actor_of, event_hash

BATCH: Final = 500  # events in memory at once
_BEFORE_ALL: Final = -(2**63)  # an id below that of any row, even one that was added past the program


class BrokenChainError(Exception):
    """Events were changed past the program; the message names the first such event and its fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEnd:
    """Where the chain ends; note it elsewhere, so that a rewritten history can also be found."""

    length: int  # number of events
    head: str  # hash of the last event


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainedEvent:
    """One event whose hash and link are right."""

    id: int
    kind: str
    study_uid: str
    sop_instance_uid: str
    detail: Mapping[str, Any]


def chain_end(connection: Connection) -> ChainEnd:
    """Return the end of the chain from its own row.

    Raises:
        BrokenChainError: that row is gone.
    """
    row = connection.execute(select(chain.c.length, chain.c.head)).first()
    if row is None:
        raise BrokenChainError("the row of table chain, which says where the events end, was removed")
    return ChainEnd(length=row.length, head=row.head)


def holds(connection: Connection, noted: str) -> bool:
    """Return whether an event has this hash: a whole chain still holds every event that was noted earlier."""
    return connection.execute(select(event.c.id).where(event.c.hash == noted).limit(1)).first() is not None


def walk(connection: Connection) -> Iterator[list[ChainedEvent]]:
    """Yield all events in batches, each checked.

    Raises:
        BrokenChainError: the next event is not the recorded one, or events are missing at the end.
    """
    end = chain_end(connection)
    head, last_id, length = GENESIS, _BEFORE_ALL, 0
    while rows := _batch(connection, last_id):
        checked = []
        for row in rows:
            if length == end.length and head == end.head:
                raise BrokenChainError(f"event {row.id} was added past the program: the chain ends before it")
            checked.append(_checked(connection, row, head))
            head, last_id, length = row.hash, row.id, length + 1
        yield checked
    if length < end.length:
        raise BrokenChainError(f"{end.length - length} events were removed at the end, after event {last_id}")
    if (length, head) != (end.length, end.head):
        raise BrokenChainError(
            f"event {last_id}, the last one, is not the one that the chain ends with: it was changed together with "
            "its hash, or others were removed or added there"
        )


def _batch(connection: Connection, after: int) -> Sequence[Row[Any]]:
    """Return the next events, with instant and detail as raw text since an editor may have damaged either."""
    columns = (
        event.c.id,
        event.c.kind,
        event.c.study_uid,
        event.c.sop_instance_uid,
        event.c.previous_hash,
        event.c.hash,
        event.c.actor,
        type_coerce(event.c.at, Text).label("at"),
        cast(event.c.detail, Text).label("detail"),
    )
    return connection.execute(select(*columns).where(event.c.id > after).order_by(event.c.id).limit(BATCH)).all()


def _checked(connection: Connection, row: Row[Any], head: str) -> ChainedEvent:
    if not row.hash:
        raise BrokenChainError(f"event {row.id} was added past the program: it has no hash")
    try:
        detail = json.loads(row.detail)
        right = event_hash(
            row.previous_hash,
            at=_instant(row.at),
            kind=row.kind,
            study_uid=row.study_uid,
            sop_instance_uid=row.sop_instance_uid,
            detail=detail,
        )
    except (TypeError, ValueError):  # edited into something that is not even an instant or JSON
        right = ""
    if row.hash != right:
        raise BrokenChainError(f"event {row.id} was edited: its contents are not those that its hash was made of")
    if row.actor != actor_of(detail):
        raise BrokenChainError(f"event {row.id} was edited: its column actor is not who its contents name")
    if row.previous_hash != head:
        raise BrokenChainError(f"event {row.id} {_misplaced(connection, row)}")
    return ChainedEvent(
        id=row.id, kind=row.kind, study_uid=row.study_uid, sop_instance_uid=row.sop_instance_uid, detail=detail
    )


def _misplaced(connection: Connection, row: Row[Any]) -> str:
    """Return why a sound event does not follow the one before it."""
    if row.previous_hash == GENESIS:
        return "was reordered: it was the first one"
    before = connection.scalar(select(event.c.id).where(event.c.hash == row.previous_hash).limit(1))
    if before is None:
        return "follows one that is not there: that was removed, or changed together with its hash"
    if before > row.id:
        return f"was reordered: it follows event {before}, which stands behind it"
    return f"follows event {before}: what stands between them was added past the program, or reordered"


def _instant(kept: Any) -> datetime:
    """Return the instant of an event: PostgreSQL returns one, SQLite returns text in UTC."""
    instant = kept if isinstance(kept, datetime) else datetime.fromisoformat(kept)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
