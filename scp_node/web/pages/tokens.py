"""Tokens for scripts: each person's own; admins see all."""

from __future__ import annotations

import secrets
from collections import deque
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from scp_node.ledger import LedgerError, PersonRole
from scp_node.web.access import Viewer, Visitor, in_person
from scp_node.web.errors import UnknownValueError
from scp_node.web.rendering import render
from scp_node.web.site import Site, SiteOf

router = APIRouter(prefix="/tokens", include_in_schema=False, dependencies=[Depends(in_person)])

_used: Final[deque[str]] = deque(maxlen=1_000)  # of forms that made a token
LIFETIMES: Final = (30, 90, 365)  # days; `scp-node token add` makes one without an end


@router.get("")
def tokens(request: Request, site: SiteOf, visitor: Viewer) -> Response:
    """Show the tokens."""
    return _shown(request, site, visitor)


@router.post("")
def make(
    request: Request,
    site: SiteOf,
    visitor: Viewer,
    label: Annotated[str, Form(max_length=512)],
    role: Annotated[PersonRole, Form()],
    days: Annotated[int, Form()],
    once: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Make a token, and show it: once, here. A form that comes again, as by Reload, makes no second one.

    Raises:
        UnknownValueError: the page does not offer this time.
    """
    if days not in LIFETIMES:
        raise UnknownValueError(f"days: one of {', '.join(map(str, LIFETIMES))}")
    if once and once in _used:
        return RedirectResponse("/tokens", status_code=303)
    _used.append(once)
    try:
        token = site.ledger.people.make_token(
            visitor.person.name, label, actor=visitor.actor, role=role, lifetime=timedelta(days=days)
        )
    except LedgerError as error:
        return _shown(request, site, visitor, problem=f"{error}.")
    return _shown(request, site, visitor, made=token)


@router.post("/{token_id}/revoke")
def take_back(site: SiteOf, visitor: Viewer, token_id: int) -> Response:
    """Take a token back: an own one, or as an admin anybody's."""
    name = None if visitor.may(PersonRole.ADMIN) else visitor.person.name
    site.ledger.people.take_back_token(token_id, actor=visitor.actor, name=name)
    return RedirectResponse("/tokens", status_code=303)


def _shown(request: Request, site: Site, visitor: Visitor, *, problem: str = "", made: str = "") -> Response:
    name = None if visitor.may(PersonRole.ADMIN) else visitor.person.name
    return render(
        request,
        "tokens.html",
        visitor,
        status=409 if problem else 200,
        tokens=site.ledger.people.tokens(name),
        roles=[role for role in PersonRole if visitor.may(role)],
        lifetimes=LIFETIMES,
        address=site.settings.web.address,
        problem=problem,
        made=made,
        once=secrets.token_hex(16),
    )
