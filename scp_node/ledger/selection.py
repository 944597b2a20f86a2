"""Selects what a person looks after: work that was given up, analyses that failed, reports that nobody gets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, exists, func, or_, select

from scp_node.domain import Completion
from scp_node.ledger.database.schema import Use, delivery, instance, report, result, work
from scp_node.ledger.dispatch import is_undeliverable
from scp_node.ledger.queue import WorkState
from scp_node.ledger.queue_kinds import (
    ANALYSE,
    UNINDEXED_NAME,
    Queue,
    QueueKind,
    Subject,
    in_queue,
    is_about,
    of_kind,
)

RECENT_RESULTS: Final = 20_000  # the newest, among which failed analyses are looked for unless a study is named


class Trouble(StrEnum):
    """Why something needs a person."""

    GIVEN_UP = "given-up"  # work whose tries are spent
    FAILED = "failed"  # an image whose analysis ended as failed; reported as such
    UNDELIVERABLE = "undeliverable"  # a report that no destination is to get


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSelection:
    """Selects what is in one kind of trouble; every condition that is set must hold.

    `kind` and `destination` belong to work that was given up. `reason` is the word of a failed analysis, or the error
    of the work, whole.
    """

    trouble: Trouble = Trouble.GIVEN_UP
    kind: QueueKind | None = None
    destination: str | None = None
    reason: str | None = None
    calling_ae: str | None = None
    study_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """How much a selection selects."""

    number: int
    without_original: int = 0  # images among them that cannot be analysed again: their originals are no longer kept


def given_up(selection: WorkSelection) -> ColumnElement[bool]:
    """Return the SQL condition of dead work that is selected."""
    chosen: ColumnElement[bool] = work.c.state == WorkState.DEAD
    if selection.kind is not None:
        chosen &= of_kind(selection.kind, name=UNINDEXED_NAME)
    if selection.destination is not None:
        kinds = [kind for kind in QueueKind if kind.rules.subject is Subject.DELIVERY]
        chosen &= UNINDEXED_NAME.in_([Queue(kind, selection.destination).name for kind in kinds])
    if selection.reason is not None:
        chosen &= work.c.error == selection.reason
    if selection.calling_ae is not None or selection.study_uid is not None:
        about = _images(selection)
        of_report = exists().where(instance.c.study_uid == report.c.study_uid, *about)
        sent = select(delivery.c.id).join(report, report.c.id == delivery.c.report_id)
        chosen &= or_(
            is_about(Subject.IMAGE, name=UNINDEXED_NAME) & exists().where(instance.c.id == work.c.ref_id, *about),
            is_about(Subject.STUDY, name=UNINDEXED_NAME)
            & exists().where(instance.c.study_patient_id == work.c.ref_id, *about),
            is_about(Subject.DELIVERY, name=UNINDEXED_NAME)
            & sent.where(delivery.c.id == work.c.ref_id, of_report).exists(),
        )
    return chosen


def failed_images(selection: WorkSelection) -> Select[Any]:
    """Return the query for the ids of images whose newest result says that their analysis failed."""
    newer = result.alias()
    ended = exists().where(in_queue(ANALYSE), work.c.ref_id == instance.c.id, work.c.state == WorkState.DONE)
    chosen = select(instance.c.id).join(result, result.c.instance_id == instance.c.id)
    chosen = chosen.where(
        result.c.outcome == Completion.FAILED,
        ~exists().where(newer.c.instance_id == result.c.instance_id, newer.c.id > result.c.id),
        instance.c.use == Use.READ,
        ended,
        *_images(selection),
    )
    if selection.reason is not None:
        chosen = chosen.where(result.c.reason == selection.reason)
    if selection.study_uid is None:
        chosen = chosen.where(is_recent_result())
    return chosen


def is_recent_result() -> ColumnElement[bool]:
    """Return the SQL condition that a result is among the newest `RECENT_RESULTS`."""
    every = result.alias()
    newest = select(func.coalesce(func.max(every.c.id), 0)).scalar_subquery()
    return result.c.id > newest - RECENT_RESULTS


def undeliverable_reports(selection: WorkSelection | None = None) -> Select[Any]:
    """Return the query for the newest reports of their patients that no destination is to get, oldest first."""
    newer = report.alias()
    replaced = exists().where(newer.c.study_patient_id == report.c.study_patient_id, newer.c.id > report.c.id)
    columns = (report.c.id.label("report_id"), report.c.study_uid, report.c.study_patient_id, report.c.at)
    of_nobody = select(*columns).join(delivery, delivery.c.report_id == report.c.id).where(is_undeliverable())
    chosen = of_nobody.where(~replaced).order_by(report.c.id)
    if selection is not None and (about := _images(selection)):
        chosen = chosen.where(exists().where(instance.c.study_uid == report.c.study_uid, *about))
    return chosen


def _images(selection: WorkSelection) -> list[ColumnElement[bool]]:
    wanted = {instance.c.calling_ae: selection.calling_ae, instance.c.study_uid: selection.study_uid}
    return [column == value for column, value in wanted.items() if value is not None]
