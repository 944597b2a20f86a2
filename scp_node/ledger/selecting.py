"""What many queries are made of: a long list in parts, and the rows that a page begins behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, and_, or_

CHUNK: Final = 500  # values in one IN list: SQLite has 32,766 variables
T = TypeVar("T")


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Yield the items in parts that fit into one statement."""
    return (items[start : start + size] for start in range(0, len(items), size))


def behind(at: ColumnElement[Any], row_id: ColumnElement[Any], key: tuple[datetime, int]) -> ColumnElement[bool]:
    """Return the SQL condition that a row stands behind the key in a list from the newest to the oldest.

    The first part alone is what an index finds the place by.
    """
    instant, number = key
    return and_(at <= instant, or_(at < instant, and_(at == instant, row_id < number)))
