"""An association that we request: one thread, blocking, with a deadline on every wait.

pynetdicom's requestor has three threads and no deadline on a send: a peer that stops reading holds it for ever. Its PDU
and message classes are used, its threads are not. PS3.8 section 9.2 for the requestor is a straight line without them.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Self

from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import (
    A_ABORT_RQ,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    P_DATA_TF,
)
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, build_context

from scp_node.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

MAXIMUM_CONTEXTS: Final = 128  # PS3.8 section 9.3.2.2: odd numbers of one byte
VERIFICATION: Final = "1.2.840.10008.1.1"

_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"  # PS3.7 section A.2.1
_ASSOCIATE_AC, _ASSOCIATE_RJ, _P_DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = 2, 3, 4, 5, 6, 7  # PS3.8 section 9.3
_REJECTED_PERMANENT: Final = 1
_OUR_MAXIMUM_PDU: Final = 16_384  # bytes; responses are small
_THEIR_MAXIMUM_PDU: Final = 131_072  # bytes; the most that we send in one, whatever the peer allows
_LARGEST_PDU: Final = 1 << 20  # bytes; more is no DICOM peer
_LARGEST_RESPONSE: Final = 1 << 16  # bytes
_RELEASE_SECONDS: Final = 2.0
_PDV_OVERHEAD: Final = 6  # bytes in a PDU before the data: length, context and control header, PS3.8 section 9.3.5


class AssociationError(Exception):
    """The association could not be opened, or is over; the message holds no text of the peer."""

    is_permanent = False


class RejectedPermanentlyError(AssociationError):
    """The peer will not have us: A-ASSOCIATE-RJ, result 1."""

    is_permanent = True


class ConnectionLostError(AssociationError):
    """The peer closed, aborted or released the association."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A presentation context that the peer accepted."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


