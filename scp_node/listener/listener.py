"""The Storage SCP: accepts C-ECHO and C-STORE, and answers Success when the file is safely on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import pydicom.config
from pynetdicom import _config as pynetdicom_config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_EVENT_REPORT
from pynetdicom.presentation import PresentationContext

from scp_node.dicom.commitment_messages import PUSH_MODEL, event_response
from scp_node.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_node.dicom.inspection import is_uid
from scp_node.domain import Clock, CommitmentAnswer, ReceivedInstance, RejectedInstance, TransferEnded, utc_now
from scp_node.listener import policy
from scp_node.listener.association import SPARE_CONNECTIONS, NodeAssociation, NodeServer, require_seams
from scp_node.listener.commitment import CommitmentService, EventRequest
from scp_node.listener.contexts import STORAGE_CLASSES, VERIFICATION, accepted_contexts
from scp_node.listener.policy import Peers, Rejection
from scp_node.listener.store import StoreRequest, StoreService
from scp_node.listener.text import escaped
from scp_node.listener.transfers import Part, Transfers
from scp_node.listener.upper_layer import BoundedBuffer
from scp_node.settings import Settings, is_loopback
from scp_node.spool import Spool

_MIB: Final = 1 << 20
_POLL_SECONDS: Final = 0.02

log = logging.getLogger(__name__)


class ListenError(OSError):
    """The address cannot be listened on; the message says which and why."""


class Listener:
    """One Storage SCP on one address."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        *,
        on_received: Callable[[ReceivedInstance], None],
        on_rejected: Callable[[RejectedInstance], None],
        on_ended: Callable[[TransferEnded], None] = lambda _: None,
        on_commitment: Callable[[CommitmentAnswer], bool] | None = None,
        clock: Clock = utc_now,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare it; `start` opens the port. The callbacks run in many threads and must not block.

        Without `on_commitment` no destination may report on storage commitment; it returns whether it took the report.
        `renew` is called a few times a second, as long as connections are accepted.
        """
        self._settings = settings
        self._spool = spool
        self._peers = Peers(settings.peers)
        self._service = StoreService(
            spool,
            stat_calling_ae=settings.routing.stat_calling_ae,
            on_received=on_received,
            on_rejected=on_rejected,
            clock=clock,
        )
        self._on_ended = on_ended
        self._clock = clock
        self._commitment = CommitmentService(on_commitment) if on_commitment else None
        destinations = settings.destinations if on_commitment else []
        self._sources = policy.Sources(destinations, self._peers, policy.resolved)
        self._renew = renew
        self._admission = threading.Lock()
        self._server: NodeServer | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The host and port that are listened on, once started."""
        if self._server is None:
            raise RuntimeError("the listener has not been started")
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Open the port and serve in threads of its own.

        Raises:
            ListenError: the address is taken, or is not ours.
            UnsupportedPynetdicomError: the installed pynetdicom cannot be used.
        """
        require_seams()
        _configure_libraries()
        listen = self._settings.listen
        try:
            self._server = NodeServer(
                self._application_entity(),
                (listen.host, listen.port),
                accepted_contexts(commitment=self._commitment is not None),
                self,
                largest_dataset=listen.max_instance_mib * _MIB,
                renew=self._renew,
            )
        except OSError as error:
            raise ListenError(f"cannot listen on {listen.host} port {listen.port}: {error.strerror}") from error
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="listener", daemon=True
        ).start()
        log.info("listening ae_title=%s host=%s port=%d", self._settings.node.ae_title, *self.address)

    def stop(self, grace_seconds: float) -> None:
        """Accept no more associations, let running stores finish for `grace_seconds`, abort the rest."""
        if self._server is None:
            return
        self._server.close()
        deadline = time.monotonic() + grace_seconds
        while (associations := self._server.associations()) and time.monotonic() < deadline:
            for association in associations:
                if not association.busy:
                    _abort(association)
            time.sleep(_POLL_SECONDS)
        for association in self._server.associations():
            log.warning("association aborted reason='stopping' peer=%s", association.peer)
            _abort(association).join(timeout=1)
            association.join(timeout=1)  # it tells what was cut off
        log.info("listener stopped")

    def admit(self, association: NodeAssociation) -> Rejection | None:
        """Return why the peer may not have this association, or None."""
        request: Any = association.requestor.primitive
        calling_ae, called_ae, peer = request.calling_ae_title, request.called_ae_title, association.peer
        association.destinations = self._sources.names(calling_ae, peer)
        with self._admission:  # one at a time: the limit is exact
            rejection = self._refusal(calling_ae, called_ae, peer, is_destination=bool(association.destinations))
            association.admitted = rejection is None
        if rejection is None:
            idle_seconds = self._settings.listen.network_timeout_seconds
            association.transfers = Transfers(idle_seconds=idle_seconds, began_at=self._clock())
        if rejection:
            log.warning(
                "association refused calling_ae=%s called_ae=%s peer=%s reason=%r",
                escaped(calling_ae),
                escaped(called_ae),
                peer,
                rejection.reason,
            )
        return rejection

    def serve(self, association: NodeAssociation, message: Any, context: PresentationContext) -> bool:
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
            status = self._commitment.report(_event_request(association, message, context))
            association.dimse.send_msg(event_response(message, status), context.context_id or 0)
            return True
        return False

    def ended(self, association: NodeAssociation) -> None:
        """Tell whether the studies that the association sent of came to their end."""
        if (transfers := association.transfers) is None:
            return
        now = time.monotonic()
        if association.ended_orderly:
            self._tell_ended(association, Part(transfers.take_all()))
            return
        request: Any = association.requestor.primitive
        may_store = self._peers.include(request.calling_ae_title, association.peer)
        for part in transfers.interrupted(association.cut if may_store else None, now):
            self._tell_ended(association, part)

    def _tell_ended(self, association: NodeAssociation, part: Part) -> None:
        if not part.study_uids or association.transfers is None:
            return
        request: Any = association.requestor.primitive
        if not part.complete:
            log.warning(
                "association ended early, studies may be incomplete study_uids=%s calling_ae=%s peer=%s",
                ",".join(part.study_uids),
                escaped(request.calling_ae_title),
                association.peer,
            )
        ended = TransferEnded(
            study_uids=part.study_uids,
            complete=part.complete,
            calling_ae=request.calling_ae_title,
            peer=association.peer,
            began_at=association.transfers.began_at,
            at=self._clock(),
            cut_instance=part.cut_instance,
        )
        try:
            self._on_ended(ended)
        except Exception:  # the association is over either way
            log.exception("end of an association not recorded peer=%s", association.peer)

    def _refusal(self, calling_ae: str, called_ae: str, peer: str, *, is_destination: bool) -> Rejection | None:
        if called_ae != self._settings.node.ae_title:
            return policy.CALLED_AE_NOT_RECOGNISED
        is_health_check = calling_ae == called_ae and is_loopback(peer)  # by C-ECHO; a C-STORE gets 0x0124
        if not (self._peers.include(calling_ae, peer) or is_health_check or is_destination):
            return policy.CALLING_AE_NOT_RECOGNISED
        if self._server is None or self._server.closing or not self._spool.has_space():
            return policy.TEMPORARY_CONGESTION
        if self._server.admitted() >= self._settings.listen.max_associations:
            return policy.LOCAL_LIMIT_EXCEEDED
        return None

    def _echo(self, association: NodeAssociation, message: Any, context: PresentationContext) -> None:
        response = C_ECHO()
        response.MessageIDBeingRespondedTo = message.MessageID
        response.AffectedSOPClassUID = message.AffectedSOPClassUID
        response.Status = 0x0000
        association.dimse.send_msg(response, context.context_id or 0)

    def _store(self, association: NodeAssociation, message: Any, context: PresentationContext) -> None:
        request: Any = association.requestor.primitive
        may_store = self._peers.include(request.calling_ae_title, association.peer)
        answer = self._service.store(_store_request(association, message, context, may_store=may_store))
        if answer.study_uid and association.transfers is not None:
            now = time.monotonic()
            association.transfers.stored(answer.study_uid, now)
            self._tell_ended(association, Part(association.transfers.take_sent(now)))
        response = C_STORE()
        response.MessageIDBeingRespondedTo = message.MessageID
        response.AffectedSOPClassUID = message.AffectedSOPClassUID
        if is_uid(str(message.AffectedSOPInstanceUID or "")):
            response.AffectedSOPInstanceUID = message.AffectedSOPInstanceUID
        response.Status = int(answer.status)
        if answer.comment:
            response.ErrorComment = answer.comment  # type: ignore[assignment]  # declared as None, sent as LO
        association.dimse.send_msg(response, context.context_id or 0)

    def _application_entity(self) -> ApplicationEntity:
        listen = self._settings.listen
        ae = ApplicationEntity(self._settings.node.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = listen.max_pdu_bytes
        ae.maximum_associations = listen.max_associations + SPARE_CONNECTIONS
        ae.acse_timeout = listen.acse_timeout_seconds
        ae.dimse_timeout = listen.dimse_timeout_seconds
        ae.network_timeout = listen.network_timeout_seconds
        return ae


def _store_request(
    association: NodeAssociation, message: Any, context: PresentationContext, *, may_store: bool
) -> StoreRequest:
    received: BoundedBuffer = message.DataSet
    request: Any = association.requestor.primitive
    return StoreRequest(
        sop_class_uid=str(message.AffectedSOPClassUID or ""),
        sop_instance_uid=str(message.AffectedSOPInstanceUID or ""),
        abstract_syntax=str(context.abstract_syntax),
        transfer_syntax=str(context.transfer_syntax[0]),
        priority=message.Priority,
        dataset=None if received.overflowed else received.getbuffer(),
        calling_ae=request.calling_ae_title,
        called_ae=request.called_ae_title,
        peer=association.peer,
        may_store=may_store,
    )


def _event_request(association: NodeAssociation, message: Any, context: PresentationContext) -> EventRequest:
    request: Any = association.requestor.primitive
    return EventRequest(
        message=message,
        transfer_syntax=str(context.transfer_syntax[0]),
        calling_ae=request.calling_ae_title,
        peer=association.peer,
        destinations=association.destinations,
    )


def _abort(association: NodeAssociation) -> threading.Thread:
    thread = threading.Thread(target=association.abort, name="abort", daemon=True)
    thread.start()
    return thread


def _configure_libraries() -> None:
    """Keep the libraries from writing a peer's text to the log: the node checks values itself, and logs for itself."""
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
    pynetdicom_config.VALIDATORS["UI"] = lambda _: (True, "")  # a malformed UID is answered 0x0117, not with an abort
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
