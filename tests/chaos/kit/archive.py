"""A PACS that survives the storm, and what can be said from what it holds alone."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from pydicom import Dataset

from scp_node.demo.pacs import StoragePacs

OUT_OF_RESOURCES: Final = 0xA700  # PS3.4 Table B.2-1


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReports:
    """The reports of one study that a PACS holds."""

    reports: dict[str, Dataset]  # by SOP Instance UID

    @property
    def current(self) -> list[Dataset]:
        """The reports that no other one names as its predecessor: one, if all is well."""
        replaced = [uid for report in self.reports.values() for uid in predecessors(report)]
        return [report for uid, report in self.reports.items() if uid not in replaced]

    @property
    def first(self) -> list[Dataset]:
        """The reports without a predecessor: one, if all is well."""
        return [report for report in self.reports.values() if not predecessors(report)]


class Archive(StoragePacs):
    """A Storage SCP that refuses some stores, and keeps every other one that it ever got."""

    def __init__(self, folder: Path, random: Random, *, refuses: float = 0.0) -> None:
        """Answer this share of the stores with Out of resources, and keep nothing of them."""
        self._random, self._refuses = random, refuses
        self._lock = threading.Lock()
        self._reports: dict[str, dict[str, Dataset]] = defaultdict(dict)
        self._digests: dict[str, set[str]] = defaultdict(set)
        self.stores: Counter[str] = Counter()  # by SOP Instance UID
        super().__init__(folder)

    def _on_c_store(self, event: Any) -> int:
        with self._lock:
            if self._random.random() < self._refuses:
                return OUT_OF_RESOURCES
            status = super()._on_c_store(event)
            uid = str(event.request.AffectedSOPInstanceUID)
            self.stores[uid] += 1
            self._digests[uid].add(hashlib.sha256(event.request.DataSet.getvalue()).hexdigest())
            for _, report in self.new_reports():
                self._reports[report.StudyInstanceUID][report.SOPInstanceUID] = report
            return status

    def studies(self) -> dict[str, StudyReports]:
        """Return the reports by Study Instance UID."""
        with self._lock:
            return {uid: StudyReports(reports=dict(reports)) for uid, reports in self._reports.items()}

    def differing(self) -> list[str]:
        """Return the SOP Instance UIDs that came more than once, and not with the same bytes each time."""
        with self._lock:
            return [uid for uid, digests in self._digests.items() if len(digests) > 1]


def predecessors(report: Dataset) -> list[str]:
    """Return the SOP Instance UIDs that the report says it replaces, PS3.3 Table C.17-2."""
    return _references(report.get("PredecessorDocumentsSequence", []))


def evidence(report: Dataset) -> list[str]:
    """Return the SOP Instance UIDs of the images that the report is about."""
    return _references(report.CurrentRequestedProcedureEvidenceSequence)


def _references(studies: Any) -> list[str]:
    return [
        str(instance.ReferencedSOPInstanceUID)
        for study in studies
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
