"""A PACS sends the same image again and again, other bytes under the same UID, and one study over many associations."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom.dsutils import encode

from scp_node.demo.pacs import StoragePacs
from tests.chaos.conftest import Chaos
from tests.chaos.kit.clock import rows
from tests.node import Node, destination, radiograph
from tests.scp_node.report.reports import words
from tests.waiting import wait_until

AT_ONCE: Final = 16  # associations
PATIENCE: Final = 240.0  # seconds, on a busy machine


@dataclass
class Site:
    """A node, and the PACS that it reports to."""

    node: Node
    pacs: StoragePacs
    arrived: list[Dataset] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def send_at_once(self, *batches: Sequence[Dataset]) -> Counter[int | None]:
        """Send each batch over an association of its own, sixteen at the same time; return the statuses."""
        images = {id(image): image for batch in batches for image in batch}
        files = {key: self.node.folder / f"{next(self.numbers)}.dcm" for key in images}
        for key, image in images.items():
            image.save_as(files[key], enforce_file_format=True)
        with ThreadPoolExecutor(AT_ONCE) as senders:
            answers = senders.map(lambda batch: self.node.send_files([files[id(each)] for each in batch]), batches)
            return Counter(status for statuses in answers for status in statuses)

    def run_until_idle(self, study_uid: str, *, stores: int) -> None:
        """Wait until the ledger knows of so many stores of the study, and nothing is left to do."""
        wait_until(lambda: self.entered(study_uid) >= stores, PATIENCE, what="all stores are entered")
        self.node.run_until_idle(1, timeout=PATIENCE)
        known = "SELECT id FROM instance"
        wait_until(lambda: len(self.files()) == len(rows(self.node, known)), PATIENCE, what="a row for each file")

    def entered(self, study_uid: str) -> int:
        """Return of how many stores of the study the ledger knows."""
        events = self.node.ledger.audit.events(study_uid)
        return sum(event.kind in ("received", "duplicate", "conflict") for event in events)

    def files(self) -> list[Path]:
        return list((self.node.settings.node.data_dir / "spool").glob("????-??-??/*.dcm"))

    def reports(self, study_uid: str) -> list[Dataset]:
        """Return the reports of a study that the PACS holds, in the order of their arrival."""
        self.arrived += [report for _, report in self.pacs.new_reports()]
        return [report for report in self.arrived if report.StudyInstanceUID == study_uid]

    def audit(self, study_uid: str) -> list[dict[str, Any]]:
        return [row for row in self.node.audit() if row["study_uid"] == study_uid]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("duplicates")
    with ExitStack() as stack:
        pacs = StoragePacs(folder / "pacs")
        stack.callback(pacs.close)
        changes: dict[str, Any] = {"destinations": [destination(pacs.port)], "report": {"overlay": "none"}}
        changes |= {"study": {"quiet_seconds": 2}}
        if request.param == "postgresql":
            server = request.getfixturevalue("postgres_server")
            changes["database"] = {"url": stack.enter_context(server.database())}
        node = Node(folder, changes)
        stack.callback(node.end)
        yield Site(node.start(), pacs)


def test_an_image_that_is_sent_a_hundred_times_is_kept_analysed_and_reported_once(chaos: Chaos, site: Site) -> None:
    times = chaos.amount(short=100, long=1_000)
    image = radiograph(chaos.random.randrange(10**6))
    study = image.StudyInstanceUID
    answers = site.send_at_once(*[[image]] * times)
    site.run_until_idle(study, stores=times)
    assert answers == {0x0000: times}
    [row] = site.audit(study)
    kinds = Counter(event.kind for event in site.node.ledger.audit.events(study))
    [report] = site.reports(study)
    assert (kinds["received"], kinds["duplicate"], kinds["analysed"], kinds["reported"]) == (1, times - 1, 1, 1)
    assert (row["state"], report.InstanceNumber) == ("analysed", 1)
    assert [_sha256(path) for path in site.files()].count(_sha256_of(image)) == 1
    chaos.figure(
        f"the same image {times} times, {AT_ONCE} at once: {answers[0]} x 0x0000, 1 file, 1 analysis, 1 report"
    )


def test_other_bytes_under_the_same_uid_are_kept_as_a_conflict_and_replace_nothing(chaos: Chaos, site: Site) -> None:
    first = radiograph(chaos.random.randrange(10**6))
    study = first.StudyInstanceUID
    assert site.send_at_once([first]) == {0x0000: 1}
    site.run_until_idle(study, stores=1)
    before = site.audit(study)
    others = [radiograph(chaos.random.randrange(10**6), opacity=True) for _ in range(chaos.amount(short=4, long=40))]
    for other in others:
        other.StudyInstanceUID, other.SOPInstanceUID = study, first.SOPInstanceUID
        other.PatientID = first.PatientID
        other.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    again = [first, *others] * 4
    chaos.random.shuffle(again)
    answers = site.send_at_once(*[[image] for image in again])
    site.run_until_idle(study, stores=1 + len(again))
    assert answers == {0x0000: len(again)}
    kept, *conflicts = site.audit(study)
    changed = {"report_uid", "report_version", "reported_at", "deliveries"}
    assert {name: kept[name] for name in kept if name not in changed} == {
        name: before[0][name] for name in before[0] if name not in changed
    }, "the first is as it was"
    assert [row["state"] for row in conflicts] == ["conflict"] * len(others)
    stored = Counter(_sha256(path) for path in site.files())
    assert [stored[_sha256_of(image)] for image in (first, *others)] == [1] * (1 + len(others)), "the bytes of each"
    reports = sorted(site.reports(study), key=lambda report: int(report.InstanceNumber))
    assert [report.InstanceNumber for report in reports] == list(range(1, 1 + len(reports)))
    assert [report.CompletionFlag for report in reports] == ["COMPLETE"] + ["PARTIAL"] * (len(reports) - 1)
    assert f"{len(others)} of {1 + len(others)} images NOT ANALYSED" in words(reports[-1])
    chaos.figure(
        f"{1 + len(others)} contents under one SOP Instance UID, {1 + len(again)} stores: all kept once, "
        f"{len(conflicts)} conflicts recorded, 0 replaced, 1 analysis, {len(reports)} versions of the report"
    )


def test_sixteen_associations_into_one_study_lose_and_double_nothing(chaos: Chaos, site: Site) -> None:
    each = chaos.amount(short=2, long=20)
    batches = [[radiograph(chaos.random.randrange(10**6)) for _ in range(each)] for _ in range(AT_ONCE)]
    study = generate_uid()
    for image in itertools.chain(*batches):
        image.StudyInstanceUID, image.SOPInstanceUID, image.PatientID = study, generate_uid(), "SIXTEEN"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    total = AT_ONCE * each
    batches = [[*batch, chaos.random.choice(batches[number - 1])] for number, batch in enumerate(batches)]
    answers = site.send_at_once(*batches)
    site.run_until_idle(study, stores=total + AT_ONCE)
    assert answers == {0x0000: total + AT_ONCE}
    sent = {image.SOPInstanceUID for batch in batches for image in batch}
    audit = site.audit(study)
    files = Counter(uid for path in site.files() if (uid := dcmread(path).SOPInstanceUID) in sent)
    assert Counter(row["sop_instance_uid"] for row in audit) == files == Counter(sent)
    assert {row["state"] for row in audit} == {"analysed"}
    *_, report = site.reports(study)
    [evidence] = report.CurrentRequestedProcedureEvidenceSequence
    told = [
        item.ReferencedSOPInstanceUID
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    assert sorted(told) == sorted(sent), "the newest report speaks of all of them, each once"
    chaos.figure(
        f"{AT_ONCE} associations into one study, {total + AT_ONCE} stores of {len(sent)} images: {len(audit)} rows == "
        f"{sum(files.values())} files == {len(sent)} distinct instances, all in the newest report"
    )


def _sha256(path: Path) -> str:
    return _sha256_of(dcmread(path))


def _sha256_of(image: Dataset) -> str:
    dataset = encode(image, is_implicit_vr=False, is_little_endian=True)
    assert dataset is not None
    return hashlib.sha256(dataset).hexdigest()
