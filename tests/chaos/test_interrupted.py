"""The line breaks somewhere in the middle of a study, and later the modality sends the study again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from scp_node.delivery import send_files
from scp_node.demo.pacs import StoragePacs
from scp_node.report.content.wording import REMARKS, SHORT_REMARKS
from scp_node.report.version import Remark
from tests.chaos.conftest import Chaos
from tests.chaos.kit.clock import rows
from tests.chaos.kit.cut import Line
from tests.node import Node, destination, radiograph
from tests.waiting import wait_until

IMAGES: Final = 3  # of a study
PATIENCE: Final = 120.0  # seconds, on a busy machine


@dataclass
class Study:
    """What a modality has of a study, and what it was told."""

    uid: str
    files: dict[str, Path]  # by SOP Instance UID
    acknowledged: set[str] = field(default_factory=set)


@dataclass
class Site:
    """A modality behind a line that breaks, the node, and its PACS."""

    node: Node
    pacs: StoragePacs
    arrived: list[Dataset] = field(default_factory=list)

    def study(self, seed: int) -> Study:
        uid = generate_uid()
        files = {}
        for number in range(IMAGES):
            image = radiograph(seed + number, StudyInstanceUID=uid, SOPInstanceUID=generate_uid())
            files[image.SOPInstanceUID] = self.node.folder / f"{image.SOPInstanceUID}.dcm"
            image.save_as(files[image.SOPInstanceUID], enforce_file_format=True)
        return Study(uid, files)

    def send(self, study: Study, *, most: int | None = None, reset: bool = False) -> int:
        """Send the study, over a line that passes so many bytes; return how many it passed."""
        with Line(self.node.settings.listen.port, most=most, reset=reset) as line:
            answers = send_files(
                list(study.files.values()),
                host="127.0.0.1",
                port=line.port,
                called_ae=self.node.settings.node.ae_title,
                calling_ae="MODALITY1",
                on_progress=lambda *_: None,
            )
        uids = {path: uid for uid, path in study.files.items()}
        study.acknowledged |= {uids[path] for path, status in answers if status == 0x0000}
        return line.passed

    def kept(self, study: Study) -> set[str]:
        """Return the SOP Instance UIDs of the study that the ledger has; each once."""
        found = [row["sop_instance_uid"] for row in self.node.audit() if row["study_uid"] == study.uid]
        assert len(found) == len(set(found))
        return set(found)

    def in_doubt(self) -> set[str]:
        """Return which studies may be incomplete, as the ledger has it."""
        return {row.study_uid for row in rows(self.node, "SELECT study_uid FROM study WHERE interrupted = true")}

    def run_until_idle(self) -> None:
        """Wait until a row names each file, and nothing is left to do."""
        files = self.node.settings.node.data_dir / "spool"
        known = "SELECT count(*) FROM instance"

        def registered() -> bool:
            return len(list(files.glob("????-??-??/*.dcm"))) == int(rows(self.node, known)[0][0])

        wait_until(registered, PATIENCE, what=f"all is registered; log:\n{self.node.log[-3_000:]}")
        self.node.run_until_idle(1, timeout=PATIENCE)

    def report(self, study: Study) -> Dataset | None:
        """Return the newest report of the study that the PACS holds, None where there is none."""
        self.arrived += [report for _, report in self.pacs.new_reports()]
        reports = [report for report in self.arrived if report.StudyInstanceUID == study.uid]
        return reports[-1] if reports else None


@pytest.fixture
def site(database: dict[str, Any], tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        pacs = StoragePacs(tmp_path / "pacs")
        stack.callback(pacs.close)
        changes = {
            "destinations": [destination(pacs.port)],
            "report": {"overlay": "none"},
            "study": {"quiet_seconds": 3},
            "database": database,
        }
        node = Node(tmp_path, changes)
        stack.callback(node.end)
        yield Site(node.start(), pacs)


def test_a_study_that_is_cut_off_anywhere_keeps_what_came_and_says_so_until_the_rest_has_come(
    chaos: Chaos, site: Site
) -> None:
    whole = site.study(chaos.random.randrange(10**6))
    length = site.send(whole)
    studies = [site.study(chaos.random.randrange(10**6)) for _ in range(chaos.amount(short=5, long=80))]
    known = set()
    for study in studies:
        reset = chaos.random.random() < 0.5
        # from within the first image to just before the last is complete
        site.send(study, most=chaos.random.randrange(length // 8, length - 2_000), reset=reset)
        if study.acknowledged or not reset:  # a reset throws away what the node has not read yet
            known.add(study.uid)
    wait_until(lambda: known <= site.in_doubt(), PATIENCE, what="all interruptions are known")
    site.run_until_idle()
    in_doubt = site.in_doubt()
    had_come = Counter(len(site.kept(study)) for study in studies)
    doubtful = {study.uid: site.report(study) for study in studies}
    assert whole.uid not in in_doubt
    for study in studies:
        assert study.acknowledged <= site.kept(study), "what was answered with Success is kept"
        _check_doubtful(doubtful[study.uid], site.kept(study))
    _check_whole(site.report(whole), whole, after=None)

    again = [study.files[uid] for study in studies for uid in study.acknowledged]
    assert site.node.send_files(again, calling="ANOTHER") == [0x0000] * len(again)
    site.run_until_idle()
    assert site.in_doubt() == in_doubt, "what another sender has says nothing of what this one has"

    for study in studies:
        site.send(study)
    wait_until(lambda: not site.in_doubt(), PATIENCE, what="no study is in doubt")
    site.run_until_idle()
    for study in studies:
        assert study.acknowledged == site.kept(study) == set(study.files)
        _check_whole(site.report(study), study, after=doubtful[study.uid])
    reported = sum(report is not None for report in doubtful.values())
    chaos.figure(
        f"{len(studies)} studies of {IMAGES} images cut off at a random byte, when {_told(had_come)} images had come: "
        f"no acknowledged one lost; {reported} reports said that the study may be incomplete, and {reported} new "
        "versions of all images no longer do after the rest had come"
    )


def _check_doubtful(report: Dataset | None, kept: set[str]) -> None:
    if not kept:
        assert report is None, "no image, no report"
        return
    assert report is not None
    assert _evidence(report) == kept
    assert report.CompletionFlag == "PARTIAL"
    assert report.CompletionFlagDescription == SHORT_REMARKS[Remark.INCOMPLETE]
    assert any(REMARKS[Remark.INCOMPLETE] in text for text in _texts(report))


def _check_whole(report: Dataset | None, study: Study, *, after: Dataset | None) -> None:
    assert report is not None
    assert _evidence(report) == set(study.files)
    assert report.CompletionFlag == "COMPLETE"
    assert "CompletionFlagDescription" not in report
    assert not any("INCOMPLETE" in text for text in _texts(report))
    assert report.InstanceNumber == (after.InstanceNumber + 1 if after else 1)
    assert [_only(each) for each in report.get("PredecessorDocumentsSequence", [])] == (
        [after.SOPInstanceUID] if after else []
    )


def _texts(report: Dataset) -> list[str]:
    texts = [str(element.value) for element in report.iterall() if element.keyword == "TextValue"]
    assert texts
    return texts


def _evidence(report: Dataset) -> set[str]:
    [evidence] = report.CurrentRequestedProcedureEvidenceSequence
    return {
        str(item.ReferencedSOPInstanceUID)
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def _only(predecessor: Dataset) -> str:
    [series] = predecessor.ReferencedSeriesSequence
    [document] = series.ReferencedSOPSequence
    return str(document.ReferencedSOPInstanceUID)


def _told(images: Counter[int]) -> str:
    return ", ".join(f"{count} x {number}" for number, count in sorted(images.items()))
