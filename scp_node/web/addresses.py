"""What stands in the address of more than one page: the place in a list, and the days that are shown."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from scp_node.web.errors import UnknownValueError

Place = tuple[datetime, int]  # in a list by time: the instant of a row, and its number

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PLACE: Final = re.compile(r"([0-9]{1,17})-([0-9]{1,18})")  # microseconds since 1970, and the row
_YEARS: Final = range(1990, 2201)


def place_text(at: datetime, row: int) -> str:
    """Return a place in a list as it stands in an address."""
    return f"{(at - _EPOCH) // _MICROSECOND}-{row}"


def place_of(value: str | None) -> Place | None:
    """Return the place that an address names; None, which is the first page, for one that nobody made."""
    match = _PLACE.fullmatch(value or "")
    return (_EPOCH + int(match[1]) * _MICROSECOND, int(match[2])) if match else None


def days_of(first: str, last: str, *, today: date, usual: int, most: int) -> tuple[date, date]:
    """Return the first and the last day that an address names; without them the `usual` number of days up to `today`.

    Raises:
        UnknownValueError: a day is none, they are in the wrong order, or more than `most`.
    """
    until = _day("last", last) or today
    since = _day("first", first) or until - timedelta(days=usual - 1)
    if since > until:
        raise UnknownValueError("first: the first day is after the last one")
    if (until - since).days >= most:
        raise UnknownValueError(f"first: at most {most} days at once")
    return since, until


def _day(name: str, value: str) -> date | None:
    if not value:
        return None
    try:
        found = date.fromisoformat(value)
    except ValueError:
        raise UnknownValueError(f"{name}: give a day such as 2026-05-31") from None
    if found.year not in _YEARS:
        raise UnknownValueError(f"{name}: give a day such as 2026-05-31")
    return found
