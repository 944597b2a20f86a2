"""One study: its films with the result over them, its reports, where they went, and what happened."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from typing import IO, Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from scp_node.ledger import LedgerError
from scp_node.ledger.study_rows import StoredImage
from scp_node.web import words
from scp_node.web.access import Admin, Viewer, Visitor
from scp_node.web.films import FilmNotShownError, FilmsOf
from scp_node.web.rendering import in_zone, render
from scp_node.web.site import Site, SiteOf
from scp_node.web.study_view import delivery_chip, event_views, patient_views

_DICOM: Final = "application/dicom"  # RFC 3240
_OCTETS: Final = "application/octet-stream"
_CHUNK: Final = 2**20
_NO_STUDY: Final = "There is no such study."
_NO_IMAGE: Final = "There is no such image in this study."
_NO_OBJECT: Final = "There is no such object in this study."

Size = Literal["fit", "full"]


class _Uid(Convertor[str]):
    """A UID in an address (PS3.5 Section 9.1): other words below `/studies` belong to other pages."""

    regex = "[0-9][0-9.]{0,63}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Row(Convertor[int]):
    """The id of a row, as far as a database counts."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("uid", _Uid())
register_url_convertor("row", _Row())
router = APIRouter(prefix="/studies/{study_uid:uid}", include_in_schema=False)


@router.get("")
def study(request: Request, site: SiteOf, visitor: Viewer, study_uid: str) -> Response:
    """Show a study, and note who looks at it."""
    return _shown(request, site, visitor, study_uid)


@router.post("/deliveries/{delivery_id:row}/again")
def send_again(request: Request, site: SiteOf, visitor: Admin, study_uid: str, delivery_id: int) -> Response:
    """Have one object sent again, and say what happens."""
    known = {destination.name for destination in site.settings.destinations}
    try:
        done = site.ledger.resending.send_again(study_uid, delivery_id, known=known, actor=visitor.actor)
    except LedgerError as error:
        return _shown(request, site, visitor, study_uid, problem=f"Not sent again: {error}.", status=409)
    return _shown(request, site, visitor, study_uid, done=done)


@router.get("/images/{image_id:row}/pixels")
async def pixels(
    site: SiteOf, films: FilmsOf, visitor: Viewer, study_uid: str, image_id: int, size: Annotated[Size, Query()] = "fit"
) -> Response:
    """Return the values of a film for the viewer, or in plain text why not."""
    del visitor
    image = await run_in_threadpool(site.ledger.study_pages.image, study_uid, image_id)
    if image is None:
        return PlainTextResponse(_NO_IMAGE, HTTPStatus.NOT_FOUND)
    if image.removing_at is not None:
        return PlainTextResponse(_removed(site, image), HTTPStatus.GONE)
    try:
        film = await films.encoded(image.spool_path, full=size == "full")
    except FilmNotShownError as error:
        return PlainTextResponse(str(error), error.status)
    headers = {"X-Film": film.description, "Content-Length": str(film.size)}
    return StreamingResponse(film.chunks(), media_type=_OCTETS, headers=headers)


@router.get("/images/{image_id:row}/attention")
def attention(site: SiteOf, visitor: Viewer, study_uid: str, image_id: int) -> Response:
    """Return the activation map of an image: 14 x 14 float32, little-endian, in logits."""
    del visitor
    found = site.ledger.study_pages.attention(study_uid, image_id)
    if not found:
        return PlainTextResponse("No activation map is kept of this image.", HTTPStatus.NOT_FOUND)
    return Response(found, media_type=_OCTETS)


@router.get("/images/{image_id:row}/original")
def original(site: SiteOf, films: FilmsOf, visitor: Viewer, study_uid: str, image_id: int) -> Response:
    """Hand out an image as it was received."""
    image = site.ledger.study_pages.image(study_uid, image_id)
    if image is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, _NO_IMAGE)
    if image.removing_at is not None:
        raise HTTPException(HTTPStatus.GONE, _removed(site, image))
    try:
        file = films.file(image.spool_path).open("rb")
    except (FilmNotShownError, OSError) as error:
        told = str(error) if isinstance(error, FilmNotShownError) else "The file of this image cannot be read now."
        raise HTTPException(HTTPStatus.GONE, told) from error
    _note_download(site, visitor, study_uid, image.sop_instance_uid, "original")
    headers = _attachment(f"original-{image.sop_instance_uid}.dcm")
    return StreamingResponse(_chunks(file), media_type=_DICOM, headers=headers)


@router.get("/objects/{sop_instance_uid:uid}")
def download(site: SiteOf, visitor: Viewer, study_uid: str, sop_instance_uid: str) -> Response:
    """Hand out a report, or what went with one, byte for byte as it was sent."""
    found = site.ledger.study_pages.file(study_uid, sop_instance_uid)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, _NO_OBJECT)
    _note_download(site, visitor, study_uid, sop_instance_uid, found.kind)
    return Response(found.file, media_type=_DICOM, headers=_attachment(f"{found.kind}-{sop_instance_uid}.dcm"))


def _shown(
    request: Request,
    site: Site,
    visitor: Visitor,
    study_uid: str,
    *,
    done: str = "",
    problem: str = "",
    status: int = HTTPStatus.OK,
) -> Response:
    page = site.ledger.study_pages.page(study_uid)
    if page is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, _NO_STUDY)
    site.ledger.visits.note_view(visitor.actor, study_uid)
    analysis = site.settings.analysis
    return render(
        request,
        "study.html",
        visitor,
        status=status,
        page=page,
        patients=patient_views(page, site.ledger.worklist.study(study_uid), site.model, site.settings.web.viewer_url),
        events=event_views(page.events),
        delivery_chip=delivery_chip,
        words=words,
        destinations={destination.name for destination in site.settings.destinations},
        intended_use=f"Frontal chest films ({', '.join(analysis.modalities)}) of patients of "
        f"{analysis.minimum_age} years or older",
        done=done,
        problem=problem,
    )


def _note_download(site: Site, visitor: Visitor, study_uid: str, sop_instance_uid: str, kind: str) -> None:
    site.ledger.visits.note(
        "web-downloaded",
        visitor.actor,
        study_uid=study_uid,
        sop_instance_uid=sop_instance_uid,
        detail={"object": kind},
    )


def _removed(site: Site, image: StoredImage) -> str:
    day = _day(image.removing_at, site.settings.web.time_zone)
    return f"The original was removed on {day} by retention.days. Results and reports stay."


def _day(instant: datetime | None, zone: str) -> str:
    if instant is None:
        return ""
    there = in_zone(instant, zone)
    return f"{there.day} {there:%B %Y}"


def _attachment(name: str) -> dict[str, str]:
    """Return the headers of a download; names are made of our words and UIDs."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk
