"""The list of studies, what is new in it, and the same list as a file or for a script."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response, StreamingResponse

from scp_node.domain import Actor, Reason
from scp_node.ledger import StudyState, WorklistRow
from scp_node.web import words
from scp_node.web.access import Viewer
from scp_node.web.export import as_csv, as_json, as_parquet, has_parquet
from scp_node.web.filters import FIRST_KEY, Filters, key_of, key_text
from scp_node.web.rendering import in_zone, render
from scp_node.web.site import Site, SiteOf

router = APIRouter()

PATH: Final = "/studies"
_NEW: Final = "/studies.new"
_SEARCHED: Final = "web-searched"
_EXPORTED: Final = "web-exported"
_OPINIONS: Final = ("agree", "disagree", "unsure", "contradictory")
_BEHIND_SECONDS: Final = 1.0  # from which the page says that it is behind

Asked = Annotated[Filters, Query()]


class ApiFilters(Filters):
    """The filters, and how many rows a script takes at once."""

    limit: Annotated[int, Field(ge=1, le=500)] = 50


class SeenFilters(Filters):
    """The filters of a page that is open, and what it shows."""

    seen: Annotated[str, Field(max_length=64)] = ""
    position: int | None = None  # number of the last event that the page shows


class StudyDocument(BaseModel):
    """One patient's images of a study. Instants are ISO 8601 in UTC; an unknown value is null."""

    study_uid: str
    patient_id: str
    patient_name: str
    accession: str
    sex: str
    age: str
    views: str
    calling_ae: str
    images: int
    interrupted: bool
    newest_at: str
    received_at: str
    state: str
    reason: str | None
    detail: str
    verdict: str | None
    probability: float | None
    threshold: float | None
    grey_zone: float | None
    bundle: str | None
    bundle_digest: str | None
    report_version: int | None
    delivery_state: str | None
    waiting_since: str | None
    reported_at: str | None
    delivered_at: str | None
    committed_at: str | None
    feedback: str | None


class StudiesDocument(BaseModel):
    """Some studies, newest first."""

    studies: list[StudyDocument]
    newer: str | None  # give it as `newer` to get those before these; null: there are none
    older: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One value of a filter's menu."""

    value: str
    name: str


@router.get(PATH, include_in_schema=False)
def studies(request: Request, site: SiteOf, visitor: Viewer, asked: Asked) -> Response:
    """Show the list."""
    if any(not value for value in request.query_params.values()):
        return RedirectResponse(asked.address(PATH), status_code=HTTPStatus.SEE_OTHER)
    older, newer = key_of(asked.older), key_of(asked.newer)
    is_first = older is None and newer is None
    if is_first:
        _note_search(site, visitor.actor, asked)
    query = asked.query(site.settings.web.time_zone)
    worklist = site.ledger.worklist
    standing = worklist.standing()  # before the rows: what comes meanwhile is told as new
    page = worklist.page(query, older_than=older, newer_than=newer)
    if not is_first and not page.has_newer:
        is_first = True  # paged back to the top, or past the end
    top = key_text(page.rows[0].key) if page.rows else FIRST_KEY
    new = asked.address(_NEW, newer=top, seen=_digest(page.rows), position=str(standing.position))
    return render(
        request,
        "studies/list.html",
        visitor,
        rows=page.rows,
        filters=asked,
        is_filtered=bool(asked.chosen),
        count=worklist.count(query),
        new=new if is_first else None,
        first=None if is_first else asked.address(PATH),
        newer=asked.address(PATH, newer=key_text(page.rows[0].key)) if page.has_newer else None,
        older=asked.address(PATH, older=key_text(page.rows[-1].key)) if page.has_older else None,
        exports=[(name, asked.address(f"{PATH}.{name.lower()}")) for name in _formats()],
        menus=_menus(site),
        standing=standing,
        is_behind=standing.behind_seconds > _BEHIND_SECONDS,
        words=words,
    )


@router.get(_NEW, include_in_schema=False)
def new_studies(request: Request, site: SiteOf, visitor: Viewer, asked: Annotated[SeenFilters, Query()]) -> Response:
    """Say how many studies have come since the page was made, or that a row has changed; nothing if none has."""
    key, query = key_of(asked.newer), asked.query(site.settings.web.time_zone)
    worklist = site.ledger.worklist
    standing = worklist.standing()
    if key is None or (standing.is_complete and standing.position == asked.position):
        return Response(status_code=HTTPStatus.NO_CONTENT)
    found = worklist.newer(query, key)
    if not found.number and _digest(worklist.page(query).rows) == asked.seen:
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return render(request, "studies/new.html", visitor, found=found, first=asked.address(PATH))


