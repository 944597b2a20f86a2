"""A port that several processes of one node share is not shared with another node."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Final

import pytest

from scp_node.runtime.ports import PortTakenError, reserve_ports
from scp_node.settings import ListenSettings, SettingsError
from tests.servers import free_port

ENDS_AT_ONCE: Final = 0.0
RESERVES_AND_BECOMES: Final = """
import os, sys
from scp_node.runtime.ports import reserve_ports
from scp_node.settings import ListenSettings
reserve_ports(ListenSettings(port={port}, processes=2))
os.execv(sys.executable, [sys.executable, "-c", "print(flush=True); input()"])
"""


def reserve(port: int, processes: int = 2) -> None:
    reserve_ports(ListenSettings(port=port, processes=processes), patience=ENDS_AT_ONCE)


@pytest.mark.parametrize("shares", [True, False])
def test_a_port_that_somebody_listens_on_is_refused(*, shares: bool) -> None:
    with socket.socket() as other:
        if shares:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            reserve(port)
        reserve(port, processes=1)  # which finds out when it binds the port


def test_two_nodes_that_start_at_the_same_time_do_not_share_a_port() -> None:
    port = free_port()
    other = subprocess.Popen(
        [sys.executable, "-c", RESERVES_AND_BECOMES.format(port=port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout
        assert other.stdout.readline() == b"\n"  # it is another program by now, and listens to nothing yet
        with pytest.raises(PortTakenError):
            reserve(port)
        other.communicate(b"\n")
    reserve(port)


def test_a_system_that_cannot_share_a_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("socket.SO_REUSEPORT")
    with pytest.raises(SettingsError, match=r"listen.processes: this system cannot share a port \(SO_REUSEPORT\)"):
        reserve(free_port())
    reserve(free_port(), processes=1)
