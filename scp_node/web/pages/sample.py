"""The reading sample: studies that readers are asked to read, one after the other."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from scp_node.ledger import FeedbackRow, ReadingTask, SampleQuery
from scp_node.web.access import Reader, Visitor
from scp_node.web.pages.feedback import NO_STUDY
from scp_node.web.quality import quality_of
from scp_node.web.rendering import render
from scp_node.web.site import Site, SiteOf
from scp_node.web.study_view import viewer_address

router = APIRouter(prefix="/sample", include_in_schema=False)

_LISTED: Final = 200

Flag = Annotated[bool, Query()]
Number = Annotated[int, Query(ge=0, lt=2**63)]


@router.get("")
def sample(request: Request, site: SiteOf, visitor: Reader, *, blind: Flag = True, again: Flag = False) -> Response:
    """Show the studies that wait for the reader."""
    since = _since(site)
    tasks = _tasks(site, visitor, since, again=again)
    return render(
        request,
        "sample/list.html",
        visitor,
        tasks=tasks,
        is_whole=len(tasks) < _LISTED,
        blind=blind,
        again=again,
        since=since,
        quality=quality_of(site.ledger.reading_sample.data(SampleQuery(first=since))),
        most_positive=site.settings.web.sample_positive,
        most_negative=site.settings.web.sample_negative,
        query=_query(blind=blind, again=again),
    )


@router.get("/next")
def next_study(
    request: Request,
    site: SiteOf,
    visitor: Reader,
    *,
    blind: Flag = True,
    again: Flag = False,
    done: Number = 0,
    skip: Number = 0,
) -> Response:
    """Show the next study that waits, and what became of the one before."""
    tasks = _tasks(site, visitor, _since(site), again=again)
    ids = [each.subject_id for each in tasks]
    behind = tasks[ids.index(skip) + 1 :] if skip in ids else tasks
    if not behind:
        query = _query(blind=blind, again=again)
        return RedirectResponse(f"/sample?{query}", status_code=HTTPStatus.SEE_OTHER)
    return _read(request, site, visitor, behind[0], blind=blind, again=again, done=done, left=len(tasks))


@router.get("/{subject_id}")
def study(
    request: Request, site: SiteOf, visitor: Reader, subject_id: int, *, blind: Flag = True, again: Flag = False
) -> Response:
    """Show one study that waits for the reader."""
    tasks = _tasks(site, visitor, _since(site), again=again)
    for task in tasks:
        if task.subject_id == subject_id:
            return _read(request, site, visitor, task, blind=blind, again=again, left=len(tasks))
    raise HTTPException(HTTPStatus.NOT_FOUND, "This study does not wait for you in the reading sample.")


def _since(site: Site) -> date:
    return (datetime.now(UTC) - timedelta(days=site.settings.web.sample_days)).date()


def _tasks(site: Site, visitor: Visitor, since: date, *, again: bool) -> list[ReadingTask]:
    return site.ledger.reading_sample.tasks(visitor.person.name, since=since, most=_LISTED, again=again)


def _query(*, blind: bool, again: bool) -> str:
    return urlencode({"blind": int(blind), "again": int(again)})


def _read(
    request: Request,
    site: Site,
    visitor: Visitor,
    task: ReadingTask,
    *,
    blind: bool,
    again: bool,
    done: int = 0,
    left: int,
) -> Response:
    feedback = site.ledger.feedback
    subject = feedback.subject(task.subject_id)
    if subject is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, NO_STUDY)
    site.ledger.visits.note_view(visitor.actor, subject.study_uid)
    return render(
        request,
        "sample/read.html",
        visitor,
        task=task,
        subject=subject,
        films=feedback.films(subject.id),
        viewer=viewer_address(
            site.settings.web.viewer_url,
            study_uid=subject.study_uid,
            accession=subject.accession,
            patient_id=subject.patient_id,
        ),
        blind=blind,
        again=again,
        left=left,
        before=_answered(site, visitor, done),
        query=_query(blind=blind, again=again),
        turned=_query(blind=not blind, again=again),
    )


def _answered(site: Site, visitor: Visitor, subject_id: int) -> FeedbackRow | None:
    """Return what this reader has just said of the study before, if it was they."""
    rows = site.ledger.feedback.of_subject(subject_id) if subject_id else []
    return next((row for row in rows if row.reader == visitor.person.name.casefold()), None)
