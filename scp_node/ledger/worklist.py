"""Reads the list of studies: pages by key, capped counts, what is new, and rows for an export.

No query counts all rows, and none skips rows by number: each costs the same with a thousand studies and with a million.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    func,
    literal_column,
    or_,
    select,
    union,
)
from sqlalchemy.sql.elements import KeyedColumnElement

from scp_node.domain import Verdict
from scp_node.ledger import search
from scp_node.ledger.audit_rows import DeliveryState
from scp_node.ledger.database.schema import companion, event, instance, projection, report, worklist
from scp_node.ledger.projector import Phase
from scp_node.ledger.selecting import behind
from scp_node.ledger.trail.sealer import unsealed
from scp_node.ledger.transactions import Transactions
from scp_node.ledger.worklist_rows import (
    Count,
    Key,
    Menus,
    Opinions,
    Standing,
    StudyState,
    WorklistPage,
    WorklistQuery,
    WorklistRow,
)

PAGE: Final = 50  # rows, unless told otherwise
MOST_COUNTED: Final = 10_000
MOST_NEW: Final = 100
_EXPORTED: Final = 500  # rows in one transaction
_FEW: Final = 2_000  # rows that are found and then sorted; more are found on the way through the list
_MENU: Final = 100  # values of one menu
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
_COLUMNS: Final = [worklist.c[name] for name in WorklistRow.__slots__]


class Worklist:
    """Reads the list; changes nothing."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def page(
        self,
        query: WorklistQuery,
        *,
        older_than: Key | None = None,
        newer_than: Key | None = None,
        most: int = PAGE,
    ) -> WorklistPage:
        """Return up to `most` rows: the newest ones, or those next to a key on one side of it."""
        with self._transactions.reading() as (connection, _now):
            chosen = _Selection.of(connection, query)
            if newer_than is not None:
                found = connection.execute(chosen.newer(newer_than, most + 1, *_COLUMNS)).all()
                rows = tuple(map(_row, reversed(found[:most])))
                has_newer = len(found) > most
                has_older = bool(rows) and _any(connection, chosen.older(rows[-1].key, 1, worklist.c.id))
            else:
                found = connection.execute(chosen.older(older_than, most + 1, *_COLUMNS)).all()
                rows = tuple(map(_row, found[:most]))
                has_older = len(found) > most
                known = older_than is not None and bool(rows)
                has_newer = known and _any(connection, chosen.newer(rows[0].key, 1, worklist.c.id))
        return WorklistPage(rows=rows, has_newer=has_newer, has_older=has_older)

    def count(self, query: WorklistQuery, *, most: int = MOST_COUNTED) -> Count:
        """Return the number of rows, counted up to `most`."""
        with self._transactions.reading() as (connection, _now):
            return _counted(connection, _Selection.of(connection, query).unordered(most + 1), most)

    def newer(self, query: WorklistQuery, than: Key, *, most: int = MOST_NEW) -> Count:
        """Return the number of rows that have come before the row at this key, counted up to `most`."""
        with self._transactions.reading() as (connection, _now):
            chosen = _Selection.of(connection, query)
            return _counted(connection, chosen.newer(than, most + 1, worklist.c.id), most)

    def rows(self, query: WorklistQuery) -> Iterator[WorklistRow]:
        """Yield all rows, newest first; one that changes its place meanwhile may come twice or not at all."""
        key: Key | None = None
        while True:
            page = self.page(query, older_than=key, most=_EXPORTED)
            yield from page.rows
            if not page.has_older:
                return
            key = page.rows[-1].key

    def study(self, study_uid: str) -> list[WorklistRow]:
        """Return the rows of one study, one for each patient that it names."""
        chosen = select(*_COLUMNS).where(worklist.c.study_uid == study_uid).order_by(worklist.c.id)
        with self._transactions.reading() as (connection, _now):
            return list(map(_row, connection.execute(chosen)))

    def menus(self) -> Menus:
        """Return the values that occur; each is read from the start of its part of an index."""
        with self._transactions.reading() as (connection, _now):
            return Menus(
                calling_aes=_values(connection, worklist.c.calling_ae),
                bundles=_values(connection, worklist.c.bundle),
                reasons=_values(connection, worklist.c.reason),
                opinions=_values(connection, worklist.c.feedback),
            )

    def standing(self) -> Standing:
        """Return how far the list is behind the ledger, and whether anybody keeps it up to date."""
        with self._transactions.reading() as (connection, now):
            row = connection.execute(select(projection)).one()
            waiting = select(event.c.at).where(event.c.seq > row.position).order_by(event.c.seq).limit(1)
            oldest = connection.scalar(waiting) or unsealed(connection, at=now).oldest_at
        return Standing(
            now=now,
            is_followed=row.owner is not None and row.lease_until > now,
            is_complete=row.phase == Phase.FOLLOW,
            behind_seconds=max(0.0, (now - oldest).total_seconds()) if oldest else 0.0,
            position=row.position,
        )


