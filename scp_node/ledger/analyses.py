"""Hands images out for analysis and writes their outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import Connection, ScalarSelect, bindparam, func, select, update

from scp_node.domain import Finding, ModelIdentity, NotAnalysed, Outcome, Reason
from scp_node.ledger import queue
from scp_node.ledger.database.schema import Use, companion, instance, report, result, shadow_result
from scp_node.ledger.queue import AFTER_ALL_ELSE, Claim, Suspects
from scp_node.ledger.queue_kinds import ANALYSE, REPORT, SHADOW
from scp_node.ledger.replacement import MAKES_WAY, make_way
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Policy, Transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisTask:
    """One image to analyse."""

    claim: Claim
    instance_id: int
    sop_instance_uid: str
    study_uid: str
    study_patient_id: int
    sha256: str  # see ReceivedInstance
    spool_path: str
    rival_path: str | None = None  # of a conflict: the image that is read for their SOP Instance UID, if it is kept
    in_conflict: bool = False  # to be compared, not analysed


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysed:
    """One image that was analysed, with the seconds that each stage took.

    Attributes:
        runtime: runtime, device and precision of the worker's network; empty where none was open.
    """

    task: AnalysisTask
    outcome: Outcome
    started_at: datetime
    timings: Mapping[str, float] = field(default_factory=dict)
    runtime: str = ""


class AnalysedImage(Protocol):
    """The fields of an image that its result needs; an `AnalysisTask` and a row of `ANALYSED` have them."""

    @property
    def instance_id(self) -> int:
        """The image's row."""

    @property
    def sop_instance_uid(self) -> str:
        """Its SOP Instance UID."""

    @property
    def study_uid(self) -> str:
        """The Study Instance UID of its study."""

    @property
    def study_patient_id(self) -> int:
        """The patient's row of its study."""

    @property
    def sha256(self) -> str:
        """The digest of its dataset; see `ReceivedInstance`."""


ANALYSED: Final = (
    instance.c.id.label("instance_id"),
    instance.c.sop_instance_uid,
    instance.c.study_uid,
    instance.c.study_patient_id,
    instance.c.sha256,
)


# Statements that each image needs are built once, as in `queue`.
_LAST_VERSION: Final = select(func.max(report.c.at)).where(report.c.study_patient_id == bindparam("patient"))
_URGENCY: Final = select(
    func.min(instance.c.priority).label("priority"), func.max(instance.c.received_at).label("last")
).where(instance.c.study_patient_id == bindparam("patient"), instance.c.use != Use.DUPLICATE)
_RUNS: Final = select(func.count()).where(
    result.c.instance_id == bindparam("image"), result.c.bundle_digest == bindparam("bundle")
)
_INSERT_RESULT: Final = result.insert()


