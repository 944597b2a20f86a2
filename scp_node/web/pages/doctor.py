"""What keeps the node from working, and a test report to a destination: for admins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from scp_node.settings import DestinationSettings
from scp_node.web.access import Admin, Visitor
from scp_node.web.children import Examiner, Run
from scp_node.web.errors import UnknownValueError
from scp_node.web.rendering import render
from scp_node.web.site import Site, SiteOf

router = APIRouter(prefix="/doctor", include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationRow:
    """A destination, and the last test report to it."""

    entry: DestinationSettings
    trial: Run | None


def _examiner(request: Request) -> Examiner:
    examiner: Examiner = request.app.state.examiner
    return examiner


ExaminerOf = Annotated[Examiner, Depends(_examiner)]


@router.get("")
def doctor(request: Request, site: SiteOf, visitor: Admin, examiner: ExaminerOf) -> Response:
    """Show the last examination, and who sends."""
    return _shown(request, "doctor.html", site, visitor, examiner)


@router.get("/live")
def live(request: Request, site: SiteOf, visitor: Admin, examiner: ExaminerOf) -> Response:
    """Return the part of the page that changes while a child runs."""
    return _shown(request, "doctor_live.html", site, visitor, examiner)


@router.post("/examine")
def examine(visitor: Admin, examiner: ExaminerOf) -> Response:
    """Begin an examination."""
    return _begun(examiner.examine(visitor.actor))


@router.post("/test")
def send_test(site: SiteOf, visitor: Admin, examiner: ExaminerOf, destination: Annotated[str, Form()]) -> Response:
    """Begin to send a test report."""
    if destination not in {entry.name for entry in site.settings.destinations}:
        raise UnknownValueError("destination: the settings name no such destination.")
    return _begun(examiner.send_test(destination, visitor.actor))


def _begun(is_begun: bool) -> Response:  # noqa: FBT001 - one word of another module
    return RedirectResponse("/doctor" if is_begun else "/doctor?busy=1", status_code=303)


def _shown(request: Request, template: str, site: Site, visitor: Visitor, examiner: Examiner) -> Response:
    return render(
        request,
        template,
        visitor,
        run=examiner.examination(),
        is_running=examiner.is_running,
        is_busy="busy" in request.query_params and examiner.is_running,
        destinations=[
            DestinationRow(entry=entry, trial=examiner.trial(entry.name)) for entry in site.settings.destinations
        ],
        peers=site.settings.peers,
        senders=site.ledger.problems.senders(),
    )
