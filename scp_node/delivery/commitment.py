"""The Storage Commitment SCU: asks a destination to commit itself to what it was sent (PS3.4 Annex J)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Final, TypeGuard

from pynetdicom.dimse_messages import N_ACTION_RQ, N_EVENT_REPORT_RSP
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT, DimsePrimitiveType

from scp_node.delivery.association import Accepted, RequestedAssociation
from scp_node.delivery.connection import AssociationError, ConnectionLostError
from scp_node.dicom.commitment_messages import (
    PUSH_MODEL,
    REQUEST_STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    EventRefusedError,
    EventStatus,
    encoded_request,
    event_request,
    event_response,
    read_event,
)
from scp_node.dicom.syntaxes import NATIVE
from scp_node.domain import CommitmentReport, Reference
from scp_node.logs import get_logger
from scp_node.settings import DeliverySettings, DestinationSettings
from scp_node.tls.contexts import ClientTls

# It accepted the context and does not do it: no such SOP class or instance, SOP class not supported, not authorised,
# unrecognised operation, PS3.7 section C.5
_NOT_DONE: Final = frozenset({0x0112, 0x0118, 0x0122, 0x0124, 0x0211})

log = get_logger(__name__)


class Asked(StrEnum):
    """How far a request came."""

    REQUESTED = "requested"  # taken: the answer comes on this association or on one of the destination's own
    REFUSED = "refused"  # sent, and not answered with Success: a later one may be
    NOT_OFFERED = "not offered"  # the destination does no storage commitment
    UNREACHABLE = "unreachable"  # nothing was sent


@dataclass(frozen=True, slots=True, kw_only=True)
class AskResult:
    """What became of one request."""

    asked: Asked
    detail: str = ""  # for the audit: no text of the peer
    reports: tuple[CommitmentReport, ...] = ()  # what came on the same association: the answer, or a late one


class CommitmentScu:
    """Asks one destination, each time over an association of its own; for one thread."""

    def __init__(
        self,
        destination: DestinationSettings,
        *,
        calling_ae: str,
        settings: DeliverySettings,
        tls: ClientTls | None = None,
    ) -> None:
        """Ask `destination` as `calling_ae`."""
        self._destination = destination
        self._tls = tls
        self._calling_ae = calling_ae
        self._settings = settings

    def ask(self, transaction_uid: str, announced: Callable[[], Sequence[Reference]]) -> AskResult:
        """Request commitment, and wait a little for the answer; never raises for network reasons.

        `announced` is called once the request is certain to be sent, and returns the instances that it names.
        """
        try:
            association = self._open()
        except AssociationError as error:
            return AskResult(asked=Asked.UNREACHABLE, detail=str(error))
        context = association.context_for(PUSH_MODEL)
        if context is None:
            association.release()
            return AskResult(asked=Asked.NOT_OFFERED, detail="storage commitment is not offered")
        with association.aborted_on_error():
            references = announced()
        if not references:
            association.release()
            return AskResult(asked=Asked.UNREACHABLE, detail="nothing is left to ask about")
        return self._converse(association, _Conversation(association, context, transaction_uid), references)

    def _converse(
        self, association: RequestedAssociation, conversation: _Conversation, references: Sequence[Reference]
    ) -> AskResult:
        try:
            status = conversation.request(references, seconds=self._settings.send_seconds)
        except AssociationError as error:
            association.abort()
            return AskResult(asked=Asked.REFUSED, detail=str(error))
        if status != 0:
            association.release()
            return _refusal(status)
        self._linger(conversation)
        association.release()
        return AskResult(asked=Asked.REQUESTED, reports=tuple(conversation.reports))

    def _linger(self, conversation: _Conversation) -> None:
        """Keep the association for the answer, but not for long."""
        try:
            conversation.await_answer(seconds=self._settings.commit_answer_seconds)
        except AssociationError as error:  # late, or released by the destination: it opens an association of its own
            log.debug("no answer on the same association", destination=self._destination.name, reason=error)

    def _open(self) -> RequestedAssociation:
        return RequestedAssociation.request(
            self._destination.host,
            self._destination.port,
            calling_ae=self._calling_ae,
            called_ae=self._destination.ae_title,
            contexts=[(PUSH_MODEL, list(NATIVE))],
            seconds=self._settings.connect_seconds,
            tls=self._tls,
        )


class _Conversation:
    """A request and its answer on one association: an N-EVENT-REPORT may come at any moment."""

    def __init__(self, association: RequestedAssociation, context: Accepted, transaction_uid: str) -> None:
        self._association = association
        self._context = context
        self._transaction_uid = transaction_uid
        self.reports: list[CommitmentReport] = []

    def request(self, references: Sequence[Reference], *, seconds: float) -> int:
        """Send the N-ACTION and return the status of its response."""
        deadline = time.monotonic() + seconds
        request = N_ACTION()
        request.MessageID = self._association.next_message_id()
        request.RequestedSOPClassUID = PUSH_MODEL
        request.RequestedSOPInstanceUID = WELL_KNOWN_INSTANCE
        request.ActionTypeID = REQUEST_STORAGE_COMMITMENT
        information = encoded_request(self._transaction_uid, references, self._context.transfer_syntax)
        request.ActionInformation = BytesIO(information)
        message = N_ACTION_RQ()
        message.primitive_to_message(request)
        self._association.send(message, self._context, deadline)
        while _is_event(received := self._association.receive(deadline)):
            self._answer_report(received, deadline)
        return self._association.status(received)

    def await_answer(self, *, seconds: float) -> None:
        """Return once the report on this transaction is there.

        Raises:
            AssociationError: it does not come in time, or the association is over.
        """
        deadline = time.monotonic() + seconds
        while all(report.transaction_uid != self._transaction_uid for report in self.reports):
            received = self._association.receive(deadline)
            if not _is_event(received):
                raise ConnectionLostError("unexpected message instead of a report")
            self._answer_report(received, deadline)

    def _answer_report(self, received: N_EVENT_REPORT, deadline: float) -> None:
        information = received.EventInformation or BytesIO()
        event = event_request(received, information.getbuffer(), self._context.transfer_syntax)
        status = EventStatus.SUCCESS
        try:
            self.reports.append(read_event(event))
        except EventRefusedError as refused:
            status = refused.status
            log.warning("commitment report refused", status=f"0x{status:04X}", reason=str(refused))
        message = N_EVENT_REPORT_RSP()
        message.primitive_to_message(event_response(event, status))
        self._association.send(message, self._context, deadline)


def _is_event(message: DimsePrimitiveType) -> TypeGuard[N_EVENT_REPORT]:
    return isinstance(message, N_EVENT_REPORT) and message.MessageID is not None


def _refusal(status: int) -> AskResult:
    asked = Asked.NOT_OFFERED if status in _NOT_DONE else Asked.REFUSED
    return AskResult(asked=asked, detail=f"status 0x{status:04X}")
