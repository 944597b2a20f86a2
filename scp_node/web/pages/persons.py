"""Who may use the page: for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from scp_node.ledger import LedgerError, PersonRole
from scp_node.web.access import Admin, Visitor, in_person
from scp_node.web.passwords import hash_password, random_password
from scp_node.web.rendering import render
from scp_node.web.site import Site, SiteOf

router = APIRouter(prefix="/persons", include_in_schema=False, dependencies=[Depends(in_person)])

Name = Annotated[str, Form(max_length=64)]


@router.get("")
def persons(request: Request, site: SiteOf, visitor: Admin) -> Response:
    """Show everybody."""
    return _shown(request, site, visitor)


@router.post("")
def add(request: Request, site: SiteOf, visitor: Admin, name: Name, role: Annotated[PersonRole, Form()]) -> Response:
    """Add a person, and show the password that was made: once, here."""
    password = random_password()
    try:
        person = site.ledger.people.add(
            name, role, actor=visitor.actor, password_hash=hash_password(password), must_change=True
        )
    except LedgerError as error:
        return _shown(request, site, visitor, problem=f"{error}.")
    return _shown(request, site, visitor, made=(person.name, password))


@router.post("/{name}/role")
def change_role(site: SiteOf, visitor: Admin, name: str, role: Annotated[PersonRole, Form()]) -> Response:
    """Give a person another role."""
    site.ledger.people.change_role(name, role, actor=visitor.actor)
    return RedirectResponse("/persons", status_code=303)


@router.post("/{name}/reset")
def reset(request: Request, site: SiteOf, visitor: Admin, name: str) -> Response:
    """Make a new password, and show it: once, here."""
    password = random_password()
    site.ledger.people.change_password(name, hash_password(password), actor=visitor.actor, must_change=True)
    return _shown(request, site, visitor, made=(name, password))


@router.post("/{name}/disabled")
def set_disabled(site: SiteOf, visitor: Admin, name: str, disabled: Annotated[bool, Form()]) -> Response:
    """Shut a person out, or let them in again."""
    site.ledger.people.set_disabled(name, actor=visitor.actor, disabled=disabled)
    return RedirectResponse("/persons", status_code=303)


def _shown(
    request: Request, site: Site, visitor: Visitor, *, problem: str = "", made: tuple[str, str] | None = None
) -> Response:
    people = site.ledger.people
    return render(
        request,
        "persons.html",
        visitor,
        status=409 if problem else 200,
        persons=people.everybody(),
        roles=list(PersonRole),
        problem=problem,
        made=made,
    )
