"""Empty ledgers in PostgreSQL, lent to one test after the other: a new copy for each would cost thrice as much."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

from psycopg import Cursor
from psycopg.sql import SQL, Identifier

from tests.servers import Postgres

ROOM: Final = 1 << 20  # bytes that the tables may grow by: rows that are deleted keep their place
# A change of the schema leaves its transaction in one of these; rows and sequences that change do not.
_CATALOGUES: Final = ("pg_attrdef", "pg_attribute", "pg_constraint", "pg_namespace", "pg_proc", "pg_trigger", "pg_type")
_SCHEMA: Final = SQL(" UNION ALL ").join(
    SQL("SELECT {}, count(*), max(xmin::text::bigint) FROM {}").format(name, Identifier(name)) for name in _CATALOGUES
)
_TABLES: Final = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
_SIZE: Final = (
    "SELECT sum(pg_total_relation_size(quote_ident(tablename)::regclass)) FROM pg_tables WHERE schemaname = 'public'"
)
_NUMBERS: Final = (
    "SELECT quote_ident(sequencename), coalesce(last_value, start_value), last_value IS NOT NULL FROM pg_sequences"
)
_END_OTHER_SESSIONS: Final = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True, slots=True)
class _Empty:
    """What an empty ledger is: its schema, its size in bytes, its first rows, and where its sequences stand."""

    schema: list[Any]
    size: int
    rows: dict[str, bytes]  # of a table, as COPY writes them
    numbers: list[Any]

    @classmethod
    def of(cls, cursor: Cursor) -> Self:
        rows = {table: _copy_of(cursor, table) for table in _tables_with_rows(cursor)}
        return cls(cursor.execute(_SCHEMA).fetchall(), _size(cursor), rows, cursor.execute(_NUMBERS).fetchall())

    def is_again(self, cursor: Cursor) -> bool:
        """Empty the ledger; return False where that would not make it what it was."""
        cursor.execute(_END_OTHER_SESSIONS)
        if cursor.execute(_SCHEMA).fetchall() != self.schema or _size(cursor) > self.size + ROOM:
            return False
        cursor.execute("SET session_replication_role = replica")  # no foreign key has to be looked up
        for table in _tables_with_rows(cursor):
            cursor.execute(SQL("DELETE FROM {}").format(Identifier(table)))
        for table, rows in self.rows.items():
            with cursor.copy(SQL("COPY {} FROM STDIN").format(Identifier(table))) as copy:
                copy.write(rows)
        for sequence in self.numbers:
            cursor.execute("SELECT setval(%s, %s, %s)", sequence)
        return True


@dataclass
class LentLedgers:
    """The ledgers of one server, each a copy of its database `template`."""

    template: str
    _free: dict[str, _Empty] = field(default_factory=dict)  # by the name of the database

    @contextlib.contextmanager
    def lend(self, server: Postgres) -> Iterator[str]:
        """Give the SQLAlchemy URL of an empty ledger; what still uses it at the end is cut off."""
        name, empty = self._free.popitem() if self._free else self._new(server)
        try:
            yield server.url(name)
        finally:
            with server.connect(name) as connection, connection.cursor() as cursor:
                is_empty = empty.is_again(cursor)
            if is_empty:
                self._free[name] = empty
            else:
                server.drop(name)

    def _new(self, server: Postgres) -> tuple[str, _Empty]:
        name = server.create(self.template)
        with server.connect(name) as connection, connection.cursor() as cursor:
            return name, _Empty.of(cursor)


def _tables_with_rows(cursor: Cursor) -> list[str]:
    tables = [table for (table,) in cursor.execute(_TABLES).fetchall()]
    asked = [SQL("SELECT {} WHERE EXISTS (SELECT FROM {})").format(table, Identifier(table)) for table in tables]
    return [table for (table,) in cursor.execute(SQL(" UNION ALL ").join(asked)).fetchall()]


def _copy_of(cursor: Cursor, table: str) -> bytes:
    with cursor.copy(SQL("COPY {} TO STDOUT").format(Identifier(table))) as copy:
        return b"".join(bytes(part) for part in copy)


def _size(cursor: Cursor) -> int:
    [[size]] = cursor.execute(_SIZE).fetchall()
    return int(size)