@dataclass(frozen=True, slots=True)
class _Selection:
    """The rows that a query selects.

    Where only few rows can be meant, they are found first and sorted then. Otherwise one index is read in the order of
    the list. SQLite keeps no numbers about the values in a column by which to choose it: a plus sign before the name of
    a column keeps SQLite from using an index for that column.
    """

    conditions: tuple[ColumnElement[bool], ...]
    newest_at: KeyedColumnElement[Any] | ColumnElement[Any]
    words: tuple[str, ...] = ()  # that many rows have, where SQLite's index can count them

    @classmethod
    def of(cls, connection: Connection, query: WorklistQuery) -> _Selection:
        is_sqlite = connection.dialect.name == "sqlite"
        equal = _equalities(query)
        ids, sought = _found(connection, query.search)
        newest_at = _without_index(worklist.c.newest_at) if is_sqlite and ids is not None else worklist.c.newest_at
        conditions: list[ColumnElement[bool]] = []
        if ids is not None:
            conditions.append(worklist.c.id.in_(ids))
            sought = ()
        conditions += [search.contains(word, connection.dialect.name) for word in sought]
        if query.since is not None:
            conditions.append(newest_at >= query.since)
        if query.until is not None:
            conditions.append(newest_at < query.until)
        best = None if ids is not None else _rarest(connection, equal) if is_sqlite else None
        for name, value in equal:
            column = worklist.c[name] if not is_sqlite or name == best else _without_index(worklist.c[name])
            conditions.append(column == value)
        if query.feedback in set(Opinions):
            given = query.feedback == Opinions.ANY
            conditions.append(worklist.c.feedback.is_not(None) if given else worklist.c.feedback.is_(None))
        return cls(tuple(conditions), newest_at, sought if is_sqlite else ())

    def older(self, than: Key | None, most: int, *columns: ColumnElement[Any]) -> Select[Any]:
        """Return the query for the next rows behind a key, or for the first ones, newest first."""
        behind = () if than is None else (_beside(self.newest_at, than, older=True),)
        chosen = select(*columns).where(*self.conditions, *behind)
        return chosen.order_by(self.newest_at.desc(), worklist.c.id.desc()).limit(most)

    def newer(self, than: Key, most: int, *columns: ColumnElement[Any]) -> Select[Any]:
        """Return the query for the next rows before a key, oldest first."""
        chosen = select(*columns).where(*self.conditions, _beside(self.newest_at, than, older=False))
        return chosen.order_by(self.newest_at, worklist.c.id).limit(most)

    def unordered(self, most: int) -> Select[Any]:
        """Return the query for some of the rows."""
        if self.words:  # the index names them sooner than the list would
            indexed = search.INDEXED_ROWS.join(worklist, worklist.c.id == search.INDEXED_ROWS.c.rowid)
            others = self.conditions[len(self.words) :]
            return select(worklist.c.id).select_from(indexed).where(search.matches(self.words), *others).limit(most)
        return select(worklist.c.id).where(*self.conditions).limit(most)


def _equalities(query: WorklistQuery) -> list[tuple[str, str]]:
    opinion = None if query.feedback in set(Opinions) else query.feedback
    named: dict[str, str | None] = {
        "state": query.state,
        "verdict": query.verdict,
        "reason": query.reason,
        "calling_ae": query.calling_ae,
        "bundle": query.bundle,
        "feedback": opinion,
    }
    return [(name, str(value)) for name, value in named.items() if value is not None]


def _rarest(connection: Connection, equal: Sequence[tuple[str, str]]) -> str | None:
    """Return the column whose value the fewest rows have; None where each is common: then the list itself is read."""
    if len(equal) == 1:
        return equal[0][0]
    numbers = {}
    for name, value in equal:
        some = select(worklist.c.id).where(worklist.c[name] == value).limit(_FEW)
        numbers[name] = connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()
    return min(numbers, key=lambda name: numbers[name], default=None)


def _without_index(column: KeyedColumnElement[Any]) -> ColumnElement[Any]:
    return literal_column(f"+worklist.{column.name}", column.type)


def _beside(newest_at: ColumnElement[Any], key: Key, *, older: bool) -> ColumnElement[bool]:
    """Return the SQL condition that a row stands behind a key, or before it."""
    if older:
        return behind(newest_at, worklist.c.id, (key.newest_at, key.id))
    tie = and_(newest_at == key.newest_at, worklist.c.id > key.id)
    return and_(newest_at >= key.newest_at, or_(newest_at > key.newest_at, tie))


def _found(connection: Connection, sought: str) -> tuple[list[int] | None, tuple[str, ...]]:
    """Return the rows that a search means, if they are few; else None and its words, which each row has to be asked."""
    if _UID.fullmatch(sought.strip()) and (ids := _named_by_uid(connection, sought.strip())):
        return ids, ()
    sought_words = search.wanted(sought)
    if not sought_words:
        return None, ()
    return search.found(connection, sought_words, _FEW), sought_words


def _named_by_uid(connection: Connection, uid: str) -> list[int]:
    """Return the rows that a UID names: that of a study, an image, a report or what went with one."""
    report_of = select(report.c.study_patient_id)
    sent = report_of.join(companion, companion.c.report_id == report.c.id)
    named = union(
        select(worklist.c.id).where(worklist.c.study_uid == uid),
        select(instance.c.study_patient_id).where(instance.c.sop_instance_uid == uid),
        report_of.where(report.c.sop_instance_uid == uid),
        sent.where(companion.c.sop_instance_uid == uid),
    )
    return [each for each in connection.scalars(named) if each is not None]


def _counted(connection: Connection, some: Select[Any], most: int) -> Count:
    number = connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()
    return Count(number=min(number, most), is_capped=number > most)


def _any(connection: Connection, some: Select[Any]) -> bool:
    return connection.execute(some).first() is not None


def _values(connection: Connection, column: KeyedColumnElement[Any]) -> tuple[str, ...]:
    """Return the values of a column that an index begins with, from one to the next: the rows between are not read."""
    values: list[str] = []
    value = connection.scalar(select(func.min(column)))
    while value is not None and len(values) < _MENU:
        values.append(value)
        value = connection.scalar(select(func.min(column)).where(column > value))
    return tuple(values)


def _row(row: Row[Any]) -> WorklistRow:
    values = {
        **row._asdict(),
        "state": StudyState(row.state),
        "verdict": None if row.verdict is None else Verdict(row.verdict),
        "delivery_state": None if row.delivery_state is None else DeliveryState(row.delivery_state),
    }
    return WorklistRow(**values)
