"""Walks the hash chain of the audit trail from its first event to its last, then the events that wait behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Text, cast, select, type_coerce

from scp_node.ledger.database.schema import chain, event
from scp_node.ledger.trail.events import GENESIS, actor_of, event_hash, seals_at_once

BATCH: Final = 500  # events in memory at once
_BEFORE_ALL: Final = -(2**63)  # below any number of a row, even one that was added past the program
# an event with its instant and detail as raw text, since an editor may have damaged either
RAW: Final = (
    event.c.id,
    event.c.seq,
    event.c.kind,
    event.c.study_uid,
    event.c.sop_instance_uid,
    event.c.previous_hash,
    event.c.hash,
    event.c.actor,
    type_coerce(event.c.at, Text).label("at"),
    cast(event.c.detail, Text).label("detail"),
)


class BrokenChainError(Exception):
    """Events were changed past the program; the message names the first such event and its fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEnd:
    """Where the chain ends; note it elsewhere, so that a rewritten history can also be found."""

    length: int  # number of sealed events
    head: str  # hash of the last of them


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailEvent:
    """One event of the trail that is what it should be: hash and link are right, or it waits for both."""

    id: int
    at: datetime
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


def walk(connection: Connection) -> Iterator[list[TrailEvent]]:
    """Yield all events that have their place in the chain, in batches, each checked.

    Raises:
        BrokenChainError: the next event is not the recorded one, or events are missing at the end.
    """
    end = chain_end(connection)
    head, last_id, last_seq, length = GENESIS, 0, _BEFORE_ALL, 0
    while rows := _batch(connection, event.c.seq, last_seq):
        checked = []
        for row in rows:
            if length == end.length and head == end.head:
                raise BrokenChainError(f"event {row.id} was added past the program: the chain ends before it")
            checked.append(_checked(connection, row, head))
            head, last_id, last_seq, length = row.hash, row.id, row.seq, length + 1
            if row.seq != length:
                raise BrokenChainError(f"event {row.id} was moved: it has place {row.seq}, and is number {length}")
        yield checked
    if length < end.length:
        raise BrokenChainError(f"{end.length - length} events were removed at the end, after event {last_id}")
    if (length, head) != (end.length, end.head):
        raise BrokenChainError(
            f"event {last_id}, the last one, is not the one that the chain ends with: it was changed together with "
            "its hash, or others were removed or added there"
        )


def walk_unsealed(connection: Connection) -> Iterator[list[TrailEvent]]:
    """Yield the events that wait for their place in the chain, in batches.

    Raises:
        BrokenChainError: the next one cannot have been written by this program.
    """
    last_id = _BEFORE_ALL
    while rows := _batch(connection, event.c.id, last_id, event.c.seq.is_(None)):
        for row in rows:
            if seals_at_once(connection.dialect):
                raise BrokenChainError(f"event {row.id} was added past the program: it has no place in the chain")
            refuse_unsealable(row)
        last_id = rows[-1].id
        yield [_read(row) for row in rows]


def refuse_unsealable(row: Row[Any]) -> None:
    """Refuse an event without a place in the chain that this program did not write.

    Raises:
        BrokenChainError: it is one.
    """
    if row.hash:
        raise BrokenChainError(
            f"event {row.id} has a hash and no place in the chain: it was added past the program, or by an older one"
        )
    if not hash_of(row, GENESIS):
        raise BrokenChainError(f"event {row.id} was edited before it was sealed: it cannot be read")


def hash_of(row: Row[Any], previous_hash: str) -> str:
    """Return the hash of an event of the columns `RAW` behind another one; "" if it cannot be read."""
    try:
        detail = json.loads(row.detail)
        if not isinstance(detail, dict):
            return ""
        return event_hash(
            previous_hash,
            at=_instant(row.at),
            kind=row.kind,
            study_uid=row.study_uid,
            sop_instance_uid=row.sop_instance_uid,
            detail=detail,
        )
    except (TypeError, ValueError):  # edited into something that is not even an instant or JSON
        return ""


def _batch(
    connection: Connection, number: ColumnElement[int], after: int, *conditions: ColumnElement[bool]
) -> Sequence[Row[Any]]:
    """Return the next events in the order of the column `number`."""
    return connection.execute(select(*RAW).where(number > after, *conditions).order_by(number).limit(BATCH)).all()


def _checked(connection: Connection, row: Row[Any], head: str) -> TrailEvent:
    if not row.hash:
        raise BrokenChainError(f"event {row.id} was added past the program: it has no hash")
    if row.hash != hash_of(row, row.previous_hash):
        raise BrokenChainError(f"event {row.id} was edited: its contents are not those that its hash was made of")
    read = _read(row)
    if row.actor != actor_of(read.detail):
        raise BrokenChainError(f"event {row.id} was edited: its column actor is not who its contents name")
    if row.previous_hash != head:
        raise BrokenChainError(f"event {row.id} {_misplaced(connection, row)}")
    return read


def _read(row: Row[Any]) -> TrailEvent:
    return TrailEvent(
        id=row.id,
        at=_instant(row.at),
        kind=row.kind,
        study_uid=row.study_uid,
        sop_instance_uid=row.sop_instance_uid,
        detail=json.loads(row.detail),
    )


def _misplaced(connection: Connection, row: Row[Any]) -> str:
    """Return why a sound event does not follow the one before it."""
    if row.previous_hash == GENESIS:
        return "was reordered: it was the first one"
    columns = select(event.c.id, event.c.seq)
    before = connection.execute(columns.where(event.c.hash == row.previous_hash).limit(1)).first()
    if before is None:
        return "follows one that is not there: that was removed, or changed together with its hash"
    if before.seq is None or before.seq > row.seq:
        return f"was reordered: it follows event {before.id}, which stands behind it"
    return f"follows event {before.id}: what stands between them was added past the program, or reordered"


def _instant(kept: Any) -> datetime:
    """Return the instant of an event: PostgreSQL returns one, SQLite returns text in UTC."""
    instant = kept if isinstance(kept, datetime) else datetime.fromisoformat(kept)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
