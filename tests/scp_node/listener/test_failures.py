"""Connections that come to nothing: whom they are held against, and who is served all the same."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

import pytest

from scp_node.listener.association import NodeAssociation
from scp_node.listener.connections import TOO_MANY_FAILED, UNDECIDED_OF_ONE, UNKNOWN_PDU
from scp_node.listener.failures import MOST_ADDRESSES, FailedConnections
from scp_node.listener.waiting import PLACES_OF_ONE
from tests.scp_node.listener.conftest import Running, Start
from tests.scp_node.listener.peer import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, CLOSED, Peer
from tests.waiting import wait_until

STRANGER: Final = "127.0.0.9"
PEERS: Final = [{"ae_title": "MODALITY1", "address": "127.0.0.1"}]
ALLOWED: Final = 3  # connections that may fail


@pytest.fixture
def strict(start_listener: Start) -> Running:
    """A listener that knows one peer, and lets few connections of an address fail."""
    return start_listener(peers=PEERS, listen={"failed_connections_per_minute": ALLOWED, "acse_timeout_seconds": 1})


def babble(running: Running, source: str = "127.0.0.1") -> int:
    """Send what is no PDU, and return what comes back first."""
    with Peer(running.address, source=source) as peer, contextlib.suppress(OSError):
        peer.send_raw(b"GET / HTTP/1.1\r\n\r\n")
        return peer.receive()[0]
    return CLOSED


def associations() -> int:
    return sum(isinstance(each, NodeAssociation) for each in threading.enumerate())


def exhaust(running: Running, source: str = "127.0.0.1") -> None:
    """Fail until no more may."""
    assert [babble(running, source) for _ in range(ALLOWED)] == [ABORT] * ALLOWED
    wait_until(lambda: not associations(), what="they are counted when they are over")


def test_a_stranger_that_fails_too_often_is_closed_before_a_byte_is_read(
    strict: Running, caplog: pytest.LogCaptureFixture
) -> None:
    exhaust(strict, STRANGER)
    caplog.clear()
    assert [babble(strict, STRANGER) for _ in range(5)] == [CLOSED] * 5
    [line] = caplog.messages  # one of an address and reason a minute
    assert line == f"connection refused peer={STRANGER} reason='{TOO_MANY_FAILED}'"
    with strict.peer() as peer:
        assert peer.echo().status == 0x0000


def test_what_is_no_pdu_is_aborted_without_a_thread(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(NodeAssociation, "start", lambda _: pytest.fail("a thread for it"))
    [server] = running.listener._servers
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as stranger:
        accepted, address = door.accept()
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        accepted.recv(1, socket.MSG_PEEK)  # it is there
        server.process_request(accepted, address)
        assert stranger.recv(100) == b"\x07\0\0\0\0\x04\0\0\0\0"
        assert stranger.recv(1) == b""
    assert caplog.messages == [f"association aborted calling_ae=unknown peer=127.0.0.1 reason='{UNKNOWN_PDU}'"]


def test_a_peer_that_shares_its_address_with_what_fails_is_served(strict: Running) -> None:
    exhaust(strict)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Peer(strict.address)) for _ in range(2 * PLACES_OF_ONE)]
        assert babble(strict) == CLOSED
        for _ in range(3):
            with strict.peer() as peer:
                assert peer.echo().status == 0x0000
                assert associations() <= 4  # of those that say nothing, only what a made good one allows has a thread
                peer.release()
        assert all(each.is_closed(within=5) for each in silent)


def test_connections_that_ask_for_nothing_have_few_threads_and_are_served_once_they_ask(running: Running) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Peer(running.address)) for _ in range(UNDECIDED_OF_ONE + PLACES_OF_ONE)]
        with running.peer() as peer:
            assert peer.echo().status == 0x0000
            assert associations() <= UNDECIDED_OF_ONE + 1
            peer.release()
        for each in silent[-5:]:
            assert each.associate()[0] == ASSOCIATE_AC
            assert each.echo().status == 0x0000


def test_a_modality_with_an_association_for_each_image_is_never_held_back(strict: Running) -> None:
    for _ in range(5):
        assert [babble(strict) for _ in range(2)] == [ABORT] * 2
        for _ in range(2):
            with strict.peer() as peer:
                assert peer.echo().status == 0x0000
                peer.release()
        wait_until(lambda: not associations())


def test_what_is_aborted_before_a_request_is_answered_counts_and_what_comes_later_does_not(strict: Running) -> None:
    for _ in range(2 * ALLOWED):
        with strict.peer() as peer:
            assert peer.echo().status == 0x0000
            peer.send(ABORT, bytes(4))
    wait_until(lambda: not associations())
    for _ in range(ALLOWED):
        with strict.peer() as peer:
            peer.send_store_command()
            peer.send(ABORT, bytes(4))
    wait_until(lambda: not associations())
    assert babble(strict) == CLOSED


def test_a_rejection_counts_unless_it_is_for_the_time_being(start_listener: Start) -> None:
    listen = {"failed_connections_per_minute": ALLOWED, "max_associations": 1}
    running = start_listener(peers=PEERS, listen=listen)
    with running.peer():
        for _ in range(2 * ALLOWED):
            with Peer(running.address) as peer:
                assert peer.associate()[0] == ASSOCIATE_RJ
        assert babble(running) == ABORT
    for _ in range(ALLOWED):
        with Peer(running.address) as peer:
            assert peer.associate(called="OTHER")[0] == ASSOCIATE_RJ
    wait_until(lambda: not associations())
    assert babble(running) == CLOSED


def test_nobody_is_held_back_where_any_number_may_fail(start_listener: Start) -> None:
    running = start_listener(peers=PEERS, listen={"failed_connections_per_minute": 0})
    assert [babble(running, STRANGER) for _ in range(130)] == [ABORT] * 130


def test_connections_that_wait_are_closed_with_the_listener(strict: Running) -> None:
    exhaust(strict)
    with Peer(strict.address) as peer:
        wait_until(lambda: not associations())
        strict.listener.stop(1)
        assert peer.is_closed(within=2)


def test_tokens_come_back_with_time_and_with_each_association_of_use() -> None:
    now = [0.0]
    failures = FailedConnections(60, clock=lambda: now[0])
    for _ in range(200):
        failures.add("10.0.0.1")
    assert failures.are_too_many("10.0.0.1")
    assert not failures.are_too_many("10.0.0.2")
    now[0] = 1.0
    assert not failures.are_too_many("10.0.0.1")
    failures.add("10.0.0.1")
    assert failures.are_too_many("10.0.0.1")
    failures.make_good("10.0.0.1")
    assert not failures.are_too_many("10.0.0.1")


def test_as_many_addresses_are_remembered_as_the_table_holds() -> None:
    failures = FailedConnections(1, clock=lambda: 0.0)
    for number in range(MOST_ADDRESSES + 1):
        failures.add(str(number))
    assert not failures.are_too_many("0")
    assert failures.are_too_many("1")


def test_a_request_that_comes_in_parts_is_let_in(strict: Running) -> None:
    exhaust(strict)
    with Peer(strict.address) as peer:
        peer.send_raw(b"\x01")
        wait_until(associations)
        assert peer.says_nothing(0)
    with strict.peer() as peer:
        assert peer.release() != ASSOCIATE_AC
