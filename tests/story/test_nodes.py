"""What the README promises where it takes a node of its own: faults, other settings, roles apart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from pneumonia_model.bundle import rendered, seal
from pydicom import Dataset

from scp_node.demo.pacs import StoragePacs
from scp_node.opening import upgrade_database
from tests.node import BUNDLE, Node, destination, radiograph
from tests.servers import free_port
from tests.story.test_story import items
from tests.waiting import wait_until


def reports(pacs: StoragePacs, number: int) -> list[Dataset]:
    found: list[Dataset] = []

    def arrived() -> bool:
        found.extend(report for _, report in pacs.new_reports())
        return len(found) >= number

    wait_until(arrived, 60, what=f"{number} reports")
    return found


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
        for role in ("worker", "reporter", "sender", "listener"):
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
    film = radiograph(7, opacity=True)  # its probability is between the two operating points
    node = start_node(destinations=[destination(pacs.port)])
    node.send(film)
    [first] = reports(pacs, 1)
    node.run_until_idle(1)
    planned = node.command("reanalyse", film.StudyInstanceUID, "--dry-run")
    assert "would analyse again: 1 images of 1 studies" in planned
    assert "to be analysed again: 1 images" in node.command("reanalyse", film.StudyInstanceUID)
    wait_until(lambda: _runs(node, film) == 2, 30, what="second result")
    assert [row["report_version"] for row in node.run_until_idle(1)] == [1]
    node.stop()

    point = {"bundle": str(BUNDLE), "operating_point": "half"}
    node = start_node(destinations=[destination(pacs.port)], inference=point)
    node.command("reanalyse", "--since", "2020-01-01")
    [second] = reports(pacs, 1)
    [row] = node.run_until_idle(1)
    assert (row["report_version"], row["verdict"], row["threshold"]) == (2, "not-detected", 0.5)
    [predecessor] = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert [sent["kind"] for sent in row["deliveries"]] == ["report"]


def _runs(node: Node, film: Dataset) -> int:
    return sum(event.kind == "analysed" for event in node.ledger.audit.events(film.StudyInstanceUID))


def test_a_bundle_with_a_detector_puts_its_boxes_into_ledger_and_report(
    start_node: Callable[..., Node], pacs: StoragePacs, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="a detector runs on torch, which the light installation has not")
    from tests.model.detectors import untrained_detector, with_detector  # noqa: PLC0415 - imports torch

    bundle = with_detector(tmp_path / "bundle", untrained_detector())
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["operating_points"].append({"name": "low", "threshold": 0.3})  # between the two phantoms
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


def test_a_report_for_nobody_is_undeliverable_until_the_settings_name_somebody(
    start_node: Callable[..., Node], pacs: StoragePacs
) -> None:
    node = start_node(destinations=[destination(pacs.port)], routing={"reply_to": []})
    film = radiograph(31)
    node.send(film)
    [row] = node.run_until_idle(1)
    assert [each["state"] for each in row["deliveries"]] == ["undeliverable"]
    assert "report is undeliverable" in node.log
    assert "undeliverable" in node.command("audit", "--state", "undeliverable")
    assert "undeliverable: 1 reports" in node.command("doctor", status=1)

    (node.folder / "second").mkdir()
    tables = {**node.changes, "routing": {"reply_to": "all"}, "node": {"data_dir": str(node.folder / "var")}}
    second = Node(node.folder / "second", tables)
    refused = subprocess.run(
        [sys.executable, "-m", "scp_node", "serve", "--role", "worker", "--config", str(second.config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused.returncode == 2
    assert "settings differ" in refused.stderr

    node.stop()
    again = Node(node.folder, {**node.changes, "routing": {"reply_to": "all"}})
    again.start()
    try:
        assert "1 put back" in again.command("requeue", "--dead")
        told = [arrived.StudyInstanceUID for arrived in reports(pacs, 1) if arrived.Modality == "SR"]
        assert told == [film.StudyInstanceUID]
    finally:
        again.end()
