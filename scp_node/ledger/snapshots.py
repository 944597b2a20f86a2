"""What a report is made from: one patient's images of a study, their newest outcomes, and the report before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, and_, bindparam, exists, func, select

from scp_node.domain import (
    Finding,
    ModelIdentity,
    NotAnalysed,
    Note,
    Outcome,
    PreviousReport,
    Reason,
    Region,
    ReportedImage,
)
from scp_node.ledger import queue
from scp_node.ledger.analyses import ANALYSED, insert_result
from scp_node.ledger.database.schema import Use, instance, report, result, work
from scp_node.ledger.queue import OPEN_STATES, Claim
from scp_node.ledger.queue_kinds import ANALYSE, in_queue
from scp_node.ledger.retention import holding_originals
from scp_node.ledger.studies import is_interrupted

UNREAD: Final[Mapping[Use, Reason]] = {  # why nobody reads an image that a report names
    Use.CONFLICT: Reason.CONFLICTING_INSTANCE,
    Use.SET_ASIDE: Reason.SET_ASIDE,
}


def _reported() -> Select[Any]:
    of_patient = instance.c.study_patient_id == bindparam("patient")
    newest = (
        select(func.max(result.c.id))
        .join(instance, instance.c.id == result.c.instance_id)
        .where(of_patient, result.c.bundle_digest == bindparam("bundle"))
        .group_by(result.c.instance_id)
    )
    columns = (
        instance.c.id.label("instance_id"),
        instance.c.use,
        result.c.id.label("result_id"),
        result.c.outcome,
        result.c.probability,
        result.c.logit,
        result.c.threshold,
        result.c.grey_zone,
        result.c.reason,
        result.c.detail,
        result.c.notes,
        result.c.input_stats,
        result.c.regions,
        result.c.attention,
        instance.c.sop_instance_uid,
        instance.c.sha256,
        instance.c.spool_path,
        instance.c.header,
        instance.c.transfer_syntax,
        instance.c.calling_ae,
        instance.c.priority,
    )
    is_newest = (result.c.instance_id == instance.c.id) & result.c.id.in_(newest)
    statement = select(*columns).outerjoin(result, is_newest).where(of_patient)
    is_read = (instance.c.use == Use.READ) & result.c.id.is_not(None)
    is_film = is_read & (func.coalesce(result.c.reason, "") != Reason.OWN_OBJECT)
    named = instance.c.use.in_(tuple(UNREAD))
    return statement.where(is_film | named).order_by(instance.c.use != Use.READ, instance.c.id)


def _patients_named() -> Select[Any]:
    is_own = exists().where(result.c.instance_id == instance.c.id, result.c.reason == Reason.OWN_OBJECT)
    named = select(func.count(instance.c.study_patient_id.distinct()))
    return named.where(instance.c.study_uid == bindparam("study"), instance.c.use != Use.DUPLICATE, ~is_own)


# Statements that each report needs are built once, as in `queue`.
_IN_STUDY: Final = select(instance.c.id).where(instance.c.study_uid == bindparam("study"))
_IS_SEEN: Final = exists().where(result.c.instance_id == instance.c.id, result.c.bundle_digest == bindparam("bundle"))
_IS_UNSEEN: Final = and_(instance.c.study_uid == bindparam("study"), instance.c.use == Use.READ, ~_IS_SEEN)
_UNSEEN_KEPT: Final = holding_originals(_IS_UNSEEN)
_UNSEEN_GONE: Final = select(*ANALYSED).where(_IS_UNSEEN, instance.c.purging_at.is_not(None))
_WAITING: Final = (
    select(work.c.id)
    .where(in_queue(ANALYSE), work.c.ref_id.in_(bindparam("images", expanding=True)), work.c.state.in_(OPEN_STATES))
    .limit(1)
)
_NEWEST_REPORT: Final = (
    select(report).where(report.c.study_patient_id == bindparam("patient")).order_by(report.c.version.desc()).limit(1)
)
_VERSION: Final = select(func.max(report.c.version)).where(report.c.study_uid == bindparam("study"))
_PATIENTS: Final = _patients_named()
_REPORTED: Final = _reported()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTask:
    """One patient's images of a study to report."""

    claim: Claim
    study_patient_id: int
    study_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanionsTask:
    """A stored report whose companions are to be made."""

    claim: Claim
    report_id: int
    report_uid: str  # its SOP Instance UID
    content_digest: str
    at: datetime  # when it was stored
    study_patient_id: int
    study_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPending:
    """The study cannot be reported yet: some of its images wait for their analysis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToReport:
    """The study has no image to report: this node made all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySnapshot:
    """One patient's images of a study with their newest outcomes by one model, and the newest report.

    Images that nobody reads are among them: those in conflict with another of their SOP Instance UID, and those that a
    person has set aside.
    """

    images: tuple[ReportedImage, ...]
    spool_paths: tuple[str, ...]  # of the images, relative to the spool folder
    result_ids: tuple[int, ...]  # of those that are read
    unread: tuple[tuple[int, Use], ...]  # rows of the others
    calling_aes: frozenset[str]
    priority: int
    incomplete: bool  # a sender was interrupted, and it has not yet sent the rest as far as is known
    patients: int  # that the study names
    version: int  # number of the next report of the study, counted over all its patients
    previous: PreviousReport | None
    previous_id: int | None
    previous_content_digest: str | None


