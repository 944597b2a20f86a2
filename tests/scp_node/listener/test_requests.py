"""Association requests as senders write them: accepted or rejected by the standard, each with a line in the log."""

from __future__ import annotations

import logging
import socket
import struct
from typing import Final

import pytest
from pynetdicom.dimse_messages import LOGGER as LIBRARY_LOG

from scp_node.dicom.encoding import DamagedError
from scp_node.listener.request import is_ae_title, read_request
from scp_node.torture.peer import ECHO_COMMAND
from tests.scp_node.listener.conftest import Running, Start
from tests.scp_node.listener.datasets import radiograph
from tests.scp_node.listener.peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    CLOSED,
    DX,
    EXPLICIT,
    IMPLICIT,
    P_DATA,
    RELEASE_RP,
    VERIFICATION,
    Peer,
    associate_request,
    encoded_command,
    encoded_item,
)
from tests.waiting import wait_until

PEERS: Final = [{"ae_title": "MODALITY1", "address": "127.0.0.1"}]


def rejected(peer: Peer, **options: object) -> tuple[int, ...]:
    """Return result, source and diagnostic of the rejection."""
    kind, payload = peer.associate(**options)  # type: ignore[arg-type]  # the options of `associate`
    assert kind == ASSOCIATE_RJ, f"PDU type {kind} instead of a rejection"
    return tuple(payload[1:4])


@pytest.mark.parametrize("padding", [b"\0", b" ", b"\0 ", b" \0"], ids=["NULs", "spaces", "both", "both, turned"])
def test_titles_padded_with_nuls_or_spaces_are_those_of_the_peer_and_of_the_node(
    start_listener: Start, padding: bytes
) -> None:
    running = start_listener(peers=PEERS)
    fill = (padding * 16)[:16]
    called, calling = (title + fill[: 16 - len(title)].decode() for title in ("PNEUMONIA", "MODALITY1"))
    with Peer(running.address) as peer:
        assert peer.associate(called=called, calling=calling)[0] == ASSOCIATE_AC
        assert peer.store(radiograph()).status == 0x0000
        assert peer.release() == RELEASE_RP
    [received] = running.received
    assert (received.calling_ae, received.called_ae) == ("MODALITY1", "PNEUMONIA")
    assert running.spool.read(received.spool_path) == received


def test_what_is_left_of_an_older_title_behind_a_nul_does_not_belong_to_it(start_listener: Start) -> None:
    running = start_listener(peers=PEERS)
    with Peer(running.address) as peer:
        assert peer.associate(calling="MODALITY1\0OLD", called="PNEUMONIA\0\xff")[0] == ASSOCIATE_AC


@pytest.mark.parametrize(
    "calling",
    ["", "\0" * 16, " \0" * 8, "A\nB", "A\x1b[31mB", "A\\B", "R\xd6NTGEN"],
    ids=["spaces", "NULs", "both", "newline", "escape", "backslash", "not ASCII"],
)
def test_a_calling_title_that_is_none_is_rejected_with_a_line_in_the_log(
    running: Running, caplog: pytest.LogCaptureFixture, calling: str
) -> None:
    with Peer(running.address) as peer:
        assert rejected(peer, calling=calling) == (1, 1, 3)
    [line] = [record for record in caplog.records if record.getMessage().startswith("association refused")]
    assert line.levelno == logging.WARNING
    assert "peer=127.0.0.1 reason='calling AE title is blank or malformed'" in line.getMessage()
    assert "\n" not in line.getMessage()
    with running.peer() as peer:
        assert peer.echo().status == 0x0000


@pytest.mark.parametrize("called", ["", "\0" * 16, "PNEUM\0ONIA", "PNEUMONIA\\", "\xd6"])
def test_a_called_title_that_is_none_is_rejected_with_a_line_in_the_log(
    running: Running, caplog: pytest.LogCaptureFixture, called: str
) -> None:
    with Peer(running.address) as peer:
        assert rejected(peer, called=called) == (1, 1, 7)
    assert "association refused calling_ae=MODALITY1" in caplog.text
    assert "reason='called AE title is not ours'" in caplog.text


@pytest.mark.parametrize("version", [0x0001, 0x0003, 0x0005, 0x8001, 0xFFFF])
def test_a_protocol_version_with_bit_0_is_accepted(running: Running, version: int) -> None:
    with Peer(running.address) as peer:
        assert peer.associate(version=version)[0] == ASSOCIATE_AC
        assert peer.store(radiograph()).status == 0x0000


@pytest.mark.parametrize("version", [0x0000, 0x0002, 0x0100, 0xFFFE])
def test_a_protocol_version_without_bit_0_is_rejected_with_a_line_in_the_log(
    running: Running, caplog: pytest.LogCaptureFixture, version: int
) -> None:
    with Peer(running.address) as peer:
        assert rejected(peer, version=version) == (1, 2, 2)
    line = (
        "association refused calling_ae=MODALITY1 called_ae=PNEUMONIA peer=127.0.0.1 reason='protocol version is not 1'"
    )
    assert line in caplog.text


