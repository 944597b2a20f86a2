"""The reporter's loop: makes the report of a quiet study, with the companions that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

from scp_node.domain import BuiltReport, ModelIdentity
from scp_node.ledger import Ledger, NothingToReport, ReportTask, StudyPending, StudySnapshot, Takes, takes_all
from scp_node.logs import get_logger
from scp_node.report.source.source import UnreportableHeader
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patiently, at_once

log = get_logger(__name__)

PENDING_PAUSE: Final = timedelta(seconds=0.25)  # until the next look at a study whose images are still being analysed
RETRY_PAUSE: Final = timedelta(seconds=5)


class Build(Protocol):
    """Builds the report of a study."""

    def __call__(self, snapshot: StudySnapshot) -> BuiltReport:
        """Return the report with its companions, serialised.

        Raises:
            UnreportableHeader: the study's headers do not allow a report.
        """


class Reporter:
    """Reports quiet studies, one a step."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        leases: LeaseKeeper,
        model: ModelIdentity,
        build: Build,
        destinations: Callable[[StudySnapshot], list[str]],
        owner: str,
        takes: Takes = takes_all,
        patiently: Patiently = at_once,
    ) -> None:
        """Build reports with `build`, and open their deliveries to the destinations that `destinations` names.

        What goes with a report goes to those that take its kind.
        """
        self._ledger = ledger
        self._leases = leases
        self._model = model
        self._patiently = patiently
        self._build = build
        self._destinations = destinations
        self._owner = owner
        self._takes = takes

    def step(self) -> bool:
        """Report one study; return whether there was one."""
        self._ledger.upkeep.sweep(self._model)  # a long batch of the other loop must not hold up quiet studies
        task = self._ledger.reports.claim(owner=self._owner)
        if task is None:
            return False
        with self._leases.hold([task.claim]):
            try:
                self._patiently(lambda: self._report(task))
            except UnreportableHeader as error:
                log.error("study cannot be reported", study_uid=task.study_uid, reason=error)  # noqa: TRY400 - no bug
                self._ledger.reports.fail(task, str(error))
            except Exception as error:
                log.exception("report failed", study_uid=task.study_uid)
                self._ledger.reports.retry(task, pause=RETRY_PAUSE, error=type(error).__name__)
        return True

    def _report(self, task: ReportTask) -> None:
        snapshot = self._ledger.reports.snapshot(task, self._model)
        if isinstance(snapshot, StudyPending):
            self._ledger.reports.postpone(task, PENDING_PAUSE)
            return
        if isinstance(snapshot, NothingToReport):
            self._ledger.reports.close(task, self._model)
            return
        built = self._build(snapshot)
        names = self._destinations(snapshot)
        if built.content_digest == snapshot.previous_content_digest:
            self._ledger.reports.complete_unchanged(task, snapshot, self._model, names, takes=self._takes)
            return
        if self._ledger.reports.save(task, snapshot, built, self._model, names, takes=self._takes):
            log.info(
                "study reported",
                study_uid=task.study_uid,
                report_uid=built.sop_instance_uid,
                images=len(snapshot.images),
                destinations=names,
            )
            if not names:
                log.error("report is undeliverable, no destination gets it", study_uid=task.study_uid)
