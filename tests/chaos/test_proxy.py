"""The proxy does what it says, seen from both sides of it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.kit.proxy import LOOPBACK, Door, Fault, Faults, Proxy
from tests.waiting import wait_until


class Peer:
    """A server that keeps what it gets and sends it back."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.ends: list[str] = []
        self.server = socket.create_server((LOOPBACK, 0))
        self.port: int = self.server.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                thread = threading.Thread(target=self._echo, args=(self.server.accept()[0],), daemon=True)
                self.threads.append(thread)
                thread.start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    self.got += data
                    connection.sendall(data)
                self.ends.append("closed")
            except ConnectionResetError:
                self.ends.append("reset")

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for thread in self.threads:
            thread.join(5)


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@contextlib.contextmanager
def connected(peer: Peer, faults: Faults) -> Iterator[tuple[Proxy, socket.socket]]:
    with Proxy(peer.port, faults) as proxy, socket.create_connection((LOOPBACK, proxy.port), timeout=5) as client:
        yield proxy, client


def test_without_a_fault_every_byte_passes_and_is_counted(peer: Peer) -> None:
    with connected(peer, Faults()) as (proxy, client):
        client.sendall(b"x" * 100_000)
        assert wait_until(lambda: len(peer.got) == 100_000)
        assert (proxy.passed, len(proxy.links)) == (100_000, 1)
        client.close()
        assert wait_until(lambda: peer.ends) == ["closed"]


@pytest.mark.parametrize(
    ("fault", "client_sees", "peer_sees"),
    [(Fault(cut_at=1_000), None, "closed"), (Fault(reset_at=1_000), ConnectionResetError, "reset")],
)
def test_a_cut_and_a_reset_come_at_their_byte_and_are_told_apart_by_both_sides(
    peer: Peer, fault: Fault, client_sees: type[Exception] | None, peer_sees: str
) -> None:
    with connected(peer, Faults(up=fault)) as (proxy, client):
        client.sendall(b"x" * 1_000)
        assert wait_until(lambda: proxy.links and proxy.links[0].ended.is_set())
        assert proxy.passed == 1_000
        with pytest.raises(client_sees) if client_sees else contextlib.nullcontext():
            while client.recv(65_536):
                pass
        assert wait_until(lambda: peer.ends) == [peer_sees]
    assert len(peer.got) == 1_000 or peer_sees == "reset", "a reset may overtake what was passed on"


def test_a_stop_lets_the_client_s_buffers_fill_and_ends_nothing(peer: Peer) -> None:
    with connected(peer, Faults(up=Fault(stop_at=1_000))) as (proxy, client):
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.sendall(b"x" * 20_000_000)
        assert (proxy.passed, peer.ends) == (1_000, [])


def test_a_drip_and_a_delay_take_their_time(peer: Peer) -> None:
    for fault in (Fault(rate=20_000), Fault(delay=0.5)):
        with connected(peer, Faults(up=fault)) as (_, client):
            before, began = len(peer.got), time.monotonic()
            client.sendall(b"x" * 10_000)
            wait_until(lambda before=before: len(peer.got) - before == 10_000)  # type: ignore[misc]
            assert 0.4 < time.monotonic() - began < 5


def test_each_direction_has_its_own_fault(peer: Peer) -> None:
    with connected(peer, Faults(down=Fault(stop_at=10))) as (proxy, client):
        client.sendall(b"x" * 1_000)
        assert wait_until(lambda: proxy.links and proxy.links[0].down == 10)
        assert wait_until(lambda: len(peer.got) == 1_000)


def test_a_blackhole_accepts_and_says_nothing(peer: Peer) -> None:
    with connected(peer, Faults(blackhole=True)) as (_, client):
        client.settimeout(0.3)
        client.sendall(b"x")
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert not peer.got


@pytest.mark.parametrize(
    ("door", "client_sees"),
    [(Door.CLOSED, ConnectionRefusedError), (Door.FULL, TimeoutError)],
    ids=str,
)
def test_a_closed_door_refuses_and_a_full_queue_lets_connect_hang_until_it_is_opened(
    peer: Peer, door: Door, client_sees: type[Exception]
) -> None:
    with Proxy(peer.port, door=door) as proxy:
        for _ in range(2):
            with pytest.raises(client_sees):
                socket.create_connection((LOOPBACK, proxy.port), timeout=0.3)
        proxy.open()
        with socket.create_connection((LOOPBACK, proxy.port), timeout=5) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"


def test_a_peer_that_is_not_there_is_a_reset(free_port: int) -> None:
    with Proxy(free_port) as proxy, pytest.raises(ConnectionResetError):
        ask(proxy.port)


def ask(port: int) -> bytes:
    with socket.socket() as client:
        client.settimeout(5)
        client.connect((LOOPBACK, port))  # a reset may be here already
        return client.recv(1)
