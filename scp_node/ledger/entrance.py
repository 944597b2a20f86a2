"""What stands before a login: failed tries, browsers that are known, and logins that were begun elsewhere.

Tries are counted by account, by address and by browser, as OWASP's "Slow Down Online Guessing Attacks with Device
Cookies" describes it: strangers who guess at an account have to wait, and its owner, in a browser that is known, does
not wait for them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from scp_node.domain import Actor
from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.database.schema import person, web_attempt, web_browser, web_sign_on
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

FREE_OF_ACCOUNT: Final = 5  # failures in a row before the next try has to wait
FREE_OF_ADDRESS: Final = 20  # a whole department may come from one
FREE_OF_BROWSER: Final = 10
FIRST_WAIT: Final = timedelta(seconds=1)  # doubled for each further failure
LONGEST_WAIT: Final = timedelta(minutes=15)
BROWSER_LIFETIME: Final = timedelta(days=90)  # without a login
SIGN_ON_LIFETIME: Final = timedelta(minutes=10)
MOST_SIGN_ONS: Final = 5_000  # begun at the same time: anybody may begin one
_FORGOTTEN_AFTER: Final = timedelta(days=1)
_IPV6_NETWORK: Final = 64  # bits: one customer has at least such a network (RFC 6177)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One count of failures: of an account, an address or a browser."""

    subject: str
    free: int  # failures before a wait


def limits(name: str, address: str, browser: str | None) -> tuple[Limit, ...]:
    """Return the counts that a try to log in as `name` adds to; `browser` is the token of one that they used before."""
    if browser is not None:
        return (Limit(subject=f"browser:{browser}", free=FREE_OF_BROWSER),)
    return (
        Limit(subject=f"account:{name}", free=FREE_OF_ACCOUNT),
        Limit(subject=f"address:{_network(address)}", free=FREE_OF_ADDRESS),
    )


class Entrance:
    """The tries to log in."""

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def try_once(self, counts: Sequence[Limit]) -> timedelta:
        """Count a try as failed until `succeeded` and return zero, or count nothing and return the time to wait.

        Since it counts before the password is looked at, many tries at the same time get no more guesses than one after
        the other.
        """
        with self._transactions.reading() as (connection, now):
            if wait := _wait(connection, counts, now, lock=False):
                return wait
        with self._transactions.writing() as (connection, now):
            connection.execute(delete(web_attempt).where(web_attempt.c.at < now - _FORGOTTEN_AFTER))
            known = sorted(digest(each.subject) for each in counts)
            insert_new = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            rows = [{"subject": subject, "failures": 0, "at": now} for subject in known]
            connection.execute(insert_new(web_attempt).on_conflict_do_nothing(), rows)
            if wait := _wait(connection, counts, now, lock=True):
                return wait
            counted = update(web_attempt).where(web_attempt.c.subject.in_(known))
            connection.execute(counted.values(failures=web_attempt.c.failures + 1, at=now))
        return timedelta(0)

    def failed(self, actor: Actor, **detail: str) -> None:
        """Note in the trail that somebody failed to log in."""
        with self._transactions.writing() as (connection, now):
            record_event(connection, now, "web-login-failed", detail={**actor.detail, **detail})

    def succeeded(self, counts: Sequence[Limit]) -> None:
        """Take the try back, and forget the failures before it, except those of the address.

        Else whoever has an account could log in after each few guesses at another one.
        """
        of_address = [digest(each.subject) for each in counts if each.subject.startswith("address:")]
        others = [digest(each.subject) for each in counts if not each.subject.startswith("address:")]
        with self._transactions.writing() as (connection, _now):
            connection.execute(delete(web_attempt).where(web_attempt.c.subject.in_(others)))
            taken_back = update(web_attempt).where(web_attempt.c.subject.in_(of_address), web_attempt.c.failures > 0)
            connection.execute(taken_back.values(failures=web_attempt.c.failures - 1))

    def knows_browser(self, token: str, name: str) -> bool:
        """Return whether this person has logged in before in the browser that holds `token`."""
        chosen = select(web_browser.c.person_id).join(person, person.c.id == web_browser.c.person_id)
        is_theirs = (web_browser.c.token_sha256 == digest(token)) & (person.c.name == name)
        with self._transactions.reading() as (connection, now):
            is_young = web_browser.c.seen_at > now - BROWSER_LIFETIME
            return connection.execute(chosen.where(is_theirs, is_young)).first() is not None

    def know_browser(self, name: str, token: str | None) -> str:
        """Remember a browser in which this person has logged in, and return the token that it has to hold."""
        token = token if token is not None and self.knows_browser(token, name) else secrets.token_urlsafe(32)
        known = digest(token)
        with self._transactions.writing() as (connection, now):
            connection.execute(delete(web_browser).where(web_browser.c.seen_at < now - BROWSER_LIFETIME))
            seen = update(web_browser).where(web_browser.c.token_sha256 == known).values(seen_at=now)
            if not connection.execute(seen).rowcount:
                person_id = select(person.c.id).where(person.c.name == name).scalar_subquery()
                values = {"token_sha256": known, "person_id": person_id, "seen_at": now}
                connection.execute(insert(web_browser).values(**values))
        return token

    def begin_sign_on(self, state: str, browser: str, place: str) -> None:
        """Remember that a login begins at the single sign-on: `state` will come back, and `browser` is in a cookie.

        Raises:
            LedgerError: too many were begun and are not back.
        """
        with self._transactions.writing() as (connection, now):
            connection.execute(delete(web_sign_on).where(web_sign_on.c.expires_at < now))
            number = connection.scalar(select(func.count()).select_from(web_sign_on)) or 0
            if number >= MOST_SIGN_ONS:
                raise LedgerError("too many logins were begun: wait ten minutes")
            values = {
                "state_sha256": digest(state),
                "browser_sha256": digest(browser),
                "place": place,
                "expires_at": now + SIGN_ON_LIFETIME,
            }
            connection.execute(insert(web_sign_on).values(**values))

    def end_sign_on(self, state: str, browser: str) -> str | None:
        """Return, once, where a person who comes back wanted to go.

        None: the login is too old, or was begun in another browser.
        """
        with self._transactions.writing() as (connection, now):
            known = (web_sign_on.c.state_sha256 == digest(state)) & (web_sign_on.c.browser_sha256 == digest(browser))
            taken = delete(web_sign_on).where(known).returning(web_sign_on.c.place, web_sign_on.c.expires_at)
            row = connection.execute(taken).first()
        return str(row.place) if row and row.expires_at > now else None


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret of 256 bits: such a secret needs no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def pause(failures: int, free: int) -> timedelta:
    """Return how long to wait after the last of `failures` failures in a row."""
    if failures < free:
        return timedelta(0)
    doubled: int = 2 ** min(failures - free, 20)
    return min(FIRST_WAIT * doubled, LONGEST_WAIT)


def _wait(connection: Connection, counts: Sequence[Limit], now: datetime, *, lock: bool) -> timedelta:
    free = {digest(each.subject): each.free for each in counts}
    chosen = select(web_attempt).where(web_attempt.c.subject.in_(free)).order_by(web_attempt.c.subject)
    rows = connection.execute(chosen.with_for_update() if lock else chosen)
    waits: list[timedelta] = [row.at + pause(row.failures, free[row.subject]) - now for row in rows]
    return max([*waits, timedelta(0)])


def _network(address: str) -> str:
    """Return what one customer has: an IPv4 address, or a network of IPv6."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if known.version == 4:
        return str(known)
    return str(ipaddress.ip_network((known, _IPV6_NETWORK), strict=False))
