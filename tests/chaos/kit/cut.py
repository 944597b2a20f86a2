"""A line between a modality and the node that breaks after so many bytes."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from typing import Final, Self

_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: close sends RST


class Line:
    """Passes one connection on to `node_port`, and breaks once `most` bytes have gone that way."""

    def __init__(self, node_port: int, *, most: int | None = None, reset: bool = False) -> None:
        """Break it by an RST with `reset`, else by a FIN; without `most` it holds."""
        self.passed = 0  # bytes to the node
        self._node_port, self._most, self._reset = node_port, most, reset
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        with (
            self._listener,
            self._listener.accept()[0] as client,
            socket.create_connection(("127.0.0.1", self._node_port)) as node,
        ):
            with contextlib.suppress(OSError):  # an end has gone
                self._pass_on(client, node)
            for end in (client, node) if self._reset else ():
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _pass_on(self, client: socket.socket, node: socket.socket) -> None:
        while self._most is None or self.passed < self._most:
            readable, _, _ = select.select([client, node], [], [])
            if node in readable:
                if not (data := node.recv(65_536)):
                    return
                client.sendall(data)
            if client in readable:
                if not (data := client.recv(65_536 if self._most is None else min(65_536, self._most - self.passed))):
                    return
                node.sendall(data)
                self.passed += len(data)
