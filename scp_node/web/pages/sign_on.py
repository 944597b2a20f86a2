"""The way to the site's single sign-on, and back."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from scp_node.domain import Actor
from scp_node.ledger import LedgerError, Origin, PersonRole
from scp_node.logs import get_logger
from scp_node.web.access import cookie_name, drop_cookie, gives_roles, keep_cookie, role_by_groups
from scp_node.web.guard import address_of
from scp_node.web.pages.login import START, begin, go, show_login
from scp_node.web.ports import Arrival, SignOn, SignOnAwayError, SignOnError
from scp_node.web.site import Site, SiteOf

log = get_logger(__name__)

router = APIRouter(prefix="/login/oidc", include_in_schema=False)

_COOKIE: Final = "sign-on"
_SECONDS: Final = 600  # scp_node.ledger.entrance.SIGN_ON_LIFETIME
_AWAY: Final = "The single sign-on does not answer."
_STALE: Final = "This login was begun too long ago, or in another browser. Try again."
_REFUSED: Final = "The single sign-on did not log you in."

Text = Annotated[str, Query(max_length=4_096)]


@router.get("")
def depart(request: Request, site: SiteOf, next: Text = START) -> Response:  # noqa: A002 - in the address
    """Lead to the single sign-on."""
    sign_on = _sign_on(request)
    try:
        departure = sign_on.begin()
    except SignOnAwayError as error:
        return _failed(request, site, error, _AWAY)
    site.ledger.entrance.begin_sign_on(departure.state, departure.browser, str(go(next).headers["location"]))
    response = RedirectResponse(departure.address, status_code=303)
    keep_cookie(request, response, _COOKIE, departure.browser, _SECONDS)
    return response


@router.get("/back")
def arrive(
    request: Request, site: SiteOf, state: Text = "", code: Text = "", error: Text = "", iss: Text = ""
) -> Response:
    """Begin a session of the person whom the single sign-on has logged in."""
    sign_on = _sign_on(request)
    browser = request.cookies.get(cookie_name(request, _COOKIE), "")
    place = site.ledger.entrance.end_sign_on(state, browser)
    settings = site.settings.web.oidc
    if place is None:
        response = show_login(request, site, status=HTTPStatus.BAD_REQUEST, problem=_STALE)
    elif error or not code or (iss and not secrets.compare_digest(iss.encode(), settings.issuer.encode())):  # RFC 9207
        log.warning("single sign-on refused a login", error=error[:64], peer=address_of(request))
        response = show_login(request, site, status=HTTPStatus.FORBIDDEN, problem=_REFUSED)
    else:
        response = _finished(request, site, sign_on, code=code, browser=browser, place=place)
    drop_cookie(request, response, _COOKIE)
    return response


def _finished(request: Request, site: Site, sign_on: SignOn, *, code: str, browser: str, place: str) -> Response:
    try:
        arrival = sign_on.finish(code, browser)
    except SignOnAwayError as error:
        return _failed(request, site, error, _AWAY)
    except SignOnError as error:
        return _failed(request, site, error, _REFUSED, status=HTTPStatus.FORBIDDEN)
    try:
        person = site.ledger.people.arrive(
            arrival.name,
            Origin.OIDC,
            address=address_of(request),
            subject=arrival.subject,
            role=_role(site, arrival),
            new_role=_default(site),
        )
    except LedgerError as error:
        site.ledger.entrance.failed(Actor(name=arrival.name, address=address_of(request)), because=str(error))
        return show_login(request, site, status=HTTPStatus.FORBIDDEN, problem=f"{error}.")
    return begin(request, site, person.name, place)


def _role(site: Site, arrival: Arrival) -> PersonRole | None:
    """Return the role that a person's groups give at this login; None where groups do not decide.

    Raises:
        LedgerError: they give none.
    """
    if not gives_roles(site.settings.web):
        return None
    role = role_by_groups(arrival.groups, site.settings.web) or _default(site)
    if role is None:
        raise LedgerError(f"{arrival.name} is in none of the groups that may use this page")
    return role


def _default(site: Site) -> PersonRole | None:
    given = site.settings.web.oidc.default_role
    return PersonRole(given) if given else None


def _failed(
    request: Request, site: Site, error: SignOnError, told: str, *, status: int = HTTPStatus.SERVICE_UNAVAILABLE
) -> Response:
    log.warning("single sign-on failed", reason=error, peer=address_of(request))
    if status == HTTPStatus.FORBIDDEN:
        site.ledger.entrance.failed(Actor(name="", address=address_of(request)), because="single sign-on")
    return show_login(request, site, status=status, problem=told)


def _sign_on(request: Request) -> SignOn:
    """Return the single sign-on.

    Raises:
        HTTPException: 404, the site has none.
    """
    found: SignOn | None = request.app.state.sign_on
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return found
