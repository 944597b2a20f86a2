"""The reporter's loop: makes the report of a quiet study, then the companions that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from scp_node.domain import BuiltObject, BuiltReport, ModelIdentity
from scp_node.ledger import (
    CompanionsTask,
    Ledger,
    NothingToReport,
    ReportTask,
    StudyPending,
    StudySnapshot,
    Takes,
    takes_all,
)
from scp_node.logs import get_logger
from scp_node.report.source.source import UnreportableHeader
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patiently, at_once

log = get_logger(__name__)

PENDING_PAUSE: Final = timedelta(seconds=0.25)  # until the next look at a study whose images are still being analysed
RETRY_PAUSE: Final = timedelta(seconds=5)
# What goes with a report waits for other reports so long; then it has each second turn. So a report waits for one of
# them at most, and under a lasting overload as many are made as reports: their wait does not grow any more.
LATE: Final = timedelta(seconds=30)


class Build(Protocol):
    """Builds the report of a study."""

    def __call__(self, snapshot: StudySnapshot) -> BuiltReport:
        """Return the report, serialised.

        Raises:
            UnreportableHeader: the study's headers do not allow a report.
        """

    def wants_companions(self, snapshot: StudySnapshot) -> bool:
        """Return whether anything may go with the report."""

    def companions(self, snapshot: StudySnapshot, *, at: datetime, content_digest: str) -> list[BuiltObject]:
        """Return what goes with a report that was stored `at` with this digest; nothing if it says otherwise by now."""


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
        self._has_reported = False  # in the last step

    def step(self) -> bool:
        """Report one study, or else make what goes with a report; return whether there was anything to do."""
        self._ledger.upkeep.sweep(self._model)  # studies become due, and no other role may be at work
        reports, owner = self._ledger.reports, self._owner
        late = reports.claim_late_companions(owner=owner, late=LATE) if self._has_reported else None
        self._has_reported = late is None and self._report_next()
        if self._has_reported:
            return True
        following = late or reports.claim_companions(owner=owner)
        if following is None:
            return False
        self._make_companions(following)
        return True

    def _report_next(self) -> bool:
        """Report the most urgent study; return whether there was one."""
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

    def _make_companions(self, task: CompanionsTask) -> None:
        """Make what goes with one stored report."""
        with self._leases.hold([task.claim]):
            try:
                companions = self._companions(task)
                self._patiently(lambda: self._ledger.reports.save_companions(task, companions, takes=self._takes))
            except Exception as error:
                log.exception("nothing made to go with the report", report_uid=task.report_uid)
                self._ledger.reports.retry_companions(task, pause=RETRY_PAUSE, error=type(error).__name__)

    def _companions(self, task: CompanionsTask) -> list[BuiltObject]:
        """Return what goes with the report, unless a newer version took its place or comes, which gets its own."""
        snapshot = self._patiently(lambda: self._ledger.reports.snapshot_again(task, self._model))
        if snapshot is None:
            return []
        return self._build.companions(snapshot, at=task.at, content_digest=task.content_digest)

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
        follow = self._build.wants_companions(snapshot)
        if self._ledger.reports.save(task, snapshot, built, self._model, names, companions_follow=follow):
            log.info(
                "study reported",
                study_uid=task.study_uid,
                report_uid=built.sop_instance_uid,
                images=len(snapshot.images),
                destinations=names,
            )
            if not names:
                log.error("report is undeliverable, no destination gets it", study_uid=task.study_uid)