class Analyses:
    """The queue of images."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def claim(
        self, *, owner: str, limit: int, oldest_first: bool = False, suspects: Suspects = Suspects.ALONE
    ) -> list[AnalysisTask]:
        """Take up to `limit` images, the most urgent first.

        With `Suspects.ALONE` an image that was claimed before without a result comes alone.
        """
        if not self._transactions.ready(ANALYSE):
            return []
        with self._transactions.writing() as (connection, now):
            claims = queue.claim(
                connection,
                ANALYSE,
                owner=owner,
                limit=limit,
                lease=self._policy.lease,
                at=now,
                oldest_first=oldest_first,
                suspects=suspects,
            )
            ids = [claim.ref_id for claim in claims]
            # the header is left out: it is large, and no analysis needs it
            columns = select(*ANALYSED, instance.c.spool_path, instance.c.use, _rival_path().label("rival_path"))
            rows = {row.instance_id: row for row in connection.execute(columns.where(instance.c.id.in_(ids)))}
        return [
            AnalysisTask(
                claim=claim,
                instance_id=row.instance_id,
                sop_instance_uid=row.sop_instance_uid,
                study_uid=row.study_uid,
                study_patient_id=row.study_patient_id,
                sha256=row.sha256,
                spool_path=row.spool_path,
                rival_path=row.rival_path,
                in_conflict=row.use == Use.CONFLICT,
            )
            for claim in claims
            if (row := rows[claim.ref_id])
        ]

    def record(self, analysed: Sequence[Analysed], model: ModelIdentity, shadow: ModelIdentity | None = None) -> int:
        """Write results, close their work and open the reports of their studies; return how many claims still held.

        An object that this node made and a PACS routed back opens no report. The report would add another picture, and
        that picture would come back as well, for ever.

        With a `shadow`, the bundle on trial, its work is opened as well: for each image that got a finding.
        """
        kept, patients = 0, set()
        with self._transactions.writing() as (connection, now):
            for item in _mark_own_objects(connection, analysed):
                if queue.complete(connection, item.task.claim, at=now):
                    insert_result(
                        connection,
                        item.task,
                        item.outcome,
                        model,
                        now,
                        started_at=item.started_at,
                        timings=item.timings,
                        runtime=item.runtime,
                    )
                    if shadow and isinstance(item.outcome, Finding):
                        _open_shadow(connection, self._policy, item.task.instance_id, shadow, now)
                    if not _is_own(item.outcome):
                        patients.add(item.task.study_patient_id)
                    if isinstance(item.outcome, NotAnalysed) and item.outcome.reason in MAKES_WAY:
                        make_way(connection, self._policy, item.task.sop_instance_uid, now)
                    kept += 1
            for patient in sorted(patients):  # sorted, so that two workers cannot deadlock
                open_report(connection, self._policy, patient, now)
        return kept

    def compared(self, task: AnalysisTask, *, same: bool) -> bool:
        """Close the work of an image in conflict; `same`: it is the image that is read, in another encoding.

        Return whether it stays in conflict: it is read in place of one that could not be (see `replacement`). An object
        that this node made and a PACS routed back is no film, whatever the PACS did to it.
        """
        stays = True
        with self._transactions.writing() as (connection, now):
            same = same or bool(made_here(connection, [task.sop_instance_uid]))
            if not queue.complete(connection, task.claim, at=now):
                return False
            if same:
                here = (instance.c.id == task.instance_id) & (instance.c.use == Use.CONFLICT)
                connection.execute(update(instance).where(here).values(use=Use.DUPLICATE))
                record_event(
                    connection,
                    now,
                    "same-image",
                    study_uid=task.study_uid,
                    sop_instance_uid=task.sop_instance_uid,
                    detail={"input_sha256": [task.sha256]},
                )
            else:
                stays = not make_way(connection, self._policy, task.sop_instance_uid, now)
                open_report(connection, self._policy, task.study_patient_id, now)
        return not same and stays

    def retry(self, tasks: Sequence[AnalysisTask], model: ModelIdentity, *, pause: timedelta, error: str) -> None:
        """Put images back after a step that failed; an image that has spent its tries ends as failed."""
        spent = [task for task in tasks if task.claim.attempt >= self._policy.max_attempts]
        with self._transactions.writing() as (connection, now):
            for task in tasks:
                if task not in spent:
                    queue.release_until(connection, task.claim, due=now + pause, error=error)
        detail = f"{error}, tried {self._policy.max_attempts} times"
        outcome = NotAnalysed(reason=Reason.INFERENCE, detail=detail)
        self.record([Analysed(task=task, outcome=outcome, started_at=now) for task in spent], model)

    def put_back(self, tasks: Sequence[AnalysisTask], *, error: str) -> None:
        """Put images back without counting the try, since the machine was at fault; closed work stays as it is."""
        with self._transactions.writing() as (connection, now):
            for task in tasks:
                queue.release_until(connection, task.claim, due=now, error=error, keep_attempt=True)


def _mark_own_objects(connection: Connection, analysed: Sequence[Analysed]) -> list[Analysed]:
    """Return the outcomes, with `Reason.OWN_OBJECT` for an image whose UID is that of a companion in this ledger."""
    made = made_here(connection, [item.task.sop_instance_uid for item in analysed])
    own = NotAnalysed(reason=Reason.OWN_OBJECT, detail="SOPInstanceUID")
    return [replace(item, outcome=own) if item.task.sop_instance_uid in made else item for item in analysed]


def made_here(connection: Connection, uids: Sequence[str]) -> set[str]:
    """Return those of `uids` that are companions of this ledger's reports."""
    return set(connection.scalars(select(companion.c.sop_instance_uid).where(companion.c.sop_instance_uid.in_(uids))))


