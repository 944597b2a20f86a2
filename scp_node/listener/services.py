"""What the node decides about associations, and how it answers C-ECHO, C-STORE and N-EVENT-REPORT."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_EVENT_REPORT, DimseServiceType
from pynetdicom.presentation import PresentationContext

from scp_node.dicom.commitment_messages import PUSH_MODEL, event_request, event_response
from scp_node.dicom.inspection import is_uid
from scp_node.domain import Clock, CommitmentAnswer, ReceivedInstance, RejectedInstance, TransferEnded
from scp_node.incoming import Incoming
from scp_node.listener.association import NodeAssociation
from scp_node.listener.commands import store_response
from scp_node.listener.commitment import CommitmentService, ReceivedEvent
from scp_node.listener.contexts import STORAGE_CLASSES, VERIFICATION
from scp_node.listener.failures import FailedConnections
from scp_node.listener.faults import attempt
from scp_node.listener.messages import received_by
from scp_node.listener.policy import (
    AdmissionRules,
    AssociationRequest,
    Peers,
    Rejection,
    Sources,
    rejection_of,
    resolved,
)
from scp_node.listener.store import StoreRequest, StoreService
from scp_node.listener.text import escaped
from scp_node.listener.transfers import Part, Transfers
from scp_node.logs import get_logger
from scp_node.runtime.repeated import RepeatedLines
from scp_node.settings import Settings
from scp_node.spool import Spool

log = get_logger(__name__)


class NodeServices:
    """The services of one listener; safe for many threads."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        *,
        on_received: Callable[[ReceivedInstance], None],
        on_rejected: Callable[[RejectedInstance], None],
        on_ended: Callable[[TransferEnded], None],
        on_commitment: Callable[[CommitmentAnswer], bool] | None,
        clock: Clock,
    ) -> None:
        """Take the callbacks of `Listener`."""
        self.lines = RepeatedLines(log)
        self.failures = FailedConnections(settings.listen.failed_connections_per_minute)
        self._spool = spool
        self._on_ended = on_ended
        self._clock = clock
        self._ours = {"127.0.0.1", "::1", settings.listen.host}  # from where `scp-node health` asks
        self._idle_seconds = settings.listen.network_timeout_seconds
        self._peers = Peers(settings.peers)
        self._rules = AdmissionRules(
            ae_title=settings.node.ae_title,
            peers=self._peers,
            max_associations=settings.listen.max_associations,
            max_associations_of_one=settings.listen.max_associations_per_address,
        )
        self._admission = threading.Lock()
        self._storage = StoreService(
            spool,
            stat_calling_ae=settings.routing.stat_calling_ae,
            on_received=on_received,
            on_rejected=on_rejected,
            clock=clock,
            lines=self.lines,
        )
        self._commitment = CommitmentService(on_commitment, self.lines) if on_commitment else None
        self._sources = Sources(settings.destinations if on_commitment else [], self._peers, resolved)

    def knows(self, address: str) -> bool:
        """Return whether somebody at this address may associate; quick, and asked before a byte is read."""
        return address in self._ours or self._peers.know(address) or self._sources.know(address)

    def admit(self, association: NodeAssociation) -> Rejection | None:
        """Return why the association is rejected; None once it is admitted."""
        server = association.node_server
        caller = association.caller
        request = AssociationRequest(
            caller=caller, called_ae=association.called_ae, protocol_version=association.protocol_version
        )
        association.destinations = self._sources.names(caller)
        with self._admission:  # one at a time: the limit is exact
            admitted, of_one = server.admitted(caller.peer)
            rejection = rejection_of(
                request,
                self._rules,
                is_destination=bool(association.destinations),
                can_store=not server.closing and self._spool.has_space(),
                associations=admitted,
                of_one=of_one,
            )
            association.admitted = rejection is None
        if rejection is None:
            association.transfers = Transfers(idle_seconds=self._idle_seconds, began_at=self._clock())
            return None
        self.lines.warn(
            "association refused",
            calling_ae=escaped(caller.calling_ae),
            called_ae=escaped(request.called_ae),
            peer=caller.peer,
            reason=rejection.reason,
        )
        return rejection

    def begin(self, association: NodeAssociation, request: C_STORE, context_id: int) -> Incoming | None:
        """Return a file for the dataset of a C-STORE request that has begun; None where it will be refused.

        Raises:
            SpoolError: it cannot be written.
        """
        context = association.accepted(context_id)
        if context is None or context.abstract_syntax not in STORAGE_CLASSES:
            return None
        may_store = self._peers.include(association.caller)
        return self._storage.begin(_store_request(association, request, context, may_store=may_store))

    def serve(self, association: NodeAssociation, message: DimseServiceType, context: PresentationContext) -> bool:
        """Answer a C-ECHO, C-STORE or N-EVENT-REPORT request; return False for anything else."""
        if message.MessageID is None:
            return False
        if isinstance(message, C_ECHO) and message.AffectedSOPClassUID == context.abstract_syntax == VERIFICATION:
            self._echo(association, message, context)
            return True
        if isinstance(message, C_STORE) and context.abstract_syntax in STORAGE_CLASSES:
            self._store(association, message, context)
            return True
        if isinstance(message, N_EVENT_REPORT) and context.abstract_syntax == PUSH_MODEL and self._commitment:
            self._take_report(self._commitment, association, message, context)
            return True
        return False

    def ended(self, association: NodeAssociation) -> None:
        """Report whether the studies that the association sent of came to their end."""
        if (transfers := association.transfers) is None:
            return
        now = time.monotonic()
        caller = association.caller
        if association.ended_orderly or (association.closed_between_messages and self._peers.end_by_closing(caller)):
            self._report_end(association, Part(transfers.take_all()))
            return
        may_store = self._peers.include(caller)
        for part in transfers.interrupted(association.cut if may_store else None, now):
            self._report_end(association, part)

    def _report_end(self, association: NodeAssociation, part: Part) -> None:
        if not part.study_uids or association.transfers is None:
            return
        if not part.complete:
            log.warning(
                "association ended early, studies may be incomplete",
                study_uids=part.study_uids,
                calling_ae=escaped(association.calling_ae),
                peer=association.peer,
            )
        ended = TransferEnded(
            study_uids=part.study_uids,
            complete=part.complete,
            calling_ae=association.calling_ae,
            peer=association.peer,
            began_at=association.transfers.began_at,
            at=self._clock(),
            cut_instance=part.cut_instance,
        )
        # the association is over either way
        attempt(lambda: self._on_ended(ended), "end of an association not recorded", peer=association.peer)

    def _echo(self, association: NodeAssociation, message: C_ECHO, context: PresentationContext) -> None:
        response = C_ECHO()
        response.MessageIDBeingRespondedTo = message.MessageID
        response.AffectedSOPClassUID = message.AffectedSOPClassUID
        response.Status = 0x0000
        association.dimse.send_msg(response, context.context_id or 0)

    def _store(self, association: NodeAssociation, message: C_STORE, context: PresentationContext) -> None:
        may_store = self._peers.include(association.caller)
        answer = self._storage.store(_store_request(association, message, context, may_store=may_store))
        if answer.study_uid and association.transfers is not None:
            now = time.monotonic()
            association.transfers.stored(answer.study_uid, now)
            self._report_end(association, Part(association.transfers.take_sent(now)))
        uid = message.AffectedSOPInstanceUID
        response = store_response(
            message_id=message.MessageID or 0,
            sop_class_uid=message.AffectedSOPClassUID,
            sop_instance_uid=uid if is_uid(str(uid or "")) else None,
            status=int(answer.status),
            comment=answer.comment,
        )
        association.dimse.send_command(response, context.context_id or 0)

    def _take_report(
        self,
        commitment: CommitmentService,
        association: NodeAssociation,
        message: N_EVENT_REPORT,
        context: PresentationContext,
    ) -> None:
        event = event_request(message, received_by(message.EventInformation).content, str(context.transfer_syntax[0]))
        status = commitment.report(
            ReceivedEvent(
                event=event,
                calling_ae=association.calling_ae,
                peer=association.peer,
                destinations=association.destinations,
            )
        )
        association.dimse.send_msg(event_response(event, status), context.context_id or 0)


def _store_request(
    association: NodeAssociation, message: C_STORE, context: PresentationContext, *, may_store: bool
) -> StoreRequest:
    received = received_by(message.DataSet)
    return StoreRequest(
        sop_class_uid=str(message.AffectedSOPClassUID or ""),
        sop_instance_uid=str(message.AffectedSOPInstanceUID or ""),
        abstract_syntax=str(context.abstract_syntax),
        transfer_syntax=str(context.transfer_syntax[0]),
        priority=message.Priority,
        dataset=received.stored,
        missing=received.missing,
        calling_ae=association.calling_ae,
        called_ae=association.called_ae,
        peer=association.peer,
        may_store=may_store,
    )
