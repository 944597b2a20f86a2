"""Copies a whole ledger into another database: from SQLite to PostgreSQL, when one machine is no longer enough."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.database.schema import RECORDS, audit_feed, chain, clock, work
from scp_node.ledger.projector import begin_rebuild
from scp_node.ledger.queue import WorkState
from scp_node.ledger.trail.chain import BrokenChainError
from scp_node.ledger.trail.sealer import seal_all
from scp_node.ledger.transactions import Transactions
from scp_node.ledger.verification import verify

_ROWS: Final = 200  # in memory at once
_FILES: Final = 8  # rows at once of a table with whole files, which have megabytes
_MODULUS: Final = 2**256


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """The contents of the new database, counted and compared before the commit."""

    rows: Mapping[str, int]  # number of each table
    events: int
    head: str  # hash of the last event


@dataclass(frozen=True, slots=True)
class _Contents:
    """The number of a table's rows, and the sum of their hashes, which does not depend on the order."""

    rows: int = 0
    digest: int = 0

    def plus(self, rows: Sequence[Mapping[str, Any]]) -> _Contents:
        return _Contents(self.rows + len(rows), (self.digest + sum(map(_hash, rows))) % _MODULUS)


def copy_ledger(source: Engine, target: Engine) -> Copied:
    """Copy every row into an empty database that has the schema; either the whole copy is there, or nothing.

    Nobody can write to the source meanwhile. One transaction writes the new database, reads every row back, compares it
    and verifies the chain. The projections are not copied: they are made again there.

    Raises:
        LedgerError: the target is not empty, somebody works on the source, or the copy differs from the source.
    """
    transactions = Transactions(source)
    try:
        seal_all(transactions)
        with transactions.writing() as (reader, now), target.begin() as writer:
            _lock(reader, "SHARE")
            _lock(writer, "EXCLUSIVE")
            _require_idle(reader, now)
            _require_empty(writer)
            copied = {table: _copy(reader, writer, table) for table in RECORDS}
            begin_rebuild(writer)
            return _compared(writer, copied, now)
    except BrokenChainError as error:
        raise LedgerError(f"copy: {error} (`scp-node audit verify`); nothing was copied") from None
    except SQLAlchemyError as error:  # its first line holds no values of rows
        raise LedgerError(f"copy: {str(error).splitlines()[0]}") from None


def _lock(connection: Connection, mode: str) -> None:
    """Keep all others from writing; on SQLite the transaction has done that since it began."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # one waits for the other
        names = ", ".join(table.name for table in RECORDS)
        connection.execute(text(f"LOCK TABLE {names} IN {mode} MODE"))


def _require_idle(connection: Connection, now: datetime) -> None:
    leased = select(func.max(work.c.lease_until)).where(work.c.state == WorkState.LEASED, work.c.lease_until > now)
    if until := connection.execute(leased).scalar_one():
        seconds = (until - now).total_seconds()
        raise LedgerError(
            f"copy: somebody has leased work for {seconds:.0f} s more: stop every role, then wait so long"
        )


def _require_empty(connection: Connection) -> None:
    """Check that nothing was ever written: only the rows that the migrations add are there, unchanged."""
    for table in RECORDS:
        used = select(table)
        if table is chain:
            used = used.where(chain.c.length > 0)
        elif table is clock:
            used = used.where(clock.c.jumps > 0)
        elif table is audit_feed:
            used = used.where(audit_feed.c.taken > 0)
        if connection.execute(used.limit(1)).first():
            raise LedgerError(f"copy: table {table.name} of the target has rows: give an empty database")


def _copy(reader: Connection, writer: Connection, table: Table) -> _Contents:
    writer.execute(table.delete())  # the rows that the migrations added
    contents = _Contents()
    with closing(_batches(reader, table)) as batches:
        for rows in batches:
            writer.execute(table.insert(), rows)
            contents = contents.plus(rows)
    _continue_numbering(writer, table)
    return contents


def _batches(connection: Connection, table: Table) -> Generator[list[dict[str, Any]], None, None]:
    """Yield all rows in the order of their keys, so that a report comes after the one that it supersedes."""
    many = _FILES if "file" in table.c else _ROWS
    ordered = select(table).order_by(*table.primary_key).execution_options(yield_per=many)
    with connection.execute(ordered) as rows:
        for part in rows.mappings().partitions():
            yield [dict(row) for row in part]


def _continue_numbering(connection: Connection, table: Table) -> None:
    """Let PostgreSQL continue to count where the copied ids end; SQLite does so by itself."""
    column = table.autoincrement_column
    if connection.dialect.name == "postgresql" and column is not None:
        last = select(func.max(column)).scalar_subquery()
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        connection.execute(select(func.setval(sequence, func.coalesce(last, 1), last.is_not(None))))


def _compared(connection: Connection, copied: Mapping[Table, _Contents], at: datetime) -> Copied:
    for table, contents in copied.items():
        there = _Contents()
        for rows in _batches(connection, table):
            there = there.plus(rows)
        if there != contents:
            raise LedgerError(f"copy: table {table.name} arrived as {there.rows} rows of {contents.rows}, or altered")
    verification = verify(connection, at=at)
    if verification.problems:
        raise LedgerError(f"copy: {verification.problems[0]} (`scp-node audit verify`); nothing was copied")
    counts = {table.name: contents.rows for table, contents in copied.items()}
    return Copied(rows=counts, events=verification.events, head=verification.head)


def _hash(row: Mapping[str, Any]) -> int:
    canonical = json.dumps({name: _plain(value) for name, value in row.items()}, sort_keys=True)
    return int.from_bytes(hashlib.sha256(canonical.encode("ascii")).digest())


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
