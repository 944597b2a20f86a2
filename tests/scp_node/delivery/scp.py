"""Storage SCPs that answer as a test wants: one of pynetdicom's, and one by hand that speaks badly or not at all."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from scp_node.demo.pacs import serving_ae
from scp_node.settings import COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ENHANCED_SR

EXPLICIT: Final = "1.2.840.10008.1.2.1"
IMPLICIT: Final = "1.2.840.10008.1.2"
VERIFICATION: Final = "1.2.840.10008.1.1"
# PDU types
RELEASE_RQ: Final = 5
ABORT: Final = 7
SR_CLASSES: Final = (COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ENHANCED_SR)


class Scp:
    """A Storage SCP that notes what it gets."""

    def __init__(
        self, *, sop_classes: tuple[str, ...] = SR_CLASSES, syntaxes: tuple[str, ...] = (EXPLICIT, IMPLICIT)
    ) -> None:
        self.statuses: list[int] = []  # of the next responses; 0x0000 when it is empty
        self.stored: list[tuple[str, str, bytes]] = []  # SOP class, transfer syntax, dataset
        self.associations = 0
        self.releases = 0
        self.on_store: Callable[[evt.Event], None] = lambda _event: None
        self.ae = AE("PACS")
        self.ae.supported_contexts = [build_context(uid, list(syntaxes)) for uid in (*sop_classes, VERIFICATION)]
        self.port = 0

    @contextlib.contextmanager
    def serving(self, tls: ssl.SSLContext | None = None) -> Iterator[Scp]:
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_RELEASED, self._released),
        ]
        with serving_ae(self.ae, handlers, tls=tls) as self.port:
            yield self

    def _released(self, _event: evt.Event) -> None:
        self.releases += 1

    def _accepted(self, _event: evt.Event) -> None:
        self.associations += 1

    def _store(self, event: evt.Event) -> int:
        self.on_store(event)
        status = self.statuses.pop(0) if self.statuses else 0x0000
        request: Any = event.request
        self.stored.append(
            (str(request.AffectedSOPClassUID), str(event.context.transfer_syntax), request.DataSet.getvalue())
        )
        return status


@contextlib.contextmanager
def answering(*, answer: bytes | None, then_read: bool = True, buffer: int | None = None) -> Iterator[int]:
    """Give the port of a server that says `answer` to what comes first, and nothing ever after.

    With an answer of None it closes at once; without `then_read` it reads no more.
    """
    connections: list[socket.socket] = []

    def serve_one() -> None:
        connection = server.accept()[0]
        connections.append(connection)
        with contextlib.suppress(OSError):  # the client goes as it likes
            connection.recv(65_536)
            if answer is None:
                connection.close()
                return
            connection.sendall(answer)
            while then_read and (data := connection.recv(65_536)) and data[0] not in (RELEASE_RQ, ABORT):
                pass
            if then_read:
                connection.close()

    def serve() -> None:
        with contextlib.suppress(OSError):  # the server is shut down
            while True:
                serve_one()

    with socket.socket() as server:
        if buffer:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        server.bind(("127.0.0.1", 0))
        server.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            thread.join(5)
            assert not thread.is_alive()
