"""Whose turn it is to follow the events: one process at a time, by a lease in one row."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Table, or_


def is_free(table: Table, owner: str, *, at: datetime, lease: timedelta) -> ColumnElement[bool]:
    """Return the condition under which `owner` may take the lease in the row of `table`, or has it."""
    return or_(
        table.c.owner.is_(None),
        table.c.owner == owner,
        table.c.lease_until <= at,
        table.c.lease_until > at + lease,  # written by a clock that ran ahead
    )
