"""What the README promises, told by a node in its own processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from scp_node.demo.pacs import StoragePacs
from scp_node.opening import SPOOL_FOLDER
from scp_node.report.text import as_text
from tests.node import Node, destination, radiograph
from tests.scp_node.report.reports import words
from tests.waiting import wait_until


def items(item: Dataset, code: str) -> list[Dataset]:
    """Return all content items with this concept name."""
    found = []
    for child in item.get("ContentSequence", []):
        found += [child] if child.get("ConceptNameCodeSequence", [Dataset()])[0].get("CodeValue") == code else []
        found += items(child, code)
    return found


@dataclass
class Site:
    """A node and its PACS that several tests have in common: each sends studies of its own."""

    node: Node
    pacs: StoragePacs
    arrived: list[Dataset] = field(default_factory=list)

    def reports(self, film: Dataset, number: int) -> list[Dataset]:
        """Return the reports of the film's study in order, once there are that many."""

        def of_the_study() -> list[Dataset]:
            self.arrived.extend(report for _, report in self.pacs.new_reports())
            return [report for report in self.arrived if report.StudyInstanceUID == film.StudyInstanceUID]

        wait_until(lambda: len(of_the_study()) >= number, 60, what=f"{number} reports")
        return of_the_study()

    def rows(self, *films: Dataset, number: int) -> list[dict[str, Any]]:
        """Return what the audit says of the studies of the films, once it has that many rows and no work is left."""
        return self.node.run_until_idle(number, studies=[str(film.StudyInstanceUID) for film in films])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running node that reports to a small PACS."""
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        pacs = StoragePacs(folder / "pacs")
        stack.callback(pacs.close)
        node = Node(folder, {"destinations": [destination(pacs.port)]})
        stack.callback(node.end)
        yield Site(node.start(), pacs)


def test_a_chest_film_goes_in_and_its_report_comes_back_and_a_row_stays(site: Site) -> None:
    film = radiograph(10)
    assert site.node.send(film) == [0x0000]
    [report] = site.reports(film, 1)
    [row] = site.rows(film, number=1)
    assert row["state"] == "analysed"
    assert 0 <= row["probability"] <= 1
    assert row["verdict"] == ("present" if row["probability"] >= row["threshold"] else "not-detected")
    assert row["report_uid"] == report.SOPInstanceUID
    assert report.StudyInstanceUID == film.StudyInstanceUID
    assert report.PatientID == film.PatientID
    assert [(sent["destination"], sent["state"], sent["status"]) for sent in row["deliveries"]] == [
        ("pacs", "delivered", "0x0000")
    ]
    times = [row[name] for name in ("received_at", "registered_at", "analysed_at", "reported_at")]
    assert times == sorted(times)


def test_a_positive_film_has_a_picture_that_is_delivered_after_its_report(site: Site) -> None:
    films = radiograph(1, opacity=True), radiograph(2)
    site.node.send(*films)
    positive, negative = site.rows(*films, number=2)
    assert (positive["verdict"], negative["verdict"]) == ("present", "not-detected")
    told = [[(sent["kind"], sent["state"]) for sent in row["deliveries"]] for row in (positive, negative)]
    assert told == [[("report", "delivered"), ("overlay", "delivered")], [("report", "delivered")]]
    report, picture = positive["deliveries"]
    assert report["at"] <= picture["at"]
    folder = site.node.folder / "saved"
    site.node.command("report", positive["study_uid"], "--save-all", str(folder))
    assert [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())] == [0o700, 0o600, 0o600]
    saved = {dcmread(file).SOPInstanceUID for file in folder.iterdir()}
    assert saved == {report["sop_instance_uid"], picture["sop_instance_uid"]}


def test_a_pacs_that_routes_the_whole_study_back_starts_no_loop(site: Site) -> None:
    film = radiograph(11, opacity=True)
    site.node.send(film)
    [row] = site.rows(film, number=1)
    [_, sent] = row["deliveries"]
    [picture] = [file for file in (site.node.folder / "pacs").glob("*.dcm") if _uid(file) == sent["sop_instance_uid"]]
    assert dcmread(picture).Modality == "OT"
    assert site.node.send_files([picture]) == [0x0000]
    rows = site.rows(film, number=2)
    assert [(row["state"], row["reason"]) for row in rows] == [("analysed", None), ("not-analysed", "own-object")]
    assert [row["report_version"] for row in rows] == [1, None]
    assert len(site.reports(film, 1)) == 1
    site.node.send(film)  # and what was there before is still told as it was
    assert [row["report_version"] for row in site.rows(film, number=2)] == [1, None]


def _uid(file: Path) -> str:
    return str(dcmread(file, stop_before_pixels=True).SOPInstanceUID)


@pytest.mark.parametrize(
    ("seed", "changes", "reason"),
    [
        (12, {"ViewPosition": "LL"}, "view"),
        (13, {"BodyPartExamined": "HAND"}, "body-part"),
        (14, {"PatientAge": "007Y", "PatientBirthDate": "20180601"}, "patient-age"),
        (23, {"PatientAge": "007Y"}, "age-contradictory"),
        (21, {"PatientOrientation": ["F", "R"]}, "turned"),
        (22, {"SeriesDescription": "Chest PA bone"}, "not-a-plain-film"),
    ],
)
def test_an_image_outside_the_intended_use_is_reported_as_not_analysed_without_a_score(
    site: Site, seed: int, changes: dict[str, Any], reason: str
) -> None:
    film = radiograph(seed, **changes)
    site.node.send(film)
    [report] = site.reports(film, 1)
    [row] = site.rows(film, number=1)
    assert (row["state"], row["reason"], row["probability"]) == ("not-analysed", reason, None)
    assert "NOT ANALYSED" in str(report)
    [probability] = items(report, "122157")
    assert not probability.get("MeasuredValueSequence")


def test_a_late_image_makes_a_new_version_that_names_the_first(site: Site) -> None:
    film, late = radiograph(15), radiograph(15, SOPInstanceUID="2.25.77")
    site.node.send(film)
    assert len(site.reports(film, 1)) == 1
    site.rows(film, number=1)
    site.node.send(late)
    [first, second] = site.reports(film, 2)
    [predecessor] = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert [row["report_version"] for row in site.rows(film, number=2)] == [2, 2]


def test_a_resent_image_is_answered_with_success_and_changes_nothing(site: Site) -> None:
    film = radiograph(16)
    assert site.node.send(film) == [0]
    site.rows(film, number=1)
    assert site.node.send(*[film] * 3) == [0, 0, 0]
    wait_until(lambda: len(site.node.ledger.audit.events(film.StudyInstanceUID)) == 7)
    assert len(site.rows(film, number=1)) == 1
    assert len(site.reports(film, 1)) == 1


def test_the_same_uid_with_other_pixels_is_a_conflict_and_never_scored(site: Site) -> None:
    film = radiograph(17)
    other = radiograph(18, opacity=True, SOPInstanceUID=film.SOPInstanceUID)
    assert site.node.send(film) == [0]
    site.rows(film, number=1)
    assert site.node.send(other) == [0]
    assert [row["state"] for row in site.rows(film, other, number=2)] == ["analysed", "conflict"]
    assert len(site.reports(film, 1)) == 1
    [unread] = site.reports(other, 1)
    assert unread.CompletionFlag == "PARTIAL"
    assert "NOT ANALYSED: another image with the same SOP Instance UID came before." in words(unread)
    assert "probability" not in words(unread)


def test_the_commands_answer_what_an_auditor_asks(site: Site) -> None:
    node, image = site.node, radiograph(19, AccessionNumber="ACC-7")
    node.send(image)
    site.rows(image, number=1)
    [row] = map(json.loads, node.command("audit", "--accession", "ACC-7", "--format", "json").splitlines())
    assert row["sop_instance_uid"] == image.SOPInstanceUID
    assert node.command("audit", "--accession", "ANOTHER", "--format", "json") == ""
    assert image.SOPInstanceUID in node.command("audit", "--format", "csv")
    saved = node.folder / "saved.dcm"
    node.command("report", image.StudyInstanceUID, "--save", str(saved))
    [arrived] = site.reports(image, 1)
    assert dcmread(saved) == arrived
    assert as_text(saved.read_bytes()) in node.command("report", image.StudyInstanceUID)


def test_an_image_whose_file_is_gone_is_not_analysed_again(site: Site) -> None:
    film = radiograph(24)
    spool = site.node.settings.node.data_dir / SPOOL_FOLDER
    before = set(spool.rglob("*.dcm"))
    site.node.send(film)
    site.rows(film, number=1)
    [file] = set(spool.rglob("*.dcm")) - before
    file.unlink()
    told = site.node.command("reanalyse", film.StudyInstanceUID)
    assert "0 images of 0 studies; 1 left out, their files are gone" in told
    assert [row["state"] for row in site.rows(film, number=1)] == ["analysed"]
