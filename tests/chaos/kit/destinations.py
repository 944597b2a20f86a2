"""Destinations that are bad in one of eight ways until they are mended, and reports to send there."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from pynetdicom import evt

from scp_node.delivery import StorageScu
from scp_node.domain import BuiltReport
from scp_node.ledger import StudySnapshot, create_ledger_engine, upgrade
from scp_node.loops.deliver import Scu, Sender
from scp_node.runtime.leases import LeaseKeeper
from scp_node.settings import COMPREHENSIVE_3D_SR, DeliverySettings, DestinationSettings
from tests.chaos.kit.proxy import LOOPBACK, Door, Fault, Faults, Proxy
from tests.scp_node.delivery.scp import EXPLICIT, SR_CLASSES, Scp
from tests.scp_node.ledger_node import LEASE, POLICY, Node, built_report

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
IN_THE_MIDDLE: Final = 6_000  # bytes: after the association request, within the first object
WRONG_STATUSES: Final = (0xA900, 0xC000, 0x0122, 0x0124)  # PS3.4 Table B.2-1, PS3.7 section C.5: no for good
_TITLE: Final = "PACS"


class Kind(Enum):
    """In which way a destination is bad."""

    REFUSED = "refuses connections"
    BLACKHOLE = "answers no connection request"
    REJECTS = "rejects the association"
    SILENT = "never answers"
    STOPS = "stops reading"
    SLOW = "reads 10 kB/s"
    RESETS = "resets in the middle"
    WRONG = "answers wrong statuses"


_DOORS: Final = {Kind.REFUSED: Door.CLOSED, Kind.BLACKHOLE: Door.FULL}
_FAULTS: Final = {
    Kind.STOPS: Faults(up=Fault(stop_at=IN_THE_MIDDLE)),
    Kind.SLOW: Faults(up=Fault(rate=10_000)),
    Kind.RESETS: Faults(up=Fault(reset_at=IN_THE_MIDDLE)),
}


class Pacs(Scp):
    """A Storage SCP that may be told not to answer, or to refuse; it notes what it took, in order."""

    def __init__(self) -> None:
        super().__init__(sop_classes=(*SR_CLASSES, SECONDARY_CAPTURE))
        self.took: list[tuple[str, bytes]] = []  # Study Instance UID of a report, and its dataset as it came
        self.wrong: Iterator[int] = iter(())  # statuses to answer, as long as there are any
        self.answers = threading.Event()
        self.answers.set()

    def _store(self, event: evt.Event) -> int:
        self.answers.wait(120)
        status = next(self.wrong, 0x0000)
        if status == 0x0000 and event.dataset.SOPClassUID != SECONDARY_CAPTURE:
            self.took.append((str(event.dataset.StudyInstanceUID), event.encoded_dataset(include_meta=False)))
        return status

    @property
    def studies(self) -> list[str]:
        """Return whose reports were taken, in order."""
        return [study for study, _ in self.took]


@dataclass
class Destination:
    """One PACS, reached by a proxy; bad until `mend`."""

    kind: Kind | None  # None: there is nothing wrong with it
    pacs: Pacs = field(default_factory=Pacs)
    proxy: Proxy = field(init=False)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Destination]:
        with self.pacs.serving():
            door = _DOORS.get(self.kind, Door.OPEN) if self.kind else Door.OPEN
            self.proxy = Proxy(self.pacs.port, _FAULTS.get(self.kind) if self.kind else None, door=door)
            with self.proxy:
                self._break()
                try:
                    yield self
                finally:
                    self.pacs.answers.set()

    def _break(self) -> None:
        if self.kind is Kind.REJECTS:
            self.pacs.ae.require_calling_aet = ["ANOTHER"]
        elif self.kind is Kind.SILENT:
            self.pacs.answers.clear()
        elif self.kind is Kind.WRONG:
            self.pacs.wrong = itertools.cycle(WRONG_STATUSES)

    def mend(self) -> None:
        if self.kind in _DOORS:
            self.proxy.open()
        self.proxy.faults = Faults()
        self.pacs.ae.require_calling_aet = []
        self.pacs.wrong = iter(())
        self.pacs.answers.set()


def open_scu(port: int, settings: DeliverySettings) -> StorageScu:
    """Return the Storage SCU for a destination on `port`."""
    entry = DestinationSettings(name=_TITLE, ae_title=_TITLE, host=LOOPBACK, port=port)
    return StorageScu(
        entry,
        calling_ae="PNEUMONIA",
        sop_classes=SR_CLASSES,
        other_sop_classes=[SECONDARY_CAPTURE],
        settings=settings,
        recast=recast,
    )


def open_sender(
    node: Node, scu: Scu, settings: DeliverySettings, *, name: str = "pacs", randomness: random.Random | None = None
) -> Sender:
    """Return a sender as the node composes it, by the clock of `node`."""
    return Sender(
        name=name,
        scu=scu,
        ledger=node.ledger,
        leases=LeaseKeeper(node.ledger, LEASE),
        settings=settings,
        owner=name,
        randomness=randomness,
    )


@contextlib.contextmanager
def open_node(database: dict[str, Any], folder: Path) -> Iterator[Node]:
    """Give a ledger with a clock that the test moves, and studies that are quiet at once."""
    engine = create_ledger_engine(database.get("url", f"sqlite:///{folder / 'ledger.sqlite3'}"))
    upgrade(engine)
    try:
        yield Node(engine, policy=replace(POLICY, quiet=timedelta(0)))
    finally:
        engine.dispose()


def dicom_report(study_uid: str, snapshot: StudySnapshot, *, size: int = 0) -> BuiltReport:
    """Return a report with the identity that its content gives it, as a DICOM file of `size` bytes or more."""
    built = built_report(study_uid, snapshot)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    dataset.SOPClassUID = UID(COMPREHENSIVE_3D_SR)
    dataset.SOPInstanceUID = UID(built.sop_instance_uid)
    dataset.StudyInstanceUID = UID(study_uid)
    dataset.TextValue = "x" * size
    return replace(built, file=_file(dataset))


def recast(file: bytes, sop_class_uid: str) -> bytes:
    """Return a report in another SOP class."""
    dataset = dcmread(BytesIO(file))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    return _file(dataset)


def _file(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
