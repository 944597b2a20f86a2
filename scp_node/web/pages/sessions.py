"""Where a person is logged in; admins see everybody."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from scp_node.ledger import PersonRole
from scp_node.web.access import Means, Viewer, Visitor, cookie_name, in_person
from scp_node.web.rendering import render
from scp_node.web.site import SiteOf

router = APIRouter(prefix="/sessions", include_in_schema=False, dependencies=[Depends(in_person)])


@router.get("")
def sessions(request: Request, site: SiteOf, visitor: Viewer) -> Response:
    """Show the logins that hold."""
    name = None if visitor.may(PersonRole.ADMIN) else visitor.person.name
    found = site.ledger.people.sessions(lifetime=site.lifetime, idle=site.idle, name=name, own=_token(request, visitor))
    return render(request, "sessions.html", visitor, sessions=found)


@router.post("/end")
def end_all(request: Request, site: SiteOf, visitor: Viewer) -> Response:
    """Log out everywhere else."""
    site.ledger.people.end_sessions(visitor.person.name, actor=visitor.actor, keep=_token(request, visitor))
    return RedirectResponse("/sessions", status_code=303)


@router.post("/{handle}/end")
def end(site: SiteOf, visitor: Viewer, handle: str) -> Response:
    """End one login: an own one, or as an admin anybody's."""
    name = None if visitor.may(PersonRole.ADMIN) else visitor.person.name
    site.ledger.people.end_session(handle, actor=visitor.actor, name=name)
    return RedirectResponse("/sessions", status_code=303)


def _token(request: Request, visitor: Visitor) -> str | None:
    return request.cookies.get(cookie_name(request)) if visitor.means is Means.SESSION else None
