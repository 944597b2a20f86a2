"""What the README promises, told by a node in its own processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pneumonia_model.bundle import rendered, seal
from pydicom import Dataset, dcmread

from scp_node.demo.pacs import StoragePacs
from scp_node.opening import SPOOL_FOLDER, upgrade_database
from scp_node.report.text import as_text
from tests.node import BUNDLE, Node, destination, radiograph
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


def test_a_chest_film_goes_in_and_its_report_comes_back_and_a_row_stays(node: Node, pacs: StoragePacs) -> None:
    image = radiograph()
    assert node.send(image) == [0x0000]
    [report] = reports(pacs, 1)
    [row] = node.run_until_idle(1)
    assert row["state"] == "analysed"
    assert 0 <= row["probability"] <= 1
    assert row["verdict"] == ("present" if row["probability"] >= row["threshold"] else "not-detected")
    assert row["report_uid"] == report.SOPInstanceUID
    assert report.StudyInstanceUID == image.StudyInstanceUID
    assert report.PatientID == image.PatientID
    assert [(sent["destination"], sent["state"], sent["status"]) for sent in row["deliveries"]] == [
        ("pacs", "delivered", "0x0000")
    ]
    times = [row[name] for name in ("received_at", "registered_at", "analysed_at", "reported_at")]
    assert times == sorted(times)


def test_a_positive_film_has_a_picture_that_is_delivered_after_its_report(node: Node) -> None:
    node.send(radiograph(1, opacity=True), radiograph(2))
    positive, negative = node.run_until_idle(2)
    assert (positive["verdict"], negative["verdict"]) == ("present", "not-detected")
    told = [[(sent["kind"], sent["state"]) for sent in row["deliveries"]] for row in (positive, negative)]
    assert told == [[("report", "delivered"), ("overlay", "delivered")], [("report", "delivered")]]
    report, picture = positive["deliveries"]
    assert report["at"] <= picture["at"]
    _command(node, "report", positive["study_uid"], "--save-all", str(node.folder / "saved"))
    saved = {dcmread(file).SOPInstanceUID for file in (node.folder / "saved").iterdir()}
    assert saved == {report["sop_instance_uid"], picture["sop_instance_uid"]}


def test_a_pacs_that_routes_the_whole_study_back_starts_no_loop(node: Node, pacs: StoragePacs, tmp_path: Path) -> None:
    film = radiograph(1, opacity=True)
    node.send(film)
    node.run_until_idle(1)
    [picture] = [file for file in (tmp_path / "pacs").glob("*.dcm") if dcmread(file).Modality == "OT"]
    assert node.send_files([picture]) == [0x0000]
    rows = node.run_until_idle(2)
    assert [(row["state"], row["reason"]) for row in rows] == [("analysed", None), ("not-analysed", "own-object")]
    assert [row["report_version"] for row in rows] == [1, None]
    assert len(reports(pacs, 1)) == 1
    node.send(film)  # and what was there before is still told as it was
    assert [row["report_version"] for row in node.run_until_idle(2)] == [1, None]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ViewPosition": "LL"}, "view"),
        ({"BodyPartExamined": "HAND"}, "body-part"),
        ({"PatientAge": "007Y"}, "patient-age"),
    ],
)
def test_an_image_outside_the_intended_use_is_reported_as_not_analysed_without_a_score(
    node: Node, pacs: StoragePacs, changes: dict[str, Any], reason: str
) -> None:
    node.send(radiograph(**changes))
    [report] = reports(pacs, 1)
    [row] = node.run_until_idle(1)
    assert (row["state"], row["reason"], row["probability"]) == ("not-analysed", reason, None)
    assert "NOT ANALYSED" in str(report)
    [probability] = items(report, "122157")
    assert not probability.get("MeasuredValueSequence")


def test_two_films_of_one_study_are_one_report(start_node: Callable[..., Node], pacs: StoragePacs) -> None:
    node = start_node(destinations=[destination(pacs.port)], study={"quiet_seconds": 1})
    node.send(radiograph(), radiograph(SOPInstanceUID="2.25.77", ViewPosition="LL"))
    rows = node.run_until_idle(2)
    assert [row["state"] for row in rows] == ["analysed", "not-analysed"]
    assert len({row["report_uid"] for row in rows}) == 1
    assert len(reports(pacs, 1)) == 1


def test_a_late_image_makes_a_new_version_that_names_the_first(node: Node, pacs: StoragePacs) -> None:
    node.send(radiograph())
    [first] = reports(pacs, 1)
    node.run_until_idle(1)
    node.send(radiograph(SOPInstanceUID="2.25.77"))
    [second] = reports(pacs, 1)
    [predecessor] = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert [row["report_version"] for row in node.run_until_idle(2)] == [2, 2]


def test_a_resent_image_is_answered_with_success_and_changes_nothing(node: Node, pacs: StoragePacs) -> None:
    assert node.send(radiograph()) == [0]
    node.run_until_idle(1)
    assert node.send(*[radiograph()] * 3) == [0, 0, 0]
    wait_until(lambda: len(node.ledger.audit.events(radiograph().StudyInstanceUID)) == 7)
    node.run_until_idle(1)
    assert len(reports(pacs, 1)) == 1
    assert len(node.audit()) == 1


def test_the_same_uid_with_other_pixels_is_a_conflict_and_never_scored(node: Node, pacs: StoragePacs) -> None:
    other = radiograph(2, opacity=True, SOPInstanceUID=radiograph().SOPInstanceUID)
    assert node.send(radiograph()) == [0]
    node.run_until_idle(1)
    assert node.send(other) == [0]
    assert [row["state"] for row in node.run_until_idle(2)] == ["analysed", "conflict"]
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


def test_the_commands_answer_what_an_auditor_asks(node: Node, pacs: StoragePacs) -> None:
    image = radiograph(AccessionNumber="ACC-7")
    node.send(image)
    node.run_until_idle(1)
    [row] = map(json.loads, _command(node, "audit", "--accession", "ACC-7", "--format", "json").splitlines())
    assert row["sop_instance_uid"] == image.SOPInstanceUID
    assert _command(node, "audit", "--accession", "ANOTHER", "--format", "json") == ""
    assert image.SOPInstanceUID in _command(node, "audit", "--format", "csv")
    saved = node.folder / "saved.dcm"
    _command(node, "report", image.StudyInstanceUID, "--save", str(saved))
    [(_, arrived)] = pacs.new_reports()
    assert dcmread(saved) == arrived
    assert as_text(saved.read_bytes()) in _command(node, "report", image.StudyInstanceUID)


def _command(node: Node, *arguments: str) -> str:
    command = [sys.executable, "-m", "scp_node", *arguments, "--config", str(node.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
