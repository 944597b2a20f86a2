"""A peer that speaks the upper layer protocol (PS3.8) and DIMSE (PS3.7) by hand, so that it can speak them badly."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from scp_node.delivery.connection import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RQ,
    LARGEST_PDU,
    P_DATA,
    RELEASE_RQ,
)
from scp_node.tls.contexts import ClientTls
from scp_node.tls.sockets import TlsSocket

CLOSED: Final = 0  # in place of a PDU type: the connection is closed

CR: Final = "1.2.840.10008.5.1.4.1.1.1"
DX: Final = "1.2.840.10008.5.1.4.1.1.1.1"
VERIFICATION: Final = "1.2.840.10008.1.1"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
IMPLICIT: Final = "1.2.840.10008.1.2"

SOP_CLASS: Final = 0x0002
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
PRIORITY: Final = 0x0700
DATASET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
ERROR_COMMENT: Final = 0x0902
SOP_INSTANCE: Final = 0x1000
MISSING: Final = None  # as a command element: leave it out

C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
NO_DATASET: Final = 0x0101

USUAL_CONTEXTS: Final = ((DX, (EXPLICIT,)), (CR, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,)))  # IDs 1, 3, 5

_MAXIMUM_LENGTH: Final = 0x51  # of items in the user information, PS3.8 section D.1
_ROLE: Final = 0x54
_USER_INFORMATION: Final = 0x50


class OddAnswerError(Exception):
    """Something else came where a response belongs; `kind` is the type of the PDU, or CLOSED."""

    def __init__(self, kind: int) -> None:
        """Name the type of the PDU."""
        super().__init__(f"PDU type {kind} instead of a response")
        self.kind = kind


@dataclass(frozen=True)
class Answer:
    """A DIMSE response."""

    status: int
    elements: Mapping[int, bytes] = field(repr=False)

    @property
    def comment(self) -> str:
        """Return the Error Comment (0000,0902)."""
        return self.elements.get(ERROR_COMMENT, b"").decode().strip()


class Peer:
    """One connection; a context manager."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        source: str | None = "127.0.0.1",
        seconds: float = 10,
        tls: ssl.SSLContext | ClientTls | None = None,
    ) -> None:
        """Connect from the address `source`, agree on `tls`, and wait for each answer at most `seconds`."""
        self._socket = socket.create_connection(address, seconds, None if source is None else (source, 0))
        if isinstance(tls, ClientTls):
            self._socket = tls.agree(self._socket, address[0], time.monotonic() + seconds)
            self._socket.settimeout(seconds)
        elif tls:
            self._socket = tls.wrap_socket(self._socket, server_hostname=address[0])
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.results: dict[int, int] = {}  # presentation context ID -> result
        self.roles: dict[str, tuple[int, int]] = {}  # SOP class -> accepted SCU and SCP role
        self.largest_pdu = 0  # bytes that the SCP takes in a P-DATA PDU; 0 where it sets no limit

    @property
    def connection(self) -> socket.socket:
        """Return the socket."""
        return self._socket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def associate(
        self,
        contexts: Sequence[tuple[str, Sequence[str]]] = USUAL_CONTEXTS,
        *,
        calling: str,
        called: str,
        roles: Sequence[tuple[str, int, int]] = (),
        version: int = 1,
        padding: bytes = b" ",
        items: bytes = b"",
        user_items: bytes = b"",
    ) -> tuple[int, bytes]:
        """Request an association; contexts get the IDs 1, 3, 5; return type and payload of the answer.

        `roles` are proposals of (SOP class, SCU role, SCP role), PS3.7 section D.3.3.4. `padding` fills the AE titles;
        `items` and `user_items` are encoded items beside the usual ones.
        """
        request = associate_request(
            contexts,
            calling=calling,
            called=called,
            roles=roles,
            version=version,
            padding=padding,
            items=items,
            user_items=user_items,
        )
        self.send(ASSOCIATE_RQ, request)
        kind, payload = self.receive()
        if kind == ASSOCIATE_AC:
            accepted = _items(payload[68:])
            self.results = {item[0]: item[2] for type_, item in accepted if type_ == 0x21}
            agreed = [each for type_, item in accepted if type_ == _USER_INFORMATION for each in _items(item)]
            self.roles = {item[2:-2].decode(): (item[-2], item[-1]) for type_, item in agreed if type_ == _ROLE}
            self.largest_pdu = max(
                (int.from_bytes(item, "big") for type_, item in agreed if type_ == _MAXIMUM_LENGTH), default=0
            )
        return kind, payload

    def store(
        self,
        dataset: bytes,
        command: Mapping[int, object] | None = None,
        *,
        context: int = 1,
        sop_class: str = DX,
        sop_instance: str = "1.2.3",
    ) -> Answer:
        """Send a C-STORE and return the answer; `command` replaces elements of the usual one."""
        self.send_store(dataset, command, context=context, sop_class=sop_class, sop_instance=sop_instance)
        return self.answer()

    def send_store(
        self,
        dataset: bytes,
        command: Mapping[int, object] | None = None,
        *,
        context: int = 1,
        sop_class: str = DX,
        sop_instance: str = "1.2.3",
    ) -> None:
        """Send a C-STORE request."""
        replaced = {SOP_CLASS: sop_class, SOP_INSTANCE: sop_instance, **(command or {})}
        self.send_store_command(replaced, context=context)
        size = min(self.largest_pdu or 100_000, 100_000) - 6
        for start in range(0, max(len(dataset), 1), size):
            self.send_pdv(context, dataset[start : start + size], is_last=start + size >= len(dataset))

    def send_store_command(self, command: Mapping[int, object] | None = None, *, context: int = 1) -> None:
        """Send the command of a C-STORE request; `command` replaces elements of the usual one."""
        self.send_pdv(context, encoded_command({**STORE_COMMAND, **(command or {})}), is_command=True)

    def echo(self, *, context: int = 5) -> Answer:
        """Send a C-ECHO and return the answer."""
        self.send_pdv(context, encoded_command(ECHO_COMMAND), is_command=True)
        return self.answer()

    def send_pdv(self, context: int, data: bytes, *, is_command: bool = False, is_last: bool = True) -> None:
        """Send a PDU that holds one presentation data value."""
        self.send_raw(encoded_pdv(context, data, is_command=is_command, is_last=is_last))

    def send(self, kind: int, payload: bytes) -> None:
        """Send one PDU."""
        self.send_raw(encoded_pdu(kind, payload))

    def send_raw(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Return type and payload of the next PDU; `CLOSED` at the end of the connection."""
        try:
            kind, length = struct.unpack(">BxL", self._read(6))
            if length > LARGEST_PDU:
                raise OddAnswerError(kind)
            return kind, self._read(length)
        except (EOFError, ConnectionError, ssl.SSLEOFError):
            return CLOSED, b""

    def answer(self) -> Answer:
        """Return the next DIMSE response.

        Raises:
            OddAnswerError: something else comes.
        """
        kind, payload = self.receive()
        elements = decoded_command(payload[6:]) if kind == P_DATA else {}
        if STATUS not in elements:
            raise OddAnswerError(kind)
        return Answer(int.from_bytes(elements[STATUS], "little"), elements)

    def is_closed(self, within: float = 10) -> bool:
        """Return whether the SCP ends the association within that many seconds: by A-ABORT, or it just closes."""
        self._socket.settimeout(within)
        try:
            return self.receive()[0] in {ABORT, CLOSED}
        except TimeoutError:
            return False

    def says_nothing(self, within: float) -> bool:
        """Return whether the SCP neither says anything nor closes within that many seconds."""
        if isinstance(self._socket, TlsSocket) and self._socket.has_input():
            return False
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return not poller.poll(1000 * within) or (isinstance(self._socket, TlsSocket) and not self._socket.has_input())

    def release(self) -> int:
        """Ask for release and return the type of the answer."""
        self.send(RELEASE_RQ, bytes(4))
        return self.receive()[0]

    def wait_at_most(self, seconds: float) -> None:
        """Wait for each answer at most that long from now on."""
        self._socket.settimeout(seconds)

    def send_no_more(self) -> None:
        """Close our side of the connection, of TLS without a word; the other may still send."""
        socket.socket.shutdown(self._socket, socket.SHUT_WR)  # that of TLS could read no more

    def cut(self) -> None:
        """End the connection from another thread, so that nobody waits for it."""
        with contextlib.suppress(OSError):  # it is over already
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (part := self._socket.recv(size - len(data))):
                raise EOFError
            data += part
        return data


def associate_request(
    contexts: Sequence[tuple[str, Sequence[str]]],
    *,
    calling: str,
    called: str,
    roles: Sequence[tuple[str, int, int]] = (),
    version: int = 1,
    padding: bytes = b" ",
    items: bytes = b"",
    user_items: bytes = b"",
) -> bytes:
    """Return the payload of an A-ASSOCIATE-RQ, PS3.8 section 9.3.2."""
    items += encoded_item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, transfer) in enumerate(contexts):
        syntaxes = b"".join(encoded_item(0x40, uid.encode()) for uid in transfer)
        items += encoded_item(0x20, bytes((2 * number + 1, 0, 0, 0)) + encoded_item(0x30, abstract.encode()) + syntaxes)
    proposed = b"".join(encoded_item(_ROLE, _uid_field(uid) + bytes((scu, scp))) for uid, scu, scp in roles)
    user = encoded_item(_MAXIMUM_LENGTH, struct.pack(">L", 65_536)) + encoded_item(0x52, b"1.2.3.4")
    items += encoded_item(_USER_INFORMATION, user + proposed + user_items)
    titles = b"".join(title.encode("latin-1").ljust(16, padding) for title in (called, calling))
    return struct.pack(">HH", version, 0) + titles + bytes(32) + items


def encoded_pdu(kind: int, payload: bytes) -> bytes:
    """Return a PDU, PS3.8 section 9.3."""
    return struct.pack(">BxL", kind, len(payload)) + payload


def encoded_pdv(context: int, data: bytes, *, is_command: bool = False, is_last: bool = True) -> bytes:
    """Return a PDU that holds one presentation data value, PS3.8 section 9.3.5."""
    control = (1 if is_command else 0) | (2 if is_last else 0)
    return encoded_pdu(P_DATA, struct.pack(">LBB", len(data) + 2, context, control) + data)


def encoded_item(kind: int, payload: bytes) -> bytes:
    """Return an item of an A-ASSOCIATE-RQ, PS3.8 section 9.3.2."""
    return struct.pack(">BxH", kind, len(payload)) + payload


def encoded_command(elements: Mapping[int, object]) -> bytes:
    """Return a command set, PS3.7 section 6.3: text, numbers of 16 bits, or bytes as they are."""
    encoded = b""
    for number, value in sorted(elements.items()):
        if value is not MISSING:
            data = _encoded_value(value)
            encoded += struct.pack("<HHL", 0, number, len(data)) + data
    return encoded


def decoded_command(data: bytes) -> dict[int, bytes]:
    """Return the values of a command set."""
    elements = {}
    while data:
        _, number, length = struct.unpack("<HHL", data[:8])
        elements[number] = data[8 : 8 + length]
        data = data[8 + length :]
    return elements


STORE_COMMAND: Final[Mapping[int, object]] = {
    SOP_CLASS: DX,
    COMMAND_FIELD: C_STORE_RQ,
    MESSAGE_ID: 7,
    PRIORITY: 0,
    DATASET_TYPE: 1,
    SOP_INSTANCE: "1.2.3",
}
ECHO_COMMAND: Final[Mapping[int, object]] = {
    SOP_CLASS: VERIFICATION,
    COMMAND_FIELD: C_ECHO_RQ,
    MESSAGE_ID: 8,
    DATASET_TYPE: NO_DATASET,
}


def _encoded_value(value: object) -> bytes:
    if isinstance(value, int):
        return struct.pack("<H", value)
    data = value if isinstance(value, bytes) else str(value).encode()
    return data + b"\0" * (len(data) % 2)


def _uid_field(uid: str) -> bytes:
    return struct.pack(">H", len(uid)) + uid.encode()


def _items(data: bytes) -> list[tuple[int, bytes]]:
    items = []
    while data:
        kind, length = struct.unpack(">BxH", data[:4])
        items.append((kind, data[4 : 4 + length]))
        data = data[4 + length :]
    return items
