"""Who may use the web page: persons with their roles, sessions, tokens for scripts, one-time links, failed logins.

Of every secret the database holds a digest: who reads the database cannot log in with what is there.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from scp_node.domain import Actor
from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.database.schema import person, web_attempt, web_link, web_session, web_token
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

FREE_FAILURES: Final = 5  # wrong passwords in a row before the next try has to wait
FIRST_WAIT: Final = timedelta(seconds=1)  # doubled for each further failure
LONGEST_WAIT: Final = timedelta(minutes=15)
NAME_LENGTH: Final = 64
_SEEN_EVERY: Final = timedelta(seconds=30)  # how exactly a session knows when it was last used


class PersonRole(StrEnum):
    """What a person may do; each role may also do what those before it may."""

    VIEWER = "viewer"  # see results, films and reports
    READER = "reader"  # say whether they are right
    ADMIN = "admin"  # requeue, resolve, manage persons

    def may(self, needed: PersonRole) -> bool:
        """Return whether this role includes `needed`."""
        order = list(PersonRole)
        return order.index(self) >= order.index(needed)


class Origin(StrEnum):
    """Where a person logs in."""

    LOCAL = "local"  # here, with a password
    OIDC = "oidc"  # at the site's single sign-on
    HEADER = "header"  # at a reverse proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One person, without secrets."""

    id: int
    name: str
    role: PersonRole
    origin: Origin
    must_change: bool  # the password, before anything else
    disabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A login that holds."""

    person: Person
    csrf: str  # what a form of this session has to bring back


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token for scripts, without its secret."""

    id: int
    person: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None


