"""Notes which queues got work that may be claimed, so that whoever waits for it can be told after the commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection

_NOTED: Final = "queues with new work"  # key in `Connection.info`


@contextmanager
def noticing(connection: Connection, noted: set[str]) -> Iterator[None]:
    """Add to `noted` the names of the queues that `notice` is called with in this transaction."""
    info = connection.info  # as in `recording`
    info[_NOTED] = noted
    try:
        yield
    finally:
        del info[_NOTED]


def notice(connection: Connection, *names: str) -> None:
    """Note that these queues have work that may be claimed once the transaction is committed."""
    if (noted := connection.info.get(_NOTED)) is not None:
        noted.update(names)
