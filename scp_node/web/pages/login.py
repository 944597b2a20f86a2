"""Logging in and out, and the person's own password."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from scp_node.domain import Actor
from scp_node.ledger import LedgerError, Limit, Origin, known_name, limits
from scp_node.web.access import (
    ForbiddenError,
    LoggedIn,
    Means,
    Visitor,
    VisitorOrNone,
    cookie_name,
    drop_session,
    in_person,
    keep_cookie,
    keep_session,
)
from scp_node.web.guard import address_of
from scp_node.web.passwords import hash_password, is_right
from scp_node.web.rendering import render
from scp_node.web.site import Site, SiteOf

router = APIRouter()

START: Final = "/studies"
BROWSER: Final = "browser"  # the cookie by which a browser is known
_BROWSER_SECONDS: Final = 90 * 86_400
_LOST: Final = "Your login had ended: what you sent last was not kept. Log in, and send it again."
_WRONG: Final = "Name or password is wrong."

Text = Annotated[str, Form(max_length=512)]


@router.get("/login", include_in_schema=False)
def login_page(
    request: Request,
    site: SiteOf,
    visitor: VisitorOrNone,
    next: str = START,  # noqa: A002 - in the address
    lost: str = "",
) -> Response:
    """Show the form, unless somebody is logged in; `lost` says that something was sent after the login had ended."""
    if visitor is not None:
        return go(next)
    return show_login(request, site, place=next, problem=_LOST if lost else "")


@router.post("/login", include_in_schema=False)
def login(request: Request, site: SiteOf, name: Text, password: Text, next: Text = START) -> Response:  # noqa: A002
    """Begin a session, or say why not."""
    if not site.settings.web.local_login:
        raise ForbiddenError("Nobody logs in by a password here.")
    address, known = address_of(request), known_name(name)
    entrance, people = site.ledger.entrance, site.ledger.people
    browser = request.cookies.get(cookie_name(request, BROWSER))
    if browser is not None and not entrance.knows_browser(browser, known):
        browser = None
    counts = limits(known, address, browser)
    if wait := entrance.try_once(counts):
        return _has_to_wait(request, site, wait, place=next, name=name)
    if not is_right(password, people.password_hash(known)):
        person = people.named(known)
        # What nobody is called may be a password that was typed into the wrong field: it is not kept.
        entrance.failed(Actor(name=person.name if person else "", address=address))
        return show_login(request, site, status=401, place=next, problem=_WRONG, name=name)
    entrance.succeeded(counts)
    response = begin(request, site, known, next)
    keep_cookie(request, response, BROWSER, entrance.know_browser(known, browser), _BROWSER_SECONDS)
    return response


@router.get("/login/link", include_in_schema=False)
def link_page(request: Request) -> Response:
    """Show a button: the link's token stands behind its "#", where no log has it, and its use needs a person."""
    return render(request, "link.html")


@router.post("/login/link", include_in_schema=False)
def login_by_link(request: Request, site: SiteOf, token: Text) -> Response:
    """Begin a session by a link that is good once."""
    address = address_of(request)
    name = site.ledger.people.use_link(token.strip())
    if name is None:
        site.ledger.entrance.failed(Actor(name="", address=address), by_link="true")
        problem = "This link was used already, or is too old."
        return show_login(request, site, status=401, problem=problem)
    return begin(request, site, name, START)


@router.post("/logout", include_in_schema=False)
def logout(request: Request, site: SiteOf, visitor: LoggedIn) -> Response:
    """End the session."""
    if visitor.means is Means.SESSION:
        site.ledger.people.log_out(request.cookies.get(cookie_name(request), ""), actor=visitor.actor)
    response = go("/login")
    drop_session(request, response)
    return response


@router.get("/password", include_in_schema=False)
def password_page(request: Request, visitor: LoggedIn) -> Response:
    """Show the form for a new password."""
    return render(request, "password.html", visitor, problem="")


@router.post("/password", include_in_schema=False, dependencies=[Depends(in_person)])
def change_password(request: Request, site: SiteOf, visitor: LoggedIn, old: Text, new: Text, again: Text) -> Response:
    """Change the person's own password; their other sessions end."""
    problem = _fault_of_new(visitor, old, new, again)
    if not problem:
        counts = (Limit(subject=f"password:{visitor.person.name}", free=5),)
        if wait := site.ledger.entrance.try_once(counts):
            problem = f"Too many failures: wait {math.ceil(wait.total_seconds())} s."
        elif not is_right(old, site.ledger.people.password_hash(visitor.person.name)):
            site.ledger.entrance.failed(visitor.actor, old_password="wrong")  # noqa: S106 - says what failed
            problem = "The old password is wrong."
        else:
            site.ledger.entrance.succeeded(counts)
            problem = _changed(request, site, visitor, new)
    if problem:
        return render(request, "password.html", visitor, status=422, problem=problem)
    return go(START)


def _fault_of_new(visitor: Visitor, old: str, new: str, again: str) -> str:
    if visitor.person.origin is not Origin.LOCAL:
        return "Your password is not kept here."
    if new != again:
        return "The two new passwords differ."
    return "This is the old password." if new == old else ""


def _changed(request: Request, site: Site, visitor: Visitor, new: str) -> str:
    """Change the password; return what is wrong with it."""
    name = visitor.person.name
    token = request.cookies.get(cookie_name(request), "")
    try:
        site.ledger.people.change_password(name, hash_password(new, name=name), actor=visitor.actor, keep=token)
    except ValueError as error:
        return f"{error}."
    return ""


def begin(request: Request, site: Site, name: str, place: str) -> Response:
    """Begin a session of a person who has shown who they are, and go to `place`."""
    before = request.cookies.get(cookie_name(request))
    try:
        token = site.ledger.people.log_in(name, address=address_of(request), lifetime=site.lifetime, instead_of=before)
    except LedgerError as error:
        return show_login(request, site, status=403, problem=f"{error}.", name=name)
    response = go(place)
    keep_session(request, response, token, site)
    return response


def show_login(
    request: Request, site: Site, *, status: int = 200, place: str = START, problem: str = "", name: str = ""
) -> Response:
    """Show the page on which a person logs in."""
    web = site.settings.web
    return render(
        request,
        "login.html",
        status=status,
        next=_inside(place),
        problem=problem,
        name=name,
        by_password=web.local_login,
        single_sign_on=web.oidc.label if web.oidc.issuer else "",
    )


def go(place: str) -> RedirectResponse:
    """Lead to a place of this page."""
    return RedirectResponse(_inside(place), status_code=303)


def _has_to_wait(request: Request, site: Site, wait: timedelta, *, place: str, name: str) -> Response:
    seconds = math.ceil(wait.total_seconds())
    problem = f"Too many failures: wait {seconds} s."
    page = show_login(request, site, status=429, place=place, problem=problem, name=name)
    page.headers["Retry-After"] = str(seconds)
    return page


def _inside(place: str) -> str:
    """Return a place of this page: no link may lead elsewhere after the login."""
    is_inside = place.startswith("/") and not place.startswith(("//", "/\\")) and place.isprintable()
    return place if is_inside else START
