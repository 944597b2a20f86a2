"""Logging in and out, and the person's own password."""

from __future__ import annotations

import math
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from scp_node.domain import Actor
from scp_node.ledger import LedgerError, Origin
from scp_node.web.access import LoggedIn, VisitorOrNone, cookie_name, drop_session, keep_session
from scp_node.web.guard import address_of
from scp_node.web.passwords import hash_password, is_right
from scp_node.web.rendering import render
from scp_node.web.site import Site, SiteOf

router = APIRouter()

START: Final = "/studies"
_WRONG: Final = "Name or password is wrong."

Text = Annotated[str, Form(max_length=512)]


@router.get("/login", include_in_schema=False)
def login_page(request: Request, visitor: VisitorOrNone, next: str = START) -> Response:  # noqa: A002 - in the address
    """Show the form, unless somebody is logged in."""
    if visitor is not None:
        return _to(next)
    return render(request, "login.html", next=_inside(next), problem="", name="")


@router.post("/login", include_in_schema=False)
def login(request: Request, site: SiteOf, name: Text, password: Text, next: Text = START) -> Response:  # noqa: A002
    """Begin a session, or say why not."""
    address = address_of(request)
    people, known = site.ledger.people, name.strip().casefold()
    subjects = (f"account:{known}", f"address:{address}")
    if wait := people.wait_before(subjects).total_seconds():
        problem = f"Too many failures: wait {math.ceil(wait)} s."
        page = render(request, "login.html", status=429, next=_inside(next), problem=problem, name=name)
        page.headers["Retry-After"] = str(math.ceil(wait))
        return page
    if not is_right(password, people.password_hash(known)):
        people.note_failure(subjects, actor=Actor(name=known[:64], address=address))
        return render(request, "login.html", status=401, next=_inside(next), problem=_WRONG, name=name)
    people.forget_failures(subjects)
    return begin(request, site, known, next)


@router.get("/login/link", include_in_schema=False)
def login_by_link(request: Request, site: SiteOf, token: str) -> Response:
    """Begin a session by a link that is good once."""
    name = site.ledger.people.use_link(token)
    if name is None:
        problem = "This link was used already, or is too old."
        return render(request, "login.html", status=401, next=START, problem=problem, name="")
    return begin(request, site, name, START)


@router.post("/logout", include_in_schema=False)
def logout(request: Request, site: SiteOf, visitor: LoggedIn) -> Response:
    """End the session."""
    site.ledger.people.log_out(request.cookies.get(cookie_name(request), ""), actor=visitor.actor)
    response = _to("/login")
    drop_session(request, response)
    return response


@router.get("/password", include_in_schema=False)
def password_page(request: Request, visitor: LoggedIn) -> Response:
    """Show the form for a new password."""
    return render(request, "password.html", visitor, problem="")


@router.post("/password", include_in_schema=False)
def change_password(request: Request, site: SiteOf, visitor: LoggedIn, old: Text, new: Text, again: Text) -> Response:
    """Change the person's own password; their other sessions end."""
    person = visitor.person
    problem = ""
    if person.origin is not Origin.LOCAL:
        problem = "Your password is not kept here."
    elif new != again:
        problem = "The two new passwords differ."
    elif new == old:
        problem = "This is the old password."
    elif not is_right(old, site.ledger.people.password_hash(person.name)):
        problem = "The old password is wrong."
    else:
        try:
            token = request.cookies.get(cookie_name(request), "")
            hashed = hash_password(new)
            site.ledger.people.change_password(person.name, hashed, actor=visitor.actor, keep=token)
        except ValueError as error:
            problem = f"{error}."
    if problem:
        return render(request, "password.html", visitor, status=422, problem=problem)
    return _to(START)


def begin(request: Request, site: Site, name: str, place: str) -> Response:
    """Begin a session of a person who has shown who they are, and go to `place`."""
    lifetime = site.lifetime
    try:
        token = site.ledger.people.log_in(name, address=address_of(request), lifetime=lifetime)
    except LedgerError as error:
        return render(request, "login.html", status=403, next=START, problem=f"{error}.", name=name)
    response = _to(place)
    keep_session(request, response, token, site)
    return response


def _inside(place: str) -> str:
    """Return a place of this page: no link may lead elsewhere after the login."""
    is_inside = place.startswith("/") and not place.startswith(("//", "/\\")) and place.isprintable()
    return place if is_inside else START


def _to(place: str) -> RedirectResponse:
    return RedirectResponse(_inside(place), status_code=303)
