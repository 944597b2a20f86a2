"""Real films, sent by DCMTK's storescu, answered into a real Orthanc, read by the tools of others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

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
from tests.waiting import wait_until

pytestmark = [pytest.mark.needs("storescu"), pytest.mark.needs("Orthanc")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An Orthanc, and a node that reports to it: each test sends studies of its own."""

    orthanc: Orthanc
    node: Node

    def objects(self, *studies: str) -> list[Dataset]:
        """Return what the PACS holds of these studies, oldest first."""
        return [each for each in self.orthanc.datasets() if each.StudyInstanceUID in studies]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for tool in ("storescu", "Orthanc"):
        require(tool)
    with ExitStack() as stack:
        orthanc = stack.enter_context(Orthanc(tmp_path_factory.mktemp("orthanc")))
        entry = destination(orthanc.port, ae_title=orthanc.ae_title)
        node = Node(tmp_path_factory.mktemp("site"), {"destinations": [entry]})
        stack.callback(node.end)
        yield Site(orthanc=orthanc, node=node.start())


def check(file: Path, tool: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require(tool), str(file)], capture_output=True, text=True, timeout=60, check=False)


# Those with a node of their own come first: the one that the others share starts when the first of them needs it.
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


@pytest.mark.needs("dsrdump")
@pytest.mark.needs("dciodvfy")
def test_real_films_come_back_as_valid_reports_in_a_real_pacs(
    site: Site, storescu: Send, shared_data: Path, tmp_path: Path
) -> None:
    films = sorted((shared_data / "dicom" / "rsna_original").glob("*.dcm"))[:4]
    studies = [str(dcmread(film, stop_before_pixels=True).StudyInstanceUID) for film in films]
    done = storescu(films, "-R", "-xy", port=site.node.settings.listen.port)
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: len(site.objects(*studies)) >= len(films), 60)
    rows = site.node.run_until_idle(len(films), studies=studies)
    reports = [each for each in site.objects(*studies) if each.Modality == "SR"]
    assert {row["report_uid"] for row in rows} == {report.SOPInstanceUID for report in reports}
    assert {row["state"] for row in rows} <= {"analysed", "not-analysed"}
    for report in reports:
        file = tmp_path / f"{report.SOPInstanceUID}.dcm"
        report.save_as(file, enforce_file_format=True)
        verified = check(file, "dciodvfy")
        assert "Error" not in verified.stdout + verified.stderr
        assert "Imaging Measurement Report" in check(file, "dsrdump").stdout


def test_a_second_send_of_the_same_film_leaves_one_report_in_the_pacs(site: Site) -> None:
    film = radiograph()
    for _ in range(3):
        assert site.node.send(film) == [0]
        site.node.run_until_idle(1, studies=[str(film.StudyInstanceUID)])
    assert [each.Modality for each in site.objects(film.StudyInstanceUID)].count("SR") == 1


def test_ten_resends_leave_one_instance_and_a_new_version_stands_beside_the_old(site: Site) -> None:
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
        DestinationSettings(name="pacs", ae_title=site.orthanc.ae_title, host="127.0.0.1", port=site.orthanc.port),
        calling_ae="PNEUMONIA",
        sop_classes=SOP_CLASSES,
        other_sop_classes=COMPANION_SOP_CLASSES,
        settings=DeliverySettings(),
        recast=with_sop_class,
    )
    for file in [first.file, picture.file] * 10 + [second.file]:
        assert scu.send(file).disposition is Disposition.DELIVERED
    scu.close()
    objects = site.objects(first.study_uid)
    stored = sorted(each.SOPInstanceUID for each in objects)
    assert stored == sorted([first.sop_instance_uid, picture.sop_instance_uid, second.sop_instance_uid])
    newest = max((each for each in objects if each.Modality == "SR"), key=lambda report: report.InstanceNumber)
    [old] = newest.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert old.ReferencedSOPInstanceUID == first.sop_instance_uid
