"""Reports on their way to a destination that takes them, refuses them, or fails in every way there is."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from typing import Any, Final

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF

from scp_node.delivery import Disposition, SendResult, StorageScu
from scp_node.delivery.association import data_pdus
from scp_node.settings import COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ENHANCED_SR, DeliverySettings, DestinationSettings
from tests.scp_node.delivery.scp import EXPLICIT, IMPLICIT, SR_CLASSES, Scp, answering
from tests.waiting import wait_until

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
REJECTED_FOR_GOOD: Final = bytes((3, 0, 0, 0, 0, 4, 0, 1, 1, 7))
REJECTED_FOR_NOW: Final = bytes((3, 0, 0, 0, 0, 4, 0, 2, 3, 2))
ABORT: Final = bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0))


def report(text: str = "") -> bytes:
    """Return a report file."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = COMPREHENSIVE_3D_SR
    dataset.SOPInstanceUID = "2.25.1"
    dataset.PatientName = "Müller^Zoë"
    dataset.TextValue = text
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def recast(file: bytes, sop_class: str) -> bytes:
    dataset = dcmread(BytesIO(file))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    recast_file = BytesIO()
    dataset.save_as(recast_file, enforce_file_format=True)
    return recast_file.getvalue()


OpenScu = Callable[..., StorageScu]


@pytest.fixture
def open_scu() -> Iterator[OpenScu]:
    with ExitStack() as stack:

        def open_(port: int, **settings: float) -> StorageScu:
            scu = StorageScu(
                DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=port),
                calling_ae="PNEUMONIA",
                sop_classes=SR_CLASSES,
                other_sop_classes=[SECONDARY_CAPTURE],
                settings=DeliverySettings(**settings),
                recast=recast,
            )
            stack.callback(scu.close)
            return scu

        yield open_


@pytest.fixture
def scp() -> Iterator[Scp]:
    with Scp().serving() as scp:
        yield scp


def dataset_of(file: bytes) -> bytes:
    length = struct.unpack_from("<L", file, 140)[0]
    return file[144 + length :]


def test_a_report_is_delivered_byte_for_byte(scp: Scp, open_scu: OpenScu) -> None:
    result = open_scu(scp.port).send(report())
    assert result == SendResult(
        disposition=Disposition.DELIVERED, status=0x0000, sop_class_uid=COMPREHENSIVE_3D_SR, detail=""
    )
    assert scp.stored == [(COMPREHENSIVE_3D_SR, EXPLICIT, dataset_of(report()))]


@pytest.mark.parametrize(
    ("status", "disposition"),
    [
        (0xB000, Disposition.DELIVERED),
        (0xB007, Disposition.DELIVERED),
        (0xB123, Disposition.DELIVERED),
        (0x0107, Disposition.DELIVERED),
        (0xA700, Disposition.BUSY),
        (0xC000, Disposition.PERMANENT),
        (0x0124, Disposition.PERMANENT),
    ],
)
def test_the_status_of_the_destination_is_returned(
    scp: Scp, open_scu: OpenScu, status: int, disposition: Disposition
) -> None:
    scp.statuses = [status]
    result = open_scu(scp.port).send(report())
    assert (result.status, result.disposition) == (status, disposition)
    assert result.sop_class_uid == COMPREHENSIVE_3D_SR
    said = "warning" if disposition is Disposition.DELIVERED else "status"
    assert result.detail.startswith(f"{said} 0x{status:04X}")


@pytest.mark.parametrize("status", [0x0122, 0xA900, 0xA9FF])
def test_a_sop_class_that_is_accepted_and_then_refused_is_left_for_the_next_and_remembered(
    scp: Scp, open_scu: OpenScu, status: int
) -> None:
    scp.statuses = [status]
    scu = open_scu(scp.port)
    assert [scu.send(report()).disposition for _ in range(2)] == 2 * [Disposition.DELIVERED]
    assert [stored[0] for stored in scp.stored] == [COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, COMPREHENSIVE_SR]


def test_a_destination_that_refuses_every_sop_class_has_said_no_for_good(scp: Scp, open_scu: OpenScu) -> None:
    scp.statuses = 3 * [0x0122]
    result = open_scu(scp.port).send(report())
    assert (result.status, result.disposition) == (0x0122, Disposition.PERMANENT)
    assert [stored[0] for stored in scp.stored] == list(SR_CLASSES)


