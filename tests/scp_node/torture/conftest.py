"""SCPs to be attacked: the node's listener alone and as a process, and plain pynetdicom as one that can be misled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest
from pynetdicom import AE, evt

from scp_node.torture.attacks import ATTACKS
from scp_node.torture.peer import DX, VERIFICATION
from scp_node.torture.rows import number_of
from tests.node import Node
from tests.scp_node.listener.conftest import running, start_listener

__all__ = ["running", "start_listener"]

KNOWN: Final = ("127.0.0.1", *(f"127.0.{number_of(attack)}.2" for attack in ATTACKS))
PEERS: Final = [{"ae_title": "TORTURE", "address": address} for address in KNOWN]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A listener in a process of its own, which knows the first attacker of each attack."""
    started = Node(tmp_path_factory.mktemp("node"), {"peers": PEERS, "log": {"level": "WARNING"}}).start("listener")
    yield started
    started.end()


@dataclass(frozen=True, slots=True)
class PlainScp:
    """A Storage SCP of pynetdicom, which answers Success to everything and stores nothing."""

    port: int
    shut: threading.Event  # set: it ends at the next abort


@pytest.fixture
def plain_scp() -> Iterator[PlainScp]:
    """An SCP that believes whatever it gets."""
    shut = threading.Event()
    entity = AE("PNEUMONIA")
    entity.add_supported_context(DX)
    entity.add_supported_context(VERIFICATION)
    with ExitStack() as stack:  # closes the sockets that pynetdicom leaves open after an abort
        handlers: Any = [
            (evt.EVT_C_STORE, lambda _event: 0x0000),
            (evt.EVT_CONN_OPEN, lambda event: stack.callback(event.assoc.dul.socket.socket.close)),
        ]
        server: Any = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        server.bind(evt.EVT_ABORTED, lambda _event: server.socket.close() if shut.is_set() else None)
        yield PlainScp(server.server_address[1], shut)
        server.shutdown()
