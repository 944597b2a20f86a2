"""Makes pages of templates. Every value passes through Jinja's autoescape: nothing that a peer sent is ever markup."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from scp_node import __version__
from scp_node.ledger import PersonRole
from scp_node.web.access import Visitor
from scp_node.web.site import Site

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
THEMES: Final = ("dark", "light")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the navigation."""

    path: str
    name: str
    role: PersonRole = PersonRole.VIEWER


NAVIGATION: Final[Sequence[Entry]] = (
    Entry(path="/studies", name="Studies"),
    Entry(path="/sample", name="Reading sample", role=PersonRole.READER),
    Entry(path="/quality", name="Quality"),
    Entry(path="/model", name="Model"),
    Entry(path="/system", name="System"),
    Entry(path="/doctor", name="Doctor", role=PersonRole.ADMIN),
    Entry(path="/persons", name="Persons", role=PersonRole.ADMIN),
    Entry(path="/audit", name="Audit", role=PersonRole.ADMIN),
)


def render(
    request: Request, template: str, visitor: Visitor | None = None, *, status: int = 200, **values: object
) -> HTMLResponse:
    """Return the page that a template makes of `values`."""
    site: Site = request.app.state.site
    context = {
        "request": request,
        "visitor": visitor,
        "navigation": [each for each in NAVIGATION if visitor and visitor.may(each.role)],
        "theme": theme if (theme := request.cookies.get("theme")) in THEMES else "",
        "ae_title": site.settings.node.ae_title,
        "model": site.model,
        "zone": site.settings.web.time_zone,
        "version": __version__,
        **values,
    }
    return HTMLResponse(_environment().get_template(template).render(context), status_code=status)


def in_zone(instant: datetime, name: str) -> datetime:
    """Return the instant in the zone `name`; "" is this machine's."""
    return instant.astimezone(ZoneInfo(name)) if name else instant.astimezone()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_address
    environment.filters["local"] = _local
    environment.filters["utc"] = _utc
    environment.filters["percent"] = _percent
    environment.filters["duration"] = duration
    environment.filters["size"] = size
    environment.filters["milliseconds"] = _milliseconds
    return environment


@cache
def static_address(name: str) -> str:
    """Return the address of a static file; it changes with the file's contents, so that a browser may keep it."""
    return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


def _local(instant: datetime | None, zone: str, *, seconds: bool = True, milliseconds: bool = False) -> str:
    """Return date and time in the site's zone, with the zone's short name."""
    if instant is None:
        return ""
    there = in_zone(instant, zone)
    clock = there.strftime("%H:%M:%S" if seconds or milliseconds else "%H:%M")
    if milliseconds:
        clock += f".{there.microsecond // 1000:03d}"
    return f"{there:%Y-%m-%d} {clock} {there:%Z}"


def _utc(instant: datetime | None) -> str:
    return "" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _percent(probability: float | None) -> str:
    return "" if probability is None else f"{100 * probability:.1f} %"


def _milliseconds(length: timedelta | None) -> str:
    """Return a length of time in whole milliseconds."""
    return "" if length is None else f"{length / timedelta(milliseconds=1):,.0f} ms".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """Return a length of time as people say it: 240 ms, 3.2 s, 14 min, 5 h, 3 d."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    for unit, size, limit in (("s", 1, 60), ("min", 60, 3_600), ("h", 3_600, 86_400)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if seconds / size < 10 else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def size(number: float) -> str:
    """Return a number of bytes as people say it: 512 B, 3.4 MiB, 120 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.1f} {unit}" if number < 10 and unit != "B" else f"{number:,.0f} {unit}"