class People:
    """The persons of the web page."""

    def __init__(self, transactions: Transactions) -> None:
        """Work on `transactions`."""
        self._transactions = transactions

    def everybody(self) -> list[Person]:
        """Return all persons, by name."""
        with self._transactions.reading() as (connection, _now):
            return [_person(row) for row in connection.execute(select(person).order_by(person.c.name))]

    def named(self, name: str) -> Person | None:
        """Return the person with this name, in whatever case."""
        with self._transactions.reading() as (connection, _now):
            row = connection.execute(select(person).where(person.c.name == name.casefold())).first()
        return _person(row) if row else None

    def password_hash(self, name: str) -> str | None:
        """Return the stored hash of an enabled person's password; None where there is none."""
        chosen = select(person.c.password_hash).where(person.c.name == name.casefold(), ~person.c.disabled)
        with self._transactions.reading() as (connection, _now):
            return connection.scalar(chosen)

    def add(
        self,
        name: str,
        role: PersonRole,
        *,
        actor: Actor,
        password_hash: str | None = None,
        origin: Origin = Origin.LOCAL,
        must_change: bool = False,
    ) -> Person:
        """Add a person.

        Raises:
            LedgerError: the name is empty, too long, holds control characters, or is taken.
        """
        known = name.strip().casefold()
        if not 1 <= len(known) <= NAME_LENGTH or not known.isprintable():
            raise LedgerError(f"a name has 1 to {NAME_LENGTH} printable characters")
        with self._transactions.writing() as (connection, now):
            if connection.execute(select(person.c.id).where(person.c.name == known)).first():
                raise LedgerError(f"{known} is there already")
            values = {
                "name": known,
                "role": role.value,
                "origin": origin.value,
                "password_hash": password_hash,
                "must_change": must_change,
                "disabled": False,
                "created_at": now,
            }
            row = connection.execute(insert(person).values(**values).returning(*person.c)).one()
            _record(connection, now, "web-person-added", actor, row, role=role.value, origin=origin.value)
        return _person(row)

    def add_first(self, name: str, password_hash: str) -> bool:
        """Add the first admin, who has to change the password; return False where there is anybody already."""
        actor = Actor(name="scp-node", address="")
        with self._transactions.reading() as (connection, _now):
            if connection.execute(select(person.c.id).limit(1)).first():
                return False
        try:
            self.add(name, PersonRole.ADMIN, actor=actor, password_hash=password_hash, must_change=True)
        except LedgerError:  # another process was faster
            return False
        return True

    def change_role(self, name: str, role: PersonRole, *, actor: Actor) -> None:
        """Give a person another role; it counts at the next request, since every session of theirs ends.

        Raises:
            LedgerError: nobody has this name, or nobody else is admin.
        """
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            if row.role == PersonRole.ADMIN and role is not PersonRole.ADMIN:
                _keep_an_admin(connection, row)
            connection.execute(update(person).where(person.c.id == row.id).values(role=role.value))
            _end_sessions(connection, row.id)
            _record(connection, now, "web-role-changed", actor, row, role=role.value, before=row.role)

    def change_password(
        self, name: str, password_hash: str, *, actor: Actor, must_change: bool = False, keep: str | None = None
    ) -> None:
        """Set a person's password; every session of theirs ends, but the one with the token `keep`.

        Raises:
            LedgerError: nobody has this name, or the person logs in elsewhere.
        """
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            if row.origin != Origin.LOCAL:
                raise LedgerError(f"{row.name} does not log in here, but by {row.origin}")
            values = {"password_hash": password_hash, "must_change": must_change}
            connection.execute(update(person).where(person.c.id == row.id).values(**values))
            _end_sessions(connection, row.id, keep=keep)
            _record(connection, now, "web-password-changed", actor, row)

    def set_disabled(self, name: str, *, actor: Actor, disabled: bool) -> None:
        """Shut a person out, whose sessions and tokens end at once, or let them in again.

        Raises:
            LedgerError: nobody has this name, or nobody else is admin.
        """
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            if disabled and row.role == PersonRole.ADMIN:
                _keep_an_admin(connection, row)
            connection.execute(update(person).where(person.c.id == row.id).values(disabled=disabled))
            if disabled:
                _end_sessions(connection, row.id)
                connection.execute(delete(web_token).where(web_token.c.person_id == row.id))
            _record(connection, now, "web-person-disabled" if disabled else "web-person-enabled", actor, row)

    def log_in(self, name: str, *, address: str, lifetime: timedelta) -> str:
        """Begin a session of an enabled person and return its token; forget the sessions that are over.

        Raises:
            LedgerError: nobody has this name, or they are shut out.
        """
        token = secrets.token_urlsafe(32)  # 256 bits
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            if row.disabled:
                raise LedgerError(f"{row.name} is shut out")
            connection.execute(delete(web_session).where(web_session.c.created_at < now - lifetime))
            values = {
                "token_sha256": digest(token),
                "person_id": row.id,
                "csrf": secrets.token_urlsafe(24),
                "address": address,
                "created_at": now,
                "seen_at": now,
            }
            connection.execute(insert(web_session).values(**values))
            actor = Actor(name=row.name, address=address)
            _record(connection, now, "web-logged-in", actor, row)
        return token

    def session(self, token: str, *, lifetime: timedelta, idle: timedelta, is_used: bool = True) -> Session | None:
        """Return the session of a token, and note that it is used; None where it is over or never was.

        Without `is_used` it is not noted: the page asks by itself, and not the person.
        """
        known = digest(token)
        chosen = select(person, web_session.c.csrf, web_session.c.seen_at, web_session.c.created_at.label("since"))
        chosen = chosen.join(person, person.c.id == web_session.c.person_id)
        with self._transactions.reading() as (connection, now):
            row = connection.execute(chosen.where(web_session.c.token_sha256 == known, ~person.c.disabled)).first()
        if row is None or row.since < now - lifetime or row.seen_at < now - idle:
            return None
        if is_used and row.seen_at < now - _SEEN_EVERY:
            with self._transactions.writing() as (connection, now):
                used = update(web_session).where(web_session.c.token_sha256 == known)
                connection.execute(used.values(seen_at=now))
        return Session(person=_person(row), csrf=row.csrf)

    def log_out(self, token: str, *, actor: Actor) -> None:
        """End the session of this token."""
        with self._transactions.writing() as (connection, now):
            known = web_session.c.token_sha256 == digest(token)
            row = connection.execute(
                select(person).join(web_session, web_session.c.person_id == person.c.id).where(known)
            ).first()
            if row:
                connection.execute(delete(web_session).where(known))
                _record(connection, now, "web-logged-out", actor, row)

    def make_link(self, name: str, *, lifetime: timedelta) -> str:
        """Return a token that logs this person in once.

        Raises:
            LedgerError: nobody has this name.
        """
        token = secrets.token_urlsafe(32)
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            values = {"token_sha256": digest(token), "person_id": row.id, "expires_at": now + lifetime}
            connection.execute(insert(web_link).values(**values))
        return token

    def use_link(self, token: str) -> str | None:
        """Return the name of the person whom this token logs in, and forget it; None where it is not valid."""
        with self._transactions.writing() as (connection, now):
            connection.execute(delete(web_link).where(web_link.c.expires_at < now))
            known = web_link.c.token_sha256 == digest(token)
            used = connection.execute(delete(web_link).where(known).returning(web_link.c.person_id)).first()
            return connection.scalar(select(person.c.name).where(person.c.id == used.person_id)) if used else None

    def make_token(self, name: str, label: str, *, actor: Actor, lifetime: timedelta | None = None) -> str:
        """Return a new token that acts as this person until `lifetime` is over, or for good.

        Raises:
            LedgerError: nobody has this name, or the label is too long.
        """
        if len(label) > NAME_LENGTH or not label.isprintable():
            raise LedgerError(f"a label has at most {NAME_LENGTH} printable characters")
        token = secrets.token_urlsafe(32)
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            values = {
                "token_sha256": digest(token),
                "person_id": row.id,
                "label": label,
                "created_at": now,
                "expires_at": None if lifetime is None else now + lifetime,
            }
            connection.execute(insert(web_token).values(**values))
            _record(connection, now, "web-token-made", actor, row, label=label)
        return token

    def tokens(self) -> list[Token]:
        """Return all tokens, the newest first."""
        chosen = select(web_token, person.c.name).join(person, person.c.id == web_token.c.person_id)
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(chosen.order_by(web_token.c.id.desc())).all()
        return [
            Token(
                id=row.id,
                person=row.name,
                label=row.label,
                created_at=row.created_at,
                expires_at=row.expires_at,
                used_at=row.used_at,
            )
            for row in rows
        ]

    def take_back_token(self, token_id: int, *, actor: Actor) -> bool:
        """Take a token back; return whether it was there."""
        with self._transactions.writing() as (connection, now):
            chosen = select(person, web_token.c.label).join(web_token, web_token.c.person_id == person.c.id)
            row = connection.execute(chosen.where(web_token.c.id == token_id)).first()
            if row is None:
                return False
            connection.execute(delete(web_token).where(web_token.c.id == token_id))
            _record(connection, now, "web-token-taken-back", actor, row, label=row.label)
        return True

    def bearer(self, token: str) -> Person | None:
        """Return the enabled person whom a token acts as; None where it is not valid."""
        chosen = select(person, web_token.c.id.label("token_id"), web_token.c.used_at)
        chosen = chosen.join(web_token, web_token.c.person_id == person.c.id)
        with self._transactions.reading() as (connection, now):
            valid = or_(web_token.c.expires_at.is_(None), web_token.c.expires_at > now)
            known = web_token.c.token_sha256 == digest(token)
            row = connection.execute(chosen.where(known, valid, ~person.c.disabled)).first()
        if row is None:
            return None
        if row.used_at is None or row.used_at < now - _SEEN_EVERY:
            with self._transactions.writing() as (connection, now):
                connection.execute(update(web_token).where(web_token.c.id == row.token_id).values(used_at=now))
        return _person(row)

    def wait_before(self, subjects: tuple[str, ...]) -> timedelta:
        """Return how long the next login of these has to wait: each is "account:NAME" or "address:IP"."""
        with self._transactions.reading() as (connection, now):
            chosen = select(web_attempt).where(web_attempt.c.subject.in_([digest(each) for each in subjects]))
            waits: list[timedelta] = [row.at + _pause(row.failures) - now for row in connection.execute(chosen)]
        return max([*waits, timedelta(0)])

    def note_failure(self, subjects: tuple[str, ...], *, actor: Actor) -> None:
        """Count a failed login against each of these, and forget those of yesterday."""
        with self._transactions.writing() as (connection, now):
            connection.execute(delete(web_attempt).where(web_attempt.c.at < now - timedelta(days=1)))
            for known in sorted(digest(each) for each in subjects):
                counted = update(web_attempt).where(web_attempt.c.subject == known)
                counted = counted.values(failures=web_attempt.c.failures + 1, at=now)
                if not connection.execute(counted).rowcount:
                    connection.execute(insert(web_attempt).values(subject=known, failures=1, at=now))
            record_event(connection, now, "web-login-failed", detail=actor.detail)

    def forget_failures(self, subjects: tuple[str, ...]) -> None:
        """Begin to count anew, after a login."""
        with self._transactions.writing() as (connection, _now):
            known = [digest(each) for each in subjects]
            connection.execute(delete(web_attempt).where(web_attempt.c.subject.in_(known)))


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret of 256 bits: such a secret needs no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _pause(failures: int) -> timedelta:
    if failures < FREE_FAILURES:
        return timedelta(0)
    doubled: int = 2 ** min(failures - FREE_FAILURES, 20)
    return min(FIRST_WAIT * doubled, LONGEST_WAIT)