def test_what_goes_with_a_report_is_sent_as_it_is(open_scu: OpenScu) -> None:
    picture = recast(report(), SECONDARY_CAPTURE)
    with Scp(sop_classes=(*SR_CLASSES, SECONDARY_CAPTURE)).serving() as scp:
        scu = open_scu(scp.port)
        assert [scu.send(file).sop_class_uid for file in (picture, report())] == [SECONDARY_CAPTURE, SR_CLASSES[0]]
        assert scp.stored[0] == (SECONDARY_CAPTURE, EXPLICIT, dataset_of(picture))


def test_what_goes_with_a_report_never_becomes_a_report(scp: Scp, open_scu: OpenScu) -> None:
    result = open_scu(scp.port).send(recast(report(), SECONDARY_CAPTURE))
    assert (result.disposition, result.detail) == (Disposition.PERMANENT, "no SOP class is accepted")
    assert scp.stored == []


@pytest.mark.parametrize("accepted", [(COMPREHENSIVE_SR, ENHANCED_SR), (ENHANCED_SR,)])
def test_the_best_accepted_sop_class_is_used(open_scu: OpenScu, accepted: tuple[str, ...]) -> None:
    with Scp(sop_classes=accepted).serving() as scp:
        result = open_scu(scp.port).send(report())
        [(sop_class, _, data)] = scp.stored
    assert result.disposition is Disposition.DELIVERED
    assert result.sop_class_uid == sop_class == accepted[0]
    assert decode(BytesIO(data), is_implicit_vr=False, is_little_endian=True).SOPClassUID == accepted[0]


def test_a_destination_that_takes_no_report_at_all_says_no_for_good(open_scu: OpenScu) -> None:
    with Scp(sop_classes=()).serving() as scp:
        scu = open_scu(scp.port)
        result = scu.send(report())
        assert scu.echo()
    assert result == SendResult(
        disposition=Disposition.PERMANENT, status=None, sop_class_uid="", detail="no SOP class is accepted"
    )


def test_implicit_vr_is_sent_where_only_that_is_taken(open_scu: OpenScu) -> None:
    with Scp(syntaxes=(IMPLICIT,)).serving() as scp:
        assert open_scu(scp.port).send(report()).disposition is Disposition.DELIVERED
        [(_, syntax, data)] = scp.stored
    assert syntax == IMPLICIT
    assert decode(BytesIO(data), is_implicit_vr=True, is_little_endian=True).PatientName == "Müller^Zoë"


def test_a_large_report_goes_in_many_pdus(scp: Scp, open_scu: OpenScu) -> None:
    large = report("x" * 60_000)
    scp.ae.maximum_pdu_size = 4_096
    assert open_scu(scp.port).send(large).disposition is Disposition.DELIVERED
    assert scp.stored[0][2] == dataset_of(large)


