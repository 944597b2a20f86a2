"""The committer's loop, one for each destination: asks whether the destination really has what was delivered."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

from scp_node.delivery import Asked, AskResult, FindResult, Wanted, pause_before
from scp_node.dicom.commitment_messages import new_transaction_uid
from scp_node.domain import Reference
from scp_node.ledger import CommitmentTask, Ledger
from scp_node.logs import get_logger
from scp_node.loops.settlement import settle, tell
from scp_node.runtime.leases import LeaseKeeper
from scp_node.settings import DeliverySettings

NOT_OFFERED_SECONDS: Final = 600.0  # until a destination without storage commitment is asked again whether it has it

log = get_logger(__name__)

_Tasks = Sequence[CommitmentTask]


class Asker(Protocol):
    """A destination that may offer storage commitment; see `scp_node.delivery.CommitmentScu`."""

    def ask(self, transaction_uid: str, announced: Callable[[], Sequence[Reference]]) -> AskResult:
        """Request commitment to what `announced` returns, called right before; never raises for network reasons."""


class Finder(Protocol):
    """A destination that may answer C-FIND; see `scp_node.delivery.QueryScu`."""

    def find(self, instances: Sequence[Wanted]) -> FindResult:
        """Look for each of `instances`; never raises for network reasons."""


class Committer:
    """Asks one destination about the objects that it was sent, up to fifty a step."""

    def __init__(
        self,
        *,
        name: str,
        asker: Asker | None,
        finder: Finder | None,
        ledger: Ledger,
        leases: LeaseKeeper,
        settings: DeliverySettings,
        owner: str,
        randomness: random.Random | None = None,
    ) -> None:
        """Ask the destination `name` through `asker` and query it through `finder`; None leaves that way out."""
        self._name = name
        self._asker = asker
        self._finder = finder
        self._ledger = ledger
        self._leases = leases
        self._settings = settings
        self._owner = owner
        self._random = randomness or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._not_offered_until = 0.0  # monotonic
        self._failures = 0  # to reach the destination, in a row

    def step(self) -> bool:
        """Ask about the objects that are due; return whether there were any."""
        if self._ledger.deliveries.destination(self._name).paused:
            return False
        self._ledger.upkeep.sweep()
        tasks = self._ledger.commitments.claim(self._name, owner=self._owner)
        if not tasks:
            return False
        with self._leases.hold([task.claim for task in tasks]):
            self._check(tasks)
        return True

    def _check(self, tasks: _Tasks) -> None:
        spent = [task for task in tasks if task.claim.attempt > self._settings.commit_attempts]
        left = [task for task in tasks if task.claim.attempt <= self._settings.commit_attempts]
        if rest := self._look(spent):
            self._give_up(rest, "not answered")
        if left and not self._ask(left) and (rest := self._look(left)):
            self._ledger.commitments.close(rest, detail="not offered")

    def _ask(self, tasks: _Tasks) -> bool:
        """Request commitment; return whether the destination offers it."""
        if self._asker is None or time.monotonic() < self._not_offered_until:
            return False
        transaction_uid = new_transaction_uid()
        asked: list[CommitmentTask] = []

        def announced() -> list[Reference]:
            asked.extend(self._ledger.commitments.request(tasks, transaction_uid))
            return [task.reference for task in asked]

        result = self._asker.ask(transaction_uid, announced)
        if result.asked is Asked.NOT_OFFERED:
            log.info("no storage commitment", destination=self._name, reason=result.detail)
            self._not_offered_until = time.monotonic() + NOT_OFFERED_SECONDS
            return False
        for task in asked:
            if task.transaction_uid:
                log.warning(
                    "commitment not answered, asked again",
                    report_uid=task.reference.sop_instance_uid,
                    destination=self._name,
                )
        self._note(asked or tasks, result)
        return True

    def _note(self, tasks: _Tasks, result: AskResult) -> None:
        wait = timedelta(seconds=self._settings.commit_wait_seconds)
        if result.asked is Asked.UNREACHABLE:
            self._put_back(tasks, result.detail)
            return
        self._failures = 0
        if result.asked is Asked.REFUSED:
            self._ledger.commitments.refused(tasks, wait=wait, detail=result.detail)
            log.warning(
                "commitment refused, will be asked again",
                destination=self._name,
                count=len(tasks),
                reason=result.detail,
            )
            return
        self._ledger.commitments.await_answer(tasks, wait=wait)
        for report in result.reports:
            settle(self._ledger, report, {self._name})

    def _look(self, tasks: _Tasks) -> _Tasks:
        """Query by C-FIND if configured; return the tasks that cannot be queried."""
        if self._finder is None or not tasks:
            return tasks
        by_key = {_wanted(task): task for task in tasks}
        result = self._finder.find(list(by_key))
        if not result.is_offered:
            return tasks
        for wanted, task in by_key.items():
            if wanted in result.found or wanted in result.missing:
                outcome = self._ledger.commitments.looked_for(task, found=wanted in result.found)
                if outcome:
                    tell(outcome)
        unseen = [task for key, task in by_key.items() if key not in result.found | result.missing]
        if unseen:
            self._put_back(unseen, result.detail)
        else:
            self._failures = 0
        return []

    def _put_back(self, tasks: _Tasks, detail: str) -> None:
        """Try again later, since the destination could not be reached; give up tasks that have waited for too long."""
        self._failures += 1
        oldest = self._ledger.deliveries.now() - timedelta(hours=self._settings.retry_for_hours)
        if old := [task for task in tasks if task.delivered_at < oldest]:
            self._give_up(old, detail)
        pause = pause_before(
            self._failures,
            first=timedelta(seconds=self._settings.retry_first_seconds),
            cap=timedelta(seconds=self._settings.retry_cap_seconds),
            random=self._random,
        )
        rest = [task for task in tasks if task.delivered_at >= oldest]
        self._ledger.commitments.put_back(rest, pause=pause, detail=detail)
        log.warning(
            "destination cannot be asked, will be retried", destination=self._name, count=len(rest), reason=detail
        )

    def _give_up(self, tasks: _Tasks, detail: str) -> None:
        self._ledger.commitments.give_up(tasks, detail=detail)
        for task in tasks:
            log.error(
                "report delivered, commitment given up",
                report_uid=task.reference.sop_instance_uid,
                destination=self._name,
                reason=detail,
            )


def _wanted(task: CommitmentTask) -> Wanted:
    return Wanted(
        study_uid=task.study_uid,
        series_instance_uid=task.series_instance_uid,
        sop_instance_uid=task.reference.sop_instance_uid,
    )