def test_items_that_the_node_does_not_know_are_skipped(running: Running) -> None:
    unknown = encoded_item(0x7F, b"anything")
    with Peer(running.address) as peer:
        assert peer.associate(items=unknown, user_items=encoded_item(0xAA, b"") + unknown)[0] == ASSOCIATE_AC
        assert peer.echo().status == 0x0000


@pytest.mark.parametrize(
    "item",
    [
        encoded_item(0x55, b"NAME\0"),
        encoded_item(0x55, b"A NAME OF MORE THAN 16"),
        encoded_item(0x55, b"N\xc4ME"),
        encoded_item(0x53, b"\0\x08\0\x08"),
        encoded_item(0x58, b"\x09\1\0\1a\0\0"),
        encoded_item(0x58, b"\1"),
        encoded_item(0x56, b"\0\x051.2.3"),
    ],
    ids=["NUL", "long name", "not ASCII", "asynchronous", "identity", "short identity", "extended"],
)
def test_what_a_requestor_negotiates_in_vain_and_how_it_calls_its_software_stop_nothing(
    running: Running, item: bytes
) -> None:
    with Peer(running.address) as peer:
        assert peer.associate(user_items=item)[0] == ASSOCIATE_AC
        assert peer.store(radiograph()).status == 0x0000


@pytest.mark.parametrize("syntaxes", [[], [""]], ids=["none", "empty"])
def test_a_context_without_a_transfer_syntax_is_rejected_alone(running: Running, syntaxes: list[str]) -> None:
    with Peer(running.address) as peer:
        assert peer.associate([(DX, syntaxes), (DX, [EXPLICIT]), (VERIFICATION, [IMPLICIT, ""])])[0] == ASSOCIATE_AC
        assert peer.results == {1: 4, 3: 0, 5: 0}
        assert peer.store(radiograph(), context=3).status == 0x0000
        assert peer.echo().status == 0x0000


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        (ASSOCIATE_RQ, b"\0\1\0\0", "PDU cannot be decoded"),
        (ASSOCIATE_RQ, associate_request([], calling="A", called="PNEUMONIA") + b"\x10\0\xff", "PDU cannot be decoded"),
        (
            ASSOCIATE_RQ,
            associate_request([], calling="A", called="PNEUMONIA") + encoded_item(0x20, bytes(4) + b"\x30" * 65_531),
            "PDU cannot be decoded",
        ),
        (P_DATA, b"", "unexpected PDU"),
        (0x47, b"", "unknown type of PDU"),
    ],
    ids=["short", "cut item", "huge context", "data", "HTTP"],
)
def test_a_request_that_cannot_be_read_is_aborted_with_a_line_in_the_log(
    running: Running, caplog: pytest.LogCaptureFixture, kind: int, payload: bytes, reason: str
) -> None:
    with Peer(running.address) as peer:
        peer.send(kind, payload)
        assert peer.receive()[0] == ABORT
    [line] = [record for record in caplog.records if record.getMessage().startswith("association aborted")]
    assert line.levelno == logging.WARNING
    assert "peer=127.0.0.1" in line.getMessage()
    assert f"reason='{reason}" in line.getMessage()


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        (ASSOCIATE_RQ, associate_request([], calling="OTHER", called="PNEUMONIA"), "unexpected PDU"),
        (0x47, b"", "unknown type of PDU"),
        (P_DATA, struct.pack(">LB", 1, 1), "message cannot be read"),
        (P_DATA, struct.pack(">LBB", 6, 1, 3) + b"none", "message cannot be read"),
    ],
    ids=["second request", "unknown", "value without a header", "no command set"],
)
def test_what_ends_an_association_is_in_the_log_with_the_sender(
    running: Running, caplog: pytest.LogCaptureFixture, kind: int, payload: bytes, reason: str
) -> None:
    with running.peer() as peer:
        peer.send(kind, payload)
        assert peer.receive()[0] == ABORT
    wait_until(lambda: "association aborted calling_ae=MODALITY1 peer=127.0.0.1" in caplog.text)
    assert f"reason='{reason}" in caplog.text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack(">BxL", P_DATA, 0xFFFF_FFFF), "PDU is longer than allowed"),
        (struct.pack(">BxL", P_DATA, 100) + b"half", "PDU does not come to its end in time"),
        (b"\x04\0\0", "PDU does not come to its end in time"),
    ],
    ids=["too long", "cut off", "cut header"],
)
def test_a_pdu_that_is_cut_off_is_in_the_log(
    start_listener: Start, caplog: pytest.LogCaptureFixture, data: bytes, reason: str
) -> None:
    running = start_listener(listen={"dimse_timeout_seconds": 0.3})
    with running.peer() as peer:
        peer.send_raw(data)
        assert peer.receive()[0] == CLOSED
    line = f"connection ended calling_ae=MODALITY1 peer=127.0.0.1 reason='{reason}'"
    wait_until(lambda: line in caplog.text)


