"""Feedback and figures of quality for programs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from scp_node.domain import Verdict
from scp_node.ledger import FeedbackError, FeedbackRow, Opinion, Source, Subject, Truth
from scp_node.ledger.feedback_rows import MOST_COMMENT
from scp_node.measures import Estimate
from scp_node.web.access import Reader, Viewer
from scp_node.web.pages.feedback import NO_STUDY, answer_of, as_sentence
from scp_node.web.pages.quality import Selection
from scp_node.web.quality import Reading, quality_of
from scp_node.web.site import Site, SiteOf

router = APIRouter(prefix="/api/v1", tags=["feedback"])


class GivenAnswer(BaseModel):
    """An opinion on the result, or the truth."""

    model_config = ConfigDict(extra="forbid")

    opinion: Opinion | None = None
    truth: Truth | None = None
    comment: Annotated[str, Field(max_length=MOST_COMMENT)] = ""
    patient_id: str | None = Field(None, description="Where the study names several patients.")
    blind: bool = Field(default=False, description="The reader had not seen the result.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFeedback:
    """What one reader says now."""

    patient_id: str
    reader: str
    opinion: Opinion
    truth: Truth
    comment: str
    source: Source
    blind: bool
    number: int
    report_version: int
    bundle_digest: str
    verdict: Verdict
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its interval of 95 %; null where it cannot be known."""

    value: float | None
    low: float | None
    high: float | None
    effective_size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCounts:
    """How much of a stratum of the reading sample is read."""

    total: int
    drawn: int
    known: int
    unclear: int
    unread: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFigures:
    """Figures of quality of the studies of the days that are over (UTC)."""

    first: date | None
    last: date | None
    days: int
    bundles: tuple[str, ...]
    sensitivity: Figure
    why_no_sensitivity: str
    specificity: Figure
    ppv: Figure
    npv: Figure
    auc: Figure
    prevalence: float | None
    ppv_of_all_answered: Figure
    positives_right: int
    positives_wrong: int
    positives_unclear: int
    positives_unanswered: int
    undetermined: int
    sample_positive: SampleCounts
    sample_negative: SampleCounts
    remarks: tuple[str, ...]


@router.get("/studies/{study_uid}/feedback")
def feedback(site: SiteOf, visitor: Viewer, study_uid: str) -> list[GivenFeedback]:
    """Return what readers say of a study."""
    del visitor
    _subjects(site, study_uid)
    return [_given(row) for row in site.ledger.feedback.of_study(study_uid)]


@router.post("/studies/{study_uid}/feedback")
def give(site: SiteOf, visitor: Reader, study_uid: str, given: GivenAnswer) -> GivenFeedback:
    """Keep what the caller says of a study, in place of what they said before."""
    subjects = _subjects(site, study_uid)
    chosen = [each for each in subjects if given.patient_id in {None, each.patient_id}]
    if not chosen:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "patient_id: the study names no such patient.")
    if len(chosen) > 1:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"patient_id: the study names {len(chosen)} patients, say which."
        )
    answer = answer_of(given.opinion, given.truth, given.comment, blind=given.blind)
    try:
        row = site.ledger.feedback.give(chosen[0].id, visitor.person.name, answer, actor=visitor.actor)
    except FeedbackError as error:
        raise HTTPException(HTTPStatus.CONFLICT, as_sentence(error)) from None
    return _given(row)


@router.get("/quality")
def quality(site: SiteOf, visitor: Viewer, query: Selection) -> QualityFigures:
    """Return figures of quality, from what readers say."""
    del visitor
    found = quality_of(site.ledger.reading_sample.data(query))
    return QualityFigures(
        first=query.first,
        last=query.last,
        days=found.days,
        bundles=found.bundles,
        sensitivity=_figure(found.rates.sensitivity),
        why_no_sensitivity=found.why_no_sensitivity,
        specificity=_figure(found.rates.specificity),
        ppv=_figure(found.rates.ppv),
        npv=_figure(found.rates.npv),
        auc=_figure(found.area),
        prevalence=found.rates.prevalence,
        ppv_of_all_answered=_figure(found.all_positives),
        positives_right=found.positives_right,
        positives_wrong=found.positives_wrong,
        positives_unclear=found.positives_unclear,
        positives_unanswered=found.positives_unanswered,
        undetermined=found.undetermined,
        sample_positive=_counts(found.positive),
        sample_negative=_counts(found.negative),
        remarks=found.remarks,
    )


def _subjects(site: Site, study_uid: str) -> list[Subject]:
    subjects = [] if "\0" in study_uid else site.ledger.feedback.subjects(study_uid)
    if not subjects:
        raise HTTPException(HTTPStatus.NOT_FOUND, NO_STUDY)
    return subjects


def _given(row: FeedbackRow) -> GivenFeedback:
    return GivenFeedback(
        patient_id=row.patient_id,
        reader=row.reader,
        opinion=row.opinion,
        truth=row.truth,
        comment=row.comment,
        source=row.source,
        blind=row.blind,
        number=row.number,
        report_version=row.report_version,
        bundle_digest=row.bundle_digest,
        verdict=row.verdict,
        at=row.at,
    )


def _figure(estimate: Estimate) -> Figure:
    return Figure(value=estimate.value, low=estimate.low, high=estimate.high, effective_size=round(estimate.size, 1))


def _counts(reading: Reading) -> SampleCounts:
    return SampleCounts(
        total=reading.total,
        drawn=reading.drawn,
        known=reading.known,
        unclear=reading.unclear,
        unread=reading.unread,
    )
