"""Who may associate, and what a hostile or broken peer can and cannot do."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import RequestHandler

from scp_node.dicom.syntaxes import TRANSFER_SYNTAXES
from scp_node.listener import Listener, ListenError, UnsupportedPynetdicomError
from scp_node.listener.association import LISTEN_BACKLOG, NodeServer
from scp_node.listener.connections import OF_ONE_STRANGER, STRANGER_TAKEN, STRANGERS
from scp_node.listener.contexts import STORAGE_CLASSES, accepted_contexts
from scp_node.listener.upper_layer import LARGEST_REQUEST, LONG_WAIT_SECONDS, MOST_VALUES
from scp_node.settings import Settings
from scp_node.spool import Spool
from tests.scp_node.listener.conftest import Running, Start
from tests.scp_node.listener.datasets import radiograph
from tests.scp_node.listener.peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    CLOSED,
    COMMAND_FIELD,
    DATASET_TYPE,
    DX,
    EXPLICIT,
    IMPLICIT,
    MESSAGE_ID,
    P_DATA,
    PRIORITY,
    SOP_CLASS,
    SOP_INSTANCE,
    VERIFICATION,
    Peer,
    associate_request,
    encoded_command,
)
from tests.scp_node.listener.stand_in import StandInAssociation, StandInSocket
from tests.waiting import wait_until

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"


def rejection(running: Running, *, calling: str = "MODALITY1", called: str = "PNEUMONIA") -> tuple[int, ...]:
    """Return result, source and diagnostic of the refusal."""
    with Peer(running.address) as peer:
        kind, payload = peer.associate(calling=calling, called=called)
        assert kind == ASSOCIATE_RJ
        return tuple(payload[1:4])


def may_associate(running: Running) -> bool:
    with Peer(running.address) as peer:
        return peer.associate()[0] == ASSOCIATE_AC


def test_a_known_peer_gets_its_echo(running: Running) -> None:
    with running.peer() as peer:
        assert peer.echo().status == 0x0000


def test_a_wrong_called_ae_title_is_rejected_for_good(running: Running) -> None:
    assert rejection(running, called="OTHER") == (1, 1, 7)


@pytest.mark.parametrize("calling", ["MODALITY2", "modality1"])
def test_an_unknown_calling_ae_title_is_rejected_for_good(start_listener: Start, calling: str) -> None:
    running = start_listener(peers=[{"ae_title": "MODALITY1", "address": "127.0.0.1"}])
    assert rejection(running, calling=calling) == (1, 1, 3)
    with running.peer(calling="MODALITY1"):
        pass


def test_the_node_itself_may_ask_whether_it_is_there_and_may_not_store(start_listener: Start) -> None:
    running = start_listener(peers=[{"ae_title": "MODALITY1", "address": "127.0.0.2/32"}])
    with running.peer(calling="PNEUMONIA") as peer:
        assert peer.echo().status == 0x0000
        assert peer.store(radiograph()).status == 0x0124
    assert not list(running.spool.paths())


def test_a_known_ae_title_at_another_address_is_rejected_for_good(start_listener: Start) -> None:
    running = start_listener(peers=[{"ae_title": "MODALITY1", "address": "127.0.0.2/32"}])
    assert rejection(running) == (1, 1, 3)
    with Peer(running.address, source="127.0.0.2") as peer:
        assert peer.associate()[0] == ASSOCIATE_AC


def test_an_association_beyond_the_limit_is_rejected_for_now(start_listener: Start) -> None:
    running = start_listener(listen={"max_associations": 2})
    with running.peer(), running.peer() as second:
        assert rejection(running) == (2, 3, 2)
        second.release()
        wait_until(lambda: may_associate(running))


def test_the_limit_holds_when_all_come_at_once(start_listener: Start) -> None:
    running = start_listener(listen={"max_associations": 3})
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(running.address)) for _ in range(20)]
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda peer: peer.associate()[0], peers))
    assert sorted(answers) == [ASSOCIATE_AC] * 3 + [ASSOCIATE_RJ] * 17


def test_associations_that_are_over_leave_no_threads_and_no_descriptors(running: Running) -> None:
    def held() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = held()
    for _ in range(20):
        with running.peer() as peer:
            peer.store(radiograph())
            peer.release()
        with running.peer():
            pass
        rejection(running, called="OTHER")
    wait_until(lambda: held() <= before)


def test_a_full_disk_is_rejected_for_now(start_listener: Start, tmp_path: Path) -> None:
    running = start_listener(Spool(tmp_path / "spool", low_water_bytes=1 << 60))
    assert rejection(running) == (2, 3, 1)


def test_contexts_are_accepted_by_the_table(running: Running) -> None:
    contexts = [
        (CT, [EXPLICIT]),
        (DX, [DEFLATED]),
        *((uid, [syntax]) for uid in STORAGE_CLASSES for syntax in TRANSFER_SYNTAXES),
    ]
    with running.peer(contexts=contexts) as peer:
        assert peer.results == {1: 3, 3: 4, **{2 * number + 1: 0 for number in range(2, len(contexts))}}


def test_what_loses_nothing_is_preferred_in_a_context_with_several_syntaxes(running: Running) -> None:
    with Peer(running.address) as peer:
        _, payload = peer.associate([(DX, [JPEG_BASELINE, IMPLICIT, EXPLICIT])])
    assert payload.count(EXPLICIT.encode() + b"P") == 1  # the accepted syntax, before the User Information item (50H)


def test_contexts_are_shared_by_all_associations(running: Running) -> None:
    with running.peer(), running.peer():
        [server] = running.listener._servers
        contexts = [association.acceptor._contexts for association in server.associations()]
        assert len(contexts) == 2
        assert all(one is server.contexts for one in contexts)
    assert [str(context.abstract_syntax) for context in accepted_contexts()] == [VERIFICATION, *STORAGE_CLASSES]


def test_a_taken_port_is_said_so(running: Running, tmp_path: Path) -> None:
    settings = Settings(listen={"port": running.port})
    listener = Listener(
        settings,
        Spool(tmp_path / "other", low_water_bytes=0),
        on_received=lambda _: None,
        on_rejected=lambda _: None,
    )
    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1 port {running.port}: Address already in use"):
        listener.start()


def test_a_pynetdicom_without_its_seams_is_refused(start_listener: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RequestHandler, "_create_association")
    with pytest.raises(UnsupportedPynetdicomError, match=r"RequestHandler\._create_association"):
        start_listener()


def test_the_listener_imports_nothing_heavy() -> None:
    code = (
        "import sys, scp_node.listener; "
        "print(sorted({'torch', 'onnxruntime', 'highdicom', 'cv2', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_two_hundred_silent_connections_lock_nobody_out(running: Running) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(Peer(running.address))
        with running.peer() as peer:
            assert peer.echo().status == 0x0000


STRANGER: Final = "127.0.0.9"
PEERS: Final = [{"ae_title": "MODALITY1", "address": "127.0.0.1"}]


def test_strangers_take_few_places_whatever_they_do(start_listener: Start) -> None:
    running = start_listener(peers=PEERS)
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(Peer(running.address, source=f"127.0.1.{number}"))
            for number in range(1, 12)
            for _ in range(8)
        ]
        with running.peer() as peer:
            assert peer.echo().status == 0x0000
        open_ones = [one for one in silent if not one.is_closed(0.05)]
    assert len(open_ones) <= STRANGERS


def test_one_stranger_takes_fewer_and_is_still_told_why_it_may_not_associate(
    start_listener: Start, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_listener(peers=PEERS)
    with Peer(running.address, source=STRANGER) as peer:
        assert peer.associate()[0] == ASSOCIATE_RJ
    [server] = running.listener._servers
    wait_until(lambda: not server.associations(), what="the rejected one has given back its place")
    with contextlib.ExitStack() as stack:
        for _ in range(OF_ONE_STRANGER):
            stack.enter_context(Peer(running.address, source=STRANGER))
        wait_until(lambda: is_cut_off(running))
    wait_until(lambda: not is_cut_off(running))
    lines = [line for line in caplog.messages if line.startswith("connection refused")]
    assert lines == [f"connection refused peer={STRANGER} reason='{STRANGER_TAKEN}'"]


@pytest.mark.usefixtures("many_descriptors")
def test_a_burst_of_connections_makes_nobody_ask_again_for_one(start_listener: Start) -> None:
    if int(Path("/proc/sys/net/core/somaxconn").read_text()) < LISTEN_BACKLOG:
        pytest.skip("the kernel holds fewer")
    running = start_listener(peers=PEERS)
    with contextlib.ExitStack() as stack:
        burst = [stack.enter_context(socket.socket()) for _ in range(600)]
        for each in burst:
            each.bind((STRANGER, 0))
            each.setblocking(False)
            each.connect_ex(running.address)
        began = time.monotonic()
        with running.peer() as peer:
            assert peer.echo().status == 0x0000
        assert time.monotonic() - began < 1.0  # when the first SYN would be sent again


def is_cut_off(running: Running) -> bool:
    with Peer(running.address, source=STRANGER) as peer:
        return peer.is_closed(0.2)


def test_one_address_of_a_peer_leaves_places_to_others(start_listener: Start) -> None:
    peers = [*PEERS, {"ae_title": "MODALITY2", "address": "127.0.0.2"}]
    running = start_listener(peers=peers, listen={"max_associations": 4, "max_associations_per_address": 3})
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(running.peer())
        assert rejection(running) == (2, 3, 2)
        other = stack.enter_context(Peer(running.address, source="127.0.0.2"))
        assert other.associate(calling="MODALITY2")[0] == ASSOCIATE_AC


@pytest.mark.parametrize("size", [LARGEST_REQUEST + 1, 1 << 20])
def test_a_request_that_is_longer_than_anybody_needs_is_cut_off_at_once(running: Running, size: int) -> None:
    with Peer(running.address) as peer:
        peer.send_raw(struct.pack(">BxL", ASSOCIATE_RQ, size))
        assert peer.is_closed()


def test_a_request_of_very_many_items_costs_little(running: Running) -> None:
    items = struct.pack(">BxH", 0x77, 0) * 30_000
    with Peer(running.address) as peer:
        peer.send(ASSOCIATE_RQ, associate_request([], calling="MODALITY1", called="PNEUMONIA", items=items))
        began = time.monotonic()
        assert peer.receive()[0] in {ABORT, CLOSED}
        assert time.monotonic() - began < 1.0
    with running.peer() as peer:
        assert peer.echo().status == 0x0000


def test_half_a_request_ends_with_the_time_for_the_whole_and_burns_nothing(start_listener: Start) -> None:
    running = start_listener(listen={"acse_timeout_seconds": 0.5})
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(running.address)) for _ in range(50)]
        for peer in peers:
            peer.send_raw(b"\x01\x00\x00")
        assert all(peer.is_closed() for peer in peers)
        wait_until(lambda: not [each for each in threading.enumerate() if each.name == "AcceptorThread"], 2)


def no_associations(running: Running) -> bool:
    [server] = running.listener._servers
    return not server.associations()


def test_refusals_of_one_address_are_one_line_a_minute(start_listener: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = start_listener(peers=PEERS)
    for _ in range(5):
        with Peer(running.address, source=STRANGER) as peer:
            assert peer.associate()[0] == ASSOCIATE_RJ
        wait_until(lambda: no_associations(running))  # one stranger has four places
    lines = [each.getMessage() for each in caplog.records if "association refused" in each.getMessage()]
    assert len(lines) == 1
    assert f"peer={STRANGER} reason='calling AE title or address is not a peer'" in lines[0]


def test_a_connection_that_closes_without_a_request_gives_its_place_back_at_once(running: Running) -> None:
    with Peer(running.address):
        wait_until(lambda: not no_associations(running))
    began = time.monotonic()
    wait_until(lambda: no_associations(running))
    assert time.monotonic() - began < LONG_WAIT_SECONDS * 0.6


def test_silent_connections_are_closed_after_the_acse_timeout(start_listener: Start) -> None:
    running = start_listener(listen={"acse_timeout_seconds": 0.2})
    with Peer(running.address) as peer:
        assert peer.is_closed()


def test_an_idle_association_is_closed_after_the_network_timeout(start_listener: Start) -> None:
    running = start_listener(listen={"network_timeout_seconds": 0.2})
    with running.peer() as peer:
        assert peer.is_closed()


@pytest.mark.parametrize("beginning", [b"\x01\x00\x00", b"\x01\x00\x00\x00\x01\x00only the beginning"])
def test_a_pdu_that_does_not_go_on_is_cut_off(start_listener: Start, beginning: bytes) -> None:
    running = start_listener(listen={"acse_timeout_seconds": 0.2})
    with Peer(running.address) as peer:
        peer.send_raw(beginning)
        assert peer.is_closed()


def test_a_pdu_of_an_association_that_does_not_go_on_is_cut_off(start_listener: Start) -> None:
    running = start_listener(listen={"dimse_timeout_seconds": 0.2})
    with running.peer() as peer:
        peer.send_raw(struct.pack(">BxL", P_DATA, 1_000) + b"only the beginning")
        assert peer.is_closed()


def test_a_pdu_longer_than_agreed_ends_the_association(start_listener: Start) -> None:
    running = start_listener(listen={"max_pdu_bytes": 4_096})
    with running.peer() as peer:
        peer.send_store_command()
        peer.send_pdv(1, bytes(4_096 - 6), is_last=False)
        peer.send_pdv(1, bytes(4_200), is_last=False)
        assert peer.is_closed()


def test_a_pdu_of_very_many_values_ends_the_association(running: Running) -> None:
    value = struct.pack(">LBB", 3, 1, 0) + b"x"
    with running.peer() as peer:
        peer.send_store_command()
        peer.send(P_DATA, value * MOST_VALUES)
        peer.send(P_DATA, value * (MOST_VALUES + 1))
        assert peer.is_closed()


@pytest.mark.parametrize("rest", [b"", b"x"], ids=["silence", "drops"])
def test_a_message_that_stands_still_or_crawls_ends_the_association(start_listener: Start, rest: bytes) -> None:
    running = start_listener(listen={"dimse_timeout_seconds": 0.5})
    with running.peer() as peer:
        peer.send_store_command()
        peer.send_pdv(1, b"x", is_last=False)
        began = time.monotonic()
        while not (closed := peer.is_closed(0.1)) and time.monotonic() < began + 5:
            if rest:
                peer.send_pdv(1, rest, is_last=False)
        assert closed


def test_a_pdu_that_comes_in_drops_has_a_deadline(start_listener: Start) -> None:
    running = start_listener(listen={"acse_timeout_seconds": 0.5})
    with Peer(running.address) as peer:
        peer.send_raw(struct.pack(">BxL", ASSOCIATE_RQ, 10_000))
        with pytest.raises(OSError, match=r"reset|Broken pipe|aborted"):
            wait_until(lambda: peer.send_raw(b"x"), 5)  # one byte each few milliseconds keeps no recv waiting


@pytest.mark.parametrize("kind", [ASSOCIATE_RQ, P_DATA, ABORT])
def test_a_pdu_that_claims_four_gibibytes_is_cut_off_at_once(running: Running, kind: int) -> None:
    with Peer(running.address) as peer:
        peer.send_raw(struct.pack(">BxL", kind, 0xFFFF_FFFF))
        assert peer.is_closed()


@pytest.mark.parametrize(
    "noise",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 64, struct.pack(">BxL", ASSOCIATE_RQ, 4) + b"\0\0\0\0"],
    ids=["HTTP", "zeros", "ones", "short request"],
)
def test_noise_closes_its_own_connection_only(running: Running, noise: bytes) -> None:
    with Peer(running.address) as peer:
        peer.send_raw(noise)
        assert peer.is_closed()
    with running.peer() as peer:
        assert peer.echo().status == 0x0000


@pytest.mark.parametrize("title", ["", "A\nB", "A\x1b[31mB", "A\\B"], ids=["empty", "newline", "escape", "backslash"])
def test_an_ae_title_that_is_none_is_not_accepted(running: Running, title: str) -> None:
    with Peer(running.address) as peer:
        assert peer.associate(calling=title)[0] in (ASSOCIATE_RJ, ABORT, CLOSED)


def test_garbage_inside_an_association_ends_it(running: Running) -> None:
    with running.peer() as peer:
        peer.send_pdv(1, b"no command set", is_command=True)
        assert peer.is_closed()
    with running.peer() as peer:
        peer.send(P_DATA, struct.pack(">LB", 1, 1))  # a presentation data value without a control header
        assert peer.is_closed()
    with running.peer() as peer:
        assert peer.echo().status == 0x0000


def test_a_command_that_cannot_be_read_is_not_taken_for_a_fault_of_the_disk(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with running.peer() as peer:
        peer.send_store(radiograph(), {PRIORITY: 7})
        assert peer.is_closed()
    wait_until(lambda: "message cannot be read" in caplog.text)
    assert "spool failed" not in caplog.text
    assert not list(running.spool.paths())


@pytest.mark.parametrize("kind", [0x8001, 0x8030], ids=["C-STORE", "C-ECHO"])
def test_a_response_to_no_request_ends_the_association(
    running: Running, caplog: pytest.LogCaptureFixture, kind: int
) -> None:
    usual = {SOP_CLASS: DX, COMMAND_FIELD: kind, MESSAGE_ID: 7, DATASET_TYPE: 0x0101, SOP_INSTANCE: "1.2.3"}
    with running.peer() as peer:
        peer.send_pdv(1, encoded_command(usual), is_command=True)
        assert peer.receive()[0] == ABORT
    wait_until(lambda: "reason='message cannot be read: response to no request'" in caplog.text)
    assert "Traceback" not in caplog.text


def test_a_bug_of_the_node_ends_the_association_with_an_abort(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken_clock() -> datetime:
        raise ZeroDivisionError

    listener = Listener(
        Settings(listen={"port": 0}),
        Spool(tmp_path / "spool", low_water_bytes=0),
        on_received=lambda _: None,
        on_rejected=lambda _: None,
        clock=broken_clock,
    )
    listener.start()
    try:
        with Peer(listener.address) as peer:
            assert peer.associate()[0] == ABORT
        wait_until(lambda: "association failed" in caplog.text)
    finally:
        listener.stop(1)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3_000:
        pytest.skip(f"the hard limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_descriptors_above_1024_are_served(running: Running) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(1_100)]
        assert max(one.fileno() for one in held) > 1_024
        with running.peer() as peer:
            assert peer.store(radiograph()).status == 0x0000


def test_stop_lets_a_running_store_finish_and_accepts_no_more(start_listener: Start) -> None:
    running = start_listener()
    data = radiograph()
    with running.peer() as peer, running.peer() as idle:
        peer.send_pdv(1, store_command(), is_command=True)
        peer.send_pdv(1, data[:100], is_last=False)
        [server] = running.listener._servers
        wait_until(lambda: any(association.busy for association in server.associations()))
        stopping = threading.Thread(target=running.listener.stop, args=(10,))
        stopping.start()
        assert idle.receive()[0] == ABORT
        with pytest.raises(ConnectionError):
            Peer(running.address)
        peer.send_pdv(1, data[100:])
        assert peer.answer().status == 0x0000
        assert peer.receive()[0] == ABORT
        stopping.join(5)
        assert not stopping.is_alive()
    assert len(list(running.spool.paths())) == 1


def test_stop_aborts_a_store_that_outlasts_the_grace(start_listener: Start) -> None:
    running = start_listener()
    with running.peer() as peer:
        peer.send_pdv(1, store_command(), is_command=True)
        peer.send_pdv(1, b"\0" * 100, is_last=False)
        [server] = running.listener._servers
        wait_until(lambda: any(association.busy for association in server.associations()))
        running.listener.stop(0.1)
        assert peer.receive()[0] == ABORT
    assert not list(running.spool.paths())


def store_command() -> bytes:
    elements = {SOP_CLASS: DX, COMMAND_FIELD: 1, MESSAGE_ID: 7, PRIORITY: 0, DATASET_TYPE: 1, SOP_INSTANCE: "1.2.3"}
    return encoded_command(elements)


def test_what_the_node_says_goes_before_what_has_come() -> None:
    ours, theirs = socket.socketpair()
    association = StandInAssociation(ApplicationEntity("PNEUMONIA"), "acceptor")
    dul = association.dul
    with ours, theirs, contextlib.closing(dul._wake), contextlib.closing(dul._woken):
        association.set_socket(StandInSocket(association, ours))
        assert dul.event_queue.get_nowait() == "Evt5"
        dul.state_machine.current_state = "Sta3"  # the request has come, PS3.8 Table 9-3
        accepted = A_ASSOCIATE()
        accepted.result = 0x00
        dul.send_pdu(accepted)
        theirs.send(struct.pack(">BxL", P_DATA, 0))
        assert dul._is_transport_event()
        assert dul.event_queue.get_nowait() == "Evt7"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_listener_that_a_fault_has_ended_can_be_stopped(
    start_listener: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: NodeServer) -> None:
        raise RuntimeError

    monkeypatch.setattr(NodeServer, "service_actions", fail)
    monkeypatch.setattr("scp_node.listener.association.LOOK_SECONDS", 0.01)
    running = start_listener()
    wait_until(lambda: not any(each.name == "listener" for each in threading.enumerate()))
    stopping = threading.Thread(target=running.listener.stop, args=(0,), daemon=True)
    stopping.start()
    stopping.join(30)
    assert not stopping.is_alive()


def test_the_end_of_the_listener_waits_for_no_look(start_listener: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp_node.listener.association.LOOK_SECONDS", 3_600.0)
    running = start_listener()
    stopping = threading.Thread(target=running.listener.stop, args=(0,))
    stopping.start()
    stopping.join(30)
    assert not stopping.is_alive()
