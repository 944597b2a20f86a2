"""Real films, sent by DCMTK's storescu, answered into a real Orthanc, read by the tools of others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scp_node.delivery import Disposition, StorageScu
from scp_node.domain import PreviousReport
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.sop_class import COMPANION_SOP_CLASSES, SOP_CLASSES, with_sop_class
from scp_node.settings import DeliverySettings, DestinationSettings
from tests.conftest import Send
from tests.node import Node, destination, radiograph
from tests.scp_node.report.reports import POSITIVE, built, version_of
from tests.scp_node.report.reports import radiograph as reported_film
from tests.servers import Orthanc
from tests.tools import require

pytestmark = [pytest.mark.needs("storescu"), pytest.mark.needs("Orthanc")]


@pytest.fixture
def node(start_node: Callable[..., Node], orthanc: Orthanc) -> Node:
    return start_node(destinations=[destination(orthanc.port, ae_title=orthanc.ae_title)])


def check(file: Path, tool: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require(tool), str(file)], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.needs("dsrdump")
@pytest.mark.needs("dciodvfy")
def test_real_films_come_back_as_valid_reports_in_a_real_pacs(
    node: Node, orthanc: Orthanc, storescu: Send, shared_data: Path, tmp_path: Path
) -> None:
    films = sorted((shared_data / "dicom" / "rsna_original").glob("*.dcm"))[:4]
    done = storescu(films, "-R", "-xy", port=node.settings.listen.port)
    assert done.returncode == 0, done.stdout + done.stderr
    orthanc.wait_until(lambda pacs: len(pacs.instances()) >= len(films), 60)
    rows = node.run_until_idle(len(films))
    reports = orthanc.reports()
    assert {row["report_uid"] for row in rows} == {report.SOPInstanceUID for report in reports}
    assert {row["state"] for row in rows} <= {"analysed", "not-analysed"}
    for report in reports:
        file = tmp_path / f"{report.SOPInstanceUID}.dcm"
        report.save_as(file, enforce_file_format=True)
        verified = check(file, "dciodvfy")
        assert "Error" not in verified.stdout + verified.stderr
        assert "Imaging Measurement Report" in check(file, "dsrdump").stdout


@pytest.mark.needs("dciodvfy")
def test_pictures_come_after_their_reports_and_each_film_has_one(
    start_node: Callable[..., Node], orthanc: Orthanc, shared_data: Path, tmp_path: Path
) -> None:
    destinations = [destination(orthanc.port, ae_title=orthanc.ae_title)]
    node = start_node(destinations=destinations, report={"overlay": "all"})
    films = sorted((shared_data / "dicom" / "rsna_original").glob("*.dcm"))[:3]
    node.send_files(films)
    rows = [row for row in node.run_until_idle(len(films)) if row["state"] == "analysed"]
    assert rows
    kinds = [[sent["kind"] for sent in row["deliveries"]] for row in rows]
    assert kinds == [["report", "overlay"]] * len(rows)
    assert {sent["state"] for row in rows for sent in row["deliveries"]} == {"delivered"}
    pictures = orthanc.datasets("OT")
    assert {row["deliveries"][1]["sop_instance_uid"] for row in rows} == {each.SOPInstanceUID for each in pictures}
    for picture in pictures:
        assert picture.pixel_array.shape[2] == 3
        file = tmp_path / f"{picture.SOPInstanceUID}.dcm"
        picture.save_as(file, enforce_file_format=True)
        verified = check(file, "dciodvfy")
        assert "Error" not in verified.stdout + verified.stderr


def test_a_second_send_of_the_same_film_leaves_one_report_in_the_pacs(node: Node, orthanc: Orthanc) -> None:
    for _ in range(3):
        assert node.send(radiograph()) == [0]
        node.run_until_idle(1)
    assert len(orthanc.reports()) == 1


def test_ten_resends_leave_one_instance_and_a_new_version_stands_beside_the_old(orthanc: Orthanc) -> None:
    finding = replace(POSITIVE, attention=np.zeros((14, 14), "<f4").tobytes())
    film, display = reported_film(finding), np.zeros((64, 64), np.uint8)
    first = built(film)
    previous = PreviousReport(
        sop_instance_uid=first.sop_instance_uid,
        series_instance_uid=first.series_instance_uid,
        sop_class_uid=first.sop_class_uid,
        version=1,
    )
    second = built(film, previous=previous)
    picture = build_overlay(version_of(film), image=film, number=1, display=display)
    scu = StorageScu(
        DestinationSettings(name="pacs", ae_title=orthanc.ae_title, host="127.0.0.1", port=orthanc.port),
        calling_ae="PNEUMONIA",
        sop_classes=SOP_CLASSES,
        other_sop_classes=COMPANION_SOP_CLASSES,
        settings=DeliverySettings(),
        recast=with_sop_class,
    )
    for file in [first.file, picture.file] * 10 + [second.file]:
        assert scu.send(file).disposition is Disposition.DELIVERED
    scu.close()
    stored = sorted(dataset.SOPInstanceUID for dataset in orthanc.datasets())
    assert stored == sorted([first.sop_instance_uid, picture.sop_instance_uid, second.sop_instance_uid])
    newest = max(orthanc.reports(), key=lambda report: report.InstanceNumber)
    [old] = newest.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert old.ReferencedSOPInstanceUID == first.sop_instance_uid


def test_a_destination_that_refuses_the_first_sr_class_gets_the_next_one(
    start_node: Callable[..., Node],
    start_storescp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    profile = tmp_path / "storescp.cfg"
    profile.write_text(
        "[[TransferSyntaxes]]\n[Any]\nTransferSyntax1 = LittleEndianExplicit\nTransferSyntax2 = LittleEndianImplicit\n"
        "[[PresentationContexts]]\n[Plain]\nPresentationContext1 = VerificationSOPClass\\Any\n"
        "PresentationContext2 = EnhancedSRStorage\\Any\n"
        "[[Profiles]]\n[Default]\nPresentationContexts = Plain\n"
    )
    archive = start_storescp("-xf", str(profile), "Default")
    node = start_node(destinations=[destination(archive.port, ae_title=archive.ae_title)])
    node.send(radiograph())
    [row] = node.run_until_idle(1)
    assert [sent["sop_class_uid"] for sent in row["deliveries"]] == ["1.2.840.10008.5.1.4.1.1.88.22"]
    [report] = archive.datasets()
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.22"
    assert report.SOPInstanceUID == row["report_uid"]
