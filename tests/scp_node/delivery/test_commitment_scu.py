"""Requests for commitment to a destination that answers on the same association, on another, badly, or not at all."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, Final

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import build_context

from scp_node.delivery import Asked, AskResult, CommitmentScu
from scp_node.demo.pacs import serving_ae
from scp_node.dicom.commitment_messages import PUSH_MODEL, WELL_KNOWN_INSTANCE
from scp_node.domain import Reference
from scp_node.settings import DeliverySettings, DestinationSettings
from tests.scp_node.delivery.scp import EXPLICIT, IMPLICIT, VERIFICATION, answering
from tests.scp_node.events import MISSING, SR, event, information
from tests.waiting import wait_until

REFERENCES: Final = [Reference(sop_class_uid=SR, sop_instance_uid=f"1.2.{number}") for number in range(3)]
UIDS: Final = tuple(reference.sop_instance_uid for reference in REFERENCES)


class CommittingScp:
    """A Storage Commitment SCP that notes each request, and says what `reply` says."""

    def __init__(
        self, *, status: int = 0, sop_class: str = PUSH_MODEL, syntaxes: tuple[str, ...] = (EXPLICIT, IMPLICIT)
    ) -> None:
        self.status = status
        self.asked: list[Dataset] = []
        self.answers: list[int] = []  # statuses of the responses to reports
        self.aborts = 0
        self.before_response: Callable[[evt.Event], None] = lambda _action: None
        self.reply: Callable[[Any, Dataset], None] = lambda _association, _asked: None
        self._threads: list[threading.Thread] = []
        self.ae = AE("PACS")
        self.ae.supported_contexts = [build_context(sop_class, list(syntaxes))]
        self.port = 0

    @contextlib.contextmanager
    def serving(self) -> Iterator[CommittingScp]:
        with serving_ae(self.ae, [(evt.EVT_N_ACTION, self._act), (evt.EVT_ABORTED, self._aborted)]) as self.port:
            try:
                yield self
            finally:
                for thread in self._threads:
                    thread.join(10)
                wait_until(lambda: not self.ae.active_associations)  # the SCU leaves none open

    def report(
        self, association: Any, report: Dataset, event_type: int = 1, instance: str = WELL_KNOWN_INSTANCE
    ) -> None:
        """Send an N-EVENT-REPORT on the association of the request."""
        status, _ = association.send_n_event_report(report, event_type, PUSH_MODEL, instance)
        self.answers.append(int(status.Status) if "Status" in status else -1)

    def _aborted(self, _event: evt.Event) -> None:
        self.aborts += 1

    def _act(self, action: Any) -> tuple[int, None]:
        assert (action.action_type, action.request.RequestedSOPInstanceUID) == (1, WELL_KNOWN_INSTANCE)
        self.asked.append(action.action_information)
        self.before_response(action)
        thread = threading.Thread(target=self._reply, args=(action.assoc, action.action_information), daemon=True)
        thread.start()
        self._threads.append(thread)
        return self.status, None

    def _reply(self, association: Any, asked: Dataset) -> None:
        if self.status == 0:
            self.reply(association, asked)


def ask(port: int, uid: str = "2.25.7", **settings: float) -> AskResult:
    scu = CommitmentScu(
        DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=port),
        calling_ae="PNEUMONIA",
        settings=DeliverySettings(**{"commit_answer_seconds": 5.0} | settings),
    )
    return scu.ask(uid, lambda: REFERENCES)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_what_was_sent_is_asked_for_and_the_answer_is_taken_on_the_same_association(syntax: str) -> None:
    with CommittingScp(syntaxes=(syntax,)).serving() as scp:
        scp.reply = lambda association, asked: scp.report(
            association, information(UIDS, transaction_uid=asked.TransactionUID)
        )
        result = ask(scp.port)
    [asked] = scp.asked
    assert asked.TransactionUID == "2.25.7"
    assert [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence] == [
        (SR, uid) for uid in UIDS
    ]
    assert result.asked is Asked.REQUESTED
    [report] = result.reports
    assert (report.transaction_uid, report.committed, dict(report.failed)) == ("2.25.7", frozenset(REFERENCES), {})
    assert scp.answers == [0x0000]


def test_failures_are_returned_with_their_reason() -> None:
    with CommittingScp().serving() as scp:
        scp.reply = lambda association, _: scp.report(association, information(UIDS[1:], {UIDS[0]: MISSING}), 2)
        [report] = ask(scp.port).reports
    assert (report.committed, dict(report.failed)) == (frozenset(REFERENCES[1:]), {REFERENCES[0]: MISSING})


def test_an_answer_that_stays_out_is_waited_for_a_little_and_then_left_to_another_association() -> None:
    with CommittingScp().serving() as scp:
        result = ask(scp.port, commit_answer_seconds=0.2)
    assert result == AskResult(asked=Asked.REQUESTED)


def test_a_destination_that_leaves_after_its_response_was_asked() -> None:
    with CommittingScp().serving() as scp:

        def leave(association: Any, _asked: Dataset) -> None:
            with contextlib.suppress(RuntimeError):  # pynetdicom says so when the other is faster
                scp.report(association, information(UIDS, transaction_uid="2.25.1"))
            association.abort()

        scp.reply = leave
        result = ask(scp.port)
    assert result.asked is Asked.REQUESTED
    assert [report.transaction_uid for report in result.reports] == ["2.25.1"]


def test_a_report_that_is_faster_than_the_response_is_taken() -> None:
    with CommittingScp().serving() as scp:
        scp.before_response = lambda action: action.assoc.dimse.send_msg(early(), action.context.context_id)
        result = ask(scp.port)
    assert result.asked is Asked.REQUESTED
    assert [report.committed for report in result.reports] == [frozenset(REFERENCES)]


def early() -> N_EVENT_REPORT:
    request = N_EVENT_REPORT()
    request.MessageID = 5
    request.AffectedSOPClassUID = PUSH_MODEL
    request.AffectedSOPInstanceUID = WELL_KNOWN_INSTANCE
    request.EventTypeID = 1
    request.EventInformation = BytesIO(event(UIDS))
    return request


def test_a_report_of_another_transaction_is_taken_and_the_wait_goes_on() -> None:
    with CommittingScp().serving() as scp:

        def reply(association: Any, _asked: Dataset) -> None:
            scp.report(association, information(UIDS, transaction_uid="2.25.1"))
            scp.report(association, information(UIDS, transaction_uid="2.25.7"))

        scp.reply = reply
        result = ask(scp.port)
    assert [report.transaction_uid for report in result.reports] == ["2.25.1", "2.25.7"]


def test_a_report_that_is_none_is_refused_and_the_wait_goes_on() -> None:
    with CommittingScp().serving() as scp:

        def reply(association: Any, _asked: Dataset) -> None:
            scp.report(association, information(UIDS), 3)
            scp.report(association, information(UIDS), 1, instance="1.2.3")
            scp.report(association, information(("1.2.3",), transaction_uid="no UID"))
            scp.report(association, information(UIDS))

        scp.reply = reply
        result = ask(scp.port)
    assert scp.answers == [0x0113, 0x0112, 0x0115, 0x0000]
    assert [report.transaction_uid for report in result.reports] == ["2.25.7"]


@pytest.mark.parametrize("status", [0x0112, 0x0122, 0x0124, 0x0211])
def test_a_destination_that_accepts_the_context_and_does_not_do_it_does_not_offer_it(status: int) -> None:
    with CommittingScp(status=status).serving() as scp:
        assert ask(scp.port) == AskResult(asked=Asked.NOT_OFFERED, detail=f"status 0x{status:04X}")


@pytest.mark.parametrize("status", [0x0110, 0x0213, 0xC000])
def test_a_status_that_may_pass_is_a_refusal(status: int) -> None:
    with CommittingScp(status=status).serving() as scp:
        assert ask(scp.port) == AskResult(asked=Asked.REFUSED, detail=f"status 0x{status:04X}")


def announcing_nothing() -> list[Reference]:
    raise AssertionError("a request is announced that is not sent")


def silent_ask(port: int, announced: Callable[[], list[Reference]] = announcing_nothing) -> AskResult:
    destination = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)
    settings = DeliverySettings(connect_seconds=2, send_seconds=0.3)
    return CommitmentScu(destination, calling_ae="PNEUMONIA", settings=settings).ask("2.25.7", announced)


def test_a_destination_without_storage_commitment_is_a_value_and_nothing_is_announced() -> None:
    with CommittingScp(sop_class=VERIFICATION).serving() as scp:
        assert silent_ask(scp.port).asked is Asked.NOT_OFFERED


def test_a_destination_that_is_down_is_a_value_and_nothing_is_announced(free_port: int) -> None:
    result = silent_ask(free_port)
    assert result == AskResult(asked=Asked.UNREACHABLE, detail="no connection: Connection refused")


def test_nothing_is_sent_when_nothing_is_left_to_ask_about() -> None:
    with CommittingScp().serving() as scp:
        assert silent_ask(scp.port, list).asked is Asked.UNREACHABLE
        assert scp.asked == []


def test_an_announcement_that_fails_aborts_the_association_and_is_raised() -> None:
    def announcing_fails() -> list[Reference]:
        raise ZeroDivisionError

    with CommittingScp().serving() as scp:
        with pytest.raises(ZeroDivisionError):
            silent_ask(scp.port, announcing_fails)
        wait_until(lambda: scp.aborts == 1)
        assert scp.asked == []


@pytest.mark.parametrize(
    "answer",
    [None, b"HTTP/1.1 400\r\n\r\n", struct.pack(">BxL", 2, 0xFFFF_FFFF), bytes((3, 0, 0, 0, 0, 4, 0, 1, 1, 3))],
    ids=["closes", "other protocol", "four gibibytes", "rejects us"],
)
def test_whatever_a_destination_says_instead_of_an_association_is_a_value(answer: bytes | None) -> None:
    with answering(answer=answer) as port:
        assert silent_ask(port).asked is Asked.UNREACHABLE


def test_a_request_without_a_response_in_time_is_a_refusal() -> None:
    with answering(answer=accepting()) as port:
        result = silent_ask(port, lambda: REFERENCES)
    assert (result.asked, result.detail) == (Asked.REFUSED, "peer does not answer in time")


def accepting() -> bytes:
    """Return an A-ASSOCIATE-AC that accepts the first context, PS3.8 section 9.3.3."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x21, bytes((1, 0, 0, 0)) + item(0x40, EXPLICIT.encode()))
    items += item(0x50, item(0x51, struct.pack(">L", 16_384)) + item(0x52, b"1.2.3.4"))
    payload = struct.pack(">HH", 1, 0) + b"PACS".ljust(16) + b"PNEUMONIA".ljust(16) + bytes(32) + items
    return struct.pack(">BxL", 2, len(payload)) + payload


def item(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(payload)) + payload
