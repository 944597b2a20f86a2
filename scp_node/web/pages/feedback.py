"""What readers say of a study: the box on its page, and the import of a file."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response, StreamingResponse

from scp_node.ledger import Answer, FeedbackError, Imported, LineProblem, Opinion, PersonRole, Subject, Truth
from scp_node.truth_file import COLUMNS, MOST_BYTES, MOST_PROBLEMS, TruthFileError, read_truths, written_rows
from scp_node.web.access import Reader, Viewer, Visitor
from scp_node.web.errors import UnknownValueError
from scp_node.web.rendering import render
from scp_node.web.site import Site, SiteOf

router = APIRouter(include_in_schema=False)

IMPORT: Final = "/feedback/import"  # takes more than other forms
NO_STUDY: Final = "There is no such study."
_MOST_TEXT: Final = 16_384  # characters of a comment that are looked at: more than may be, for a message of our own

Place = Literal["study", "sample"]


def answer_of(opinion: Opinion | None, truth: Truth | None, comment: str, *, blind: bool = False) -> Answer:
    """Return a reader's answer.

    Raises:
        UnknownValueError: it cannot be kept; the message says why.
    """
    try:
        return Answer(opinion=opinion, truth=truth, comment=comment.replace("\r\n", "\n").strip(), blind=blind)
    except FeedbackError as error:
        raise UnknownValueError(f"comment: {error}." if opinion or truth else f"opinion: {error}.") from None


def as_sentence(error: Exception) -> str:
    """Return what an error says, as a sentence."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def subject_of(site: Site, study_uid: str, subject_id: int) -> Subject:
    """Return the patient's study with this number.

    Raises:
        HTTPException: the study has no such patient.
    """
    subject = site.ledger.feedback.subject(subject_id) if 0 < subject_id < 2**63 else None
    if subject is None or subject.study_uid != study_uid:
        raise HTTPException(HTTPStatus.NOT_FOUND, NO_STUDY)
    return subject


@router.get("/studies/{study_uid}/feedback/{subject_id}")
def box(request: Request, site: SiteOf, visitor: Viewer, study_uid: str, subject_id: int) -> Response:
    """Return the feedback box of a patient's study, as a part of a page."""
    return _box(request, site, visitor, subject_of(site, study_uid, subject_id))


@router.post("/studies/{study_uid}/feedback")
def give(
    request: Request,
    site: SiteOf,
    visitor: Reader,
    study_uid: str,
    subject: Annotated[int, Form()],
    opinion: Annotated[Opinion | None, Form()] = None,
    truth: Annotated[Truth | None, Form()] = None,
    comment: Annotated[str, Form(max_length=_MOST_TEXT)] = "",
    place: Annotated[Place, Form()] = "study",
    *,
    blind: Annotated[bool, Form()] = False,
    again: Annotated[bool, Form()] = False,
) -> Response:
    """Keep what the reader says, and go on: in the sample to the next study."""
    about = subject_of(site, study_uid, subject)
    answer = answer_of(opinion, truth, comment, blind=blind)
    try:
        site.ledger.feedback.give(about.id, visitor.person.name, answer, actor=visitor.actor)
    except FeedbackError as error:
        raise HTTPException(HTTPStatus.CONFLICT, as_sentence(error)) from None
    if place == "sample":
        query = urlencode({"done": about.id, "blind": int(blind), "again": int(again)})
        return RedirectResponse(f"/sample/next?{query}", status_code=HTTPStatus.SEE_OTHER)
    if "hx-request" in request.headers:
        return _box(request, site, visitor, about, has_answered=True)
    return RedirectResponse(f"/studies/{about.study_uid}#feedback-{about.id}", status_code=HTTPStatus.SEE_OTHER)


@router.get("/feedback.csv")
def export(site: SiteOf, visitor: Reader) -> Response:
    """Hand out all answers, and note who took them."""
    site.ledger.visits.note("web-exported", visitor.actor, detail={"what": "feedback"})
    headers = {"Content-Disposition": 'attachment; filename="feedback.csv"'}
    return StreamingResponse(
        written_rows(site.ledger.feedback.all()), media_type="text/csv; charset=utf-8", headers=headers
    )


@router.get(IMPORT)
def import_page(request: Request, visitor: Reader) -> Response:
    """Show the form for a file with the truth of studies."""
    return _import_page(request, visitor)


@router.post(IMPORT)
def import_file(
    request: Request,
    site: SiteOf,
    visitor: Reader,
    file: Annotated[UploadFile, File()],
    *,
    dry_run: Annotated[bool, Form()] = False,
) -> Response:
    """Take the file whole, or say what is wrong with it."""
    content = file.file.read(MOST_BYTES + 1)  # one more than may be, so that a larger file is seen
    try:
        truths, problems = read_truths(content)
    except TruthFileError as error:
        return _import_page(request, visitor, problem=as_sentence(error))
    if problems:
        return _import_page(request, visitor, problems=problems)
    done = site.ledger.feedback.import_truths(truths, actor=visitor.actor, most_problems=MOST_PROBLEMS, dry_run=dry_run)
    if done.problems:
        return _import_page(request, visitor, problems=list(done.problems))
    return _import_page(request, visitor, done=done, dry_run=dry_run)


def _box(request: Request, site: Site, visitor: Visitor, subject: Subject, *, has_answered: bool = False) -> Response:
    rows = site.ledger.feedback.of_subject(subject.id)
    return render(
        request,
        "feedback/box.html",
        visitor,
        subject=subject,
        rows=rows,
        mine=next((row for row in rows if row.reader == visitor.person.name.casefold()), None),
        opinions=list(Opinion),
        may_answer=visitor.may(PersonRole.READER),
        has_answered=has_answered,
    )


def _import_page(
    request: Request,
    visitor: Visitor,
    *,
    problem: str = "",
    problems: list[LineProblem] | None = None,
    done: Imported | None = None,
    dry_run: bool = False,
) -> Response:
    return render(
        request,
        "feedback/import.html",
        visitor,
        status=422 if problem or problems else 200,
        problem=problem,
        problems=problems or [],
        most_problems=MOST_PROBLEMS,
        done=done,
        dry_run=dry_run,
        columns=COLUMNS,
    )
