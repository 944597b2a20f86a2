"""Who asks, and what they may do: a session in a cookie, or the bearer token of a script."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.responses import Response

from scp_node.domain import Actor
from scp_node.ledger import Person, PersonRole
from scp_node.web.guard import SAFE_METHODS, address_of, is_secure
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


class Visitor:
    """The person who asks, and the address they ask from."""

    def __init__(self, person: Person, address: str, csrf: str | None) -> None:
        """`csrf` is what forms have to bring back; None for a script."""
        self.person = person
        self.actor = Actor(name=person.name, address=address)
        self.csrf = csrf

    def may(self, role: PersonRole) -> bool:
        """Return whether the person has this role."""
        return self.person.role.may(role)


def cookie_name(request: Request) -> str:
    """Return the name of the session's cookie."""
    return _SECURE_COOKIE if is_secure(request) else _PLAIN_COOKIE


def keep_session(request: Request, response: Response, token: str, site: Site) -> None:
    """Give the browser the session's token."""
    response.set_cookie(
        cookie_name(request),
        token,
        max_age=round(site.lifetime.total_seconds()),
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )


def drop_session(request: Request, response: Response) -> None:
    """Have the browser forget the session."""
    response.delete_cookie(cookie_name(request), path="/", secure=is_secure(request), httponly=True, samesite="lax")


def visitor_of(request: Request, site: SiteOf) -> Visitor | None:
    """Return who asks; None if nobody is logged in."""
    address = address_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        person = site.ledger.people.bearer(token.strip())
        return Visitor(person, address, None) if person else None
    if (cookie := request.cookies.get(cookie_name(request))) is None:
        return None
    is_used = POLL_HEADER not in request.headers
    session = site.ledger.people.session(cookie, lifetime=site.lifetime, idle=site.idle, is_used=is_used)
    return Visitor(session.person, address, session.csrf) if session else None


VisitorOrNone = Annotated[Visitor | None, Depends(visitor_of)]


async def _checked(request: Request, visitor: VisitorOrNone) -> Visitor:
    """Return who asks, after the form's token was compared with the session's.

    Raises:
        LoginNeededError: nobody is logged in.
        ForbiddenError: the form does not hold the session's token.
    """
    if visitor is None:
        raise LoginNeededError
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
