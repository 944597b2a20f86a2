"""An association that we request: one thread, blocking, with a deadline on every wait.

pynetdicom's requestor has three threads and no deadline on a send: a peer that stops reading holds it for ever. Its PDU
and message classes are used, its threads are not. PS3.8 section 9.2 for the requestor is a straight line without them.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Self

from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_ECHO, C_STORE, DimsePrimitiveType
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, build_context

from scp_node.delivery.connection import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    P_DATA,
    RELEASE_RP,
    AssociationError,
    Connection,
    ConnectionLostError,
    RejectedError,
    decoded,
    decoding,
)
from scp_node.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_node.tls.contexts import ClientTls

MAXIMUM_CONTEXTS: Final = 128  # PS3.8 section 9.3.2.2: odd numbers of one byte
VERIFICATION: Final = "1.2.840.10008.1.1"

_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"  # PS3.7 section A.2.1
_OUR_MAXIMUM_PDU: Final = 16_384  # bytes; responses are small
_THEIR_MAXIMUM_PDU: Final = 131_072  # bytes; the most that we send in one, whatever the peer allows
_LARGEST_MESSAGE: Final = 1 << 17  # bytes; a response, or what a destination says of fifty instances
_RELEASE_SECONDS: Final = 2.0
_DATA_HEADER: Final = struct.Struct(">BxLLBB")  # of a P-DATA-TF PDU with one PDV, PS3.8 Tables 9-22 and 9-23
_LAST: Final = 2  # message control header: the last part of a dataset, PS3.8 section E.2
_PDV_OVERHEAD: Final = 6  # bytes in a PDU before the data: length, context and control header, PS3.8 section 9.3.5


@dataclass(frozen=True, slots=True)
class Accepted:
    """A presentation context that the peer accepted."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


