"""Errors of the database, and of the values that it was asked to keep."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
    StatementError,
    TimeoutError,  # noqa: A004 - of the pool, no builtin
)

# SQLSTATE classes of PostgreSQL: data exception, program limit exceeded (a value too long for its index)
_CLASSES_OF_VALUES: Final = frozenset({"22", "54"})


class LedgerError(RuntimeError):
    """The database cannot be used; the message says why and never holds a password."""


class LedgerUnreachableError(LedgerError):
    """The database cannot be used now: it is stopped, locked, full, read-only or gone. It may come back."""


class LedgerGoneError(LedgerUnreachableError):
    """There was a ledger, but now its database is empty or its file is missing."""


# The database cannot be used now, and may come back.
AWAY: Final[tuple[type[Exception], ...]] = (
    LedgerUnreachableError,
    OperationalError,
    InterfaceError,
    DisconnectionError,
    TimeoutError,
)


def blames_values(error: Exception) -> bool:
    """Return whether the database refuses these very values and always will; any other error is the database's fault.

    For an `IntegrityError` it returns False: only a query can say what such an error means.
    """
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        return isinstance(error, DataError) or state[:2] in _CLASSES_OF_VALUES
    return isinstance(error, (StatementError, ValueError, OverflowError))


def first_line(error: Exception) -> str:
    """Return the message of an error without its SQL."""
    return str(error).splitlines()[0]
