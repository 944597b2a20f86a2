"""A connection to a peer that speaks the upper layer protocol (PS3.8), with a deadline on every wait."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, Self, TypeVar

from pynetdicom.pdu import A_ABORT_RQ, A_RELEASE_RP, PDU

from scp_node.dicom.foreign import foreign_bytes
from scp_node.tls.contexts import ClientTls
from scp_node.tls.sockets import HandshakeError, TlsSocket, UntrustedPeerError, tls_reason

# PDU types, PS3.8 section 9.3
ASSOCIATE_RQ: Final = 1
ASSOCIATE_AC: Final = 2
ASSOCIATE_RJ: Final = 3
P_DATA: Final = 4
RELEASE_RQ: Final = 5
RELEASE_RP: Final = 6
ABORT: Final = 7
LARGEST_PDU: Final = 1 << 20  # bytes; no DICOM peer sends more
_FIRST_BYTES: Final = {  # of what else may listen on a port
    b"HTTP": "HTTP",
    b"SSH-": "SSH",
    b"220 ": "FTP or SMTP",
    b"220-": "FTP or SMTP",
    b"\x15\x03": "TLS",  # an alert
}
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds

_Pdu = TypeVar("_Pdu", bound=PDU)
_AddressInfo = tuple[  # as socket.getaddrinfo returns it
    socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]


class AssociationError(Exception):
    """The association could not be opened, or is over; the message holds no text of the peer."""


class UnreachableError(AssociationError):
    """There is no connection; `reason` is what the system said of it."""

    def __init__(self, message: str, reason: OSError | ValueError) -> None:
        """Keep the reason beside the message."""
        super().__init__(message)
        self.reason = reason


class TlsError(UnreachableError):
    """There is a connection, and no TLS was agreed upon on it."""


class UntrustedError(TlsError):
    """The peer shows a certificate that is not trusted, or not the expected one."""


class RejectedError(AssociationError):
    """The peer rejected the association; the numbers are those of PS3.8 Table 9-21."""

    def __init__(self, message: str, *, result: int, source: int, diagnostic: int) -> None:
        """Keep the numbers beside the message."""
        super().__init__(message)
        self.result, self.source, self.diagnostic = result, source, diagnostic


class LateError(AssociationError):
    """The peer is connected, and does not read or does not answer in time."""


class ConnectionLostError(AssociationError):
    """The peer closed, aborted or released the association."""


class ForeignProtocolError(ConnectionLostError):
    """The peer speaks, but not the upper layer protocol; `protocol` is its name where it is known, or empty."""

    def __init__(self, message: str, protocol: str = "") -> None:
        """Keep the name of the protocol beside the message."""
        super().__init__(message)
        self.protocol = protocol


class Connection:
    """PDUs out and in; every deadline is an instant of the monotonic clock."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected socket."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._is_late = False  # the peer let a deadline pass

    @classmethod
    def open(cls, host: str, port: int, *, seconds: float, tls: ClientTls | None = None) -> Self:
        """Connect within `seconds` to any of the addresses of `host`, and agree on `tls` where it is given.

        An address is taken as it is; looking a name up is in the hands of the system, which may take longer.

        Raises:
            AssociationError: the peer cannot be reached.
        """
        deadline = time.monotonic() + seconds
        try:
            connected = _connected(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), deadline)
            return cls(connected if tls is None else tls.agree(connected, host, deadline))
        except UntrustedPeerError as error:
            raise UntrustedError(f"no TLS: {error}", error) from error
        except HandshakeError as error:
            raise TlsError(f"no TLS: {error}", error) from error
        except OSError as error:
            raise UnreachableError(f"no connection: {_reason(error)}", error) from error
        except ValueError as error:  # a part of the name is empty or has more than 63 characters, or holds NUL
            raise UnreachableError("no connection: host name is malformed", error) from error

    def send(self, pdu: bytes, deadline: float) -> None:
        """Send one PDU.

        Raises:
            AssociationError: the peer does not read, or is gone.
        """
        try:
            self._socket.settimeout(_seconds_left(deadline))
            self._socket.sendall(pdu)  # the time-out is for all of it
        except TimeoutError as error:
            self._is_late = True
            raise LateError("peer does not read in time") from error
        except OSError as error:
            raise ConnectionLostError(f"connection lost: {_reason(error)}") from error

    def receive(self, deadline: float) -> tuple[int, bytes]:
        """Return the type and the bytes of the next PDU.

        Raises:
            AssociationError: it does not come in time, or the peer ends the association.
        """
        header = self._read(6, deadline)
        kind, length = struct.unpack(">BxL", header)
        if length > LARGEST_PDU:
            raise ForeignProtocolError("PDU is longer than allowed", _protocol(header))
        if not ASSOCIATE_RQ <= kind <= ABORT:
            raise ForeignProtocolError("PDU of an unknown type", _protocol(header))
        pdu = header + self._read(length, deadline)
        if kind == ABORT:
            raise ConnectionLostError("peer aborted the association")
        if kind == RELEASE_RQ:
            self.send(A_RELEASE_RP().encode(), deadline)
            raise ConnectionLostError("peer released the association")
        return kind, pdu

    def has_input(self) -> bool:
        """Return whether the peer has sent something, or closed."""
        if isinstance(self._socket, TlsSocket):
            return self._socket.has_input()
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

    def close(self) -> None:
        """Close the connection, and send no more to a peer that did not read in time."""
        if self._is_late:  # the system would go on sending what it holds, megabytes, and fill a slow line for minutes
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif isinstance(self._socket, TlsSocket):
            self._socket.say_goodbye()
        self._socket.close()

    def abort(self) -> None:
        """Tell the peer that it is over, if it still listens, and close the connection."""
        abort = A_ABORT_RQ()
        abort.source = 0  # the service user, PS3.8 Table 9-26
        abort.reason_diagnostic = 0
        with contextlib.suppress(OSError):
            self._socket.settimeout(0)
            self._socket.send(abort.encode())
        self.close()

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        try:
            while len(data) < size:
                self._acknowledge_quickly()
                self._socket.settimeout(_seconds_left(deadline))
                if not (part := self._socket.recv(size - len(data))):
                    raise ConnectionLostError("peer closed the connection")
                data += part
        except TimeoutError as error:
            self._is_late = True
            raise LateError("peer does not answer in time") from error
        except OSError as error:
            raise ConnectionLostError(f"connection lost: {_reason(error)}") from error
        return bytes(data)

    def _acknowledge_quickly(self) -> None:
        # A peer with Nagle's algorithm holds half a response back until we acknowledge the other half: 40 ms each time
        if hasattr(socket, "TCP_QUICKACK"):  # Linux; falls back by itself, so it is said before each read
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def decoding() -> AbstractContextManager[None]:
    """Raise ConnectionLostError when pynetdicom cannot decode the input of a peer in the block."""
    return foreign_bytes(as_=_malformed, passing=AssociationError)


def decoded(kind: type[_Pdu], pdu: bytes) -> _Pdu:
    """Return the PDU as an instance of pynetdicom's class `kind`.

    Raises:
        ConnectionLostError: it is malformed.
    """
    instance = kind()
    with decoding():
        instance.decode(pdu)
    return instance


def _malformed(error: Exception) -> ConnectionLostError:
    return ForeignProtocolError(f"malformed PDU: {type(error).__name__}")


def _connected(addresses: Sequence[_AddressInfo], deadline: float) -> socket.socket:
    """Connect to the first of `addresses` that answers; each gets its share of the time that is left."""
    refusal: OSError = OSError("name has no address")
    for number, (family, kind, protocol, _name, address) in enumerate(addresses):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_seconds_left(deadline) / (len(addresses) - number))
            connection.connect(address)
        except OSError as error:
            connection.close()
            refusal = error
        else:
            return connection
    raise refusal


def _protocol(header: bytes) -> str:
    """Return the name of the protocol whose first bytes these are, or an empty string."""
    return next((name for first, name in _FIRST_BYTES.items() if header.startswith(first)), "")


def _seconds_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline has passed")
    return left


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return tls_reason(error)
    return "timed out" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
