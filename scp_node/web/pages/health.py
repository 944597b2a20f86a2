"""Whether the role lives, and whether it can work: for a supervisor, a load balancer, a container."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from scp_node.web.site import SiteOf

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
def healthy() -> PlainTextResponse:
    """Say that the process answers."""
    return PlainTextResponse("ok\n")


@router.get("/readyz")
def ready(site: SiteOf) -> PlainTextResponse:
    """Say that the database answers; else 503."""
    site.ledger.people.named("")
    return PlainTextResponse("ok\n")
