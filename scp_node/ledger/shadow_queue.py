"""Hands images to the bundle on trial, after all other work, and writes what it says where no report looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from scp_node.domain import Finding, ModelIdentity, Outcome
from scp_node.ledger import queue
from scp_node.ledger.analyses import is_tried
from scp_node.ledger.database.schema import instance, result, shadow_result, work
from scp_node.ledger.queue import Claim, Suspects
from scp_node.ledger.queue_kinds import ANALYSE, SHADOW
from scp_node.ledger.retention import ORIGINAL_REMOVED, hold_originals
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Policy, Transactions

_NOTHING_BESIDE: Final = "no other bundle has a finding of this image"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowTask:
    """One image for the bundle on trial."""

    claim: Claim
    instance_id: int
    sop_instance_uid: str
    study_uid: str
    sha256: str  # see ReceivedInstance
    spool_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowOutcome:
    """What became of one of them."""

    task: ShadowTask
    outcome: Outcome


class ShadowQueue:
    """The queue of images for the bundle on trial."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def claim(self, *, owner: str, limit: int) -> list[ShadowTask]:
        """Take up to `limit` images, the oldest first; none while an image waits for its analysis.

        An image that was claimed before without a result comes alone. One whose original is being removed is closed.
        """
        if not self._transactions.ready(SHADOW) or self._transactions.ready(ANALYSE):
            return []
        with self._transactions.writing() as (connection, now):
            lease = self._policy.lease
            claims = queue.claim(
                connection, SHADOW, owner=owner, limit=limit, lease=lease, at=now, suspects=Suspects.ALONE
            )
            rows = _images(connection, [claim.ref_id for claim in claims])
            gone = [claim.id for claim in claims if claim.ref_id not in rows]
            queue.cancel_unneeded(connection, work.c.id.in_(gone), error=ORIGINAL_REMOVED, at=now)
        return [
            ShadowTask(
                claim=claim,
                instance_id=row.id,
                sop_instance_uid=row.sop_instance_uid,
                study_uid=row.study_uid,
                sha256=row.sha256,
                spool_path=row.spool_path,
            )
            for claim in claims
            if (row := rows.get(claim.ref_id))
        ]

    def record(self, done: Sequence[ShadowOutcome], shadow: ModelIdentity) -> int:
        """Write what the bundle said and close the work; return how many claims still held.

        It is written beside the newest finding of another bundle. Nothing is written of an image whose original is
        being removed, nor a second time of one that this bundle has seen.
        """
        kept = 0
        with self._transactions.writing() as (connection, now):
            # the images first, as the removal of originals does: so neither waits for the other
            held = set(hold_originals(connection, instance.c.id.in_([item.task.instance_id for item in done])))
            for item in done:
                if item.task.instance_id not in held:
                    continue
                beside = _finding_beside(connection, item.task.instance_id, shadow)
                error = "" if beside else _NOTHING_BESIDE
                if queue.complete(connection, item.task.claim, at=now, error=error):
                    kept += 1
                    if beside and not is_tried(connection, item.task.instance_id, shadow):
                        _insert(connection, item, beside, shadow, now)
        return kept

    def retry(self, tasks: Sequence[ShadowTask], *, pause: timedelta, error: str) -> None:
        """Put images back after a step that failed; one that has spent its tries is given up."""
        with self._transactions.writing() as (connection, now):
            for task in tasks:
                if task.claim.attempt >= self._policy.max_attempts:
                    queue.bury(connection, task.claim, error=error, at=now)
                else:
                    queue.release_until(connection, task.claim, due=now + pause, error=error)

    def put_back(self, tasks: Sequence[ShadowTask], *, pause: timedelta, error: str) -> None:
        """Put images back without counting the try, since the machine was at fault."""
        with self._transactions.writing() as (connection, now):
            for task in tasks:
                queue.release_until(connection, task.claim, due=now + pause, error=error, keep_attempt=True)


def _images(connection: Connection, ids: Sequence[int | None]) -> dict[int | None, Any]:
    """Return those of the images whose original is kept."""
    columns = (
        instance.c.id,
        instance.c.sop_instance_uid,
        instance.c.study_uid,
        instance.c.sha256,
        instance.c.spool_path,
    )
    kept = select(*columns).where(instance.c.id.in_(ids), instance.c.purging_at.is_(None))
    return {row.id: row for row in connection.execute(kept)}


def _finding_beside(connection: Connection, instance_id: int, shadow: ModelIdentity) -> Any:
    """Return the row of the newest finding of the image by another bundle; None if there is none."""
    columns = select(result.c.id, result.c.verdict, result.c.bundle_digest, result.c.run)
    by_another = (result.c.instance_id == instance_id) & (result.c.bundle_digest != shadow.digest)
    findings = columns.where(by_another, result.c.outcome == "finding")
    return connection.execute(findings.order_by(result.c.id.desc()).limit(1)).first()


def _insert(connection: Connection, item: ShadowOutcome, beside: Any, shadow: ModelIdentity, now: datetime) -> None:
    said = _columns(item.outcome, beside.verdict)
    values = {
        "instance_id": item.task.instance_id,
        "study_uid": item.task.study_uid,
        "result_id": beside.id,
        "reported_verdict": beside.verdict,
        "bundle": shadow.bundle,
        "bundle_digest": shadow.digest,
        "at": now,
        **said,
    }
    connection.execute(shadow_result.insert().values(**values))
    names = ("outcome", "verdict", "probability", "reason", "bundle_digest", "reported_verdict")
    record_event(
        connection,
        now,
        "shadow-analysed",
        study_uid=item.task.study_uid,
        sop_instance_uid=item.task.sop_instance_uid,
        detail={
            "input_sha256": [item.task.sha256],
            **{name: values.get(name) for name in names},
            "reporting_digest": beside.bundle_digest,
            "reporting_run": beside.run,
        },
    )


def _columns(outcome: Outcome, reported_verdict: str) -> dict[str, object]:
    if isinstance(outcome, Finding):
        return {
            "outcome": "finding",
            "verdict": outcome.verdict.value,
            "agrees": outcome.verdict.value == reported_verdict,
            "probability": outcome.probability,
            "logit": outcome.logit,
            "threshold": outcome.threshold,
            "detail": "",
        }
    return {"outcome": outcome.reason.completion.value, "reason": outcome.reason.value, "detail": outcome.detail}