class RequestedAssociation:
    """An open association; `release` or `abort` it."""

    def __init__(self, connection: Connection) -> None:
        """Take over a connection; `request` makes one."""
        self._connection = connection
        self._message_id = 0
        self._maximum_pdu = _OUR_MAXIMUM_PDU
        self.accepted: list[Accepted] = []

    @classmethod
    def request(
        cls,
        host: str,
        port: int,
        *,
        calling_ae: str,
        called_ae: str,
        contexts: Iterable[tuple[str, list[str]]],
        seconds: float,
        tls: ClientTls | None = None,
    ) -> Self:
        """Connect and negotiate `contexts`, (abstract syntax, transfer syntaxes) each, within `seconds`.

        With `tls`, all of it is spoken over TLS.

        Raises:
            AssociationError: the peer cannot be reached, refuses, or is too slow.
        """
        deadline = time.monotonic() + seconds
        proposed = {
            2 * number + 1: build_context(abstract, transfer) for number, (abstract, transfer) in enumerate(contexts)
        }
        for context_id, context in proposed.items():
            context.context_id = context_id
        association = cls(Connection.open(host, port, seconds=seconds, tls=tls))
        with association.aborted_on_error():
            association._negotiate(_request_pdu(calling_ae, called_ae, list(proposed.values())), proposed, deadline)
        return association

    def context_for(self, abstract_syntax: str, transfer_syntax: str | None = None) -> Accepted | None:
        """Return the accepted context of that kind, if there is one."""
        for accepted in self.accepted:
            if accepted.abstract_syntax == abstract_syntax and transfer_syntax in (None, accepted.transfer_syntax):
                return accepted
        return None

    def store(self, dataset: bytes | memoryview, sop_instance_uid: str, context: Accepted, *, seconds: float) -> int:
        """Send an encoded dataset and return the status of the response.

        Raises:
            AssociationError: there was no response within `seconds`, or the association is over.
        """
        request = C_STORE()
        request.MessageID = self.next_message_id()
        request.AffectedSOPClassUID = context.abstract_syntax
        request.AffectedSOPInstanceUID = sop_instance_uid
        request.Priority = 0
        request.DataSet = BytesIO()  # there is one; it is not copied into pynetdicom's message
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        return self._exchange(message, context, seconds, dataset)

    def echo(self, *, seconds: float) -> int:
        """Send a C-ECHO and return the status of the response.

        Raises:
            AssociationError: there was no response within `seconds`, or the association is over.
        """
        if (context := self.context_for(VERIFICATION)) is None:
            raise AssociationError("C-ECHO is not accepted")
        request = C_ECHO()
        request.MessageID = self.next_message_id()
        request.AffectedSOPClassUID = VERIFICATION
        message = C_ECHO_RQ()
        message.primitive_to_message(request)
        return self._exchange(message, context, seconds)

    def is_stale(self) -> bool:
        """Return whether the peer has said anything while nothing was asked: it has closed, aborted or released."""
        return self._connection.has_input()

    def release(self, *, seconds: float = _RELEASE_SECONDS) -> None:
        """Release the association, within `seconds` at most, and close the connection."""
        deadline = time.monotonic() + min(seconds, _RELEASE_SECONDS)
        with contextlib.suppress(AssociationError):
            self._connection.send(A_RELEASE_RQ().encode(), deadline)
            while self._connection.receive(deadline)[0] != RELEASE_RP:
                pass
        self._connection.close()

    def abort(self) -> None:
        """Abort the association and close the connection."""
        self._connection.abort()

    @contextlib.contextmanager
    def aborted_on_error(self) -> Iterator[None]:
        """Abort the association when anything is raised in the block."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.abort)
            yield
            stack.pop_all()

    def _negotiate(self, request: bytes, proposed: Mapping[int, PresentationContext], deadline: float) -> None:
        self._connection.send(request, deadline)
        kind, pdu = self._connection.receive(deadline)
        if kind == ASSOCIATE_RJ:
            raise _rejection(pdu)
        if kind != ASSOCIATE_AC:
            raise ConnectionLostError("unexpected PDU instead of an answer to the association request")
        with decoding():
            answer = decoded(A_ASSOCIATE_AC, pdu).to_primitive()
            self.accepted = _accepted(answer.presentation_context_definition_results_list, proposed)
        for item in answer.user_information:
            if isinstance(item, MaximumLengthNotification) and item.maximum_length_received:
                self._maximum_pdu = item.maximum_length_received

    def send(
        self, message: DIMSEMessage, context: Accepted, deadline: float, dataset: bytes | memoryview = b""
    ) -> None:
        """Send one message, and a dataset behind it that it does not hold itself.

        Raises:
            AssociationError: the peer does not read, or the association is over.
        """
        maximum = max(_PDV_OVERHEAD + 2, min(self._maximum_pdu, _THEIR_MAXIMUM_PDU))
        for data in message.encode_msg(context.context_id, maximum):
            self._connection.send(P_DATA_TF(data).encode(), deadline)
        for pdus in data_pdus(memoryview(dataset), context.context_id, maximum):
            self._connection.send(pdus, deadline)

    def receive(self, deadline: float) -> DimsePrimitiveType:
        """Return the next message, as pynetdicom's primitive.

        Raises:
            AssociationError: there was none in time, or the association is over.
        """
        message = DIMSEMessage()
        is_complete, size = False, 0
        while not is_complete:
            kind, pdu = self._connection.receive(deadline)
            size += len(pdu)
            if kind != P_DATA or size > _LARGEST_MESSAGE:
                raise ConnectionLostError("unexpected PDU instead of a message")
            with decoding():
                is_complete = message.decode_msg(decoded(P_DATA_TF, pdu).to_primitive())
        with decoding():
            return message.message_to_primitive()

    def status(self, response: DimsePrimitiveType) -> int:
        """Return the status of a response to the newest request.

        Raises:
            ConnectionLostError: the message is something else.
        """
        status = None if isinstance(response, C_CANCEL) else response.Status
        if status is None or response.MessageIDBeingRespondedTo != self._message_id:
            raise ConnectionLostError("response without a status, or to another request")
        return int(status)

    def _exchange(
        self, message: DIMSEMessage, context: Accepted, seconds: float, dataset: bytes | memoryview = b""
    ) -> int:
        deadline = time.monotonic() + seconds
        self.send(message, context, deadline, dataset)
        return self.status(self.receive(deadline))

    def next_message_id(self) -> int:
        """Return the Message ID (0000,0110) of the next request."""
        self._message_id = self._message_id % 65_535 + 1
        return self._message_id


def data_pdus(dataset: memoryview, context_id: int, maximum: int) -> Iterator[bytes]:
    """Yield the P-DATA-TF PDUs of a dataset, some at a time so that a picture takes few system calls (PS3.8 9.3.5).

    Args:
        dataset: encoded; none is sent where it is empty.
        context_id: of the presentation context.
        maximum: bytes of a PDU behind its first six.
    """
    part = maximum - _PDV_OVERHEAD
    at_once = max(1, _THEIR_MAXIMUM_PDU // maximum) * part
    for first in range(0, len(dataset), at_once):
        together: list[bytes | memoryview] = []
        for start in range(first, min(first + at_once, len(dataset)), part):
            data = dataset[start : start + part]
            is_last = start + part >= len(dataset)
            header = (P_DATA, len(data) + _PDV_OVERHEAD, len(data) + 2, context_id, _LAST if is_last else 0)
            together += (_DATA_HEADER.pack(*header), data)
        yield b"".join(together)


def _accepted(results: Iterable[PresentationContext], proposed: Mapping[int, PresentationContext]) -> list[Accepted]:
    """Return the contexts that the peer accepts, each in a transfer syntax that was proposed for it.

    Raises:
        ConnectionLostError: the answer is about other contexts.
    """
    known = [(number, result) for result in results if (number := result.context_id) is not None and number in proposed]
    if not known:
        raise ConnectionLostError("answer names none of our contexts")
    return [
        Accepted(number, str(proposed[number].abstract_syntax), str(result.transfer_syntax[0]))
        for number, result in known
        if result.result == 0 and result.transfer_syntax[0] in proposed[number].transfer_syntax
    ]


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


def _rejection(pdu: bytes) -> RejectedError:
    rejection = decoded(A_ASSOCIATE_RJ, pdu)
    result, source, diagnostic = rejection.result, rejection.source, rejection.reason_diagnostic
    try:
        reason = rejection.reason_str
    except ValueError:
        reason = "unknown reason"
    message = f"association rejected {result}/{source}/{diagnostic}: {reason}"
    return RejectedError(message, result=result or 0, source=source or 0, diagnostic=diagnostic or 0)
