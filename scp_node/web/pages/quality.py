"""How good the results are, by what readers say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from scp_node.ledger import SampleQuery
from scp_node.measures import Estimate, RocPoint
from scp_node.web.access import Viewer
from scp_node.web.errors import UnknownValueError
from scp_node.web.quality import Quality, quality_of
from scp_node.web.rendering import render
from scp_node.web.site import SiteOf

router = APIRouter(include_in_schema=False)

_SIDE: Final = 200  # of the ROC plot, in its own units

Choice = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The operating point in the plot, with its intervals."""

    x: float
    y: float
    left: float
    right: float
    top: float
    bottom: float


def selection(
    site: SiteOf, first: str = "", last: str = "", calling_ae: Choice = "", view: Choice = "", bundle: Choice = ""
) -> SampleQuery:
    """Return the studies that an address selects.

    Raises:
        UnknownValueError: a value is not allowed; the message names its parameter.
    """
    choices = site.ledger.reading_sample.choices()
    names = ("calling_ae", "view", "bundle")
    for name, value, known in zip(names, (calling_ae, view, bundle), choices, strict=True):
        if value and value not in known:
            raise UnknownValueError(f"{name}: no study has this value.")
    query = SampleQuery(
        first=_day("first", first),
        last=_day("last", last),
        calling_ae=calling_ae or None,
        view=view or None,
        bundle=bundle or None,
    )
    if query.first and query.last and query.first > query.last:
        raise UnknownValueError("last: it lies before the first day.")
    return query


Selection = Annotated[SampleQuery, Depends(selection)]


@router.get("/quality")
def quality(request: Request, site: SiteOf, visitor: Viewer, query: Selection) -> Response:
    """Show the figures of the studies that the address selects."""
    figures = quality_of(site.ledger.reading_sample.data(query))
    calling_aes, views, bundles = site.ledger.reading_sample.choices()
    return render(
        request,
        "quality.html",
        visitor,
        quality=figures,
        query=query,
        choices=(("calling_ae", "Sender", calling_aes), ("view", "View", views), ("bundle", "Bundle", bundles)),
        curve=_line(figures.curve),
        point=_point(figures),
        side=_SIDE,
    )


def _day(name: str, value: str) -> date | None:
    if not value:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise UnknownValueError(f"{name}: give a day, such as 2026-03-01.") from None


def _line(curve: Sequence[RocPoint]) -> str:
    """Return the points of an SVG polyline."""
    return " ".join(
        f"{_SIDE * point.false_positive_rate:.1f},{_SIDE * (1 - point.true_positive_rate):.1f}" for point in curve
    )


def _point(figures: Quality) -> Point | None:
    across, up = figures.rates.specificity, figures.rates.sensitivity
    if across.value is None or up.value is None:
        return None
    left, right = _limits(across)
    bottom, top = _limits(up)
    return Point(
        x=_SIDE * (1 - across.value),
        y=_SIDE * (1 - up.value),
        left=_SIDE * (1 - right),
        right=_SIDE * (1 - left),
        top=_SIDE * (1 - top),
        bottom=_SIDE * (1 - bottom),
    )


def _limits(estimate: Estimate) -> tuple[float, float]:
    return estimate.low or 0.0, 1.0 if estimate.high is None else estimate.high
