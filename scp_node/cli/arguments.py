"""Reads the values of command-line arguments; a wrong one is a `UsageError` that says what to give."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from scp_node.cli.console import UsageError
from scp_node.settings import ae_title

_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
_HIGHEST_PORT: Final = 65_535


def first_instant(option: str, value: str | None) -> datetime | None:
    """Return the first instant, in UTC, of an ISO 8601 date or time; without a zone it is local.

    Raises:
        UsageError: `value` is something else.
    """
    return None if value is None else _instant(option, value, after=False)


def instant_after(option: str, value: str | None) -> datetime | None:
    """Return the instant, in UTC, at which an ISO 8601 date, or the second or microsecond of a time, is over.

    Raises:
        UsageError: `value` is something else.
    """
    return None if value is None else _instant(option, value, after=True)


def _instant(option: str, value: str, *, after: bool) -> datetime:
    try:
        instant = datetime.fromisoformat(value)
        if after:
            instant += _DAY if _is_date(value) else timedelta.resolution if instant.microsecond else _SECOND
        return (instant if instant.tzinfo else instant.astimezone()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):  # the last two: it has no local time, or none in UTC
        example = "2026-03-01 or 2026-03-01T08:00:00+01:00"
        raise UsageError(f"{option}: give an ISO 8601 date or time, such as {example}") from None


def _is_date(value: str) -> bool:
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def address(option: str, value: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; an IPv6 address may stand in brackets.

    Raises:
        UsageError: it is something else.
    """
    host, _, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or not (port.isascii() and port.isdecimal()) or not 1 <= int(port[:6]) <= _HIGHEST_PORT:
        raise UsageError(f"{option}: give HOST:PORT, such as 127.0.0.1:11112; the port is 1 to {_HIGHEST_PORT}")
    return host, int(port)


def title(option: str, value: str) -> str:
    """Return an AE title.

    Raises:
        UsageError: it is not 1 to 16 characters as the standard allows them.
    """
    try:
        return ae_title(value)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty word of the command line: most often a variable of a shell that was not set.

    Raises:
        UsageError: there is one; the message names what stands before it.
    """
    for number, word in enumerate(arguments):
        if not word.strip() or (word.startswith("--") and word.endswith("=")):
            before = word.rstrip("=") if word.strip() else ["", *arguments][number]
            raise UsageError(
                f"an argument is empty{f' after {before}' if before else ''}: give a value, or leave it out"
            )
