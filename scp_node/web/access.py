"""Who asks, and what they may do: by a session in a cookie, the word of a trusted proxy, or a script's bearer token."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.responses import Response

from scp_node.domain import Actor
from scp_node.ledger import LedgerError, Origin, Person, PersonRole
from scp_node.settings import WebSettings
from scp_node.web.guard import SAFE_METHODS, address_of, comes_from_proxy, is_secure
from scp_node.web.site import Site, SiteOf

CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "x-csrf-token"
POLL_HEADER: Final = "x-poll"  # of what a page asks by itself: it does not keep an idle session alive
_PLAIN_COOKIE: Final = "scp-node"
_SECURE_COOKIE: Final = "__Host-scp-node"  # a browser takes it by https alone, for this host alone


class LoginNeededError(Exception):
    """Nobody is logged in, or the login is over."""


class PasswordChangeNeededError(Exception):
    """The password was made by the program, and has to be changed first."""


class ForbiddenError(Exception):
    """The person may not do this; the message says what is missing."""


class Means(StrEnum):
    """How a request shows who asks."""

    SESSION = "session"  # a cookie, after a login here
    HEADER = "header"  # a trusted proxy says so
    TOKEN = "token"  # noqa: S105 - of a script


class Visitor:
    """The person who asks, and the address they ask from."""

    def __init__(self, person: Person, address: str, csrf: str | None, means: Means = Means.SESSION) -> None:
        """`csrf` is what forms have to bring back; None for a script."""
        self.person = person
        self.actor = Actor(name=person.name, address=address)
        self.csrf = csrf
        self.means = means

    def may(self, role: PersonRole) -> bool:
        """Return whether the person has this role."""
        return self.person.role.may(role)


def cookie_name(request: Request, what: str = "") -> str:
    """Return the name of the session's cookie, or of another one."""
    return (_SECURE_COOKIE if is_secure(request) else _PLAIN_COOKIE) + (f"-{what}" if what else "")


def keep_session(request: Request, response: Response, token: str, site: Site) -> None:
    """Give the browser the session's token."""
    keep_cookie(request, response, "", token, round(site.lifetime.total_seconds()))


def keep_cookie(request: Request, response: Response, what: str, value: str, seconds: int) -> None:
    """Give the browser a cookie that only we read."""
    response.set_cookie(
        cookie_name(request, what),
        value,
        max_age=seconds,
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )


def drop_session(request: Request, response: Response) -> None:
    """Have the browser forget the session."""
    drop_cookie(request, response, "")


def drop_cookie(request: Request, response: Response, what: str) -> None:
    """Have the browser forget one of our cookies."""
    name = cookie_name(request, what)
    response.delete_cookie(name, path="/", secure=is_secure(request), httponly=True, samesite="lax")


def role_by_groups(groups: Sequence[str], settings: WebSettings) -> PersonRole | None:
    """Return the highest role that these groups give; None where they give none."""
    given = (
        (PersonRole.ADMIN, settings.admin_groups),
        (PersonRole.READER, settings.reader_groups),
        (PersonRole.VIEWER, settings.viewer_groups),
    )
    return next((role for role, named in given if not set(groups).isdisjoint(named)), None)


def gives_roles(settings: WebSettings) -> bool:
    """Return whether groups decide about roles."""
    return bool(settings.admin_groups or settings.reader_groups or settings.viewer_groups)


def visitor_of(request: Request, site: SiteOf) -> Visitor | None:
    """Return who asks; None if nobody is logged in.

    Raises:
        ForbiddenError: the proxy names a person who may not use the page.
    """
    address = address_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        person = site.ledger.people.bearer(token.strip())
        return Visitor(person, address, None, Means.TOKEN) if person else None
    if named := _named_by_proxy(request, site.settings.web.header):
        person = _person_of_proxy(request, site, named, address)
        return Visitor(person, address, _form_token(site, person), Means.HEADER)
    if (cookie := request.cookies.get(cookie_name(request))) is None:
        return None
    is_used = POLL_HEADER not in request.headers
    session = site.ledger.people.session(cookie, lifetime=site.lifetime, idle=site.idle, is_used=is_used)
    return Visitor(session.person, address, session.csrf) if session else None


def _named_by_proxy(request: Request, header: str) -> str:
    """Return what a trusted proxy says in this header: UTF-8, or else Latin-1."""
    if not header or not comes_from_proxy(request):
        return ""
    text = request.headers.get(header, "").strip()
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _person_of_proxy(request: Request, site: Site, name: str, address: str) -> Person:
    settings = site.settings.web
    first = PersonRole(settings.header_role) if settings.header_role else None
    role = None
    if settings.groups_header and gives_roles(settings):
        groups = [each.strip() for each in _named_by_proxy(request, settings.groups_header).split(",")]
        role = role_by_groups(groups, settings) or first
        if role is None:
            raise ForbiddenError(f"{name} is in none of the groups that may use this page.")
    try:
        return site.ledger.people.arrive(name, Origin.HEADER, address=address, role=role, new_role=first)
    except LedgerError as error:
        raise ForbiddenError(f"{error}.") from error


def _form_token(site: Site, person: Person) -> str:
    """Return what the forms of a person without a session have to bring back; it changes when the role starts again."""
    return hmac.new(site.form_key, person.name.encode(), hashlib.sha256).hexdigest()


VisitorOrNone = Annotated[Visitor | None, Depends(visitor_of)]


def visitor_seen(request: Request) -> Visitor | None:
    """Return who was found to ask, for an answer that is made outside the page; None if nobody was looked for."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    return visitor


async def _checked(request: Request, visitor: VisitorOrNone) -> Visitor:
    """Return who asks, after the form's token was compared with the session's.

    Raises:
        LoginNeededError: nobody is logged in.
        ForbiddenError: the form does not hold the session's token.
    """
    if visitor is None:
        raise LoginNeededError
    request.state.visitor = visitor
    if visitor.csrf is not None and request.method not in SAFE_METHODS:
        given = request.headers.get(CSRF_HEADER)
        if given is None:
            given = str((await request.form()).get(CSRF_FIELD, ""))
        if not secrets.compare_digest(given.encode(), visitor.csrf.encode()):
            raise ForbiddenError("The form is from another login: go back and load the page again.")
    return visitor


LoggedIn = Annotated[Visitor, Depends(_checked)]


def _having(role: PersonRole) -> Callable[[Visitor], Visitor]:
    def check(visitor: LoggedIn) -> Visitor:
        if visitor.person.must_change:
            raise PasswordChangeNeededError
        if not visitor.may(role):
            raise ForbiddenError(f"This needs the role {role}; {visitor.person.name} has {visitor.person.role}.")
        return visitor

    return check


Viewer = Annotated[Visitor, Depends(_having(PersonRole.VIEWER))]
Reader = Annotated[Visitor, Depends(_having(PersonRole.READER))]
Admin = Annotated[Visitor, Depends(_having(PersonRole.ADMIN))]


def in_person(visitor: LoggedIn) -> Visitor:
    """Return who asks, unless a script does: a dependency beside one of those above, where access is given.

    Raises:
        ForbiddenError: a token asks.
    """
    if visitor.means is Means.TOKEN:
        raise ForbiddenError("A token cannot do this: who finds one must not get more of them. Log in.")
    return visitor
