"""Who may use the web page: persons with their roles, sessions, tokens for scripts, and one-time links.

The database holds only digests of secrets: who reads the database cannot log in with what is there.
"""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from scp_node.domain import Actor
from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.database.schema import person, web_browser, web_link, web_session, web_token
from scp_node.ledger.entrance import digest
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

NAME_LENGTH: Final = 64
PROGRAM: Final = Actor(name="scp-node", address="")  # what no person did
_HANDLE: Final = 16  # hexadecimal digits of a session's digest that name it on the page: nobody can log in with them
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
class OpenSession:
    """A login that holds, as the list of them shows it."""

    handle: str  # names it, and is no secret
    person: str
    address: str
    since: datetime
    seen_at: datetime
    is_own: bool  # the one that asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token for scripts, without its secret."""

    id: int
    person: str
    label: str
    role: PersonRole  # the most that it may
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
            row = connection.execute(select(person).where(person.c.name == known_name(name))).first()
        return _person(row) if row else None

    def password_hash(self, name: str) -> str | None:
        """Return the stored hash of an enabled person's password; None where there is none."""
        chosen = select(person.c.password_hash).where(person.c.name == known_name(name), ~person.c.disabled)
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
        subject: str | None = None,
        must_change: bool = False,
    ) -> Person:
        """Add a person; `subject` is who they are at their single sign-on.

        Raises:
            LedgerError: the name is empty, too long, holds control characters or a slash, or is taken.
        """
        known = known_name(name)
        if not 1 <= len(known) <= NAME_LENGTH or not known.isprintable() or "/" in known or not known.strip("."):
            raise LedgerError(f"a name has 1 to {NAME_LENGTH} printable characters, no slash, and not only dots")
        values = {
            "name": known,
            "role": role.value,
            "origin": origin.value,
            "subject": subject,
            "password_hash": password_hash,
            "must_change": must_change,
            "disabled": False,
        }
        try:
            with self._transactions.writing() as (connection, now):
                if connection.execute(select(person.c.id).where(person.c.name == known)).first():
                    raise LedgerError(f"{known} is there already")
                row = connection.execute(insert(person).values(**values, created_at=now).returning(*person.c)).one()
                _record(connection, now, "web-person-added", actor, row, role=role.value, origin=origin.value)
        except IntegrityError as error:  # another process was faster
            raise LedgerError(f"{known} is there already") from error
        return _person(row)

    def add_first(self, name: str, password_hash: str) -> bool:
        """Add the first admin, who has to change the password; return False where there is anybody already."""
        with self._transactions.reading() as (connection, _now):
            if connection.execute(select(person.c.id).limit(1)).first():
                return False
        try:
            self.add(name, PersonRole.ADMIN, actor=PROGRAM, password_hash=password_hash, must_change=True)
        except LedgerError:  # another process was faster
            return False
        return True

    def arrive(
        self,
        name: str,
        origin: Origin,
        *,
        address: str,
        subject: str | None = None,
        role: PersonRole | None = None,
        new_role: PersonRole | None = None,
    ) -> Person:
        """Return the person whom a proxy or a single sign-on has logged in, with the role of their groups.

        Args:
            name: what they are called there.
            origin: where that is.
            address: where they ask from.
            subject: their identifier there; where it is None, the name decides.
            role: the role that their groups give; None leaves it as it is.
            new_role: the role of a person who comes for the first time; None refuses them.

        Raises:
            LedgerError: the person is unknown and refused, shut out, or the name is that of somebody else.
        """
        known = known_name(name)
        is_theirs = person.c.name == known if subject is None else person.c.subject == subject
        with self._transactions.reading() as (connection, _now):
            row = connection.execute(select(person).where(person.c.origin == origin.value, is_theirs)).first()
            taken = row is None and connection.execute(select(person.c.id).where(person.c.name == known)).first()
        if taken:
            raise LedgerError(f"{known} is somebody who does not log in by {origin}")
        if row is None:
            if (first := role or new_role) is None:
                raise LedgerError(f"{known} may not use this page: an admin has to add them, or to one of its groups")
            try:
                return self.add(known, first, actor=Actor(name=known, address=address), origin=origin, subject=subject)
            except LedgerError:
                found = self.named(known)  # a page asks several times at once: another request was faster
                if found is None or found.origin is not origin:
                    raise
                return found
        if row.disabled:
            raise LedgerError(f"{row.name} is shut out")
        if role is None or row.role == role.value:
            return _person(row)
        return self._follow_groups(row.id, role, address)

    def _follow_groups(self, person_id: int, role: PersonRole, address: str) -> Person:
        """Give a person the role of their groups, even to the last admin: `scp-node user` makes another one."""
        with self._transactions.writing() as (connection, now):
            row = connection.execute(select(person).where(person.c.id == person_id).with_for_update()).one()
            connection.execute(update(person).where(person.c.id == person_id).values(role=role.value))
            _end_sessions(connection, person_id)
            actor = Actor(name=row.name, address=address)
            _record(connection, now, "web-role-changed", actor, row, role=role.value, before=row.role, because="groups")
        return replace(_person(row), role=role)

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
        """Set a person's password; their sessions end, but the one with the token `keep`, and so do links to log in.

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
            connection.execute(delete(web_link).where(web_link.c.person_id == row.id))
            if keep is None:  # somebody else did it: the browsers may be a thief's
                connection.execute(delete(web_browser).where(web_browser.c.person_id == row.id))
            _record(connection, now, "web-password-changed", actor, row)

    def set_disabled(self, name: str, *, actor: Actor, disabled: bool) -> None:
        """Shut a person out, whose sessions, tokens and links end at once, or let them in again.

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
                for table in (web_token, web_link, web_browser):
                    connection.execute(delete(table).where(table.c.person_id == row.id))
            _record(connection, now, "web-person-disabled" if disabled else "web-person-enabled", actor, row)

    def log_in(self, name: str, *, address: str, lifetime: timedelta, instead_of: str | None = None) -> str:
        """Begin a session of an enabled person and return its token; forget the sessions that are over.

        The session with the token `instead_of` ends: the browser that held it gets the new one.

        Raises:
            LedgerError: nobody has this name, or they are shut out.
        """
        token = secrets.token_urlsafe(32)  # 256 bits
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            if row.disabled:
                raise LedgerError(f"{row.name} is shut out")
            connection.execute(delete(web_session).where(web_session.c.created_at < now - lifetime))
            if instead_of is not None:
                connection.execute(delete(web_session).where(web_session.c.token_sha256 == digest(instead_of)))
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

    def sessions(
        self, *, lifetime: timedelta, idle: timedelta, name: str | None = None, own: str | None = None
    ) -> list[OpenSession]:
        """Return the logins that hold, of one person or of all, the newest first; `own` is the token that asks."""
        chosen = select(web_session, person.c.name).join(person, person.c.id == web_session.c.person_id)
        if name is not None:
            chosen = chosen.where(person.c.name == known_name(name))
        asking = digest(own) if own else ""
        with self._transactions.reading() as (connection, now):
            holds = (web_session.c.created_at >= now - lifetime) & (web_session.c.seen_at >= now - idle)
            rows = connection.execute(chosen.where(holds).order_by(web_session.c.created_at.desc())).all()
        return [
            OpenSession(
                handle=row.token_sha256[:_HANDLE],
                person=row.name,
                address=row.address,
                since=row.created_at,
                seen_at=row.seen_at,
                is_own=row.token_sha256 == asking,
            )
            for row in rows
        ]

    def end_session(self, handle: str, *, actor: Actor, name: str | None = None) -> bool:
        """End the session that the list names so, of this person or of anybody; return whether it was there."""
        chosen = select(person, web_session.c.token_sha256)
        chosen = chosen.join(web_session, web_session.c.person_id == person.c.id)
        is_named = web_session.c.token_sha256.startswith(handle, autoescape=True)
        if name is not None:
            is_named &= person.c.name == known_name(name)
        with self._transactions.writing() as (connection, now):
            row = connection.execute(chosen.where(is_named)).first() if len(handle) == _HANDLE else None
            if row is None:
                return False
            connection.execute(delete(web_session).where(web_session.c.token_sha256 == row.token_sha256))
            _record(connection, now, "web-session-ended", actor, row)
        return True

    def end_sessions(self, name: str, *, actor: Actor, keep: str | None = None) -> None:
        """End every session of a person, but the one with the token `keep`.

        Raises:
            LedgerError: nobody has this name.
        """
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            _end_sessions(connection, row.id, keep=keep)
            _record(connection, now, "web-sessions-ended", actor, row)

    def make_link(self, name: str, *, lifetime: timedelta, actor: Actor = PROGRAM) -> str:
        """Return a token that logs this person in once.

        Raises:
            LedgerError: nobody has this name.
        """
        token = secrets.token_urlsafe(32)
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            _record(connection, now, "web-link-made", actor, row)
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

    def make_token(
        self,
        name: str,
        label: str,
        *,
        actor: Actor,
        lifetime: timedelta | None = None,
        role: PersonRole | None = None,
    ) -> str:
        """Return a new token that acts as this person until `lifetime` is over, or for good.

        It may do what `role` may, and never more than the person; None is all that the person may.

        Raises:
            LedgerError: nobody has this name, or the label is empty or too long.
        """
        if not 1 <= len(label.strip()) <= NAME_LENGTH or not label.isprintable():
            raise LedgerError(f"a label has 1 to {NAME_LENGTH} printable characters")
        token = secrets.token_urlsafe(32)
        with self._transactions.writing() as (connection, now):
            row = _locked(connection, name)
            values = {
                "token_sha256": digest(token),
                "person_id": row.id,
                "label": label.strip(),
                "role": (role or PersonRole.ADMIN).value,
                "created_at": now,
                "expires_at": None if lifetime is None else now + lifetime,
            }
            connection.execute(insert(web_token).values(**values))
            _record(connection, now, "web-token-made", actor, row, label=label.strip())
        return token

    def tokens(self, name: str | None = None) -> list[Token]:
        """Return the tokens of one person or of all, the newest first."""
        chosen = select(web_token, person.c.name).join(person, person.c.id == web_token.c.person_id)
        if name is not None:
            chosen = chosen.where(person.c.name == known_name(name))
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(chosen.order_by(web_token.c.id.desc())).all()
        return [
            Token(
                id=row.id,
                person=row.name,
                label=row.label,
                role=PersonRole(row.role),
                created_at=row.created_at,
                expires_at=row.expires_at,
                used_at=row.used_at,
            )
            for row in rows
        ]

    def take_back_token(self, token_id: int, *, actor: Actor, name: str | None = None) -> bool:
        """Take a token back, of this person or of anybody; return whether it was there."""
        with self._transactions.writing() as (connection, now):
            chosen = select(person, web_token.c.label).join(web_token, web_token.c.person_id == person.c.id)
            is_theirs = true() if name is None else person.c.name == known_name(name)
            row = connection.execute(chosen.where(web_token.c.id == token_id, is_theirs)).first()
            if row is None:
                return False
            connection.execute(delete(web_token).where(web_token.c.id == token_id))
            _record(connection, now, "web-token-taken-back", actor, row, label=row.label)
        return True

    def bearer(self, token: str) -> Person | None:
        """Return the enabled person whom a token acts as, with the token's role; None where it is not valid."""
        chosen = select(
            person, web_token.c.id.label("token_id"), web_token.c.used_at, web_token.c.role.label("token_role")
        )
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
        found = _person(row)
        return replace(found, role=min(found.role, PersonRole(row.token_role), key=list(PersonRole).index))


def known_name(name: str) -> str:
    """Return the name as it is kept: letters of any width and case are the same."""
    return unicodedata.normalize("NFKC", name.strip()).casefold()


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
    row = connection.execute(select(person).where(person.c.name == known_name(name)).with_for_update()).first()
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
