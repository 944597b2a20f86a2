"""An association that ends early is reported, with the studies that it may have left incomplete."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from typing import Final

import pytest

from scp_node.listener.transfers import Cut, Part, Transfers
from tests.scp_node.listener.conftest import Running, Start
from tests.scp_node.listener.datasets import radiograph
from tests.scp_node.listener.peer import (
    ABORT,
    CLOSED,
    COMMAND_FIELD,
    DATASET_TYPE,
    DX,
    MESSAGE_ID,
    PRIORITY,
    SOP_CLASS,
    SOP_INSTANCE,
    Peer,
    encoded_command,
)
from tests.waiting import wait_until


def stored(peer: Peer, uid: str = "1.2.3", study: str = "1.2.3.1") -> None:
    image = radiograph(SOPInstanceUID=uid, StudyInstanceUID=study)
    assert peer.store(image, sop_instance=uid).status == 0x0000


def begin(peer: Peer, uid: str, study: str = "1.2.3.1", *, length: int = 400) -> None:
    """Send the command of a C-STORE and the beginning of its dataset."""
    elements = {SOP_CLASS: DX, COMMAND_FIELD: 1, MESSAGE_ID: 7, PRIORITY: 0, DATASET_TYPE: 1, SOP_INSTANCE: uid}
    peer.send_pdv(1, encoded_command(elements), is_command=True)
    peer.send_pdv(1, radiograph(SOPInstanceUID=uid, StudyInstanceUID=study)[:length], is_last=False)


def reported_ends(running: Running) -> list[tuple[tuple[str, ...], bool, str]]:
    """Return the ends that were handed on, once there is one."""
    wait_until(lambda: running.ended)
    return [(ended.study_uids, ended.complete, ended.cut_instance) for ended in running.ended]


def abort(peer: Peer) -> None:
    peer.send(ABORT, bytes(4))


def close(peer: Peer) -> None:
    peer._socket.close()


def reset(peer: Peer) -> None:
    peer._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer._socket.close()


def test_a_released_association_has_sent_its_studies(running: Running) -> None:
    with running.peer() as peer:
        stored(peer)
        stored(peer, "1.2.4", "1.2.3.9")
        peer.release()
    assert reported_ends(running) == [(("1.2.3.1", "1.2.3.9"), True, "")]


@pytest.mark.parametrize("end", [abort, close, reset])
def test_an_association_that_is_not_released_has_left_its_studies_in_doubt(
    running: Running, end: Callable[[Peer], None]
) -> None:
    with running.peer() as peer:
        stored(peer)
        end(peer)
        assert reported_ends(running) == [(("1.2.3.1",), False, "")]
    [ended] = running.ended
    assert (ended.calling_ae, ended.peer) == ("MODALITY1", "127.0.0.1")
    assert ended.began_at < ended.at


CLOSER: Final = {"ae_title": "CT1", "address": "127.0.0.1", "ends_by_closing": True}
OTHER: Final = {"ae_title": "*", "address": "127.0.0.0/8"}


def closer(running: Running) -> Peer:
    """Return a peer that is known to end its transfers without A-RELEASE."""
    return running.peer(calling="CT1")


@pytest.mark.parametrize("end", [close, reset])
def test_a_peer_that_is_set_as_one_that_closes_has_sent_its_studies(
    start_listener: Start, caplog: pytest.LogCaptureFixture, end: Callable[[Peer], None]
) -> None:
    running = start_listener(peers=[OTHER, CLOSER])
    with closer(running) as peer:
        stored(peer)
        stored(peer, "1.2.4", "1.2.3.9")
        end(peer)
        assert reported_ends(running) == [(("1.2.3.1", "1.2.3.9"), True, "")]
    assert "studies may be incomplete" not in caplog.text


def test_another_peer_that_closes_has_left_its_studies_in_doubt_all_the_same(start_listener: Start) -> None:
    running = start_listener(peers=[OTHER, CLOSER])
    with running.peer() as peer:
        stored(peer)
        close(peer)
        assert reported_ends(running) == [(("1.2.3.1",), False, "")]


def test_an_abort_of_a_peer_that_closes_is_an_interruption(start_listener: Start) -> None:
    running = start_listener(peers=[CLOSER])
    with closer(running) as peer:
        stored(peer)
        abort(peer)
        assert reported_ends(running) == [(("1.2.3.1",), False, "")]


@pytest.mark.parametrize("end", [close, reset])
def test_a_peer_that_closes_within_a_message_has_not_sent_its_study(
    start_listener: Start, end: Callable[[Peer], None]
) -> None:
    running = start_listener(peers=[CLOSER])
    with closer(running) as peer:
        stored(peer)
        begin(peer, "1.2.4")
        end(peer)
        assert reported_ends(running) == [(("1.2.3.1",), False, "1.2.4")]


@pytest.mark.parametrize("part", [b"\4\0\0", b"\4\0\0\0\0\x64", b"\4\0\0\0\0\x64abc", b"\4\0\0\0\0\6", b"\1"])
def test_a_peer_that_closes_within_a_pdu_has_not_sent_its_study(start_listener: Start, part: bytes) -> None:
    running = start_listener(peers=[CLOSER])
    with closer(running) as peer:
        stored(peer)
        peer.send_raw(part)
        close(peer)
        assert reported_ends(running) == [(("1.2.3.1",), False, "")]


def test_a_node_that_stops_leaves_the_study_of_a_peer_that_closes_in_doubt(start_listener: Start) -> None:
    running = start_listener(peers=[CLOSER])
    with closer(running) as peer:
        stored(peer)
        running.listener.stop(0.3)
        assert reported_ends(running) == [(("1.2.3.1",), False, "")]


@pytest.mark.parametrize("end", [abort, close, reset])
def test_a_message_that_is_cut_off_names_its_instance(running: Running, end: Callable[[Peer], None]) -> None:
    with running.peer() as peer:
        stored(peer)
        begin(peer, "1.2.4")
        end(peer)
        assert reported_ends(running) == [(("1.2.3.1",), False, "1.2.4")]


def test_an_association_whose_only_message_is_cut_off_names_the_study_as_far_as_it_came(running: Running) -> None:
    with running.peer() as peer:
        begin(peer, "1.2.4", "1.2.3.9")
        abort(peer)
        assert reported_ends(running) == [(("1.2.3.9",), False, "1.2.4")]


def test_a_message_that_is_cut_off_before_its_study_is_known_says_nothing(running: Running) -> None:
    with running.peer() as peer:
        begin(peer, "1.2.4", length=60)
        abort(peer)
        assert peer.receive()[0] == CLOSED
    with running.peer() as peer:
        stored(peer)
        peer.release()
    assert reported_ends(running) == [(("1.2.3.1",), True, "")]


def test_a_peer_that_may_not_store_puts_no_study_in_doubt(start_listener: Start) -> None:
    running = start_listener(peers=[{"ae_title": "MODALITY1", "address": "127.0.0.2/32"}])
    with running.peer(calling="PNEUMONIA") as peer:
        begin(peer, "1.2.4")
        abort(peer)
        assert peer.receive()[0] == CLOSED
    with Peer(running.address, source="127.0.0.2") as peer:
        peer.associate()
        stored(peer)
        peer.release()
    assert reported_ends(running) == [(("1.2.3.1",), True, "")]


def test_an_echo_that_is_not_released_says_nothing_of_any_study(running: Running) -> None:
    with running.peer() as peer:
        peer.echo()
        abort(peer)
        assert peer.receive()[0] == CLOSED
    assert running.ended == []


def test_an_association_that_is_idle_between_messages_is_ended_by_us_and_is_no_interruption(
    start_listener: Start,
) -> None:
    running = start_listener(listen={"network_timeout_seconds": 0.3})
    with running.peer() as peer:
        stored(peer)
        assert peer.is_closed()
    assert reported_ends(running) == [(("1.2.3.1",), True, "")]


def test_an_association_that_stops_within_a_message_is_an_interruption(start_listener: Start) -> None:
    running = start_listener(listen={"network_timeout_seconds": 0.3})
    with running.peer() as peer:
        stored(peer)
        begin(peer, "1.2.4")
        assert peer.is_closed()
    assert reported_ends(running) == [(("1.2.3.1",), False, "1.2.4")]


def test_a_request_that_we_do_not_serve_ends_the_association_and_is_an_interruption(running: Running) -> None:
    with running.peer() as peer:
        stored(peer)
        peer.send_pdv(1, b"no command set", is_command=True)
        assert peer.is_closed()
    assert reported_ends(running) == [(("1.2.3.1",), False, "")]


def test_what_is_cut_off_because_the_node_stops_is_reported_before_stop_returns(start_listener: Start) -> None:
    running = start_listener()
    with running.peer() as idle, running.peer() as busy:
        stored(idle)
        stored(busy, "1.2.5", "1.2.3.9")
        begin(busy, "1.2.6", "1.2.3.9")
        [server] = running.listener._servers
        wait_until(lambda: any(association.busy for association in server.associations()))
        stopping = threading.Thread(target=running.listener.stop, args=(0.3,))
        stopping.start()
        stopping.join(10)
        assert sorted(reported_ends(running)) == [(("1.2.3.1",), False, ""), (("1.2.3.9",), False, "1.2.6")]


def test_a_study_of_which_nothing_came_for_long_is_not_put_in_doubt_by_what_follows_on_the_association() -> None:
    transfers = Transfers(idle_seconds=60, began_at=None)  # type: ignore[arg-type]  # not looked at here
    transfers.stored("old", at=0)
    transfers.stored("new", at=50)
    assert transfers.take_sent(at=55) == ()
    transfers.stored("new", at=70)
    assert transfers.take_sent(at=70) == ("old",)
    assert transfers.interrupted(None, at=71) == [Part(()), Part(("new",), complete=False)]
    assert transfers.take_all() == ()


def test_the_time_that_a_message_took_before_it_was_cut_off_does_not_count_as_idle() -> None:
    transfers = Transfers(idle_seconds=60, began_at=None)  # type: ignore[arg-type]
    transfers.stored("slow", at=0)
    cut = Cut(began=10, sop_instance_uid="1.2.3", study_uid="slow")
    assert transfers.interrupted(cut, at=500) == [Part(()), Part(("slow",), complete=False, cut_instance="1.2.3")]