def _rival_path() -> ScalarSelect[Any]:
    """Return the path of the image of the same patient that is read for the same UID, while it is kept."""
    rival = instance.alias()
    same = (rival.c.sop_instance_uid == instance.c.sop_instance_uid) & (rival.c.use == Use.READ)
    same &= rival.c.study_patient_id == instance.c.study_patient_id  # another patient's is another film, unseen
    kept = select(rival.c.spool_path).where(same, rival.c.id != instance.c.id, rival.c.purging_at.is_(None))
    return kept.limit(1).correlate(instance).scalar_subquery()


def _is_own(outcome: Outcome) -> bool:
    return isinstance(outcome, NotAnalysed) and outcome.reason is Reason.OWN_OBJECT


def last_version(connection: Connection, study_patient_id: int) -> datetime | None:
    """Return when the newest report of a patient's study was made; None if there is none."""
    made: datetime | None = connection.scalar(_LAST_VERSION, {"patient": study_patient_id})
    return made


def open_report(connection: Connection, policy: Policy, study_patient_id: int, now: datetime) -> None:
    """Schedule the report of a patient's study for when the patient's images have come."""
    row = connection.execute(_URGENCY, {"patient": study_patient_id}).one()
    queue.schedule(
        connection,
        queue=REPORT,
        dedup=str(study_patient_id),
        ref_id=study_patient_id,
        priority=row.priority,
        max_attempts=policy.most_tries(REPORT),
        due=policy.report_due(row.priority, row.last, now, last_version(connection, study_patient_id)),
        at=now,
    )


def is_tried(connection: Connection, instance_id: int, shadow: ModelIdentity) -> bool:
    """Return whether this bundle on trial has been run on the image."""
    tried = (shadow_result.c.instance_id == instance_id) & (shadow_result.c.bundle_digest == shadow.digest)
    return connection.execute(select(shadow_result.c.id).where(tried)).first() is not None


def _open_shadow(
    connection: Connection, policy: Policy, instance_id: int, shadow: ModelIdentity, now: datetime
) -> None:
    """Have the bundle on trial look at an image once, after all other work."""
    if not is_tried(connection, instance_id, shadow):
        queue.schedule(
            connection,
            queue=SHADOW,
            dedup=str(instance_id),
            ref_id=instance_id,
            priority=AFTER_ALL_ELSE,
            max_attempts=policy.most_tries(SHADOW),
            due=now,
            at=now,
        )


def insert_result(
    connection: Connection,
    image: AnalysedImage,
    outcome: Outcome,
    model: ModelIdentity,
    now: datetime,
    *,
    started_at: datetime | None = None,
    timings: Mapping[str, float] | None = None,
    runtime: str = "",
) -> None:
    """Add the outcome as the next run of this model on this image; the trail says by which runtime, if it is known."""
    runs = connection.execute(_RUNS, {"image": image.instance_id, "bundle": model.digest}).scalar_one()
    values = {
        "instance_id": image.instance_id,
        "run": 1 + runs,
        "bundle": model.bundle,
        "bundle_digest": model.digest,
        "timings": dict(timings or {}),
        "started_at": started_at or now,
        "at": now,
        **_columns(outcome, model),
    }
    connection.execute(_INSERT_RESULT, values)
    names = ("outcome", "verdict", "probability", "reason", "bundle_digest", "run")
    record_event(
        connection,
        now,
        "analysed",
        study_uid=image.study_uid,
        sop_instance_uid=image.sop_instance_uid,
        detail={
            "input_sha256": [image.sha256],
            **{name: values.get(name) for name in names},
            **({"runtime": runtime} if runtime else {}),
        },
    )


def _columns(outcome: Outcome, model: ModelIdentity) -> dict[str, object]:
    if isinstance(outcome, Finding):
        return {
            "outcome": "finding",
            "verdict": outcome.verdict.value,
            "probability": outcome.probability,
            "logit": outcome.logit,
            "threshold": outcome.threshold,
            "grey_zone": outcome.grey_zone or None,
            "calibration": model.calibration,
            "detail": "",
            "notes": [note.value for note in outcome.notes],
            "input_stats": dict(outcome.input_stats),
            "regions": [asdict(region) for region in outcome.regions],
            "attention": outcome.attention or None,
        }
    return {
        "outcome": outcome.reason.completion.value,
        "reason": outcome.reason.value,
        "detail": outcome.detail,
        "notes": [],
        "input_stats": {},
        "regions": [],
    }
