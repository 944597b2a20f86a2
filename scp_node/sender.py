"""The sender's loop, one for each destination: deliver what waits, and leave a destination alone that is down."""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import Protocol

from scp_node.delivery import Disposition, SendResult, pause_before
from scp_node.leases import LeaseKeeper
from scp_node.ledger import DeliveryTask, Ledger
from scp_node.patience import Patiently, at_once
from scp_node.settings import DeliverySettings

log = logging.getLogger(__name__)


class Scu(Protocol):
    """One destination as the sender sees it; see `scp_node.delivery.StorageScu`."""

    def send(self, file: bytes) -> SendResult:
        """Send one report; never raises for network reasons."""

    def echo(self) -> bool:
        """Return whether the destination answers a C-ECHO."""

    def close_if_idle(self) -> None:
        """Release the association when it was not used for a while."""

    def close(self) -> None:
        """Release the association."""


class Sender:
    """Delivers the reports of one destination, one a step."""

    def __init__(
        self, *, name: str, scu: Scu, ledger: Ledger, leases: LeaseKeeper, settings: DeliverySettings, owner: str,
        randomness: random.Random | None = None, check_after: timedelta | None = None, patiently: Patiently = at_once,
    ) -> None:  # fmt: skip
        """Send what waits for the destination `name` through `scu`; have it asked about that after `check_after`."""
        self._patiently = patiently
        self._name = name
        self._scu = scu
        self._ledger = ledger
        self._leases = leases
        self._settings = settings
        self._owner = owner
        self._check_after = check_after
        self._random = randomness or random.Random()  # noqa: S311 - spreads retries, guards nothing

    def step(self) -> bool:
        """Send one report, or probe a destination that was down; return whether there was something to do."""
        state = self._ledger.deliveries.destination(self._name)
        if state.paused:
            if state.probe_due:
                self._probe()
            return False
        self._ledger.upkeep.sweep()
        task = self._ledger.deliveries.claim(self._name, owner=self._owner)
        if task is None:
            self._scu.close_if_idle()
            return False
        with self._leases.hold([task.claim]):
            result = self._scu.send(task.file)
            self._patiently(lambda: self._conclude(task, result))  # what was sent and not noted would be sent again
        return True

    def _probe(self) -> None:
        if self._scu.echo():
            log.info("destination is back destination=%s", self._name)
            self._ledger.deliveries.destination_recovered(self._name)
        else:
            probe = timedelta(seconds=self._settings.probe_seconds)
            self._ledger.deliveries.destination_failed(self._name, pause=probe, detail="no answer to C-ECHO")

    def _conclude(self, task: DeliveryTask, result: SendResult) -> None:
        status = "none" if result.status is None else f"0x{result.status:04X}"
        if result.disposition is Disposition.DELIVERED:
            self._ledger.deliveries.delivered(
                task, status=result.status or 0, sop_class_uid=result.sop_class_uid, check_after=self._check_after
            )
            uid = task.sop_instance_uid
            log.info("report delivered report_uid=%s destination=%s status=%s", uid, self._name, status)
            return
        if self._is_dead(task, result):
            self._ledger.deliveries.bury(task, status=result.status, detail=result.detail)
            log.error(
                "report not delivered, given up report_uid=%s destination=%s status=%s reason=%s",
                task.sop_instance_uid, self._name, status, result.detail,
            )  # fmt: skip
            return
        self._put_back(task, result)
        log.warning(
            "report not delivered, will be retried report_uid=%s destination=%s status=%s reason=%s",
            task.sop_instance_uid, self._name, status, result.detail,
        )  # fmt: skip

    def _is_dead(self, task: DeliveryTask, result: SendResult) -> bool:
        if result.disposition is Disposition.PERMANENT:
            return task.claim.attempt >= self._settings.permanent_attempts
        return self._ledger.deliveries.waited(task) > timedelta(hours=self._settings.retry_for_hours)

    def _put_back(self, task: DeliveryTask, result: SendResult) -> None:
        """Retry later. A destination that could not even be asked is at fault itself: no try of the report is spent."""
        unreachable = result.status is None and result.disposition is Disposition.RETRY
        if not unreachable:
            self._ledger.deliveries.retry(
                task, status=result.status, detail=result.detail, pause=self._pause(task.claim.attempt)
            )
            return
        failures = self._ledger.deliveries.destination(self._name).failures + 1
        pause = self._pause(failures)
        self._ledger.deliveries.retry(task, status=None, detail=result.detail, pause=pause, keep_attempt=True)
        is_down = failures >= self._settings.breaker_failures
        paused = timedelta(seconds=self._settings.probe_seconds) if is_down else None
        self._ledger.deliveries.destination_failed(self._name, pause=paused, detail=result.detail)

    def _pause(self, attempt: int) -> timedelta:
        return pause_before(
            attempt,
            first=timedelta(seconds=self._settings.retry_first_seconds),
            cap=timedelta(seconds=self._settings.retry_cap_seconds),
            random=self._random,
        )