def take_snapshot(
    connection: Connection, task: ReportTask, model: ModelIdentity, now: datetime
) -> StudySnapshot | StudyPending | NothingToReport:
    """Return the contents for a report of this patient's images.

    A report is about one model: images that only another model analysed go back into the queue first.
    """
    if _analysis_open(connection, task.study_uid, model, now):
        return StudyPending()
    previous = connection.execute(_NEWEST_REPORT, {"patient": task.study_patient_id}).first()
    version = _next_version(connection, task.study_uid)
    return _snapshot(connection, task, model, version, previous) or NothingToReport()


def snapshot_again(connection: Connection, task: CompanionsTask, model: ModelIdentity) -> StudySnapshot | None:
    """Return the contents of a stored report as they are now; None where a newer one has taken its place.

    What it says may have changed since: then the digest of its content is another one, and a newer version comes.
    """
    stored = connection.execute(_NEWEST_REPORT, {"patient": task.study_patient_id}).one()
    if stored.id != task.report_id:
        return None
    previous = connection.execute(select(report).where(report.c.id == stored.supersedes)).first()
    return _snapshot(connection, task, model, stored.version, previous)


def _snapshot(
    connection: Connection,
    task: ReportTask | CompanionsTask,
    model: ModelIdentity,
    version: int,
    previous: Row[Any] | None,
) -> StudySnapshot | None:
    """Return the contents of this version; None where there is no image to report."""
    rows = reported_rows(connection, task, model)
    if not rows:
        return None
    return StudySnapshot(
        images=tuple(_reported_image(row) for row in rows),
        spool_paths=tuple(row.spool_path for row in rows),
        result_ids=_result_ids(rows),
        unread=_unread(rows),
        calling_aes=frozenset(row.calling_ae for row in rows),
        priority=min(row.priority for row in rows),
        incomplete=is_interrupted(connection, task.study_uid),
        patients=_patients(connection, task.study_uid),
        version=version,
        previous=_previous(previous) if previous else None,
        previous_id=previous.id if previous else None,
        previous_content_digest=previous.content_digest if previous else None,
    )


def unchanged(
    connection: Connection, task: ReportTask, snapshot: StudySnapshot, model: ModelIdentity, now: datetime
) -> Sequence[Any] | None:
    """Return the rows of the images, or None if the study is no longer as the snapshot says."""
    rows = reported_rows(connection, task, model)
    same = (
        (_result_ids(rows), _unread(rows)) == (snapshot.result_ids, snapshot.unread)
        and is_interrupted(connection, task.study_uid) == snapshot.incomplete
        and _patients(connection, task.study_uid) == snapshot.patients
        and _next_version(connection, task.study_uid) == snapshot.version
        and not _analysis_open(connection, task.study_uid, model, now)
    )
    return rows if same else None


