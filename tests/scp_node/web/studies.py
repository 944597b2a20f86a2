"""Studies as a node has them: films on disk, results and real reports in the ledger, deliveries."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from scp_node.dicom.inspection import Origin
from scp_node.domain import BuiltObject, BuiltReport, Finding, Outcome, Priority, Region
from scp_node.ledger import DeliveryTask, StudySnapshot
from scp_node.opening import SPOOL_FOLDER
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.objects.sr import build_report
from scp_node.report.version import ReportVersion
from scp_node.spool import Spool
from tests.scp_node.analysis.films import radiograph
from tests.scp_node.ledger_node import MODEL, Node
from tests.scp_node.report.reports import SITE
from tests.scp_node.spooled import put

STUDY: Final = "1.2.826.0.1.3680043.10.77.1"
SR_CLASS: Final = "1.2.840.10008.5.1.4.1.1.88.34"


def attention() -> bytes:
    """Return an activation map that is strongest in the patient's right lower zone."""
    y, x = np.mgrid[0:14, 0:14]
    return bytes((-1.5 + 5 * np.exp(-((x - 4) ** 2 + (y - 9) ** 2) / 6)).astype("<f4").tobytes())


SEEN: Final = Finding(
    probability=0.873,
    logit=1.93,
    threshold=0.5,
    attention=attention(),
    regions=(Region(left=0.15, top=0.5, right=0.42, bottom=0.8, score=0.71),),
)


class Archive:
    """A node's ledger and spool, and the steps of a study in them."""

    def __init__(self, node: Node, data_dir: Path) -> None:
        """Use the ledger of `node`, and a spool in the data folder."""
        self.node = node
        self.spool = Spool(data_dir / SPOOL_FOLDER, low_water_bytes=0, clock=node.clock)

    def film(self, number: int = 1, study: str = STUDY, **attributes: Any) -> Dataset:
        """Return a film of the study; attributes replace the usual ones."""
        usual = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": f"{study}.1",
            "SOPInstanceUID": f"{study}.1.{number}",
            "AccessionNumber": "A-4711",
            "PatientID": "P-0815",
        }
        return radiograph(**(usual | attributes))

    def receive(self, *films: Dataset) -> None:
        """Store and register films."""
        for film in films:
            syntax = film.file_meta.TransferSyntaxUID
            dataset = _encoded(film)
            origin = Origin(
                calling_ae="CR1",
                called_ae="PNEUMONIA",
                peer="10.0.0.7",
                transfer_syntax=str(syntax),
                priority=Priority.ROUTINE,
            )
            received = put(self.spool, dataset, origin)
            self.node.clock.advance(seconds=0.012)
            self.node.ledger.intake.register([received])
            self.node.clock.advance(seconds=0.1)

    def analyse(self, outcome: Outcome = SEEN) -> None:
        """Give everything that waits this outcome."""
        self.node.clock.advance(seconds=0.35)
        self.node.analyse(outcome)

    def report(self, *destinations: str, pictures: bool = True) -> None:
        """Report every quiet study, with pictures of its findings."""
        self.node.clock.advance(seconds=11)

        def build(_study: str, snapshot: StudySnapshot) -> BuiltReport:
            return build_report(_version(self.node, snapshot))

        def drawn(snapshot: StudySnapshot) -> tuple[BuiltObject, ...]:
            return _pictures(_version(self.node, snapshot))

        while self.node.report(*destinations, build=build, companions=drawn if pictures else None):
            pass

    def claim(self, destination: str) -> DeliveryTask:
        """Take the next object for a destination."""
        task = self.node.ledger.deliveries.claim(destination, owner="s")
        assert task
        self.node.clock.advance(seconds=0.2)
        return task

    def deliver(self, destination: str) -> DeliveryTask:
        """Deliver the next object to a destination."""
        task = self.claim(destination)
        assert self.node.ledger.deliveries.delivered(task, status=0, sop_class_uid=SR_CLASS)
        return task

    def refuse(self, destination: str, *, detail: str = "SOP class not supported") -> DeliveryTask:
        """Have a destination refuse the next object for good."""
        task = self.claim(destination)
        self.node.ledger.deliveries.bury(task, status=0x0122, detail=detail)
        return task


def _encoded(film: Dataset) -> memoryview:
    """Return the bytes of a dataset without those of a file."""
    bare = Dataset()
    bare.update(film)
    buffer = BytesIO()
    dcmwrite(buffer, bare, implicit_vr=film.file_meta.TransferSyntaxUID.is_implicit_VR, little_endian=True)
    return buffer.getbuffer()


def _version(node: Node, snapshot: StudySnapshot) -> ReportVersion:
    return ReportVersion(
        images=snapshot.images,
        model=MODEL,
        site=SITE,
        at=node.clock(),
        number=snapshot.version,
        previous=snapshot.previous,
        incomplete=snapshot.incomplete,
        several_patients=snapshot.patients > 1,
    )


def _pictures(version: ReportVersion) -> tuple[BuiltObject, ...]:
    display = np.zeros((64, 64), np.uint8)
    shown = [
        build_overlay(version, image=image, number=number, display=display)
        for number, image in enumerate(version.images, start=1)
        if isinstance(image.outcome, Finding) and image.outcome.attention
    ]
    return tuple(shown)
