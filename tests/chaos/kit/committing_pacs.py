"""A PACS that loses what it was sent, and answers requests for storage commitment in every way there is."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Self
from unittest import mock

from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import build_context
from pynetdicom.transport import AssociationSocket

from scp_node.demo.pacs import serving_ae
from scp_node.dicom.commitment_messages import (
    ALL_COMMITTED,
    FAILURES_EXIST,
    PUSH_MODEL,
    WELL_KNOWN_INSTANCE,
    new_transaction_uid,
)
from scp_node.settings import ReportSettings
from tests.scp_node.delivery.scp import VERIFICATION
from tests.scp_node.events import MISSING

AE_TITLE: Final = "PACS"
HONEST: Final = ("same association", "other association", "late")
BAD: Final = ("loses", "never", "garbage", "unknown transaction", "refuses", "stranger", "aborts")
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
PATIENCE: Final = 6  # after so many requests about one object its request is answered honestly


class CommittingPacs:
    """What it holds, what it promised, and what it did."""

    def __init__(self, node_port: int, randomness: random.Random) -> None:
        self.held: dict[str, str] = {}  # SOP Instance UID -> SOP class
        self.sent: Counter[str] = Counter()  # how often each instance came
        self.lost: Counter[str] = Counter()  # how often each was lost after its C-STORE was answered with Success
        self.promised: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.behaviours: Counter[str] = Counter()
        self._node_port = node_port
        self._random = randomness
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.port = 0

    @contextlib.contextmanager
    def serving(self) -> Iterator[Self]:
        ae = AE(AE_TITLE)
        classes = (*ReportSettings().sop_classes, SECONDARY_CAPTURE, VERIFICATION, PUSH_MODEL)
        ae.supported_contexts = [build_context(uid) for uid in classes]
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._act)]
        closing = mock.patch.object(AssociationSocket, "_shutdown_socket", _shut_down_and_close)
        with closing, serving_ae(ae, handlers) as self.port:
            try:
                yield self
            finally:
                for thread in self._threads:
                    thread.join(20)

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self._lock:
            self.held[uid] = str(event.request.AffectedSOPClassUID)
            self.sent[uid] += 1
        return 0x0000

    def _act(self, event: Any) -> tuple[int, None]:
        asked: Dataset = event.action_information
        uids = [str(item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence]
        with self._lock:
            self.asked.update(uids)
            patient = max(self.asked[uid] for uid in uids) < PATIENCE
            behaviour = self._random.choice(HONEST + BAD if patient else HONEST)
            self.behaviours[behaviour] += 1
            if behaviour == "loses":
                for uid in self._random.sample(uids, self._random.randint(1, len(uids))):
                    if uid not in self.promised and uid in self.held:
                        del self.held[uid]
                        self.lost[uid] += 1
        if behaviour == "refuses":
            return 0x0110, None
        self.answer_later(event, behaviour)
        return 0x0000, None

    def answer_later(self, event: Any, behaviour: str) -> None:
        """Answer in a thread: the response to the request goes first."""
        arguments = (event.assoc, event.action_information, behaviour)
        thread = threading.Thread(target=self._answer, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _answer(self, association: Any, asked: Dataset, behaviour: str) -> None:
        report = self._report(asked)
        with contextlib.suppress(RuntimeError):  # pynetdicom says so where the association is over
            match behaviour:
                case "same association":
                    self._tell(association, report)
                case "other association" | "loses" | "late":
                    if behaviour == "late":
                        threading.Event().wait(self._random.uniform(0, 0.5))
                    self._call(report)
                case "garbage":
                    self._call(_spoilt(report, self._random), believed=False)
                case "unknown transaction":
                    report.TransactionUID = new_transaction_uid()
                    self._call(report, believed=False)
                case "stranger":
                    self._call(report, calling="OTHER", believed=False)
                case "aborts":
                    association.abort()

    def _report(self, asked: Dataset) -> Dataset:
        """Return the truth of this moment."""
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        with self._lock:
            items = list(asked.ReferencedSOPSequence)
            report.ReferencedSOPSequence = [item for item in items if item.ReferencedSOPInstanceUID in self.held]
            missing = [item for item in items if item.ReferencedSOPInstanceUID not in self.held]
        for item in missing:
            item.FailureReason = MISSING
        if missing:
            report.FailedSOPSequence = missing
        return report

    def _call(self, report: Dataset, *, calling: str = AE_TITLE, believed: bool = True) -> None:
        """Report on an association of our own."""
        ae = AE(calling)
        ae.requested_contexts = [build_context(PUSH_MODEL)]
        role = build_role(PUSH_MODEL, scp_role=True)
        association = ae.associate("127.0.0.1", self._node_port, ae_title="PNEUMONIA", ext_neg=[role])
        if association.is_established:
            self._tell(association, report, believed=believed)
            association.release()

    def _tell(self, association: Any, report: Dataset, *, believed: bool = True) -> None:
        kind = FAILURES_EXIST if "FailedSOPSequence" in report else ALL_COMMITTED
        if believed:  # from now on it holds what it says it holds
            with self._lock:
                self.promised.update(str(item.ReferencedSOPInstanceUID) for item in report.ReferencedSOPSequence)
        association.send_n_event_report(report, kind, PUSH_MODEL, WELL_KNOWN_INSTANCE)


def _shut_down_and_close(association_socket: Any) -> None:
    """Stand in for pynetdicom's, which leaves a socket open where the connection was refused: the node is killed."""
    with contextlib.suppress(OSError):
        association_socket.socket.shutdown(socket.SHUT_RDWR)
    association_socket.socket.close()


def _spoilt(report: Dataset, randomness: random.Random) -> Dataset:
    """Return a report that says nothing any more, in one of several ways."""
    spoilt = Dataset()
    match randomness.randrange(3):
        case 0:
            spoilt.PatientID = "no report"
        case 1:
            spoilt.TransactionUID = report.TransactionUID
        case _:
            spoilt.update(report)
            spoilt.FailedSOPSequence = [Dataset()]
    return spoilt
