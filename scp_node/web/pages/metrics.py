"""The metrics for Prometheus, and who may read them."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import PlainTextResponse

from scp_node.web.access import visitor_of
from scp_node.web.guard import address_of, comes_from_proxy, is_in
from scp_node.web.metrics import Collector
from scp_node.web.site import Site, SiteOf

router = APIRouter(include_in_schema=False)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_WHO: Final = (
    "Give a token (Authorization: Bearer ...), or ask from an address that web.metrics_from lists, directly and not "
    "through a proxy.\n"
)


def _collector(request: Request) -> Collector:
    collector: Collector = request.app.state.collector
    return collector


@router.get("/metrics")
def metrics(request: Request, site: SiteOf, collector: Annotated[Collector, Depends(_collector)]) -> PlainTextResponse:
    """Return numbers about the node: for a listed address, a token, or a person who is logged in."""
    if not (_is_listed(request, site) or _is_known(request, site)):
        return PlainTextResponse(_WHO, status_code=401, headers={"WWW-Authenticate": "Bearer"})
    return PlainTextResponse(collector.text(), media_type=CONTENT_TYPE)


def _is_listed(request: Request, site: Site) -> bool:
    networks = [ipaddress.ip_network(each, strict=False) for each in site.settings.web.metrics_networks]
    return not comes_from_proxy(request) and is_in(address_of(request), networks)


def _is_known(request: Request, site: Site) -> bool:
    visitor = visitor_of(request, site)
    return visitor is not None and not visitor.person.must_change
