"""Watching the model: what came, what it said, how long that took, and whether any of it has moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from scp_node.ledger.daily import DailyQuery, DayCounts
from scp_node.web import words
from scp_node.web.access import Viewer
from scp_node.web.addresses import days_of
from scp_node.web.rendering import in_zone, render
from scp_node.web.site import Site, SiteOf
from scp_node.web.watching import (
    BASELINE_FILMS,
    LOOKED_AT_DAYS,
    WARNING_DAYS,
    WINDOW_DAYS,
    WINDOW_FILMS,
    Period,
    days,
    drifts,
    histogram,
    input_pictures,
    period,
)
from scp_node.web.words import sentence_of

router = APIRouter()

USUAL_DAYS: Final = 28
MOST_DAYS: Final = 732
_WINDOWS: Final = timedelta(days=WINDOW_DAYS + LOOKED_AT_DAYS)
_BEGINNING_DAYS: Final = 92  # in which the site's own beginning is looked for

Text = Annotated[str, Query(max_length=200)]


class DayDocument(BaseModel):
    """One day, in UTC, over all senders, views and bundles that were asked for."""

    day: date
    received: int
    outcomes: dict[str, int]
    not_analysed: dict[str, int]
    positive_rate: float | None
    positive_rate_low: float | None
    positive_rate_high: float | None
    median_seconds: float | None
    p95_seconds: float | None


class DaysDocument(BaseModel):
    """The days with films, in order."""

    first: date
    last: date
    days: list[DayDocument]


@router.get("/api/v1/model/days", response_model=DaysDocument, tags=["model"])
def day_documents(
    site: SiteOf,
    visitor: Viewer,  # noqa: ARG001 - only who is logged in
    first: Text = "",
    last: Text = "",
    calling_ae: Text = "",
    view: Text = "",
    bundle: Text = "",
) -> DaysDocument:
    """Return what came on each day, what the model said of it, and how long it took from receipt to delivery."""
    query = _query(site, first, last, calling_ae, view, bundle)
    found = days(site.ledger.daily.totals(query))
    return DaysDocument(
        first=query.first, last=query.last, days=[_document(day, of_day) for day, of_day in found.items()]
    )


@router.get("/model", include_in_schema=False)
def model_page(
    request: Request,
    site: SiteOf,
    visitor: Viewer,
    first: Text = "",
    last: Text = "",
    calling_ae: Text = "",
    view: Text = "",
    bundle: Text = "",
) -> Response:
    """Show volume, results, times, pictures and drift of some days."""
    query = _query(site, first, last, calling_ae, view, bundle)
    watched = bundle or (site.model.bundle if site.model else "")
    reference = site.reference if site.reference and site.reference.bundle == watched else None
    daily = site.ledger.daily
    length = timedelta(days=(query.last - query.first).days + 1)
    totals = daily.totals(replace(query, first=query.first - length))
    shown = [row for row in totals if row.day >= query.first]
    read = daily.counts(replace(query, first=min(query.first, query.last - _WINDOWS), bundle=watched))
    of_bundle = [row for row in read if row.day >= query.first]
    found = drifts(_windows(site, query, watched, read), _beginning(site, watched), reference, query.last)
    total = period(shown)
    return render(
        request,
        "model.html",
        visitor,
        query=query,
        menus=site.ledger.worklist.menus(),
        views=sorted({row.view for row in shown}),
        watched=watched,
        reference=reference,
        total=total,
        before=period(row for row in totals if row.day < query.first),
        not_analysed=[
            (sentence_of(name), number) for name, number in sorted(total.reasons.items(), key=lambda each: -each[1])
        ],
        reasons={name: sentence_of(name) for name in total.reasons},
        words=words,
        bars=histogram(of_bundle, reference),
        threshold=site.model.threshold if site.model and site.model.bundle == watched else None,
        pictures=input_pictures(of_bundle, reference),
        drifts=found,
        warnings=[each for each in found if each.is_warning],
        rules={
            "window_days": WINDOW_DAYS,
            "window_films": WINDOW_FILMS,
            "baseline": BASELINE_FILMS,
            "looked_at": LOOKED_AT_DAYS,
            "warning": WARNING_DAYS,
        },
    )


def _windows(site: Site, query: DailyQuery, bundle: str, read: Sequence[DayCounts]) -> Sequence[DayCounts]:
    """Return the days of the windows of drift, of all senders and views: from what was read, if it has them."""
    first = query.last - _WINDOWS
    if query.calling_ae is None and query.view is None:
        return [row for row in read if row.day >= first]
    return site.ledger.daily.counts(DailyQuery(first=first, last=query.last, bundle=bundle))


def _beginning(site: Site, bundle: str) -> Sequence[DayCounts]:
    """Return the days of the site's beginning with the bundle, of all senders and views."""
    daily = site.ledger.daily
    if (began := daily.first_day(bundle)) is None:
        return []
    first = DailyQuery(first=began, last=began + timedelta(days=_BEGINNING_DAYS), bundle=bundle)
    return daily.beginning(first, findings=BASELINE_FILMS)


def _query(site: Site, first: str, last: str, calling_ae: str, view: str, bundle: str) -> DailyQuery:
    """Return the query of an address; the last four weeks where it names no days.

    Raises:
        UnknownValueError: a day is none, they are in the wrong order, or too far apart.
    """
    today = in_zone(datetime.now(UTC), site.settings.web.time_zone).date()
    since, until = days_of(first, last, today=today, usual=USUAL_DAYS, most=MOST_DAYS)
    return DailyQuery(first=since, last=until, calling_ae=calling_ae or None, view=view or None, bundle=bundle or None)


def _document(day: date, of_day: Period) -> DayDocument:
    rate = of_day.positive_rate
    return DayDocument(
        day=day,
        received=of_day.received,
        outcomes={str(name): number for name, number in of_day.outcomes.items()},
        not_analysed=dict(of_day.reasons),
        positive_rate=rate.value,
        positive_rate_low=rate.low,
        positive_rate_high=rate.high,
        median_seconds=of_day.median_seconds,
        p95_seconds=of_day.slow_seconds,
    )