def _analysis_open(connection: Connection, study_uid: str, model: ModelIdentity, now: datetime) -> bool:
    """Return whether images of the study wait for this model; wake the images that it has never seen.

    An unseen image whose original was removed gets the outcome that it cannot be analysed.
    """
    study_and_bundle = {"study": study_uid, "bundle": model.digest}
    kept = connection.scalars(_UNSEEN_KEPT, study_and_bundle).all()
    woken = queue.wake(connection, in_queue(ANALYSE) & work.c.ref_id.in_(kept), at=now) if kept else 0
    images: Sequence[Any] = connection.execute(_UNSEEN_GONE, study_and_bundle).all()
    for image in images:
        insert_result(connection, image, _without_original(connection, image.instance_id), model, now)
    if woken:
        return True
    # By their numbers: with a join PostgreSQL goes through all that waits, until it knows how much that is.
    in_study = connection.scalars(_IN_STUDY, {"study": study_uid}).all()
    return connection.execute(_WAITING, {"images": in_study}).first() is not None


def _without_original(connection: Connection, instance_id: int) -> NotAnalysed:
    """Return the outcome of an image that a model has not seen and never will."""
    earlier = select(result.c.reason).where(result.c.instance_id == instance_id).order_by(result.c.id.desc()).limit(1)
    own = connection.scalar(earlier) == Reason.OWN_OBJECT
    return NotAnalysed(reason=Reason.OWN_OBJECT if own else Reason.ORIGINAL_REMOVED)


def _patients(connection: Connection, study_uid: str) -> int:
    """Return the number of patients that the study names; an object that this node made names none."""
    patients: int = connection.execute(_PATIENTS, {"study": study_uid}).scalar_one()
    return patients


def _next_version(connection: Connection, study_uid: str) -> int:
    newest: int | None = connection.scalar(_VERSION, {"study": study_uid})
    return 1 + (newest or 0)


def _result_ids(rows: Sequence[Any]) -> tuple[int, ...]:
    return tuple(row.result_id for row in rows if row.use == Use.READ)


def _unread(rows: Sequence[Any]) -> tuple[tuple[int, Use], ...]:
    return tuple((row.instance_id, Use(row.use)) for row in rows if row.use != Use.READ)


def reported_rows(connection: Connection, task: ReportTask | CompanionsTask, model: ModelIdentity) -> Sequence[Any]:
    """Return the images of the patient, those that are read with their newest result.

    These come first, each in order of arrival: what a report says of the patient is taken from a film that is read.
    """
    return connection.execute(_REPORTED, {"patient": task.study_patient_id, "bundle": model.digest}).all()


def _reported_image(row: Row[Any]) -> ReportedImage:
    return ReportedImage(
        sop_instance_uid=row.sop_instance_uid,
        header=row.header,
        transfer_syntax=row.transfer_syntax,
        outcome=_outcome(row),
        sha256=row.sha256,
    )


def _outcome(row: Row[Any]) -> Outcome:
    if row.use != Use.READ:
        return NotAnalysed(reason=UNREAD[Use(row.use)])
    if row.outcome == "finding":
        return Finding(
            probability=row.probability,
            logit=row.logit,
            threshold=row.threshold,
            grey_zone=row.grey_zone or 0.0,
            notes=tuple(Note(note) for note in row.notes),
            input_stats=row.input_stats,
            regions=tuple(Region(**region) for region in row.regions),
            attention=row.attention or b"",
        )
    return NotAnalysed(reason=Reason(row.reason), detail=row.detail)


def _previous(row: Row[Any]) -> PreviousReport:
    return PreviousReport(
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        sop_class_uid=row.sop_class_uid,
        version=row.version,
    )
