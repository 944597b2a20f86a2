"""Keeps the settings of the processes that work on the ledger: two that decide differently would misstate a result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from scp_node import __version__
from scp_node.ledger.database.schema import process
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

SEEN_EVERY: Final = timedelta(seconds=5)  # each process renews its row
_OWNER: Final = re.compile(r"(.+):([0-9]{1,12}):([^:]+):[0-9a-f]+")  # host, process, role, and what makes it unique
GONE_AFTER: Final = timedelta(seconds=20)  # without a renewal
STARTED: Final = "application-started"  # kinds of event
STOPPED: Final = "application-stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherProcess:
    """A process with other settings, which seems to be at work."""

    owner: str
    differing: tuple[str, ...]  # names of the settings
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessAtWork:
    """A process that shows that it works on the ledger."""

    host: str
    number: int  # of the process on its host
    role: str
    may_differ: bool
    seen_at: datetime


class Processes:
    """The processes of one ledger."""

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def enter(self, owner: str, settings: Mapping[str, str], *, may_differ: bool = False) -> None:
        """Enter a process with the settings that decide its results, and forget those that are gone.

        `may_differ`: a person allowed it other settings than the rest has, so the rest does not heed it.
        """
        with self._transactions.writing() as (connection, now):
            _forget_gone(connection, now, noticed_by=owner)
            values = {"owner": owner, "settings": dict(settings), "may_differ": may_differ, "seen_at": now}
            connection.execute(insert(process).values(**values))
            record_event(connection, now, STARTED, detail=_told(owner, version=__version__))

    def forget_gone(self, owner: str) -> None:
        """Forget the processes that are gone, and record for each that `owner` has noticed it."""
        with self._transactions.writing() as (connection, now):
            _forget_gone(connection, now, noticed_by=owner)

    def renew(self, owner: str) -> bool:
        """Show that the process is still at work; return False if it counted as gone and has to enter again."""
        with self._transactions.writing() as (connection, now):
            shown = update(process).where(process.c.owner == owner).values(seen_at=now)
            return connection.execute(shown).rowcount == 1

    def leave(self, owner: str) -> None:
        """Take the process out."""
        with self._transactions.writing() as (connection, now):
            if connection.execute(delete(process).where(process.c.owner == owner)).rowcount:
                record_event(connection, now, STOPPED, detail=_told(owner, version=__version__))

    def at_work(self) -> list[ProcessAtWork]:
        """Return the processes that have shown lately that they are at work, by role and host."""
        with self._transactions.reading() as (connection, now):
            rows = connection.execute(select(process).where(process.c.seen_at >= now - GONE_AFTER)).all()
        found = [_described(row) for row in rows]
        return sorted(found, key=lambda each: (each.role, each.host, each.number))

    def differing(self, settings: Mapping[str, str]) -> list[OtherProcess]:
        """Return the processes at work whose settings differ from these, ordered by owner."""
        with self._transactions.reading() as (connection, now):
            at_work = (process.c.seen_at >= now - GONE_AFTER) & ~process.c.may_differ
            rows = connection.execute(select(process).where(at_work).order_by(process.c.owner)).all()
        found = [(row, _differing(row.settings, settings)) for row in rows]
        return [OtherProcess(owner=row.owner, differing=names, seen_at=row.seen_at) for row, names in found if names]


def _forget_gone(connection: Connection, now: datetime, *, noticed_by: str) -> None:
    """Take out the processes that have not shown for long that they are at work: killed, or without the database."""
    rows = connection.execute(select(process).where(process.c.seen_at < now - GONE_AFTER)).all()
    for row in rows:
        seen = row.seen_at.isoformat(timespec="seconds")
        record_event(connection, now, STOPPED, detail=_told(row.owner, not_seen_since=seen, noticed_by=noticed_by))
    connection.execute(delete(process).where(process.c.owner.in_([row.owner for row in rows])))


def _told(owner: str, **more: str) -> dict[str, str]:
    found = _OWNER.fullmatch(owner)
    return {"process": owner, "role": found[3] if found else "", **more}


def _described(row: Row[Any]) -> ProcessAtWork:
    found = _OWNER.fullmatch(row.owner)
    host, number, role = found.groups() if found else (row.owner, "0", "")
    return ProcessAtWork(host=host, number=int(number), role=role, may_differ=row.may_differ, seen_at=row.seen_at)


def _differing(one: Mapping[str, str], two: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the settings that both have, with another value: a sender, for one, has no model."""
    return tuple(sorted(name for name in one if name in two and one[name] != two[name]))