def test_an_idle_association_ends_with_a_line_in_the_log(
    start_listener: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = start_listener(listen={"network_timeout_seconds": 0.2})
    with running.peer() as peer:
        assert peer.is_closed()
    wait_until(lambda: "association ended, idle for long calling_ae=MODALITY1 peer=127.0.0.1" in caplog.text)


def test_a_node_that_stops_says_whose_association_it_ends(
    start_listener: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = start_listener()
    with running.peer() as peer:
        running.listener.stop(1)
        assert peer.receive()[0] == ABORT
    wait_until(lambda: "association aborted calling_ae=MODALITY1 peer=127.0.0.1 reason=stopping" in caplog.text)


def test_a_connection_without_a_request_is_in_the_log_once_its_time_is_over(
    start_listener: Start, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_listener(listen={"acse_timeout_seconds": 0.2})
    with socket.create_connection(running.address) as connection:
        assert connection.recv(10) == b""
    wait_until(lambda: "connection ended calling_ae=unknown peer=127.0.0.1" in caplog.text)
    assert "reason='no association request in time'" in caplog.text


@pytest.mark.usefixtures("running")
def test_what_the_library_warns_of_is_in_the_log_with_its_place_and_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    LIBRARY_LOG.warning("Non-conformant value CANARY^PATIENT")
    LIBRARY_LOG.exception(ValueError("CANARY^PATIENT"))
    LIBRARY_LOG.info("not worth a line")
    lines = [record.getMessage() for record in caplog.records if record.name == "scp_node.listener.library_log"]
    place = "pynetdicom.dimse_messages.test_what_the_library_warns_of"
    assert [line.startswith(f"pynetdicom reports place={place}") for line in lines] == [True, True]
    assert [line.rpartition("=")[2] for line in lines] == ["none", "ValueError"]
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize(
    ("text", "is_title"),
    [("A", True), ("A B", True), ("A" * 16, True), ("A" * 17, False), ("", False), ("  ", False), ("A\tB", False)],
)
def test_an_ae_title_has_1_to_16_printable_characters(text: str, is_title: bool) -> None:
    assert is_ae_title(text) is is_title


def test_a_request_of_more_items_than_anybody_needs_is_not_read() -> None:
    payload = associate_request([], calling="A", called="B") + encoded_item(0x7F, b"") * 300
    with pytest.raises(DamagedError, match="too many items"):
        read_request(struct.pack(">BxL", ASSOCIATE_RQ, len(payload)) + payload)


def request_with(user_items: bytes | None) -> bytes:
    """Return a whole request with these items in its user information, or without any."""
    usual = associate_request([(VERIFICATION, [IMPLICIT])], calling="MODALITY1", called="PNEUMONIA")
    fixed = usual[: usual.index(b"\x50\0")]
    return fixed if user_items is None else fixed + encoded_item(0x50, user_items)


@pytest.mark.parametrize("user_items", [None, b"", encoded_item(0x52, b"1.2.3")], ids=["none", "empty", "no length"])
def test_a_requestor_that_names_no_maximum_length_gets_its_answers(running: Running, user_items: bytes | None) -> None:
    with Peer(running.address) as peer:
        peer.send(ASSOCIATE_RQ, request_with(user_items))
        assert peer.receive()[0] == ASSOCIATE_AC
        assert peer.echo(context=1).status == 0x0000


@pytest.mark.parametrize("length", [0, 7, 8, 100])
def test_a_requestor_of_small_pdus_gets_its_answers(running: Running, length: int) -> None:
    with Peer(running.address) as peer:
        peer.send(ASSOCIATE_RQ, request_with(encoded_item(0x51, length.to_bytes(4, "big"))))
        assert peer.receive()[0] == ASSOCIATE_AC
        peer.send_pdv(1, encoded_command(ECHO_COMMAND), is_command=True)
        answer = b""
        while not answer.endswith(struct.pack("<HHLH", 0, 0x0900, 2, 0)):  # Status, the last of its elements
            kind, payload = peer.receive()
            assert kind == P_DATA
            answer += payload[6:]


@pytest.mark.parametrize("length", range(1, 7))
def test_a_requestor_whose_pdus_have_no_room_for_data_is_aborted_with_a_line_in_the_log(
    running: Running, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    with Peer(running.address) as peer:
        peer.send(ASSOCIATE_RQ, request_with(encoded_item(0x51, length.to_bytes(4, "big"))))
        assert peer.receive()[0] == ABORT
    wait_until(lambda: "reason='PDU cannot be decoded: maximum length leaves no room for data'" in caplog.text)
    assert "Traceback" not in caplog.text


def test_a_request_of_many_items_is_read() -> None:
    payload = associate_request([], calling="A", called="B") + encoded_item(0x7F, b"") * 200
    pdu, stated = read_request(struct.pack(">BxL", ASSOCIATE_RQ, len(payload)) + payload)
    assert stated == (1, "B", "A")
    assert len(pdu) < 500
    assert int.from_bytes(pdu[2:6], "big") == len(pdu) - 6
