"""The associations that peers request, and the server that accepts them, on pynetdicom's private seams.

What differs, and why:

* supported contexts are shared, not copied for every association: 150 ms with pynetdicom's own list;
* only associations that were let in count against the limit: silent connections lock nobody out;
* every request is answered by the node: no exception of a service class decides a status.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Protocol

from pynetdicom import __version__ as pynetdicom_version
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE, DimseServiceType
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.presentation import PresentationContext
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from scp_node.incoming import Incoming
from scp_node.listener.connections import OpenConnection, refusal_of
from scp_node.listener.faults import attempt
from scp_node.listener.messages import NodeDIMSE, ReceivedDataset
from scp_node.listener.policy import Rejection, plain_address
from scp_node.listener.repeated import RepeatedWarnings
from scp_node.listener.transfers import Cut, Transfers
from scp_node.listener.upper_layer import Ending, NodeDUL, NodeSocket

# Connections that the kernel holds for us. One that finds no place among them asks again after a second, then after two
# more: a burst of strangers must not do that to the next peer.
LISTEN_BACKLOG: Final = 1_024
SPARE_CONNECTIONS: Final = 192  # beyond the associations: connections that have not asked for one yet

_SEAMS: Final[dict[type, tuple[str, ...]]] = {
    ACSE: ("_negotiate_as_acceptor", "send_reject"),
    Association: ("_run_reactor", "_serve_request", "run_reactor", "set_socket"),
    AssociationServer: ("active_associations", "get_request", "server_close", "verify_request"),
    AssociationSocket: ("_shutdown_socket", "ready", "recv"),
    DIMSEMessage: ("decode_msg", "message_to_primitive"),
    DIMSEServiceProvider: ("get_msg", "receive_primitive"),
    DULServiceProvider: (
        "_decode_pdu",
        "_is_transport_event",
        "_process_recv_primitive",
        "kill_dul",
        "run_reactor",
        "send_pdu",
    ),
    RequestHandler: ("_create_association",),
    StateMachine: ("do_action",),
    Timer: ("expired", "remaining", "start", "stop"),
}

log = logging.getLogger(__name__)


class UnsupportedPynetdicomError(RuntimeError):
    """The installed pynetdicom lacks what the listener builds on."""


def require_seams() -> None:
    """Check that the methods which the listener overrides are there.

    Raises:
        UnsupportedPynetdicomError: one is missing.
    """
    for owner, names in _SEAMS.items():
        for name in names:
            if not hasattr(owner, name):
                raise UnsupportedPynetdicomError(
                    f"pynetdicom {pynetdicom_version} has no {owner.__name__}.{name}: install pynetdicom>=3.0.4,<3.1"
                )


class Services(Protocol):
    """What the node decides about associations and requests."""

    def knows(self, address: str) -> bool:
        """Return whether somebody at this address may associate; quick, and asked before a byte is read."""

    def admit(self, association: NodeAssociation) -> Rejection | None:
        """Return why the association is rejected; None once it is admitted."""

    def begin(self, association: NodeAssociation, message: C_STORE_RQ) -> Incoming | None:
        """Return a file for the dataset of a C-STORE request that has begun; None where it will be refused.

        Raises:
            SpoolError: it cannot be written.
        """

    def serve(self, association: NodeAssociation, message: DimseServiceType, context: PresentationContext) -> bool:
        """Answer a request; return False if the node does not serve such requests."""

    def ended(self, association: NodeAssociation) -> None:
        """Note that an association that was admitted is over."""


class NodeServer(AssociationServer):
    """The listening socket and its associations."""

    request_queue_size = LISTEN_BACKLOG

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        contexts: list[PresentationContext],
        services: Services,
        *,
        largest_dataset: int,
        renew: Callable[[], None],
    ) -> None:
        self.renew = renew
        self.services = services
        self.largest_dataset = largest_dataset  # bytes
        self.closing = False
        self.warnings = RepeatedWarnings(log)
        super().__init__(ae, address, ae.ae_title, contexts, request_handler=_RequestHandler)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; responses are small and must not wait for each other."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def verify_request(self, request: object, client_address: tuple[str, int]) -> bool:  # noqa: ARG002 - as in the base class
        """Return whether a connection is accepted: nothing of it was read, and no thread has begun."""
        peer = plain_address(client_address[0])
        connections = [each.connection for each in self.associations()]
        is_known = self.services.knows(peer)
        reason = refusal_of(peer, connections, is_known=is_known, most=self.ae.maximum_associations)
        if reason:
            self.warnings.warn(peer, reason, "connection refused peer=%s reason=%r", peer, reason)
        return reason is None

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - as in the base class
        """Log what went wrong with a new connection; the server goes on."""
        log.exception("connection failed")

    def service_actions(self) -> None:
        """Say that connections are accepted; pynetdicom's collects garbage here, with all threads waiting."""
        self.renew()

    def admitted(self, peer: str | None = None) -> int:
        """Return how many associations were let in and are not over, all or those of one address."""
        return sum(each.admitted and peer in {None, each.peer} for each in self.associations())

    def associations(self) -> list[NodeAssociation]:
        """Return all associations, also those being negotiated."""
        return [one for one in self.active_associations if isinstance(one, NodeAssociation)]

    def close(self) -> None:
        """Accept no more connections."""
        self.closing = True
        super(AssociationServer, self).shutdown()  # pynetdicom's own wants to be in its AE's list
        self.server_close()


