"""Two processes of the listener on the same ports: what holds for one holds for both together."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from scp_node.app import Role, _processes
from scp_node.settings import Settings
from scp_node.tls.authority import Pair
from tests.certificates import Certificates
from tests.node import Node
from tests.scp_node.listener.datasets import radiograph
from tests.scp_node.listener.peer import ASSOCIATE_AC, CLOSED, Peer
from tests.servers import free_port
from tests.waiting import wait_until

PATIENCE: Final = 120  # seconds, in which a process may start beside everything else
FILMS: Final = 5
LISTEN: Final[dict[str, Any]] = {
    "processes": 2,
    "network_timeout_seconds": PATIENCE,
    "acse_timeout_seconds": PATIENCE,
    "dimse_timeout_seconds": PATIENCE,
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Start the role listener, with tables of the settings; it is killed at the end."""
    with ExitStack() as stack:

        def begin(**changes: Any) -> Node:
            node = Node(tmp_path, {**changes, "listen": {**LISTEN, **changes.get("listen", {})}})
            stack.callback(node.end)
            node.start("listener")
            wait_until(lambda: len(listening(node)) == 2, PATIENCE, what="both processes listen")
            return node

        yield begin


def listening(node: Node) -> set[int]:
    """Return the processes of the node that listen."""
    assert node.process
    children = psutil.Process(node.process.pid).children()
    return {child.pid for child in children if _connections(child, psutil.CONN_LISTEN)}


def server_of(peer: Peer, node: Node) -> int:
    """Return the process that has the other end of a peer's connection."""
    ours = peer.connection.getsockname()
    return next(
        pid
        for pid in listening(node)
        if any(each.raddr == ours for each in _connections(psutil.Process(pid), psutil.CONN_ESTABLISHED))
    )


def _connections(process: psutil.Process, status: str) -> list[Any]:
    try:
        return [each for each in process.net_connections("tcp") if each.status == status]
    except psutil.NoSuchProcess:
        return []


def peer_of_each(node: Node, stack: ExitStack) -> list[Peer]:
    """Return one associated peer of each of the two processes."""
    found: dict[int, Peer] = {}
    while len(found) < 2:
        peer = stack.enter_context(Peer(("127.0.0.1", node.settings.listen.port), seconds=PATIENCE))
        assert peer.associate()[0] == ASSOCIATE_AC
        if found.setdefault(server_of(peer, node), peer) is not peer:
            peer.release()
    return [found[pid] for pid in sorted(found)]


def spool_of(node: Node) -> Path:
    return node.settings.node.data_dir / "spool"


def stored(node: Node) -> list[str]:
    return [str(path.relative_to(spool_of(node))) for path in spool_of(node).glob("20*/*.dcm")]


def unfinished(node: Node) -> int:
    return len(list((spool_of(node) / "tmp").iterdir()))


