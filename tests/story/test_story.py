"""What the README promises, told by a node in its own processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pneumonia_model.bundle import rendered, seal
from pydicom import Dataset, dcmread

from scp_node.demo.pacs import StoragePacs
from scp_node.opening import SPOOL_FOLDER, upgrade_database
from scp_node.report.text import as_text
from tests.node import BUNDLE, Node, destination, radiograph
from tests.scp_node.report.reports import words
from tests.servers import free_port
from tests.waiting import wait_until


def reports(pacs: StoragePacs, number: int) -> list[Dataset]:
    found: list[Dataset] = []

    def arrived() -> bool:
        found.extend(report for _, report in pacs.new_reports())
        return len(found) >= number

    wait_until(arrived, 60, what=f"{number} reports")
    return found


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
    _command(site.node, "report", positive["study_uid"], "--save-all", str(site.node.folder / "saved"))
    saved = {dcmread(file).SOPInstanceUID for file in (site.node.folder / "saved").iterdir()}
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
    [row] = map(json.loads, _command(node, "audit", "--accession", "ACC-7", "--format", "json").splitlines())
    assert row["sop_instance_uid"] == image.SOPInstanceUID
    assert _command(node, "audit", "--accession", "ANOTHER", "--format", "json") == ""
    assert image.SOPInstanceUID in _command(node, "audit", "--format", "csv")
    saved = node.folder / "saved.dcm"
    _command(node, "report", image.StudyInstanceUID, "--save", str(saved))
    [arrived] = site.reports(image, 1)
    assert dcmread(saved) == arrived
    assert as_text(saved.read_bytes()) in _command(node, "report", image.StudyInstanceUID)


def _command(node: Node, *arguments: str) -> str:
    command = [sys.executable, "-m", "scp_node", *arguments, "--config", str(node.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_films_of_one_study_are_one_report(start_node: Callable[..., Node], pacs: StoragePacs) -> None:
    node = start_node(destinations=[destination(pacs.port)], study={"quiet_seconds": 1})
    node.send(radiograph(), radiograph(SOPInstanceUID="2.25.77", ViewPosition="LL"))
    rows = node.run_until_idle(2)
    assert [row["state"] for row in rows] == ["analysed", "not-analysed"]
    assert len({row["report_uid"] for row in rows}) == 1
    assert len(reports(pacs, 1)) == 1


def test_a_pacs_that_is_down_gets_its_reports_when_it_is_back(start_node: Callable[..., Node], tmp_path: Path) -> None:
    port = free_port()
    node = start_node(destinations=[destination(port)])
    node.send(*[radiograph(seed) for seed in range(3)])
    wait_until(lambda: [row["state"] for row in node.audit()] == ["analysed"] * 3, 30)
    wait_until(lambda: "will be retried" in node.log, 10)
    pacs = StoragePacs(tmp_path / "late", port=port)
    try:
        assert len({report.StudyInstanceUID for report in reports(pacs, 3)}) == 3
        rows = node.run_until_idle(3)
    finally:
        pacs.close()
    assert {row["deliveries"][0]["state"] for row in rows} == {"delivered"}


def test_what_was_acknowledged_before_a_kill_is_reported_once_after_the_restart(node: Node, pacs: StoragePacs) -> None:
    assert node.send(*[radiograph(seed) for seed in range(8)]) == [0] * 8
    node.kill()
    node.start()
    node.run_until_idle(8)
    found = reports(pacs, 8)
    assert len({report.SOPInstanceUID for report in found}) == 8
    assert len(node.audit()) == 8


@pytest.mark.needs("postgres")
def test_the_roles_run_apart_on_one_postgresql(pacs: StoragePacs, postgres: str, tmp_path: Path) -> None:
    tables = {"destinations": [destination(pacs.port)], "database": {"url": postgres}}
    shared = Node(tmp_path, tables)
    upgrade_database(shared.settings)
    with ExitStack() as stack:
        stack.callback(shared.end)
        for role in ("worker", "sender", "listener"):
            part = Node(tmp_path, {**tables, "listen": {"port": shared.settings.listen.port}})
            stack.callback(part.end)
            part.start(role, wait=role == "listener")
        assert shared.send(*[radiograph(seed) for seed in range(3)]) == [0, 0, 0]
        rows = shared.run_until_idle(3)
    assert {row["deliveries"][0]["state"] for row in rows} == {"delivered"}
    assert len(reports(pacs, 3)) == 3


def test_a_stop_by_sigterm_ends_politely_and_quickly(node: Node) -> None:
    node.send(radiograph())
    assert node.stop() == 0


def test_only_the_sender_gets_the_report_where_that_is_asked_for(
    start_node: Callable[..., Node], pacs: StoragePacs
) -> None:
    others = destination(free_port(), name="other", ae_title="OTHER")
    node = start_node(destinations=[destination(pacs.port), others], routing={"reply_to": "sender"})
    node.send(radiograph(), calling="PACS")
    [row] = node.run_until_idle(1)
    assert [sent["destination"] for sent in row["deliveries"]] == ["pacs"]


def test_an_unknown_application_entity_is_not_served(start_node: Callable[..., Node]) -> None:
    node = start_node(peers=[{"ae_title": "CR1", "address": "127.0.0.1"}])
    assert node.send(radiograph(), calling="STRANGER") == [None]
    assert node.send(radiograph(), calling="CR1") == [0]


def test_a_study_that_is_analysed_again_has_a_new_report_only_where_it_says_something_else(
    start_node: Callable[..., Node], pacs: StoragePacs
) -> None:
    film = radiograph(1, opacity=True)
    node = start_node(destinations=[destination(pacs.port)])
    node.send(film)
    [first] = reports(pacs, 1)
    node.run_until_idle(1)
    planned = _command(node, "reanalyse", film.StudyInstanceUID, "--dry-run")
    assert "would analyse again: 1 images of 1 studies" in planned
    assert "to be analysed again: 1 images" in _command(node, "reanalyse", film.StudyInstanceUID)
    wait_until(lambda: _runs(node, film) == 2, 30, what="second result")
    assert [row["report_version"] for row in node.run_until_idle(1)] == [1]
    node.stop()

    point = {"bundle": str(BUNDLE), "operating_point": "half"}
    node = start_node(destinations=[destination(pacs.port)], inference=point)
    _command(node, "reanalyse", "--since", "2020-01-01")
    [second] = reports(pacs, 1)
    [row] = node.run_until_idle(1)
    assert (row["report_version"], row["verdict"], row["threshold"]) == (2, "not-detected", 0.5)
    [predecessor] = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert [sent["kind"] for sent in row["deliveries"]] == ["report"]


def _runs(node: Node, film: Dataset) -> int:
    return sum(event.kind == "analysed" for event in node.ledger.audit.events(film.StudyInstanceUID))


def test_an_image_whose_file_is_gone_is_not_analysed_again(start_node: Callable[..., Node]) -> None:
    node = start_node()
    node.send(radiograph())
    node.run_until_idle(1)
    for file in (node.settings.node.data_dir / SPOOL_FOLDER).rglob("*.dcm"):
        file.unlink()
    told = _command(node, "reanalyse", radiograph().StudyInstanceUID)
    assert "0 images of 0 studies; 1 left out, their files are gone" in told
    assert [row["state"] for row in node.run_until_idle(1)] == ["analysed"]


def test_a_bundle_with_a_detector_puts_its_boxes_into_ledger_and_report(
    start_node: Callable[..., Node], pacs: StoragePacs, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="a detector runs on torch, which the light installation has not")
    from tests.model.detectors import untrained_detector, with_detector  # noqa: PLC0415 - imports torch

    bundle = with_detector(tmp_path / "bundle", untrained_detector())
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["operating_points"].append({"name": "low", "threshold": 0.035})  # between the two phantoms
    (bundle / "manifest.json").write_bytes(rendered(seal(manifest)))
    inference = {"bundle": str(bundle), "operating_point": "low"}
    node = start_node(destinations=[destination(pacs.port)], inference=inference)
    node.send(radiograph(6, opacity=True), radiograph(5))
    told = {report.StudyInstanceUID: report for report in reports(pacs, 2)}
    rows = {row["verdict"]: row for row in node.run_until_idle(2)}
    assert rows.keys() == {"present", "not-detected"}
    regions = rows["present"]["regions"]
    assert regions
    opacities = {verdict: _outlines(told[row["study_uid"]]) for verdict, row in rows.items()}
    assert opacities == {"present": len(regions), "not-detected": 0}
    assert not rows["not-detected"]["regions"]


def _outlines(report: Dataset) -> int:
    """Return how many regions of opacities a report draws."""
    return sum(item.ValueType == "SCOORD" for item in items(report, "111030"))  # Image Region
