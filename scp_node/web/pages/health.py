"""Whether the role lives, and whether it can work: for a supervisor, a load balancer, a container."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from scp_node.ledger import LedgerError
from scp_node.web.site import SiteOf

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
def healthy() -> PlainTextResponse:
    """Say that the process answers."""
    return PlainTextResponse("ok\n")


@router.get("/readyz")
def ready(site: SiteOf) -> PlainTextResponse:
    """Say that the database answers with the schema of this program; else 503."""
    try:
        schema = site.ledger.problems.schema()
    except LedgerError as error:
        return PlainTextResponse(f"{error}\n", status_code=503)
    return PlainTextResponse(f"ok, schema {schema}\n")