class RequestedAssociation:
    """An open association; `close` it, whatever happened."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected socket; `request` makes one."""
        self._connection = connection
        self._message_id = 0
        self._maximum_pdu = _OUR_MAXIMUM_PDU
        self.accepted: list[Accepted] = []

    @classmethod
    def request(
        cls, host: str, port: int, *, calling_ae: str, called_ae: str, contexts: Iterable[tuple[str, list[str]]],
        seconds: float,
    ) -> Self:  # fmt: skip
        """Connect and negotiate `contexts`, (abstract syntax, transfer syntaxes) each, within `seconds`.

        Raises:
            AssociationError: the peer cannot be reached, refuses, or is too slow.
        """
        deadline = time.monotonic() + seconds
        proposed = [build_context(abstract, transfer) for abstract, transfer in contexts]
        for number, context in enumerate(proposed):
            context.context_id = 2 * number + 1
        try:
            association = cls(socket.create_connection((host, port), timeout=seconds))
        except OSError as error:
            raise AssociationError(f"no connection: {_reason(error)}") from error
        try:
            association._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            association._negotiate(_request_pdu(calling_ae, called_ae, proposed), proposed, deadline)
        except BaseException:
            association.abort()
            raise
        return association

    def context_for(self, abstract_syntax: str, transfer_syntax: str | None = None) -> Accepted | None:
        """Return the accepted context of that kind, if there is one."""
        for accepted in self.accepted:
            if accepted.abstract_syntax == abstract_syntax and transfer_syntax in (None, accepted.transfer_syntax):
                return accepted
        return None

    def store(self, dataset: bytes, sop_instance_uid: str, context: Accepted, *, seconds: float) -> int:
        """Send an encoded dataset and return the status of the response.

        Raises:
            AssociationError: there was no response within `seconds`, or the association is over.
        """
        request = C_STORE()
        request.MessageID = self._next_message_id()
        request.AffectedSOPClassUID = context.abstract_syntax
        request.AffectedSOPInstanceUID = sop_instance_uid
        request.Priority = 0
        request.DataSet = BytesIO(dataset)
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        return self._exchange(message, context.context_id, seconds)

    def echo(self, *, seconds: float) -> int:
        """Send a C-ECHO and return the status of the response.

        Raises:
            AssociationError: there was no response within `seconds`, or the association is over.
        """
        if (context := self.context_for(VERIFICATION)) is None:
            raise AssociationError("C-ECHO is not accepted")
        request = C_ECHO()
        request.MessageID = self._next_message_id()
        request.AffectedSOPClassUID = VERIFICATION
        message = C_ECHO_RQ()
        message.primitive_to_message(request)
        return self._exchange(message, context.context_id, seconds)

    def is_stale(self) -> bool:
        """Return whether the peer has said anything while nothing was asked: it has closed, aborted or released."""
        poller = select.poll()
        poller.register(self._connection, select.POLLIN)
        return bool(poller.poll(0))

    def release(self) -> None:
        """Release the association and close the connection."""
        deadline = time.monotonic() + _RELEASE_SECONDS
        with contextlib.suppress(AssociationError):
            self._send(A_RELEASE_RQ().encode(), deadline)
            while self._receive(deadline)[0] != _RELEASE_RP:
                pass
        self._connection.close()

    def abort(self) -> None:
        """Tell the peer that it is over, if it still listens, and close the connection."""
        with contextlib.suppress(OSError):
            self._connection.settimeout(0)
            self._connection.send(_abort_pdu())
        self._connection.close()

    def _negotiate(self, request: bytes, proposed: list[PresentationContext], deadline: float) -> None:
        self._send(request, deadline)
        kind, pdu = self._receive(deadline)
        if kind == _ASSOCIATE_RJ:
            raise _rejection(pdu)
        if kind != _ASSOCIATE_AC:
            raise ConnectionLostError("unexpected PDU instead of an answer to the association request")
        answer = _decode(A_ASSOCIATE_AC, pdu).to_primitive()
        abstract_syntaxes = {context.context_id: str(context.abstract_syntax) for context in proposed}
        self.accepted = [
            Accepted(result.context_id, abstract_syntaxes[result.context_id], str(result.transfer_syntax[0]))
            for result in answer.presentation_context_definition_results_list
            if result.result == 0 and result.context_id in abstract_syntaxes
        ]
        for item in answer.user_information:
            if isinstance(item, MaximumLengthNotification) and item.maximum_length_received:
                self._maximum_pdu = item.maximum_length_received

    def _exchange(self, message: DIMSEMessage, context_id: int, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        maximum = max(_PDV_OVERHEAD + 2, min(self._maximum_pdu, _THEIR_MAXIMUM_PDU))
        for data in message.encode_msg(context_id, maximum):
            self._send(P_DATA_TF(data).encode(), deadline)
        return self._status(deadline)

    def _status(self, deadline: float) -> int:
        response = DIMSEMessage()
        is_complete, size = False, 0
        while not is_complete:
            kind, pdu = self._receive(deadline)
            size += len(pdu)
            if kind != _P_DATA or size > _LARGEST_RESPONSE:
                raise ConnectionLostError("unexpected PDU instead of a response")
            is_complete = _guarded(response.decode_msg, _decode(P_DATA_TF, pdu).to_primitive())
        answer = _guarded(response.message_to_primitive)
        status = getattr(answer, "Status", None)
        if status is None or answer.MessageIDBeingRespondedTo != self._message_id:
            raise ConnectionLostError("response without a status, or to another request")
        return int(status)

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 65_535 + 1
        return self._message_id

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            self._connection.settimeout(_left(deadline))
            self._connection.sendall(data)  # the time-out is for all of it
        except TimeoutError as error:
            raise AssociationError("peer does not read in time") from error
        except OSError as error:
            raise ConnectionLostError(f"connection lost: {_reason(error)}") from error

    def _receive(self, deadline: float) -> tuple[int, bytes]:
        header = self._read(6, deadline)
        kind, length = struct.unpack(">BxL", header)
        if length > _LARGEST_PDU:
            raise ConnectionLostError("PDU is longer than allowed")
        pdu = header + self._read(length, deadline)
        if kind == _ABORT:
            raise ConnectionLostError("peer aborted the association")
        if kind == _RELEASE_RQ:
            self._send(A_RELEASE_RP().encode(), deadline)
            raise ConnectionLostError("peer released the association")
        return kind, pdu

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        try:
            while len(data) < size:
                self._acknowledge_quickly()
                self._connection.settimeout(_left(deadline))
                if not (part := self._connection.recv(size - len(data))):
                    raise ConnectionLostError("peer closed the connection")
                data += part
        except TimeoutError as error:
            raise AssociationError("peer does not answer in time") from error
        except OSError as error:
            raise ConnectionLostError(f"connection lost: {_reason(error)}") from error
        return bytes(data)

    def _acknowledge_quickly(self) -> None:
        # A peer with Nagle's algorithm holds half a response back until we acknowledge the other half: 40 ms each time
        if hasattr(socket, "TCP_QUICKACK"):  # Linux; falls back by itself, so it is said before each read
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _request_pdu(calling_ae: str, called_ae: str, contexts: list[PresentationContext]) -> bytes:
    maximum_length = MaximumLengthNotification()
    maximum_length.maximum_length_received = _OUR_MAXIMUM_PDU
    class_uid = ImplementationClassUIDNotification()
    class_uid.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version_name = ImplementationVersionNameNotification()
    version_name.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    request = A_ASSOCIATE()
    request.application_context_name = _APPLICATION_CONTEXT
    request.calling_ae_title = calling_ae
    request.called_ae_title = called_ae
    request.presentation_context_definition_list = contexts
    request.user_information = [maximum_length, class_uid, version_name]
    return A_ASSOCIATE_RQ(request).encode()


def _rejection(pdu: bytes) -> AssociationError:
    rejection = _decode(A_ASSOCIATE_RJ, pdu)
    result, source, diagnostic = rejection.result, rejection.source, rejection.reason_diagnostic
    try:
        reason = rejection.reason_str
    except ValueError:
        reason = "unknown reason"
    kind = RejectedPermanentlyError if result == _REJECTED_PERMANENT else AssociationError
    return kind(f"association rejected {result}/{source}/{diagnostic}: {reason}")


def _abort_pdu() -> bytes:
    abort = A_ABORT_RQ()
    abort.source = 0  # the service user, PS3.8 Table 9-26
    abort.reason_diagnostic = 0
    return abort.encode()


def _decode(kind: Any, pdu: bytes) -> Any:
    decoded = kind()
    _guarded(decoded.decode, pdu)
    return decoded


def _guarded(step: Any, *arguments: Any) -> Any:
    try:
        return step(*arguments)
    except Exception as error:  # pynetdicom raises what comes, for whatever a peer may send
        raise ConnectionLostError(f"malformed PDU: {type(error).__name__}") from error


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline has passed")
    return left


def _reason(error: OSError) -> str:
    return "timed out" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
