"""Keeps the ports that several processes of this node share (SO_REUSEPORT) from being shared with another node.

A port that is not shared needs nothing: the second who binds it is refused. One that is shared is open to each program
of the same user, and two nodes would each get a part of the images. So whoever starts the processes reserves the ports
beforehand, by a name in the same namespace of the network, and finds out whether somebody listens there already.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Final

from scp_node.domain import NodeError
from scp_node.settings import ListenSettings, SettingsError

_PATIENCE_SECONDS: Final = 10.0  # after a kill, the processes that had the port may need a moment to end
_LOOK_SECONDS: Final = 0.2


class PortTakenError(NodeError):
    """Somebody else listens on the port, or is about to."""


def reserve_ports(listen: ListenSettings, *, patience: float = _PATIENCE_SECONDS) -> None:
    """Reserve the ports that several processes are to share, for as long as this process lives, `exec` or not.

    Raises:
        SettingsError: the system cannot share a port.
        PortTakenError: one is taken, and stays so for `patience` seconds; or it is not ours.
    """
    if listen.processes == 1:
        return
    if not hasattr(socket, "SO_REUSEPORT"):
        raise SettingsError("listen.processes: this system cannot share a port (SO_REUSEPORT); set it to 1")
    ports = [(listen.host, listen.port)]
    if listen.tls.certificate:
        ports.append((listen.tls_host, listen.tls.port))
    deadline = time.monotonic() + patience
    for host, port in ports:
        while error := _refusal_of(host, port):
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise PortTakenError(f"cannot listen on {host} port {port}: {error.strerror}")
            time.sleep(_LOOK_SECONDS)


def _refusal_of(host: str, port: int) -> OSError | None:
    """Reserve a port, and return why not if that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as alone, socket.socket(socket.AF_UNIX) as name:
        try:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
            alone.bind((host, port))  # fails where anybody listens
            name.bind(f"\0scp-node listens on {host} port {port}")  # fails where another node is about to
        except OSError as error:
            return error
        name.set_inheritable(True)
        name.detach()
    return None
