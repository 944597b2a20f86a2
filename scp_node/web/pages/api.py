"""The API: its description, and a page that says it in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from scp_node.ledger import PersonRole
from scp_node.web.access import Means, Viewer
from scp_node.web.rendering import render
from scp_node.web.site import SiteOf

router = APIRouter()

DESCRIPTION: Final = "/api/openapi.json"
_METHODS: Final = ("get", "post", "put", "patch", "delete")


class Me(BaseModel):
    """Who a token acts as."""

    name: str
    role: PersonRole
    means: Means


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a call."""

    name: str
    meaning: str
    is_needed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the API."""

    method: str
    path: str
    summary: str
    meaning: str
    parameters: tuple[Parameter, ...]


@router.get("/api/v1/me", tags=["access"], summary="Who this token acts as")
def me(visitor: Viewer) -> Me:
    """Return the person and the role of the token, to try it."""
    return Me(name=visitor.person.name, role=visitor.person.role, means=visitor.means)


@router.get(DESCRIPTION, include_in_schema=False)
def description(request: Request, visitor: Viewer) -> Response:  # noqa: ARG001 - that there is one
    """Return the description of the API, in OpenAPI 3.1."""
    return JSONResponse(_described(request))


@router.get("/api", include_in_schema=False)
def page(request: Request, site: SiteOf, visitor: Viewer) -> Response:
    """List the calls."""
    calls = list(_calls(_described(request)))
    return render(request, "api.html", visitor, calls=calls, address=site.settings.web.address, description=DESCRIPTION)


def _described(request: Request) -> Mapping[str, Any]:
    schema: dict[str, Any] = request.app.openapi()
    schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["token"] = {"type": "http", "scheme": "bearer"}
    schema["security"] = [{"token": []}]
    return schema


def _calls(schema: Mapping[str, Any]) -> Iterator[Call]:
    for path, methods in sorted(schema["paths"].items()):
        for method in _METHODS:
            if method in methods:
                told = methods[method]
                yield Call(
                    method=method.upper(),
                    path=path,
                    summary=told.get("summary", ""),
                    meaning=told.get("description", ""),
                    parameters=tuple(
                        Parameter(
                            name=each["name"],
                            meaning=each.get("description", ""),
                            is_needed=each.get("required", False),
                        )
                        for each in told.get("parameters", ())
                    ),
                )
