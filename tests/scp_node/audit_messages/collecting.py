"""A collector of audit messages: a syslog server that reads RFC 5425 frames and keeps what they hold."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from typing import Any, Final, Self
from xml.etree.ElementTree import Element

from scp_node.settings import AuditMessagesSettings
from tests.certificates import Certificates
from tests.scp_node.audit_messages.schema import parsed
from tests.servers import LOOPBACK

BEHIND_HEADER: Final = 7  # spaces before the content of a syslog message without structured data


class SyslogServer(socketserver.ThreadingTCPServer):
    """Takes connections, by TLS where it has a context; what it does with one can be changed."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, context: ssl.SSLContext | None, *, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), _Reader)
        self.context = context
        self.received: list[bytes] = []  # syslog messages, in order
        self.reads = True  # False: closes as soon as the connection is there
        self.answers_end = True  # False: never closes its side
        self.polite = True  # False: closes without a close_notify, as rsyslog does
        self.closed = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def xml(self) -> list[Element]:
        """Return the audit messages that came."""
        return [parsed(each.split(b" ", BEHIND_HEADER)[BEHIND_HEADER]) for each in self.received]

    def settings(self, certificates: Certificates | None = None, **changes: Any) -> AuditMessagesSettings:
        """Return the section that names this collector."""
        tls = certificates.destination(certificates.modality, **changes) if certificates else {"enabled": False}
        return AuditMessagesSettings.model_validate({"host": LOOPBACK, "port": self.port, "tls": tls})

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Say nothing: a peer that is refused is what a test wants."""


class _Reader(socketserver.BaseRequestHandler):
    server: SyslogServer

    def handle(self) -> None:
        connection = self.request
        if self.server.context:
            connection = self.server.context.wrap_socket(connection, server_side=True)
        if not self.server.reads:
            connection.close()
            return
        self._read(connection)
        if not self.server.answers_end:
            self.server.closed.wait()
        if self.server.context and self.server.polite:
            with contextlib.suppress(OSError):
                connection.unwrap()
        connection.close()

    def _read(self, connection: Any) -> None:
        with connection.makefile("rb") as stream:
            while length := _number(stream):
                self.server.received.append(stream.read(length))


def _number(stream: Any) -> int:
    """Return the length before a message; 0 at the end of the stream."""
    digits = b""
    while (byte := stream.read(1)) not in {b" ", b""}:
        digits += byte
    return int(digits or b"0")