@pytest.mark.parametrize("maximum", [8, 1_000, 16_384, 131_072])
@pytest.mark.parametrize("size", [0, 1, 2, 16_378, 16_379, 300_000])
def test_a_dataset_goes_in_the_pdus_of_pynetdicom(size: int, maximum: int) -> None:
    dataset = (bytes(range(251)) * (size // 251 + 1))[: min(size, 2_000 * maximum)]
    message = C_STORE_RQ()
    message.data_set = BytesIO(dataset)
    whole = b"".join(P_DATA_TF(each).encode() for each in message.encode_msg(7, maximum))
    message.data_set = BytesIO()
    command = b"".join(P_DATA_TF(each).encode() for each in message.encode_msg(7, maximum))
    assert command + b"".join(data_pdus(memoryview(dataset), 7, maximum)) == whole


def test_the_association_is_kept_while_there_is_work(scp: Scp, open_scu: OpenScu) -> None:
    scu = open_scu(scp.port)
    for _ in range(5):
        scu.send(report())
        scu.close_if_idle()
    assert scp.associations == 1
    scu.close()
    scu.send(report())
    assert scp.associations == 2


def test_an_idle_association_is_released(scp: Scp, open_scu: OpenScu) -> None:
    scu = open_scu(scp.port, keep_open_seconds=1e-9)
    scu.send(report())
    scu.close_if_idle()
    scu.send(report())
    assert scp.associations == 2
    assert wait_until(lambda: scp.releases)


def test_a_kept_association_that_the_destination_left_is_replaced_without_a_failure(
    scp: Scp, open_scu: OpenScu
) -> None:
    scu = open_scu(scp.port)
    scu.send(report())
    for association in scp.ae.active_associations:
        association.abort()
    assert scu.send(report()).disposition is Disposition.DELIVERED
    assert scp.associations == 2


def test_an_echo_after_the_destination_left_is_asked_again(scp: Scp, open_scu: OpenScu) -> None:
    scu = open_scu(scp.port)
    assert scu.echo()
    for association in scp.ae.active_associations:
        association.abort()
    assert scu.echo()


def test_a_kept_association_that_breaks_during_the_store_is_tried_once_more(scp: Scp, open_scu: OpenScu) -> None:
    def abort_second(event: evt.Event) -> None:
        if len(scp.stored) == 1:
            event.assoc.abort()

    scp.on_store = abort_second
    scu = open_scu(scp.port)
    assert scu.send(report()).disposition is Disposition.DELIVERED
    assert scu.send(report()).disposition is Disposition.DELIVERED
    assert [data for _, _, data in scp.stored] == [dataset_of(report())] * 3


def test_a_new_association_that_breaks_is_not_tried_again_at_once(scp: Scp, open_scu: OpenScu) -> None:
    scp.on_store = lambda event: event.assoc.abort()
    result = open_scu(scp.port).send(report())
    assert (result.disposition, result.status) == (Disposition.UNANSWERED, None)
    assert result.detail == "peer aborted the association"
    assert len(scp.stored) == 1


def test_echo_returns_whether_the_destination_answers(scp: Scp, open_scu: OpenScu, free_port: int) -> None:
    assert open_scu(scp.port).echo()
    assert not open_scu(free_port).echo()
    assert scp.stored == []


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (REJECTED_FOR_GOOD, "association rejected 1/1/7: Called AE title not recognised"),
        (REJECTED_FOR_NOW, "association rejected 2/3/2: Local limit exceeded"),
        (ABORT, "peer aborted the association"),
        (None, "peer closed the connection"),
        (b"\x02\0\0\0\0\x04\0\0\0\0", "answer names none of our contexts"),
        (b"\x02\0\0\0\0\x49" + bytes(68) + b"\x21\0\0\x09\1", "malformed PDU"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "PDU is longer than allowed"),
        (b"\x05\0\0\0\0\x04\0\0\0\0", "peer released the association"),
        (b"\x04\0\0\0\0\x04\0\0\0\0", "unexpected PDU"),
        (b"\x03\0\0\0\0\x04\0\x02\x09\x09", "association rejected 2/9/9: unknown reason"),
        (b"\x4a\0\0\0\x0a\x38.0.36", "PDU of an unknown type"),
    ],
)
def test_an_association_that_does_not_come_about_is_a_value(
    open_scu: OpenScu, answer: bytes | None, detail: str
) -> None:
    with answering(answer=answer) as port:
        scu = open_scu(port)
        result = scu.send(report())
        assert not scu.echo()
    assert (result.disposition, result.status, result.sop_class_uid) == (Disposition.UNREACHABLE, None, "")
    assert result.detail.startswith(detail)


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_host_name_that_is_none_is_a_value(host: str) -> None:
    scu = StorageScu(
        DestinationSettings(name="pacs", ae_title="PACS", host=host, port=104),
        calling_ae="PNEUMONIA",
        sop_classes=SR_CLASSES,
        settings=DeliverySettings(),
        recast=recast,
    )
    result = scu.send(report())
    assert (result.disposition, result.detail) == (
        Disposition.UNREACHABLE,
        "no connection: host name is malformed",
    )
    assert not scu.echo()


def test_a_destination_that_is_not_there_is_a_value(open_scu: OpenScu, free_port: int) -> None:
    result = open_scu(free_port).send(report())
    assert (result.disposition, result.status) == (Disposition.UNREACHABLE, None)
    assert result.detail == "no connection: Connection refused"