class NodeAssociation(Association):
    """An association that a peer requested, with what the node adds to pynetdicom's."""

    acse: _NodeACSE
    dul: NodeDUL
    dimse: NodeDIMSE

    def __init__(self, server: NodeServer, address: str) -> None:
        super().__init__(server.ae, "acceptor")
        self.node_server = server
        self.connection = OpenConnection(address, server.services.knows(address))
        self._server = server
        self.admitted = False
        self.destinations: frozenset[str] = frozenset()  # names of those that the requestor may report for
        self.transfers: Transfers | None = None  # once it is admitted
        activity = threading.Event()
        self.acse = _NodeACSE(self)
        self.dul = NodeDUL(self, activity, is_serving=lambda: self.dimse.is_serving, is_late=lambda: self.dimse.is_late)
        self.dimse = NodeDIMSE(
            self,
            activity,
            largest_dataset=server.largest_dataset,
            begin=lambda message: server.services.begin(self, message),
        )
        self.acse_timeout = server.ae.acse_timeout  # these two set the timers of the new upper layer
        self.network_timeout = server.ae.network_timeout
        self.name = "AcceptorThread"  # by which pynetdicom finds it

    @property
    def peer(self) -> str:
        """The address of the requestor."""
        return self.connection.address

    @property
    def calling_ae(self) -> str:
        """The AE title of the requestor, which may be malformed; empty before its request has come."""
        return self.dul.stated.calling_ae if self.dul.stated else ""

    @property
    def called_ae(self) -> str:
        """The AE title that the requestor asked for; empty before its request has come."""
        return self.dul.stated.called_ae if self.dul.stated else ""

    @property
    def protocol_version(self) -> int:
        """The versions that the requestor offers, one bit each; 0 before its request has come."""
        return self.dul.stated.protocol_version if self.dul.stated else 0

    def accepted(self, context_id: int | None) -> PresentationContext | None:
        """Return a presentation context that was agreed upon; None if there is none with this ID."""
        return self._accepted_cx.get(context_id or 0)

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in or not yet answered."""
        return self.dimse.busy

    @property
    def cut(self) -> Cut | None:
        """The message that did not come to its end, once the association is over."""
        return self.dimse.cut

    @property
    def ended_orderly(self) -> bool:
        """Whether it was released, or ended by the node between two messages because nothing came for long."""
        return self.is_released or (self.dul.was_idle and not self.busy)

    @property
    def closed_between_messages(self) -> bool:
        """Whether the peer closed the connection when no message was on its way, and none waited for its answer."""
        return self.dul.ending is Ending.CLOSED and self.cut is None and not self.dimse.has_unserved

    def run_reactor(self) -> None:
        """Serve the association; what cannot be served ends in an A-ABORT."""
        try:
            attempt(self._run_or_abort, "association failed")
        finally:
            self._log_end()
            if self.transfers is not None:
                self.node_server.services.ended(self)
            self.dimse.give_back()

    def _log_end(self) -> None:
        if self.dul.was_idle:
            log.info("association ended, idle for long %s", self.dul.who())
        elif self.admitted and (ending := self.dul.ending):
            log.info("association ended without release %s how=%s", self.dul.who(), ending.name.lower())
        elif self.admitted and self.node_server.closing and not self.is_released:
            log.info("association aborted %s reason='stopping'", self.dul.who())

    def _run_or_abort(self) -> None:
        with ExitStack() as stack:
            stack.callback(self.abort)  # a bug must not leave the peer waiting
            super().run_reactor()
            stack.pop_all()

    def _run_reactor(self) -> None:
        super()._run_reactor()
        self.dul.join(timeout=1)  # the connection is closed next: the last PDU goes out first

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        try:
            context = self.accepted(context_id)
            if context is None or not self.node_server.services.serve(self, msg, context):
                reason = f"request cannot be served: {type(msg).__name__}"
                log.warning("association aborted %s reason=%r", self.dul.who(), reason)
                self.abort()
        finally:
            if isinstance(msg, C_STORE) and isinstance(msg.DataSet, ReceivedDataset):
                msg.DataSet.discard()
            self.dimse.msg_queue.task_done()
            self.dul.rouse()  # it may read on
        if self.node_server.closing:
            self.abort()


class _NodeACSE(ACSE):
    """Asks the node who may associate; an exception there ends the association."""

    def __init__(self, association: NodeAssociation) -> None:
        super().__init__(association)
        self._association = association

    def _negotiate_as_acceptor(self) -> None:
        association = self._association
        if rejection := association.node_server.services.admit(association):
            self.send_reject(rejection.result, rejection.source, rejection.diagnostic)
            association.kill()
        else:
            super()._negotiate_as_acceptor()


class _RequestHandler(RequestHandler):
    server: NodeServer

    def _create_association(self) -> Association:
        server = self.server
        association = NodeAssociation(server, plain_address(self.client_address[0]))
        association.set_socket(NodeSocket(association, client_socket=self.request))
        association.acceptor.maximum_length = server.ae.maximum_pdu_size
        association.acceptor.ae_title = server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = server.ae.implementation_class_uid
        association.acceptor.implementation_version_name = server.ae.implementation_version_name
        association.acceptor.supported_contexts = server.contexts
        association.requestor.address_info = self.remote
        return association
