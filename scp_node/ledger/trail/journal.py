"""Reads the trail for people who ask who did what: page by page, newest first, each question by an index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, func, literal_column, select

from scp_node.ledger.database.schema import ACTOR_LENGTH, event
from scp_node.ledger.selecting import behind
from scp_node.ledger.transactions import Transactions

ANY_PERSON: Final = "*"
PAGE: Final = 50
_OF_PERSONS: Final[ColumnElement[bool]] = literal_column("actor <> ''")  # word for word what the indexes are made for


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalQuery:
    """Selects events; every condition that is set must hold."""

    person: str = ""  # who did it; ANY_PERSON: any person, and not the node itself
    kind: str = ""
    study_uid: str = ""
    since: datetime | None = None  # at or after
    until: datetime | None = None  # before


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEvent:
    """One event, as it was recorded."""

    id: int
    at: datetime
    kind: str
    person: str  # who did it; "": the node itself
    address: str  # where they asked from
    study_uid: str
    sop_instance_uid: str
    details: tuple[tuple[str, str], ...]  # what else the event holds: name and text
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPage:
    """Events, newest first, and where the next older ones begin."""

    events: tuple[JournalEvent, ...]
    next_key: tuple[datetime, int] | None  # of the last event; None where no older one is left


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyVisitor:
    """A person who looked at a study, and how often an event says so."""

    person: str
    first_at: datetime
    last_at: datetime
    times: int


class Journal:
    """The events of the trail, for reading."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def page(self, query: JournalQuery, *, before: tuple[datetime, int] | None = None, most: int = PAGE) -> JournalPage:
        """Return up to `most` events, newest first, older than the one with the key `before`."""
        conditions = list(_conditions(query))
        if before is not None:
            conditions.append(behind(event.c.at, event.c.id, before))
        chosen = select(event).where(*conditions).order_by(event.c.at.desc(), event.c.id.desc()).limit(most + 1)
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(chosen).all()
        shown = rows[:most]
        has_more = len(rows) > most
        return JournalPage(
            events=tuple(_event(row) for row in shown),
            next_key=(shown[-1].at, shown[-1].id) if has_more else None,
        )

    def kinds(self) -> list[str]:
        """Return the kinds of event that there are, by a walk of one step for each through their index."""
        found: list[str] = []
        with self._transactions.reading() as (connection, _now):
            last = ""
            while (kind := connection.scalar(select(func.min(event.c.kind)).where(event.c.kind > last))) is not None:
                found.append(kind)
                last = kind
        return found

    def visitors(self, study_uid: str) -> list[StudyVisitor]:
        """Return who looked at a study, the last one first."""
        seen = (event.c.study_uid == study_uid) & (event.c.kind == "web-viewed")
        last = func.max(event.c.at).label("last_at")
        columns = (event.c.actor, func.min(event.c.at).label("first_at"), last, func.count().label("times"))
        chosen = select(*columns).where(seen).group_by(event.c.actor).order_by(last.desc())
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(chosen).all()
        return [
            StudyVisitor(person=row.actor, first_at=row.first_at, last_at=row.last_at, times=row.times) for row in rows
        ]


def _conditions(query: JournalQuery) -> Iterator[ColumnElement[bool]]:
    if query.person:
        yield _OF_PERSONS
        if query.person != ANY_PERSON:
            yield event.c.actor == query.person[:ACTOR_LENGTH]
    if query.kind:
        yield event.c.kind == query.kind
    if query.study_uid:
        yield event.c.study_uid == query.study_uid
    if query.since:
        yield event.c.at >= query.since
    if query.until:
        yield event.c.at < query.until


def _event(row: Any) -> JournalEvent:
    detail: Mapping[str, Any] = row.detail
    others = {name: value for name, value in detail.items() if name not in {"by", "address"}}
    return JournalEvent(
        id=row.id,
        at=row.at,
        kind=row.kind,
        person=row.actor,
        address=str(detail.get("address", "")),
        study_uid=row.study_uid,
        sop_instance_uid=row.sop_instance_uid,
        details=tuple((name, _text(value)) for name, value in others.items()),
        previous_hash=row.previous_hash,
        hash=row.hash,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
