"""Hands studies out for their report and stores the report's bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, select

from scp_node.domain import BuiltObject, BuiltReport, ModelIdentity
from scp_node.ledger import queue
from scp_node.ledger.analyses import open_report
from scp_node.ledger.database.schema import companion, report, report_result, study_patient
from scp_node.ledger.dispatch import Takes, dispatch, dispatch_companions, takes_all, withdraw
from scp_node.ledger.queue_kinds import COMPANIONS, REPORT
from scp_node.ledger.snapshots import (
    CompanionsTask,
    NothingToReport,
    ReportTask,
    StudyPending,
    StudySnapshot,
    reported_rows,
    snapshot_again,
    take_snapshot,
    unchanged,
)
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.provenance import of_report_file, of_study_patient
from scp_node.ledger.transactions import Policy, Transactions, insert_row

COMPANIONS_MADE: Final = "companions-made"  # event: what goes with a stored report is stored as well


class Reports:
    """The queue of studies, and their reports."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def claim(self, *, owner: str) -> ReportTask | None:
        """Take the most urgent of the patients whose images have come."""
        if not self._transactions.ready(REPORT):
            return None
        with self._transactions.writing() as (connection, now):
            claims = queue.claim(connection, REPORT, owner=owner, limit=1, lease=self._policy.lease, at=now)
            if not claims:
                return None
            patient = select(study_patient.c.id, study_patient.c.study_uid)
            row = connection.execute(patient.where(study_patient.c.id == claims[0].ref_id)).one()
        return ReportTask(claim=claims[0], study_patient_id=row.id, study_uid=row.study_uid)

    def snapshot(self, task: ReportTask, model: ModelIdentity) -> StudySnapshot | StudyPending | NothingToReport:
        """Return the contents for a report of this patient's images; see `take_snapshot`."""
        with self._transactions.writing() as (connection, now):
            return take_snapshot(connection, task, model, now)

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
                detail = {**of_study_patient(connection, task.study_patient_id), "error": error}
                record_event(connection, now, "report-failed", study_uid=task.study_uid, detail=detail)

    def close(self, task: ReportTask, model: ModelIdentity) -> None:
        """Close the work without a report; open it again if a result came meanwhile."""
        with self._transactions.writing() as (connection, now):
            if queue.complete(connection, task.claim, at=now) and reported_rows(connection, task, model):
                open_report(connection, self._policy, task.study_patient_id, now)

    def complete_unchanged(
        self,
        task: ReportTask,
        snapshot: StudySnapshot,
        model: ModelIdentity,
        destinations: Sequence[str],
        *,
        takes: Takes = takes_all,
    ) -> None:
        """Close the work: the existing report already says all this. Newer results that say the same are linked to it.

        If it was undeliverable, it is delivered to `destinations`. The work stays open if the study changed meanwhile.
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
                self._route_again(connection, task, snapshot, destinations, takes=takes, now=now)

    def save(
        self,
        task: ReportTask,
        snapshot: StudySnapshot,
        built: BuiltReport,
        model: ModelIdentity,
        destinations: Sequence[str],
        *,
        companions_follow: bool = False,
    ) -> bool:
        """Store the bytes of the report, and open its deliveries.

        With `companions_follow` its companions are made later; see `claim_companions`. Returns False and leaves the
        work open if the claim was lost or the study changed while the report was built.
        """
        with self._transactions.writing() as (connection, now):
            if not queue.complete(connection, task.claim, at=now):
                return False
            if (rows := self._unchanged(connection, task, snapshot, model, now)) is None:
                return False
            columns = _columns(task, snapshot, built)
            report_id = insert_row(connection, report, **columns, bundle_digest=model.digest, at=now)
            _link(connection, report_id, snapshot.result_ids)
            priority = snapshot.priority
            dispatch(connection, self._policy, report_id, destinations, priority=priority, now=now)
            if companions_follow:
                queue.schedule(
                    connection,
                    queue=COMPANIONS,
                    dedup=str(report_id),
                    ref_id=task.study_patient_id,
                    priority=priority,
                    max_attempts=self._policy.most_tries(COMPANIONS),
                    due=now,
                    at=now,
                )
            detail = {
                "input_sha256": [row.sha256 for row in rows],
                "bundle_digest": model.digest,
                "report_uid": built.sop_instance_uid,
                "report_sha256": columns["sha256"],
                "destinations": list(destinations),
            }
            record_event(connection, now, "reported", study_uid=task.study_uid, detail=detail)
        return True

    def claim_companions(self, *, owner: str) -> CompanionsTask | None:
        """Take the most urgent of the stored reports whose companions are to be made."""
        return self._claim_companions(owner) if self._transactions.ready(COMPANIONS) else None

    def claim_late_companions(self, *, owner: str, late: timedelta) -> CompanionsTask | None:
        """Take the stored report that has waited longest for its companions, if that is `late` or longer."""
        with self._transactions.reading() as (connection, now):
            oldest = queue.oldest_ready(connection, COMPANIONS)
        if oldest is None or now - oldest < late:
            return None
        return self._claim_companions(owner, oldest_first=True)

    def _claim_companions(self, owner: str, *, oldest_first: bool = False) -> CompanionsTask | None:
        with self._transactions.writing() as (connection, now):
            claims = queue.claim(
                connection,
                COMPANIONS,
                owner=owner,
                limit=1,
                lease=self._policy.lease,
                at=now,
                oldest_first=oldest_first,
            )
            if not claims:
                return None
            stored = select(report).where(report.c.id == int(claims[0].dedup))
            row = connection.execute(stored).one()
        return CompanionsTask(
            claim=claims[0],
            report_id=row.id,
            report_uid=row.sop_instance_uid,
            content_digest=row.content_digest,
            at=row.at,
            study_patient_id=row.study_patient_id,
            study_uid=row.study_uid,
        )

    def snapshot_again(self, task: CompanionsTask, model: ModelIdentity) -> StudySnapshot | None:
        """Return the contents of the stored report; see `scp_node.ledger.snapshots.snapshot_again`."""
        with self._transactions.reading() as (connection, _now):
            return snapshot_again(connection, task, model)

    def save_companions(
        self, task: CompanionsTask, companions: Sequence[BuiltObject], *, takes: Takes = takes_all
    ) -> bool:
        """Store the companions of a report, and open their deliveries to the destinations that get the report.

        Returns False if the claim was lost.
        """
        with self._transactions.writing() as (connection, now):
            if not queue.complete(connection, task.claim, at=now):
                return False
            if not companions:
                return True
            held = select(report.c.id).where(report.c.id == task.report_id)
            connection.execute(held.with_for_update())  # nobody may route it again meanwhile
            digests = {each.sop_instance_uid: _sha256(each.file) for each in companions}
            for each in companions:
                _insert_companion(connection, task.report_id, each, digests[each.sop_instance_uid])
            priority = task.claim.priority
            names = dispatch_companions(
                connection, self._policy, task.report_id, takes=takes, priority=priority, now=now
            )
            detail = {
                **of_report_file(connection, task.report_id),
                "companions": {each.sop_instance_uid: each.kind for each in companions},
                "companion_sha256": digests,
                "destinations": names,
                **_left_out(names, companions, takes),
            }
            record_event(connection, now, COMPANIONS_MADE, study_uid=task.study_uid, detail=detail)
        return True

    def retry_companions(self, task: CompanionsTask, *, pause: timedelta, error: str) -> None:
        """Make the companions of a report after `pause`, or give them up when their tries are spent."""
        with self._transactions.writing() as (connection, now):
            if task.claim.attempt >= self._policy.max_attempts:
                queue.bury(connection, task.claim, error=error, at=now)
            else:
                queue.release_until(connection, task.claim, due=now + pause, error=error)

    def _unchanged(
        self, connection: Connection, task: ReportTask, snapshot: StudySnapshot, model: ModelIdentity, now: datetime
    ) -> Sequence[Any] | None:
        """Return the rows of the images; None if the study is not as the snapshot says, and then look at it again."""
        rows = unchanged(connection, task, snapshot, model, now)
        if rows is None:
            open_report(connection, self._policy, task.study_patient_id, now)
        return rows

    def _route_again(
        self,
        connection: Connection,
        task: ReportTask,
        snapshot: StudySnapshot,
        destinations: Sequence[str],
        *,
        takes: Takes,
        now: datetime,
    ) -> None:
        """Open the deliveries of an undeliverable report that has destinations now."""
        report_id = snapshot.previous_id
        if not destinations or report_id is None:
            return
        connection.execute(select(report.c.id).where(report.c.id == report_id).with_for_update())
        if not withdraw(connection, report_id):
            return
        priority = snapshot.priority
        dispatch(connection, self._policy, report_id, destinations, priority=priority, now=now)
        dispatch_companions(connection, self._policy, report_id, takes=takes, priority=priority, now=now)
        detail = {**of_report_file(connection, report_id), "destinations": list(destinations)}
        record_event(connection, now, "routed-again", study_uid=task.study_uid, detail=detail)

    def files(self, study_uid: str, version: int | None = None) -> list[tuple[int, str, bytes]]:
        """Return version, SOP Instance UID and Part 10 bytes of the reports of a study.

        They are the newest of each patient that the study names, or the one with this `version`.
        """
        columns = select(report.c.version, report.c.sop_instance_uid, report.c.file)
        of_study = report.c.study_uid == study_uid
        newest = select(func.max(report.c.version)).where(of_study).group_by(report.c.study_patient_id)
        chosen = report.c.version.in_(newest) if version is None else report.c.version == version
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(columns.where(of_study, chosen).order_by(report.c.version)).all()
        return [(row.version, row.sop_instance_uid, row.file) for row in rows]

    def companions(self, report_uid: str) -> list[tuple[str, str, bytes]]:
        """Return kind, SOP Instance UID and Part 10 bytes of each companion of a report."""
        wanted = select(companion.c.kind, companion.c.sop_instance_uid, companion.c.file)
        joined = wanted.join(report, report.c.id == companion.c.report_id).where(
            report.c.sop_instance_uid == report_uid
        )
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(joined.order_by(companion.c.id)).all()
        return [(row.kind, row.sop_instance_uid, row.file) for row in rows]


def _columns(task: ReportTask, snapshot: StudySnapshot, built: BuiltReport) -> dict[str, object]:
    return {
        "study_uid": built.study_uid,
        "study_patient_id": task.study_patient_id,
        "version": snapshot.version,
        "content_digest": built.content_digest,
        "sop_class_uid": built.sop_class_uid,
        "sop_instance_uid": built.sop_instance_uid,
        "series_instance_uid": built.series_instance_uid,
        "supersedes": snapshot.previous_id,
        "file": built.file,
        "sha256": _sha256(built.file),
    }


def _left_out(destinations: Sequence[str], companions: Sequence[BuiltObject], takes: Takes) -> dict[str, Any]:
    """Return the entry of the event that names the kinds of companion not sent to a destination, if there are any."""
    kinds = sorted({each.kind for each in companions})
    left_out = {name: [kind for kind in kinds if not takes(name, kind)] for name in destinations}
    left_out = {name: missing for name, missing in left_out.items() if missing}
    return {"left_out": left_out} if left_out else {}


def _link(connection: Connection, report_id: int, result_ids: Sequence[int]) -> None:
    if result_ids:
        links = [{"report_id": report_id, "result_id": result_id} for result_id in result_ids]
        connection.execute(report_result.insert(), links)


def _insert_companion(connection: Connection, report_id: int, built: BuiltObject, sha256: str) -> None:
    insert_row(
        connection,
        companion,
        report_id=report_id,
        kind=built.kind,
        sop_class_uid=built.sop_class_uid,
        sop_instance_uid=built.sop_instance_uid,
        series_instance_uid=built.series_instance_uid,
        file=built.file,
        sha256=sha256,
    )


def _sha256(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()
