"""A socket that speaks TLS, and can say whether there is something to read.

`poll` looks at the descriptor alone. It does not see data that has been decrypted and waits in memory. And it sees
bytes that give no data: a session ticket, an update of the keys, half a record.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any, Final, cast

CLIENT_HELLO: Final = 0x16  # the first byte of a client: a handshake record (RFC 8446 section 5.1)

_LEAST_SECONDS: Final = 0.001  # 0 would mean: do not wait at all, and is another kind of socket


class HandshakeError(OSError):
    """No TLS was agreed upon; the message says why and holds no text of the peer."""


class UntrustedPeerError(HandshakeError):
    """The certificate of the peer is not trusted, or not the expected one."""


class TlsSocket(ssl.SSLSocket):
    """A socket that reads one byte ahead to know whether there is something to read; one thread reads it."""

    _ahead = b""

    def has_input(self) -> bool:
        """Return whether a read would give something at once: data, the end, or an error."""
        if self._ahead or self.pending():
            return True
        timeout = self.gettimeout()
        try:
            self.settimeout(0)
            self._ahead = super().read(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except (OSError, ValueError):  # the next read says so again
            return True
        finally:
            self.settimeout(timeout)
        return True

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - as in the base class
        """Return up to `len` bytes, or put them into `buffer` and return their number."""
        if not self._ahead:
            return super().read(len, buffer)
        ahead, self._ahead = self._ahead, b""
        if buffer is None:
            return ahead
        buffer[:1] = ahead
        return 1

    def say_goodbye(self) -> None:
        """Tell the peer that no more comes (RFC 8446 section 6.1), without waiting for its answer."""
        try:
            self.settimeout(0)
            self.unwrap()
        except (OSError, ValueError):  # it wants to wait, the peer is gone, or the socket is closed
            return


def is_client_hello(beginning: bytes) -> bool:
    """Return whether what a peer says first is a handshake of TLS: its record, and the major version 3."""
    return beginning[:2] == bytes((CLIENT_HELLO, 3))


def agree(
    connection: socket.socket, context: ssl.SSLContext, deadline: float, *, server_name: str | None = None
) -> TlsSocket:
    """Shake hands within the deadline, an instant of the monotonic clock; `server_name` is given by a client.

    The connection is closed when that fails.

    Raises:
        HandshakeError: no TLS was agreed upon.
    """
    connection.settimeout(_seconds_until(deadline))
    try:
        wrapped = cast(
            "TlsSocket",
            context.wrap_socket(
                connection,
                server_side=server_name is None,
                server_hostname=server_name,
                do_handshake_on_connect=False,
            ),
        )
    except (OSError, ValueError) as error:
        connection.close()
        raise HandshakeError(_reason(error)) from error
    try:
        wrapped.settimeout(_seconds_until(deadline))
        wrapped.do_handshake()
    except (OSError, ValueError) as error:
        wrapped.close()
        kind = UntrustedPeerError if isinstance(error, ssl.SSLCertVerificationError) else HandshakeError
        raise kind(_reason(error)) from error
    return wrapped


def _seconds_until(deadline: float) -> float:
    return max(deadline - time.monotonic(), _LEAST_SECONDS)


_REASONS: Final = {  # of OpenSSL, in words
    "HTTP_REQUEST": "it speaks HTTP, not TLS",
    "NO_SHARED_CIPHER": "no cipher suite is common to both",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "UNSUPPORTED_PROTOCOL": "no version of TLS is common to both",
    "NO_PROTOCOLS_AVAILABLE": "no version of TLS is common to both",
    "TLSV1_ALERT_PROTOCOL_VERSION": "no version of TLS is common to both",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it finds nothing in common, or wants a certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate, and we show none",
    "WRONG_VERSION_NUMBER": "what it says is not TLS",
    "RECORD_LAYER_FAILURE": "what it says is not TLS",
    "PACKET_LENGTH_TOO_LONG": "what it says is not TLS",
    "BAD_RECORD_TYPE": "what it says is not TLS",
}


def tls_reason(error: ssl.SSLError) -> str:
    """Return in words what OpenSSL says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "it ended the connection"
    reason = error.reason or type(error).__name__
    return _REASONS.get(reason, reason.replace("_", " ").lower())


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return tls_reason(error)
    if isinstance(error, TimeoutError):
        return "no handshake in time"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "its name is malformed"
