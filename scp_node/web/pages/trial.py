"""A bundle on trial beside the reporting one: what both say of the same films, and which of them readers bear out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from scp_node.domain import Verdict
from scp_node.ledger import JudgedStudy, PairKey, ShadowBundle, ShadowQuery
from scp_node.measures import Estimate, PairedAuc, compare_auc, mcnemar, wilson
from scp_node.web.access import Viewer
from scp_node.web.addresses import days_of, place_of, place_text
from scp_node.web.errors import UnknownValueError
from scp_node.web.rendering import render
from scp_node.web.site import SiteOf

router = APIRouter(include_in_schema=False)

USUAL_DAYS: Final = 28
MOST_DAYS: Final = 366
MOST_DOTS: Final = 600  # of the plot: the newest pairs
PAGE: Final = 50
SIDE: Final = 300  # of the plot, in its own units

Text = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often a bundle is right about the studies whose truth is known."""

    sensitivity: Estimate
    specificity: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Both bundles against what readers say of the same studies."""

    positive: int  # studies with the finding
    negative: int
    reporting: Rates
    shadow: Rates
    only_reporting: int  # studies about which only this one is right
    only_shadow: int
    p: float  # McNemar, exact, two-sided
    areas: PairedAuc  # DeLong; the first is the reporting bundle's


def comparison(studies: Sequence[JudgedStudy]) -> Comparison:
    """Return the figures of both bundles; an undetermined verdict is right about nothing."""
    truth = np.array([study.is_positive for study in studies], dtype=bool)
    right = [(_is_right(study.reporting.verdict, study), _is_right(study.shadow.verdict, study)) for study in studies]
    only_reporting = sum(one and not other for one, other in right)
    only_shadow = sum(other and not one for one, other in right)
    return Comparison(
        positive=int(truth.sum()),
        negative=int((~truth).sum()),
        reporting=_rates(studies, [one for one, _ in right]),
        shadow=_rates(studies, [other for _, other in right]),
        only_reporting=only_reporting,
        only_shadow=only_shadow,
        p=mcnemar(only_reporting, only_shadow),
        areas=compare_auc(
            np.array([study.reporting.probability for study in studies], dtype=np.float64),
            np.array([study.shadow.probability for study in studies], dtype=np.float64),
            truth,
        ),
    )


def _is_right(verdict: Verdict, study: JudgedStudy) -> bool:
    return verdict is (Verdict.PRESENT if study.is_positive else Verdict.NOT_DETECTED)


def _rates(studies: Sequence[JudgedStudy], right: Sequence[bool]) -> Rates:
    of_positives = [good for study, good in zip(studies, right, strict=True) if study.is_positive]
    of_negatives = [good for study, good in zip(studies, right, strict=True) if not study.is_positive]
    return Rates(sensitivity=_share(of_positives), specificity=_share(of_negatives))


def _share(good: Sequence[bool]) -> Estimate:
    return wilson(sum(good) / len(good) if good else 0.0, len(good))


@router.get("/trial")
def trial(
    request: Request,
    site: SiteOf,
    visitor: Viewer,
    bundle: Text = "",
    first: Text = "",
    last: Text = "",
    calling_ae: Text = "",
    after: Text = "",
) -> Response:
    """Show both bundles side by side."""
    shadow = site.ledger.shadow
    bundles = sorted(shadow.bundles(), key=lambda each: each.last_at, reverse=True)
    chosen = _chosen(bundle, bundles)
    since, until = days_of(first, last, today=datetime.now(UTC).date(), usual=USUAL_DAYS, most=MOST_DAYS)
    shown = {"bundle": bundle, "first": since, "last": until, "calling_ae": calling_ae}
    menus = site.ledger.worklist.menus()
    if chosen is None:
        return render(request, "trial.html", visitor, bundles=bundles, chosen=None, shown=shown, menus=menus)
    query = ShadowQuery(
        bundle_digest=chosen.bundle_digest,
        since=datetime.combine(since, time(), UTC),
        until=datetime.combine(until + timedelta(days=1), time(), UTC),
        calling_ae=calling_ae or None,
    )
    judged = shadow.judged(query)
    return render(
        request,
        "trial.html",
        visitor,
        bundles=bundles,
        chosen=chosen,
        shown=shown,
        menus=menus,
        counts=shadow.counts(query),
        waiting=shadow.waiting(),
        dots=shadow.pairs(query, most=MOST_DOTS).pairs,
        page=shadow.pairs(replace(query, disagreeing=True), after=_key(after), most=PAGE),
        key=_written,
        judged=comparison(judged) if judged else None,
        side=SIDE,
        verdict=Verdict,
    )


def _chosen(digest: str, bundles: Sequence[ShadowBundle]) -> ShadowBundle | None:
    """Return the bundle with this digest, or the newest.

    Raises:
        UnknownValueError: no bundle on trial has this digest.
    """
    if not digest:
        return bundles[0] if bundles else None
    for each in bundles:
        if each.bundle_digest == digest:
            return each
    raise UnknownValueError("bundle: no bundle on trial has this digest")


def _written(key: PairKey) -> str:
    return place_text(key.at, key.id)


def _key(value: str) -> PairKey | None:
    place = place_of(value)
    return PairKey(at=place[0], id=place[1]) if place else None