def test_a_name_that_nobody_knows_is_a_value() -> None:
    scu = StorageScu(
        DestinationSettings(name="pacs", ae_title="PACS", host="nowhere.invalid", port=104),
        calling_ae="PNEUMONIA",
        sop_classes=SR_CLASSES,
        settings=DeliverySettings(),
        recast=recast,
    )
    assert scu.send(report()).disposition is Disposition.UNREACHABLE


def test_a_silent_destination_costs_the_connect_time_out(open_scu: OpenScu) -> None:
    with answering(answer=b"") as port:
        started = time.monotonic()
        result = open_scu(port, connect_seconds=0.3).send(report())
        assert 0.3 <= time.monotonic() - started < 3
    assert (result.disposition, result.detail) == (Disposition.UNREACHABLE, "peer does not answer in time")


def test_a_store_that_is_never_answered_costs_the_send_time_out(open_scu: OpenScu) -> None:
    with answering(answer=acceptance()) as port:
        started = time.monotonic()
        result = open_scu(port, send_seconds=0.3).send(report())
        assert 0.3 <= time.monotonic() - started < 3
    assert (result.disposition, result.detail) == (Disposition.UNANSWERED, "peer does not answer in time")


def test_a_destination_that_stops_reading_costs_the_send_time_out(open_scu: OpenScu) -> None:
    with answering(answer=acceptance(), then_read=False, buffer=4_096) as port:
        started = time.monotonic()
        result = open_scu(port, send_seconds=0.5).send(report("x" * 20_000_000))
        assert 0.5 <= time.monotonic() - started < 5
    assert (result.disposition, result.detail) == (Disposition.UNANSWERED, "peer does not read in time")


@pytest.mark.parametrize(
    "response",
    [{"Status": None}, {"MessageIDBeingRespondedTo": 99}],
    ids=["without a status", "to another request"],
)
def test_a_response_that_is_none_is_a_lost_connection(open_scu: OpenScu, response: dict[str, Any]) -> None:
    with answering(answer=acceptance() + store_response(**response)) as port:
        result = open_scu(port).send(report())
    assert (result.disposition, result.status) == (Disposition.UNANSWERED, None)
    assert result.detail == "response without a status, or to another request"


def test_the_control_of_the_two_above_a_sound_response_is_taken(open_scu: OpenScu) -> None:
    with answering(answer=acceptance() + store_response()) as port:
        assert open_scu(port).send(report()).disposition is Disposition.DELIVERED


def test_a_context_that_was_not_proposed_is_not_used(open_scu: OpenScu) -> None:
    with answering(answer=acceptance(syntax="1.2.840.10008.1.2.2")) as port:
        assert open_scu(port).send(report()).detail == "no SOP class is accepted"


def test_an_acceptance_that_names_no_transfer_syntax_is_a_lost_connection(open_scu: OpenScu) -> None:
    with answering(answer=acceptance(syntax="")) as port:
        result = open_scu(port).send(report())
    assert (result.disposition, result.detail) == (Disposition.UNREACHABLE, "malformed PDU: IndexError")


def acceptance(*, syntax: str = EXPLICIT) -> bytes:
    """Return an A-ASSOCIATE-AC that accepts the first context, PS3.8 section 9.3.3."""
    context = _item(0x21, bytes((1, 0, 0, 0)) + _item(0x40, syntax.encode()))
    user = _item(0x50, _item(0x51, struct.pack(">L", 0)) + _item(0x52, b"1.2.3"))
    fixed = struct.pack(">HH", 1, 0) + b"PACS".ljust(16) + b"PNEUMONIA".ljust(16) + bytes(32)
    payload = fixed + _item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return struct.pack(">BxL", 2, len(payload)) + payload


def store_response(**replaced: int | None) -> bytes:
    """Return a C-STORE-RSP in a PDU."""
    usual = {"CommandField": 0x8001, "MessageIDBeingRespondedTo": 1, "CommandDataSetType": 0x0101, "Status": 0x0000}
    numbers = {"CommandField": 0x100, "MessageIDBeingRespondedTo": 0x120, "CommandDataSetType": 0x800, "Status": 0x900}
    values = {**usual, **replaced}
    command = b"".join(
        struct.pack("<HHLH", 0, numbers[keyword], 2, value) for keyword, value in values.items() if value is not None
    )
    return struct.pack(">BxLLBB", 4, len(command) + 6, len(command) + 2, 1, 3) + command


def _item(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(payload)) + payload
