"""The connection to a collector: one for each batch, so that its end says that all of it was read.

Syslog has no answer. But a collector has to close the connection when we have (RFC 5425 section 4.4), and can only do
so after it has read what was before. A connection that ends otherwise proves nothing, and its batch is sent again.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from typing import Final

from scp_node.audit_messages.syslog import framed
from scp_node.settings import AuditMessagesSettings
from scp_node.tls.contexts import ClientTls
from scp_node.tls.sockets import HandshakeError, TlsSocket

CONNECT_SECONDS: Final = 10.0
SEND_SECONDS: Final = 30.0  # for a batch and the end of its connection
LONGEST_BATCH: Final = CONNECT_SECONDS + SEND_SECONDS
SETTING: Final = "audit_messages.tls"
_CHUNK: Final = 4_096


class CollectorError(Exception):
    """The collector does not have the messages, or nobody knows; the message holds no text of it."""


class Collector:
    """The site's collector of audit messages."""

    def __init__(self, settings: AuditMessagesSettings, *, seconds: float = SEND_SECONDS) -> None:
        """Load the files of the certificate.

        Raises:
            SettingsError: one cannot be used.
        """
        self._host, self._port = settings.host, settings.port
        self._seconds = seconds
        self._tls = ClientTls(settings.tls, SETTING) if settings.tls.enabled else None

    def send(self, messages: Sequence[bytes]) -> None:
        """Send syslog messages, and return when the collector has read them.

        Raises:
            CollectorError: that is not known.
        """
        with self._connected() as connection:
            deadline = time.monotonic() + self._seconds
            try:
                connection.settimeout(self._seconds)
                connection.sendall(b"".join(map(framed, messages)))
                _close_our_side(connection, deadline)
                if _unacknowledged(connection):
                    raise CollectorError("it closed the connection before it had all")
            except TimeoutError as error:
                raise CollectorError("it does not read, or does not close the connection after us") from error
            except OSError as error:
                raise CollectorError(f"connection lost: {_reason(error)}") from error

    def _connected(self) -> socket.socket:
        deadline = time.monotonic() + CONNECT_SECONDS
        try:
            connection = socket.create_connection((self._host, self._port), timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise CollectorError(f"no connection: {_reason(error)}") from error
        if self._tls is None:
            return connection
        try:
            return self._tls.agree(connection, self._host, deadline)
        except HandshakeError as error:
            raise CollectorError(f"no TLS: {error}") from error


def _close_our_side(connection: socket.socket, deadline: float) -> None:
    """Say that no more comes, and wait until the other side has closed too.

    Raises:
        OSError: it does not, or the connection broke.
    """
    connection.settimeout(max(deadline - time.monotonic(), 0.001))
    if isinstance(connection, TlsSocket):
        try:
            connection.unwrap()
        except ssl.SSLEOFError:  # it closes without saying so first, as rsyslog does
            return
    else:
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(_CHUNK):
            connection.settimeout(max(deadline - time.monotonic(), 0.001))


def _unacknowledged(connection: socket.socket) -> int:
    """Return how many bytes TCP has not brought to the other side: some, where that had closed before they came."""
    answer = fcntl.ioctl(connection, termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