@router.get(f"{PATH}.csv", include_in_schema=False)
def csv_file(site: SiteOf, visitor: Viewer, asked: Asked) -> Response:
    """Return the list as CSV."""
    return _file(site, visitor.actor, asked, "csv", "text/csv; charset=utf-8", as_csv(_rows(site, asked)))


@router.get(f"{PATH}.json", include_in_schema=False)
def json_file(site: SiteOf, visitor: Viewer, asked: Asked) -> Response:
    """Return the list as JSON."""
    return _file(site, visitor.actor, asked, "json", "application/json", as_json(_rows(site, asked)))


@router.get(f"{PATH}.parquet", include_in_schema=False)
def parquet_file(site: SiteOf, visitor: Viewer, asked: Asked) -> Response:
    """Return the list as Parquet, where that can be written."""
    if not has_parquet():
        raise HTTPException(HTTPStatus.NOT_FOUND, "Parquet needs the package pyarrow beside the node.")
    content = as_parquet(_rows(site, asked))
    return _file(site, visitor.actor, asked, "parquet", "application/vnd.apache.parquet", content)


@router.get("/api/v1/studies", tags=["studies"])
def list_studies(site: SiteOf, visitor: Viewer, asked: Annotated[ApiFilters, Query()]) -> StudiesDocument:
    """List studies with their results, newest first."""
    older, newer = key_of(asked.older), key_of(asked.newer)
    if older is None and newer is None:
        _note_search(site, visitor.actor, asked)
    query = asked.query(site.settings.web.time_zone)
    page = site.ledger.worklist.page(query, older_than=older, newer_than=newer, most=asked.limit)
    return StudiesDocument(
        studies=[StudyDocument.model_validate(row.document()) for row in page.rows],
        newer=key_text(page.rows[0].key) if page.has_newer else None,
        older=key_text(page.rows[-1].key) if page.has_older else None,
    )


def _digest(rows: Sequence[WorklistRow]) -> str:
    """Return a text that changes when a row does."""
    return hashlib.sha256(json.dumps([row.document() for row in rows]).encode()).hexdigest()[:16]


def _note_search(site: Site, actor: Actor, asked: Filters) -> None:
    """Note who looked for whom: a search by name or number tells whether somebody was here."""
    if asked.q:
        site.ledger.visits.note(_SEARCHED, actor, detail={"search": _printable(asked.q)})


def _file(
    site: Site, actor: Actor, asked: Filters, kind: str, media_type: str, content: Iterable[str] | Iterable[bytes]
) -> StreamingResponse:
    filters = {name: _printable(value) for name, value in asked.chosen.items()}
    site.ledger.visits.note(_EXPORTED, actor, detail={"format": kind, "filters": filters})
    day = in_zone(datetime.now(UTC), site.settings.web.time_zone).date()
    headers = {"Content-Disposition": f'attachment; filename="studies-{day}.{kind}"'}
    return StreamingResponse(content, media_type=media_type, headers=headers)


def _rows(site: Site, asked: Filters) -> Iterator[WorklistRow]:
    return site.ledger.worklist.rows(asked.query(site.settings.web.time_zone))


def _formats() -> list[str]:
    return ["CSV", "JSON", *(["Parquet"] if has_parquet() else [])]


def _menus(site: Site) -> dict[str, list[Option]]:
    found = site.ledger.worklist.menus()
    reasons = [each for each in Reason if each.value in found.reasons]
    opinions = ("any", "none", "agree", "disagree", "unsure")
    return {
        "verdict": [Option(value=each.value, name=name) for each, name in words.VERDICTS.items()],
        "state": [Option(value=each.value, name=words.STATES[each].name) for each in StudyState],
        "reason": [Option(value=each.value, name=each.sentence) for each in reasons],
        "ae": [Option(value=each, name=each) for each in found.calling_aes],
        "model": [Option(value=each, name=each) for each in found.bundles],
        "feedback": [Option(value=each, name=each) for each in opinions],
    }


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)
