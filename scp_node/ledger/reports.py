"""Hands studies out for their report and stores the report's bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select

from scp_node.domain import (
    BuiltObject,
    BuiltReport,
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
from scp_node.ledger.analyses import ANALYSED, insert_result, open_report
from scp_node.ledger.database.schema import companion, delivery, instance, report, report_result, result, work
from scp_node.ledger.queue import OPEN_STATES, Claim
from scp_node.ledger.queue_kinds import ANALYSE, REPORT, deliver_queue, in_queue
from scp_node.ledger.retention import hold_originals
from scp_node.ledger.studies import is_interrupted
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import of_study
from scp_node.ledger.transactions import Policy, Transactions, insert_row

Takes = Callable[[str, str], bool]  # of a destination's name and the word of a kind


def takes_all(_destination: str, _kind: str) -> bool:
    """Return that every destination takes every kind of companion."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTask:
    """One study to report."""

    claim: Claim
    study_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPending:
    """The study cannot be reported yet: some of its images wait for their analysis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToReport:
    """The study has no image to report: this node made all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySnapshot:
    """The images of a study with their newest outcomes by one model, and the newest report."""

    images: tuple[ReportedImage, ...]
    spool_paths: tuple[str, ...]  # of the images, relative to the spool folder
    result_ids: tuple[int, ...]
    calling_aes: frozenset[str]
    priority: int
    incomplete: bool  # a sender was interrupted, and it has not yet sent the rest as far as is known
    previous: PreviousReport | None
    previous_id: int | None
    previous_content_digest: str | None