def send_half(peer: Peer, film: bytes, uid: str) -> None:
    peer.send_store_command({0x1000: uid})
    peer.send_pdv(1, film[: len(film) // 2], is_last=False)


def send_rest(peer: Peer, film: bytes) -> int:
    peer.send_pdv(1, film[len(film) // 2 :])
    return peer.answer().status


def store_at_the_same_moment(peers: Sequence[Peer], films: Sequence[bytes], uid: str) -> list[int]:
    """Have each peer send its film, all but the end of it, and then all ends together; return the statuses."""
    for peer, film in zip(peers, films, strict=True):
        send_half(peer, film, uid)
    together = threading.Barrier(len(peers))

    def end(peer: Peer, film: bytes) -> int:
        together.wait(PATIENCE)
        return send_rest(peer, film)

    with ThreadPoolExecutor(len(peers)) as pool:
        return list(pool.map(end, peers, films))


@pytest.mark.parametrize(
    ("number", "names"), [(1, ["listener"]), (2, ["listener-1", "listener-2"])], ids=["one", "two"]
)
def test_as_many_listeners_are_started_as_the_settings_say(number: int, names: list[str]) -> None:
    assert _processes(Role.LISTENER, Settings.model_validate({"listen": {"processes": number}})) == names


def test_one_instance_that_two_processes_get_at_the_same_moment_is_one_instance(start: Callable[..., Node]) -> None:
    node = start()
    with ExitStack() as stack:
        peers = peer_of_each(node, stack)
        for number in range(FILMS):
            uid = f"1.2.{number + 1}"
            same = radiograph(SOPInstanceUID=uid)
            assert store_at_the_same_moment(peers, [same, same], uid) == [0, 0]
        others = [radiograph(SOPInstanceUID="1.2.99", PatientName=name) for name in ("A", "B")]
        assert store_at_the_same_moment(peers, others, "1.2.99") == [0, 0]
        for peer in peers:
            peer.release()
    wait_until(lambda: len(stored(node)) == FILMS + 2, PATIENCE, what="duplicates are removed")
    wait_until(lambda: len(node.audit()) == FILMS + 2, PATIENCE)
    rows = node.audit()
    assert sorted(row["sop_instance_uid"] for row in rows) == sorted(
        [f"1.2.{number + 1}" for number in range(FILMS)] + ["1.2.99", "1.2.99"]
    )
    assert [row["sop_instance_uid"] for row in rows if row["state"] == "conflict"] == ["1.2.99"]
    assert node.ledger.intake.unregistered(stored(node)) == []  # the file of each row is there, and no other
    assert sum(node.ledger.upkeep.counts()["analyse"].values()) == FILMS + 2


def test_a_process_that_is_killed_costs_its_own_associations_alone(start: Callable[..., Node]) -> None:
    node = start()
    film = radiograph(SOPInstanceUID="1.2.1")
    with ExitStack() as stack:
        dying, other = peer_of_each(node, stack)
        send_half(dying, radiograph(SOPInstanceUID="1.2.2"), "1.2.2")
        send_half(other, film, "1.2.1")
        wait_until(lambda: unfinished(node) == 2, PATIENCE)
        killed = psutil.Process(server_of(dying, node))
        killed.kill()
        wait_until(lambda: not _connections(killed, psutil.CONN_LISTEN), PATIENCE, what="its port is closed")
        assert dying.receive()[0] == CLOSED
        for _ in range(4):  # there is one process, which takes all of them
            with Peer(("127.0.0.1", node.settings.listen.port), seconds=PATIENCE) as peer:
                assert peer.associate()[0] == ASSOCIATE_AC
                peer.release()
        wait_until(lambda: len(listening(node) - {killed.pid}) == 2, PATIENCE, what="another one listens in its place")
        assert unfinished(node) == 1  # what the dead one left is gone, what the other writes is there
        assert send_rest(other, film) == 0
        other.release()
    rows = wait_until(node.audit, PATIENCE)
    assert [row["sop_instance_uid"] for row in rows] == ["1.2.1"]


def test_a_renewed_certificate_and_the_end_reach_both_processes(
    start: Callable[..., Node], certificates: Certificates, tmp_path: Path
) -> None:
    used = Pair(certificate=tmp_path / "node.pem", key=tmp_path / "node.key")
    _put(certificates.node, used)
    port = free_port()
    node = start(listen={"tls": certificates.listen(used, port=port)})
    assert node.process
    assert _names_shown(certificates, port) == {"node.example"}
    with ExitStack() as stack:
        peers = peer_of_each(node, stack)
        films = [radiograph(SOPInstanceUID=f"1.2.{number}") for number in (1, 2)]
        for number, (peer, film) in enumerate(zip(peers, films, strict=True), 1):
            send_half(peer, film, f"1.2.{number}")
        _put(certificates.other, used)
        os.kill(node.process.pid, signal.SIGHUP)
        wait_until(lambda: _names_shown(certificates, port) == {"other.example"}, PATIENCE)
        node.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not listening(node), PATIENCE, what="the ports are closed")
        assert [send_rest(peer, film) for peer, film in zip(peers, films, strict=True)] == [0, 0]
    assert node.process.wait(PATIENCE) == 0
    assert len(stored(node)) == 2
    assert sorted(row["sop_instance_uid"] for row in node.audit()) == ["1.2.1", "1.2.2"]


def test_a_second_node_on_the_same_port_is_refused(start: Callable[..., Node], tmp_path: Path) -> None:
    node = start()
    (tmp_path / "second").mkdir()
    second = Node(tmp_path / "second", {"listen": {**LISTEN, "port": node.settings.listen.port}})
    try:
        second.start("listener", wait=False)
        assert second.process
        assert second.process.wait(PATIENCE) == 2
    finally:
        second.end()
    assert f"cannot listen on 127.0.0.1 port {node.settings.listen.port}: Address already in use" in second.log


def _put(pair: Pair, at: Pair) -> None:
    shutil.copy(pair.key, at.key)
    shutil.copy(pair.certificate, at.certificate)


def _names_shown(certificates: Certificates, port: int) -> set[str]:
    """Return the first name in the certificate of each of so many connections that both processes had some."""
    return {_name_shown(certificates, port) for _ in range(8)}


def _name_shown(certificates: Certificates, port: int) -> str:
    context = certificates.context(certificates.modality, check_hostname=False)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain, context.wrap_socket(plain) as connection:
        names = (connection.getpeercert() or {})["subjectAltName"]
        return str(names[0][1])
