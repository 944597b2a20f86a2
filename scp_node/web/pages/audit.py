"""Who did what: the audit trail, for admins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from scp_node.ledger import ANY_PERSON, JournalEvent, JournalQuery
from scp_node.web.access import Admin
from scp_node.web.addresses import place_of, place_text
from scp_node.web.errors import UnknownValueError
from scp_node.web.rendering import render
from scp_node.web.site import Site, SiteOf

router = APIRouter()

MOST: Final = 500  # events of one answer to a script

Text = Annotated[str, Query(max_length=256)]


class Event(BaseModel):
    """One event of the audit trail."""

    id: int
    at: datetime
    kind: str
    person: str
    address: str
    study_uid: str
    sop_instance_uid: str
    details: dict[str, str]
    previous_hash: str
    hash: str


class Events(BaseModel):
    """Events, newest first; `next` is the parameter `before` of the older ones."""

    events: list[Event]
    next: str | None


@router.get("/audit", include_in_schema=False)
def audit(
    request: Request,
    site: SiteOf,
    visitor: Admin,
    person: Text = "",
    kind: Text = "",
    study: Text = "",
    since: Text = "",
    until: Text = "",
    before: Text = "",
) -> Response:
    """Show events, and who saw a study."""
    query = _query(site, person=person, kind=kind, study=study, since=since, until=until)
    page = site.ledger.journal.page(query, before=place_of(before))
    asked = {"person": person, "kind": kind, "study": study, "since": since, "until": until}
    kept = {name: value for name, value in asked.items() if value}
    older = urlencode({**kept, "before": place_text(*page.next_key)}) if page.next_key else ""
    return render(
        request,
        "audit.html",
        visitor,
        events=page.events,
        kinds=site.ledger.journal.kinds(),
        visitors=site.ledger.journal.visitors(study) if study else [],
        asked=asked,
        newest=urlencode(kept) if before else "",
        older=older,
        any_person=ANY_PERSON,
        check=site.check.result,
    )


@router.post("/audit/verify", include_in_schema=False)
def verify(site: SiteOf, visitor: Admin) -> Response:
    """Begin to check the chain."""
    if site.check.begin(site.settings, visitor.person.name):
        site.ledger.visits.note("web-chain-checked", visitor.actor)
    return RedirectResponse("/audit", status_code=303)


@router.get("/audit/verify", include_in_schema=False)
def verification(request: Request, site: SiteOf, visitor: Admin) -> Response:
    """Show how far the check is: a part of the page, which asks again while it runs."""
    return render(request, "audit_check.html", visitor, check=site.check.result)


@router.get("/api/v1/events", tags=["audit"], summary="Events of the audit trail, newest first")
def events(
    site: SiteOf,
    visitor: Admin,  # noqa: ARG001 - that it is one
    person: Annotated[str, Query(max_length=256, description='Who did it; "*": any person.')] = "",
    kind: Annotated[str, Query(max_length=256, description='Such as "web-viewed".')] = "",
    study: Annotated[str, Query(max_length=256, description="Study Instance UID.")] = "",
    since: Annotated[str, Query(max_length=256, description="At or after, ISO 8601.")] = "",
    until: Annotated[str, Query(max_length=256, description="Before, ISO 8601.")] = "",
    before: Annotated[str, Query(max_length=256, description="`next` of the answer before.")] = "",
    most: Annotated[int, Query(ge=1, le=MOST, description="Events in one answer.")] = 100,
) -> Events:
    """Return who did what, for a program that watches over the site's logs."""
    query = _query(site, person=person, kind=kind, study=study, since=since, until=until)
    page = site.ledger.journal.page(query, before=place_of(before), most=most)
    return Events(
        events=[_event(each) for each in page.events], next=place_text(*page.next_key) if page.next_key else None
    )


def _event(found: JournalEvent) -> Event:
    return Event(
        id=found.id,
        at=found.at,
        kind=found.kind,
        person=found.person,
        address=found.address,
        study_uid=found.study_uid,
        sop_instance_uid=found.sop_instance_uid,
        details=dict(found.details),
        previous_hash=found.previous_hash,
        hash=found.hash,
    )


def _query(site: Site, *, person: str, kind: str, study: str, since: str, until: str) -> JournalQuery:
    for name, value in (("person", person), ("kind", kind), ("study", study)):
        if not value.isprintable():
            raise UnknownValueError(f"{name}: printable characters only")
    zone = site.settings.web.time_zone
    known = site.ledger.people.named(person) if person and person != ANY_PERSON else None
    return JournalQuery(
        person=known.name if known else person.strip(),
        kind=kind,
        study_uid=study.strip(),
        since=_instant("since", since, zone),
        until=_instant("until", until, zone),
    )


def _instant(name: str, value: str, zone: str) -> datetime | None:
    """Return an instant; a time without a zone is in the site's.

    Raises:
        UnknownValueError: it is not one.
    """
    if not value:
        return None
    try:
        given = datetime.fromisoformat(value)
        if given.tzinfo is None and zone:
            given = given.replace(tzinfo=ZoneInfo(zone))
        found = given.astimezone()
    except (ValueError, OverflowError):
        found = None
    if found is None or not 1970 < found.year < 9999:
        raise UnknownValueError(f"{name}: give a date or time, such as 2026-11-30 or 2026-11-30T08:00")
    return found