class Reports:
    """The queue of studies, and their reports."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def claim(self, *, owner: str) -> ReportTask | None:
        """Take the most urgent quiet study."""
        if not self._transactions.ready(REPORT):
            return None
        with self._transactions.writing() as (connection, now):
            claims = queue.claim(connection, REPORT, owner=owner, limit=1, lease=self._policy.lease, at=now)
        return ReportTask(claim=claims[0], study_uid=claims[0].dedup) if claims else None

    def snapshot(self, study_uid: str, model: ModelIdentity) -> StudySnapshot | StudyPending | NothingToReport:
        """Return the contents for a report of the study.

        A report is about one model: images that only another model analysed go back into the queue first.
        """
        with self._transactions.writing() as (connection, now):
            if _analysis_open(connection, study_uid, model, now):
                return StudyPending()
            rows = _newest_results(connection, study_uid, model)
            if not rows:
                return NothingToReport()
            incomplete = is_interrupted(connection, study_uid)
            newest = select(report).where(report.c.study_uid == study_uid).order_by(report.c.version.desc()).limit(1)
            previous = connection.execute(newest).first()
        return StudySnapshot(
            images=tuple(_reported_image(row) for row in rows),
            spool_paths=tuple(row.spool_path for row in rows),
            result_ids=tuple(row.result_id for row in rows),
            calling_aes=frozenset(row.calling_ae for row in rows),
            priority=min(row.priority for row in rows),
            incomplete=incomplete,
            previous=_previous(previous) if previous else None,
            previous_id=previous.id if previous else None,
            previous_content_digest=previous.content_digest if previous else None,
        )

    def postpone(self, task: ReportTask, pause: timedelta) -> None:
        """Look at the study again after `pause`, without counting the try."""
        with self._transactions.writing() as (connection, now):
            queue.release_until(connection, task.claim, due=now + pause, keep_attempt=True)

    def retry(self, task: ReportTask, *, pause: timedelta, error: str) -> None:
        """Try the study again after `pause`, or give it up when its tries are spent."""
        if task.claim.attempt >= self._policy.max_attempts:
            self.fail(task, error)
            return
        with self._transactions.writing() as (connection, now):
            queue.release_until(connection, task.claim, due=now + pause, error=error)

    def fail(self, task: ReportTask, error: str) -> None:
        """Give the study up: it cannot be reported, and a person has to look at it."""
        with self._transactions.writing() as (connection, now):
            if queue.bury(connection, task.claim, error=error, at=now):
                detail = {**of_study(connection, task.study_uid), "error": error}
                record_event(connection, now, "report-failed", study_uid=task.study_uid, detail=detail)

    def close(self, task: ReportTask, model: ModelIdentity) -> None:
        """Close the work without a report; open it again if a result came meanwhile."""
        with self._transactions.writing() as (connection, now):
            if queue.complete(connection, task.claim, at=now) and _newest_results(connection, task.study_uid, model):
                open_report(connection, self._policy, task.study_uid, now)

    def complete_unchanged(self, task: ReportTask, snapshot: StudySnapshot, model: ModelIdentity) -> None:
        """Close the work: the existing report already says all this. Newer results that say the same are linked to it.

        The work stays open if the study changed meanwhile.
        """
        with self._transactions.writing() as (connection, now):
            if not queue.complete(connection, task.claim, at=now):
                return
            if self._unchanged(connection, task, snapshot, model, now) is None:
                return
            if snapshot.previous_id is not None:
                of_previous = report_result.c.report_id == snapshot.previous_id
                linked = set(connection.scalars(select(report_result.c.result_id).where(of_previous)))
                _link(connection, snapshot.previous_id, [each for each in snapshot.result_ids if each not in linked])

    def save(
        self,
        task: ReportTask,
        snapshot: StudySnapshot,
        built: BuiltReport,
        model: ModelIdentity,
        destinations: Sequence[str],
        *,
        takes: Takes = takes_all,
    ) -> bool:
        """Store the bytes of the report and its companions, and open their deliveries: those of the report come first.

        Each destination gets the report, and those companions whose kind it `takes`.
        Returns False and leaves the work open if the claim was lost or the study changed while the report was built.
        """
        with self._transactions.writing() as (connection, now):
            if not queue.complete(connection, task.claim, at=now):
                return False
            if (rows := self._unchanged(connection, task, snapshot, model, now)) is None:
                return False
            report_id = _insert_report(connection, snapshot, built, model, now)
            companion_ids = [_insert_companion(connection, report_id, each) for each in built.companions]
            for name in destinations:
                _open_delivery(connection, self._policy, report_id, None, name, priority=snapshot.priority, now=now)
                for companion_id, each in zip(companion_ids, built.companions, strict=True):
                    if not takes(name, each.kind):
                        continue
                    later = snapshot.priority + queue.BEHIND_REPORTS
                    _open_delivery(connection, self._policy, report_id, companion_id, name, priority=later, now=now)
            detail = {
                "input_sha256": [row.sha256 for row in rows],
                "bundle_digest": model.digest,
                "report_uid": built.sop_instance_uid,
                "report_sha256": _sha256(built.file),
                "companions": {each.sop_instance_uid: each.kind for each in built.companions},
                "companion_sha256": {each.sop_instance_uid: _sha256(each.file) for each in built.companions},
                "destinations": list(destinations),
                **_left_out(destinations, built.companions, takes),
            }
            record_event(connection, now, "reported", study_uid=task.study_uid, detail=detail)
        return True

    def _unchanged(
        self, connection: Connection, task: ReportTask, snapshot: StudySnapshot, model: ModelIdentity, now: datetime
    ) -> Sequence[Any] | None:
        """Return the results of the study; None if they differ from the snapshot, and then look at the study again."""
        rows = _newest_results(connection, task.study_uid, model)
        same = tuple(row.result_id for row in rows) == snapshot.result_ids
        if (
            same
            and is_interrupted(connection, task.study_uid) == snapshot.incomplete
            and not _analysis_open(connection, task.study_uid, model, now)
        ):
            return rows
        open_report(connection, self._policy, task.study_uid, now)
        return None

    def file(self, study_uid: str, version: int | None = None) -> tuple[int, str, bytes] | None:
        """Return version, SOP Instance UID and Part 10 bytes of a report: the newest, unless `version` is given."""
        wanted = select(report.c.version, report.c.sop_instance_uid, report.c.file).where(
            report.c.study_uid == study_uid
        )
        if version is not None:
            wanted = wanted.where(report.c.version == version)
        with self._transactions.reading() as (connection, _now):
            row = connection.execute(wanted.order_by(report.c.version.desc()).limit(1)).first()
        return (row.version, row.sop_instance_uid, row.file) if row else None

    def companions(self, report_uid: str) -> list[tuple[str, str, bytes]]:
        """Return kind, SOP Instance UID and Part 10 bytes of each companion of a report."""
        wanted = select(companion.c.kind, companion.c.sop_instance_uid, companion.c.file)
        joined = wanted.join(report, report.c.id == companion.c.report_id).where(
            report.c.sop_instance_uid == report_uid
        )
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(joined.order_by(companion.c.id)).all()
        return [(row.kind, row.sop_instance_uid, row.file) for row in rows]


def _left_out(destinations: Sequence[str], companions: Sequence[BuiltObject], takes: Takes) -> dict[str, Any]:
    """Return the entry of the event that names the kinds of companion not sent to a destination, if there are any."""
    kinds = sorted({each.kind for each in companions})
    left_out = {name: [kind for kind in kinds if not takes(name, kind)] for name in destinations}
    left_out = {name: missing for name, missing in left_out.items() if missing}
    return {"left_out": left_out} if left_out else {}


def _analysis_open(connection: Connection, study_uid: str, model: ModelIdentity, now: datetime) -> bool:
    """Return whether images of the study wait for this model; wake the images that it has never seen.

    An unseen image whose original was removed gets the outcome that it cannot be analysed.
    """
    in_study = select(instance.c.id).where(instance.c.study_uid == study_uid, ~instance.c.conflict)
    seen = select(result.c.instance_id).where(result.c.bundle_digest == model.digest)
    unseen = in_study.where(instance.c.id.not_in(seen))
    kept = hold_originals(connection, instance.c.id.in_(unseen))
    woken = queue.wake(connection, in_queue(ANALYSE) & work.c.ref_id.in_(kept), at=now)
    gone = select(*ANALYSED).where(instance.c.id.in_(unseen), instance.c.purging_at.is_not(None))
    images: Sequence[Any] = connection.execute(gone).all()
    for image in images:
        insert_result(connection, image, _without_original(connection, image.instance_id), model, now)
    waiting = select(work.c.id).where(in_queue(ANALYSE), work.c.state.in_(OPEN_STATES), work.c.ref_id.in_(in_study))
    return woken > 0 or connection.execute(waiting.limit(1)).first() is not None


def _without_original(connection: Connection, instance_id: int) -> NotAnalysed:
    """Return the outcome of an image that a model has not seen and never will."""
    earlier = select(result.c.reason).where(result.c.instance_id == instance_id).order_by(result.c.id.desc()).limit(1)
    own = connection.scalar(earlier) == Reason.OWN_OBJECT
    return NotAnalysed(reason=Reason.OWN_OBJECT if own else Reason.ORIGINAL_REMOVED)


def _newest_results(connection: Connection, study_uid: str, model: ModelIdentity) -> Sequence[Any]:
    newest = (
        select(func.max(result.c.id))
        .join(instance, instance.c.id == result.c.instance_id)
        .where(instance.c.study_uid == study_uid, result.c.bundle_digest == model.digest)
        .where(func.coalesce(result.c.reason, "") != Reason.OWN_OBJECT)
        .group_by(result.c.instance_id)
    )
    columns = (
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
    statement = select(*columns).join(instance, instance.c.id == result.c.instance_id)
    return connection.execute(statement.where(result.c.id.in_(newest)).order_by(instance.c.id)).all()


def _reported_image(row: Row[Any]) -> ReportedImage:
    return ReportedImage(
        sop_instance_uid=row.sop_instance_uid,
        header=row.header,
        transfer_syntax=row.transfer_syntax,
        outcome=_outcome(row),
    )


def _outcome(row: Row[Any]) -> Outcome:
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


def _insert_report(
    connection: Connection, snapshot: StudySnapshot, built: BuiltReport, model: ModelIdentity, now: datetime
) -> int:
    report_id = insert_row(
        connection,
        report,
        study_uid=built.study_uid,
        version=snapshot.previous.version + 1 if snapshot.previous else 1,
        bundle_digest=model.digest,
        content_digest=built.content_digest,
        sop_class_uid=built.sop_class_uid,
        sop_instance_uid=built.sop_instance_uid,
        series_instance_uid=built.series_instance_uid,
        supersedes=snapshot.previous_id,
        file=built.file,
        sha256=_sha256(built.file),
        at=now,
    )
    _link(connection, report_id, snapshot.result_ids)
    return report_id


def _link(connection: Connection, report_id: int, result_ids: Sequence[int]) -> None:
    if result_ids:
        links = [{"report_id": report_id, "result_id": result_id} for result_id in result_ids]
        connection.execute(report_result.insert(), links)


def _insert_companion(connection: Connection, report_id: int, built: BuiltObject) -> int:
    return insert_row(
        connection,
        companion,
        report_id=report_id,
        kind=built.kind,
        sop_class_uid=built.sop_class_uid,
        sop_instance_uid=built.sop_instance_uid,
        series_instance_uid=built.series_instance_uid,
        file=built.file,
        sha256=_sha256(built.file),
    )


def _open_delivery(
    connection: Connection,
    policy: Policy,
    report_id: int,
    companion_id: int | None,
    name: str,
    *,
    priority: int,
    now: datetime,
) -> None:
    values = {
        "report_id": report_id,
        "companion_id": companion_id,
        "destination": name,
        "state": "waiting",
        "attempts": 0,
        "detail": "",
    }
    delivery_id = insert_row(connection, delivery, created_at=now, **values)
    waiting = deliver_queue(name)
    queue.enqueue(
        connection,
        queue=waiting,
        dedup=str(delivery_id),
        ref_id=delivery_id,
        priority=priority,
        max_attempts=policy.most_tries(waiting),
        at=now,
    )


def _sha256(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()
