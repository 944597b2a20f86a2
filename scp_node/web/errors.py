"""What a person or a script is told when a request cannot be answered."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from scp_node.ledger import AWAY, LedgerError
from scp_node.logs import get_logger
from scp_node.web.access import ForbiddenError, LoginNeededError, PasswordChangeNeededError, visitor_seen
from scp_node.web.guard import is_secure, protect
from scp_node.web.passwords import TooManyLoginsError
from scp_node.web.rendering import render

log = get_logger(__name__)

RETRY_SECONDS: Final = 5
API: Final = "/api/"
_TITLES: Final[Mapping[int, str]] = {
    404: "There is no such page.",
    405: "This cannot be done here.",
    413: "That is too large.",
    503: "The database does not answer. Films are received meanwhile; this page tries again.",
}


_HEADINGS: Final[Mapping[int, str]] = {
    403: "Not allowed",
    404: "Not found",
    405: "Not here",
    409: "Not done",
    413: "Too large",
    422: "Not understood",
    500: "Failed",
    503: "Not now",
}


class UnknownValueError(ValueError):
    """A parameter of the address or a form has a value that is not allowed; the message names the parameter."""


def install(app: FastAPI) -> None:
    """Have `app` answer each error as it should be answered."""
    app.add_exception_handler(LoginNeededError, _to_login)
    app.add_exception_handler(PasswordChangeNeededError, _to_password)
    app.add_exception_handler(ForbiddenError, _forbidden)
    app.add_exception_handler(UnknownValueError, _unprocessable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(LedgerError, _refused)
    app.add_exception_handler(HTTPException, _http)
    for away in AWAY:
        app.add_exception_handler(away, _away)
    app.add_exception_handler(TooManyLoginsError, _too_many)
    app.add_exception_handler(Exception, _unexpected)


def told(request: Request, status: int, message: str) -> Response:
    """Return the answer with this status: JSON for a script, a page for a person."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    if request.url.path.startswith(API):
        return JSONResponse({"detail": message}, status_code=status, headers=headers)
    title = _HEADINGS.get(status, HTTPStatus(status).phrase)
    page = render(request, "error.html", visitor_seen(request), status=status, title=title, message=message)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and request.method == "GET":
        headers["Refresh"] = str(RETRY_SECONDS)
    page.headers.update(headers)
    return page


def _to(request: Request, place: str) -> Response:
    if "hx-request" in request.headers:  # a part of a page: the whole page has to go there
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"HX-Redirect": place})
    return RedirectResponse(place, status_code=HTTPStatus.SEE_OTHER)


def _to_login(request: Request, _error: Exception) -> Response:
    if request.url.path.startswith(API):
        headers = {"WWW-Authenticate": "Bearer"}
        return JSONResponse({"detail": "Give a token: Authorization: Bearer ..."}, status_code=401, headers=headers)
    is_part = "hx-request" in request.headers
    asked = urlsplit(request.headers.get("hx-current-url", "/") if is_part else str(request.url))
    wanted = asked.path if is_part or request.method == "GET" else "/"
    if wanted != "/" and asked.query:
        wanted += f"?{asked.query}"
    known = {"next": wanted if wanted != "/" else "", "lost": "" if request.method == "GET" else "1"}
    query = urlencode({name: value for name, value in known.items() if value}, safe="/")
    return _to(request, f"/login?{query}" if query else "/login")


def _to_password(request: Request, _error: Exception) -> Response:
    if request.url.path.startswith(API):
        return told(request, HTTPStatus.FORBIDDEN, "Log in and change your password first.")
    return _to(request, "/password")


def _forbidden(request: Request, error: Exception) -> Response:
    return told(request, HTTPStatus.FORBIDDEN, str(error))


def _unprocessable(request: Request, error: Exception) -> Response:
    return told(request, HTTPStatus.UNPROCESSABLE_ENTITY, str(error))


def _invalid(request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else ()
    said = [(each["loc"][-1], "unknown" if each["type"] == "extra_forbidden" else each["msg"]) for each in found]
    return told(request, HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(f"{name}: {problem}" for name, problem in said))


def _refused(request: Request, error: Exception) -> Response:
    return told(request, HTTPStatus.CONFLICT, str(error))


def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    is_ours = detail not in {"", HTTPStatus(status).phrase}
    return told(request, status, detail if is_ours else _TITLES.get(status, HTTPStatus(status).phrase))


def _away(request: Request, error: Exception) -> Response:
    log.warning("database is away, page not shown", path=request.url.path, error=type(error).__name__)
    return told(request, HTTPStatus.SERVICE_UNAVAILABLE, _TITLES[503])


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("page failed", path=request.url.path, exc_info=error)
    answer = told(request, HTTPStatus.INTERNAL_SERVER_ERROR, "This is a fault of the program: see its log.")
    protect(answer.headers, is_https=is_secure(request))  # the guard does not see this answer
    return answer


def _too_many(request: Request, _error: Exception) -> Response:
    answer = told(request, HTTPStatus.SERVICE_UNAVAILABLE, "Too many people log in at once: try again.")
    answer.headers["Retry-After"] = "1"
    del answer.headers["Refresh"]  # what was sent would not be sent again
    return answer
