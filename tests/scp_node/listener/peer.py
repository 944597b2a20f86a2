"""A peer that speaks the upper layer protocol by hand, so that it can also speak it badly."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

ASSOCIATE_RQ: Final = 1
ASSOCIATE_AC: Final = 2
ASSOCIATE_RJ: Final = 3
P_DATA: Final = 4
RELEASE_RQ: Final = 5
RELEASE_RP: Final = 6
ABORT: Final = 7
CLOSED: Final = 0  # in place of a PDU type: the connection is closed

CR: Final = "1.2.840.10008.5.1.4.1.1.1"
DX: Final = "1.2.840.10008.5.1.4.1.1.1.1"
VERIFICATION: Final = "1.2.840.10008.1.1"
PUSH_MODEL: Final = "1.2.840.10008.1.20.1"  # Storage Commitment
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
EVENT_TYPE: Final = 0x1002
MISSING: Final = None  # as a command element: leave it out

C_STORE_RQ: Final = 0x0001
C_FIND_RQ: Final = 0x0020
C_ECHO_RQ: Final = 0x0030
N_EVENT_REPORT_RQ: Final = 0x0100
N_ACTION_RQ: Final = 0x0130
NO_DATASET: Final = 0x0101


@dataclass(frozen=True)
class Answer:
    """A DIMSE response."""

    status: int
    elements: Mapping[int, bytes] = field(repr=False)

    @property
    def comment(self) -> str:
        return self.elements.get(ERROR_COMMENT, b"").decode().strip()


class Peer:
    """One connection; a context manager."""

    def __init__(
        self, address: tuple[str, int], *, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self._socket = socket.create_connection(address, timeout=10, source_address=(source, 0))
        if tls:
            self._socket = tls.wrap_socket(self._socket, server_hostname=address[0])
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.results: dict[int, int] = {}  # presentation context ID -> result
        self.roles: dict[str, tuple[int, int]] = {}  # SOP class -> accepted SCU and SCP role

    @property
    def connection(self) -> socket.socket:
        return self._socket

    @staticmethod
    def request(contexts: Sequence[tuple[str, Sequence[str]]] = ((VERIFICATION, [IMPLICIT]),)) -> bytes:
        """Return the payload of an association request by a modality."""
        return associate_request(contexts, calling="MODALITY1", called="PNEUMONIA")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def associate(
        self,
        contexts: Sequence[tuple[str, Sequence[str]]] = (
            (DX, [EXPLICIT]),
            (CR, [EXPLICIT]),
            (VERIFICATION, [IMPLICIT]),
        ),
        *,
        calling: str = "MODALITY1",
        called: str = "PNEUMONIA",
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
            self.roles = _roles(accepted)
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
        for start in range(0, max(len(dataset), 1), 100_000):
            part = dataset[start : start + 100_000]
            self.send_pdv(context, part, is_last=start + 100_000 >= len(dataset))

    def send_store_command(self, command: Mapping[int, object] | None = None, *, context: int = 1) -> None:
        """Send the command of a C-STORE request; `command` replaces elements of the usual one."""
        usual = {
            SOP_CLASS: DX,
            COMMAND_FIELD: C_STORE_RQ,
            MESSAGE_ID: 7,
            PRIORITY: 0,
            DATASET_TYPE: 1,
            SOP_INSTANCE: "1.2.3",
        }
        self.send_pdv(context, encoded_command({**usual, **(command or {})}), is_command=True)

    def echo(self, *, context: int = 5) -> Answer:
        """Send a C-ECHO and return the answer."""
        command = {SOP_CLASS: VERIFICATION, COMMAND_FIELD: C_ECHO_RQ, MESSAGE_ID: 8, DATASET_TYPE: NO_DATASET}
        self.send_pdv(context, encoded_command(command), is_command=True)
        return self.answer()

    def event(
        self, information: bytes | None, command: Mapping[int, object] | None = None, *, context: int = 1
    ) -> Answer:
        """Send an N-EVENT-REPORT and return the answer; `command` replaces elements of the usual one."""
        usual = {
            SOP_CLASS: PUSH_MODEL,
            COMMAND_FIELD: N_EVENT_REPORT_RQ,
            MESSAGE_ID: 9,
            DATASET_TYPE: NO_DATASET if information is None else 1,
            SOP_INSTANCE: PUSH_MODEL + ".1",
            EVENT_TYPE: 1,
        }
        self.send_pdv(context, encoded_command({**usual, **(command or {})}), is_command=True)
        if information is not None:
            for start in range(0, max(len(information), 1), 60_000):
                part = information[start : start + 60_000]
                self.send_pdv(context, part, is_last=start + 60_000 >= len(information))
        return self.answer()

    def send_pdv(self, context: int, data: bytes, *, is_command: bool = False, is_last: bool = True) -> None:
        """Send one presentation data value in a PDU of its own."""
        control = (1 if is_command else 0) | (2 if is_last else 0)
        self.send(P_DATA, struct.pack(">LBB", len(data) + 2, context, control) + data)

    def send(self, kind: int, payload: bytes) -> None:
        """Send one PDU."""
        self.send_raw(struct.pack(">BxL", kind, len(payload)) + payload)

    def send_raw(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Return type and payload of the next PDU; `CLOSED` at the end of the connection."""
        try:
            kind, length = struct.unpack(">BxL", self._read(6))
            return kind, self._read(length)
        except (EOFError, ConnectionError):
            return CLOSED, b""

    def answer(self) -> Answer:
        """Return the next DIMSE response."""
        kind, payload = self.receive()
        assert kind == P_DATA, f"PDU type {kind} instead of a response"
        elements = decoded_command(payload[6:])
        return Answer(int.from_bytes(elements[STATUS], "little"), elements)

    def is_closed(self, within: float = 10) -> bool:
        """Return whether the node ends the association within so many seconds: by A-ABORT, or it just closes."""
        self._socket.settimeout(within)
        try:
            return self.receive()[0] in (ABORT, CLOSED)
        except TimeoutError:
            return False

    def release(self) -> int:
        """Ask for release and return the type of the answer."""
        self.send(RELEASE_RQ, bytes(4))
        return self.receive()[0]

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
    proposed = b"".join(encoded_item(0x54, _uid_field(uid) + bytes((scu, scp))) for uid, scu, scp in roles)
    user = encoded_item(0x51, struct.pack(">L", 65_536)) + encoded_item(0x52, b"1.2.3.4")
    items += encoded_item(0x50, user + proposed + user_items)
    titles = b"".join(title.encode("latin-1").ljust(16, padding) for title in (called, calling))
    return struct.pack(">HH", version, 0) + titles + bytes(32) + items


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


def _encoded_value(value: object) -> bytes:
    if isinstance(value, int):
        return struct.pack("<H", value)
    data = value if isinstance(value, bytes) else str(value).encode()
    return data + b"\0" * (len(data) % 2)


def _uid_field(uid: str) -> bytes:
    return struct.pack(">H", len(uid)) + uid.encode()


def _roles(items: Sequence[tuple[int, bytes]]) -> dict[str, tuple[int, int]]:
    information = b"".join(item for type_, item in items if type_ == 0x50)
    return {item[2:-2].decode(): (item[-2], item[-1]) for type_, item in _items(information) if type_ == 0x54}


def encoded_item(kind: int, payload: bytes) -> bytes:
    """Return an item of an A-ASSOCIATE-RQ, PS3.8 section 9.3.2."""
    return struct.pack(">BxH", kind, len(payload)) + payload


def _items(data: bytes) -> list[tuple[int, bytes]]:
    items = []
    while data:
        kind, length = struct.unpack(">BxH", data[:4])
        items.append((kind, data[4 : 4 + length]))
        data = data[4 + length :]
    return items
