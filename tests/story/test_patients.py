"""Whose finding is it: two patients under one study, two films under one UID, and a report for nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from pydicom import Dataset

from scp_node.demo.pacs import StoragePacs
from tests.node import Node, destination, radiograph
from tests.scp_node.report.reports import words
from tests.waiting import wait_until


@dataclass
class Site:
    """A node whose overlay is on for every film, and the PACS that it reports to."""

    node: Node
    pacs: StoragePacs
    arrived: list[Dataset] = field(default_factory=list)

    def objects(self, study_uid: str) -> list[Dataset]:
        self.arrived += [arrived for _, arrived in self.pacs.new_reports()]
        return [arrived for arrived in self.arrived if arrived.StudyInstanceUID == study_uid]

    def reports(self, study_uid: str, number: int) -> list[Dataset]:
        """Return the reports of a study in order of their version, once there are that many."""

        def made() -> list[Dataset]:
            found = [each for each in self.objects(study_uid) if each.Modality == "SR"]
            return sorted(found, key=lambda report: int(report.InstanceNumber))

        wait_until(lambda: len(made()) >= number, 60, what=f"{number} reports")
        return made()

    def states(self, study_uid: str) -> list[str]:
        rows = map(json.loads, self.node.command("audit", "--study", study_uid, "--format", "json").splitlines())
        return [row["state"] for row in rows]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("patients")
    with ExitStack() as stack:
        pacs = StoragePacs(folder / "pacs")
        stack.callback(pacs.close)
        node = Node(folder, {"destinations": [destination(pacs.port)], "report": {"overlay": "none"}})
        stack.callback(node.end)
        yield Site(node.start(), pacs)


def films_of(report: Dataset) -> set[str]:
    [study] = report.CurrentRequestedProcedureEvidenceSequence
    return {
        film.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for film in series.ReferencedSOPSequence
    }


def test_two_patients_under_one_study_uid_get_two_reports(site: Site) -> None:
    first = radiograph(1)
    second = radiograph(2, opacity=True)
    second.StudyInstanceUID = first.StudyInstanceUID
    assert site.node.send(first, second) == [0, 0]
    study = str(first.StudyInstanceUID)
    reports = site.reports(study, 2)
    newest = {report.PatientID: report for report in reports}
    assert set(newest) == {first.PatientID, second.PatientID}
    assert len({report.SeriesInstanceUID for report in newest.values()}) == 2
    for film in (first, second):
        report = newest[film.PatientID]
        assert (report.PatientName, report.CompletionFlag) == (film.PatientName, "PARTIAL")
        assert films_of(report) == {film.SOPInstanceUID}
        assert "STUDY NAMES SEVERAL PATIENTS" in words(report)
    told = site.node.command("report", study)
    assert all(str(report.SOPInstanceUID) in told for report in newest.values())
    saved = site.node.folder / "one.dcm"
    assert "choose one report with --version" in site.node.command("report", study, "--save", str(saved), status=2)
    assert "several-patients" in [event.kind for event in site.node.ledger.audit.events(study)]
    assert "study names several patients" in site.node.log


def test_a_person_has_the_other_film_of_one_uid_read(site: Site) -> None:
    first, second = radiograph(11), radiograph(12, opacity=True)
    for name in ("StudyInstanceUID", "SOPInstanceUID", "PatientID"):
        setattr(second, name, getattr(first, name))
    second.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    study = str(first.StudyInstanceUID)
    assert site.node.send(first) == [0]
    site.reports(study, 1)
    assert site.node.send(second) == [0]
    one, two = site.reports(study, 2)
    assert (one.CompletionFlag, two.CompletionFlag) == ("COMPLETE", "PARTIAL")
    assert "1 of 2 images NOT ANALYSED" in words(two)
    assert site.states(study) == ["analysed", "conflict"]

    assert "conflict" in site.node.command("resolve", str(first.SOPInstanceUID))
    assert "no number 3" in site.node.command("resolve", str(first.SOPInstanceUID), "--use", "3", status=2)
    site.node.command("resolve", str(first.SOPInstanceUID), "--use", "2")
    *_, last = site.reports(study, 3)
    assert last.CompletionFlag == "COMPLETE"
    assert "Pneumonia: PRESENT" in words(last)
    assert "another image with the same SOP Instance UID was chosen" in words(last)
    assert site.states(study) == ["set-aside", "analysed"]
    assert "the ledger says what was recorded" in site.node.command("audit", "verify")


def test_the_same_film_in_another_encoding_is_a_duplicate(site: Site) -> None:
    film = radiograph(21)
    study = str(film.StudyInstanceUID)
    site.node.send(film)
    site.reports(study, 1)
    film.InstitutionName = "An archive that adds its name"
    site.node.send(film)
    wait_until(lambda: site.states(study) == ["analysed", "duplicate"], 60, what="the duplicate is seen")
    assert len(site.reports(study, 1)) == 1


def test_an_unknown_uid_is_an_error(site: Site) -> None:
    assert "no image has the SOP Instance UID 1.2.3" in site.node.command("resolve", "1.2.3", status=2)