def _person(row: Row[Any]) -> Person:
    return Person(
        id=row.id,
        name=row.name,
        role=PersonRole(row.role),
        origin=Origin(row.origin),
        must_change=row.must_change,
        disabled=row.disabled,
        created_at=row.created_at,
    )


def _locked(connection: Connection, name: str) -> Row[Any]:
    row = connection.execute(select(person).where(person.c.name == name.casefold()).with_for_update()).first()
    if row is None:
        raise LedgerError("nobody has this name")
    return row


def _keep_an_admin(connection: Connection, row: Row[Any]) -> None:
    """Refuse to lose the last admin.

    Raises:
        LedgerError: nobody else is admin.
    """
    others = (person.c.role == PersonRole.ADMIN) & ~person.c.disabled & (person.c.id != row.id)
    admins = connection.execute(select(person.c.id).where(others).order_by(person.c.id).with_for_update()).all()
    if not admins:
        raise LedgerError(f"{row.name} is the last admin")


def _end_sessions(connection: Connection, person_id: int, *, keep: str | None = None) -> None:
    ended = delete(web_session).where(web_session.c.person_id == person_id)
    connection.execute(ended if keep is None else ended.where(web_session.c.token_sha256 != digest(keep)))


def _record(connection: Connection, now: datetime, kind: str, actor: Actor, row: Row[Any], **detail: str) -> None:
    record_event(connection, now, kind, detail={**actor.detail, "person": row.name, **detail})
