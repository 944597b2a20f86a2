"""The associations that peers request, and the server that accepts them, on pynetdicom's private seams.

What differs, and why:

* supported contexts are shared, not copied for every association: 150 ms with pynetdicom's own list;
* only associations that were let in count against the limit: silent connections lock nobody out;
* TLS is agreed upon in the association's own thread and in its time: a silent connection holds nobody else up;
* every request is answered by the node: no exception of a service class decides a status.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Final, Protocol

from pynetdicom import __version__ as pynetdicom_version
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE, DimseServiceType
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.presentation import PresentationContext
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler
from structlog.contextvars import bind_contextvars

from scp_node.incoming import Incoming
from scp_node.listener.connections import (
    ADDRESS_TAKEN,
    LOOKED_AT,
    NO_REQUEST,
    TOO_MANY_FAILED,
    UNDECIDED_OF_ONE,
    UNKNOWN_CALLER,
    OpenConnection,
    fault_of,
    refusal_of,
)
from scp_node.listener.failures import FailedConnections
from scp_node.listener.faults import attempt
from scp_node.listener.messages import NodeDIMSE, ReceivedDataset
from scp_node.listener.policy import Caller, Rejection, plain_address
from scp_node.listener.request import ASSOCIATE_RQ
from scp_node.listener.transfers import Cut, Transfers
from scp_node.listener.upper_layer import LARGEST_REQUEST, SERVICE_USER, Ending, NodeDUL, NodeSocket, abort_pdu
from scp_node.listener.waiting import PACE_SECONDS, WaitingRoom, beginning_of
from scp_node.logs import get_logger
from scp_node.runtime.repeated import RepeatedLines
from scp_node.tls.certificates import ShownCertificate, shown_by
from scp_node.tls.sockets import CLIENT_HELLO, HandshakeError, agree

# Connections that the kernel holds for us. One that finds no place among them asks again after a second, then after two
# more: a burst of strangers must not do that to the next peer.
LISTEN_BACKLOG: Final = 1_024
LOOK_SECONDS: Final = 1.0  # between two looks at what is due, while nobody waits to be let in

_SEAMS: Final[dict[type, tuple[str, ...]]] = {
    ACSE: ("_negotiate_as_acceptor", "is_aborted", "is_release_requested", "send_reject", "send_release"),
    Association: ("_bind_defaults", "_run_reactor", "_serve_request", "kill", "run_reactor", "set_socket"),
    AssociationServer: ("get_request", "process_request", "server_bind", "server_close"),
    AssociationSocket: ("_shutdown_socket", "ready", "recv", "send"),
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

log = get_logger(__name__)


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

    lines: RepeatedLines  # for what a peer can cause at will
    failures: FailedConnections

    def knows(self, address: str) -> bool:
        """Return whether somebody at this address may associate; quick, and asked before a byte is read."""

    def admit(self, association: NodeAssociation) -> Rejection | None:
        """Return why the association is rejected; None once it is admitted."""

    def begin(self, association: NodeAssociation, request: C_STORE, context_id: int) -> Incoming | None:
        """Return a file for the dataset of a C-STORE request that has begun; None where it will be refused.

        Raises:
            SpoolError: it cannot be written.
        """

    def serve(self, association: NodeAssociation, message: DimseServiceType, context: PresentationContext) -> bool:
        """Answer a request; return False if the node does not serve such requests."""

    def ended(self, association: NodeAssociation) -> None:
        """Note that an association that was admitted is over."""


class NodeServer(AssociationServer):
    """A listening socket; servers with the same services share the limits, and see the associations of all."""

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
        tls: Callable[[], ssl.SSLContext] | None = None,
        processes: int = 1,
    ) -> None:
        """Open the port, which `processes` share; with `tls`, asked for each connection, nothing else is spoken."""
        self.renew = renew
        self.tls = tls
        self.services = services
        self.largest_dataset = largest_dataset  # bytes
        self.closing = False
        self._processes = processes
        self._has_ended = threading.Event()
        first_byte = ASSOCIATE_RQ if tls is None else CLIENT_HELLO
        self._waiting_room = WaitingRoom(first_byte, ae.acse_timeout or 0, processes=processes)
        super().__init__(ae, address, ae.ae_title, contexts, request_handler=_RequestHandler)

    def server_bind(self) -> None:
        """Bind the port, together with the other processes where there are several."""
        if self._processes > 1 and self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def run(self) -> None:
        """Accept connections until `close`, which is heard at once, unlike the `shutdown` of `serve_forever`."""
        try:
            while not self.closing:
                self.timeout = PACE_SECONDS if self._waiting_room else LOOK_SECONDS
                self.handle_request()
                self.service_actions()
        finally:
            self._has_ended.set()  # also of a fault: `close` waits for it

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; responses are small and must not wait for each other."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin with a connection, refuse it, or have it wait: nothing of it was read, and no thread has begun."""
        peer = plain_address(client_address[0])
        have_failed = self.services.failures.are_too_many(peer)
        if have_failed and not self.services.knows(peer):
            self._refuse(request, peer, TOO_MANY_FAILED)
            return
        if not have_failed and self.tls is None and (fault := fault_of(beginning_of(request, LOOKED_AT))):
            self._abort(request, peer, fault)
            return
        associations = self.associations()
        undecided = sum(each.peer == peer and not each.admitted for each in associations)
        if not have_failed and undecided < UNDECIDED_OF_ONE // self._processes:
            self._begin(request, client_address, associations)
        elif gone := self._waiting_room.add(peer, request, client_address):
            self._refuse(gone.connection, peer, TOO_MANY_FAILED if have_failed else ADDRESS_TAKEN)

    def _begin(
        self, request: socket.socket, client_address: tuple[str, int], associations: Sequence[NodeAssociation]
    ) -> bool:
        """Begin with a connection beside these associations, or refuse it; always True."""
        peer = plain_address(client_address[0])
        connections = [each.connection for each in associations]
        is_known, most = self.services.knows(peer), self.ae.maximum_associations
        if reason := refusal_of(peer, connections, is_known=is_known, most=most, processes=self._processes):
            self._refuse(request, peer, reason)
        else:
            super().process_request(request, client_address)
        return True

    def _refuse(self, request: socket.socket, peer: str, reason: str) -> None:
        self.services.lines.warn("connection refused", peer=peer, reason=reason)
        self.shutdown_request(request)

    def _abort(self, request: socket.socket, peer: str, fault: str) -> None:
        """Answer something else than a PDU by PS3.8 section 9.2 (Sta2, AA-1), without a thread for it."""
        self.services.failures.add(peer)
        self.services.lines.warn("association aborted", calling_ae=UNKNOWN_CALLER, peer=peer, reason=fault)
        with suppress(OSError):  # it is gone
            request.recv(LARGEST_REQUEST, socket.MSG_DONTWAIT)  # else the line is reset, and the answer lost
            request.send(abort_pdu(SERVICE_USER), socket.MSG_DONTWAIT)
        self.shutdown_request(request)

    def _look_after_the_waiting(self) -> None:
        for peer, waiting in self._waiting_room.turn_away():
            self.services.failures.add(peer)
            self._refuse(waiting.connection, peer, NO_REQUEST)
        for waiting in self._waiting_room.let_in(slowly=self.services.failures.are_too_many):
            begin = partial(self._begin, waiting.connection, waiting.client_address, self.associations())
            if not attempt(begin, "connection failed"):
                self.shutdown_request(waiting.connection)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - as in the base class
        """Log what went wrong with a new connection; the server goes on."""
        peer = plain_address(str(client_address[0])) if isinstance(client_address, tuple) else None
        log.exception("connection failed", peer=peer)

    def service_actions(self) -> None:
        """Say that connections are accepted; pynetdicom's collects garbage here, with all threads waiting."""
        self._look_after_the_waiting()
        self.services.lines.write_numbers()
        self.renew()

    def admitted(self, peer: str) -> tuple[int, int]:
        """Return how many associations were let in and are not over: all, and those of one address."""
        admitted = [each.peer for each in self.associations() if each.admitted]
        return len(admitted), admitted.count(peer)

    def associations(self) -> list[NodeAssociation]:
        """Return all associations of these services, on this port or another, also those being negotiated."""
        associations = (one for one in threading.enumerate() if isinstance(one, NodeAssociation))
        return [one for one in associations if one.node_server.services is self.services]

    def close(self) -> None:
        """Accept no more connections."""
        self.closing = True
        if self.socket is not None:
            with suppress(OSError):  # where it does not end the wait for a connection, the next look does
                self.socket.shutdown(socket.SHUT_RDWR)
        self._has_ended.wait()
        self.server_close()
        self._waiting_room.close()


class NodeAssociation(Association):
    """An association that a peer requested, with what the node adds to pynetdicom's."""

    acse: _NodeACSE
    dul: NodeDUL
    dimse: NodeDIMSE

    def __init__(self, server: NodeServer, address: str) -> None:
        self.node_server = server
        super().__init__(server.ae, "acceptor")
        self.connection = OpenConnection(address, server.services.knows(address))
        self._server = server
        self.certificate: ShownCertificate | None = None  # of the requestor, once TLS is agreed upon
        self.admitted = False
        self.rejection: Rejection | None = None
        self.has_answered = False  # a request was served
        self.destinations: frozenset[str] = frozenset()  # names of those that the requestor may report for
        self.transfers: Transfers | None = None  # once it is admitted
        activity = threading.Event()
        self.acse = _NodeACSE(self)
        self.dul = NodeDUL(
            self,
            activity,
            server.services.lines,
            is_serving=lambda: self.dimse.is_serving,
            is_late=lambda: self.dimse.is_late,
        )
        self.dimse = NodeDIMSE(
            self,
            activity,
            largest_dataset=server.largest_dataset,
            begin=lambda request, context_id: server.services.begin(self, request, context_id),
        )
        self.acse_timeout = server.ae.acse_timeout  # these two set the timers of the new upper layer
        self.network_timeout = server.ae.network_timeout
        self.name = "AcceptorThread"  # by which pynetdicom finds it

    def _bind_defaults(self) -> None:
        """Take pynetdicom's handlers as the server has them, instead of finding each again for every association."""
        self._handlers = self.node_server._handlers  # noqa: SLF001 - nobody binds others

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
    def caller(self) -> Caller:
        """Who has asked for it."""
        return Caller(calling_ae=self.calling_ae, peer=self.peer, certificate=self.certificate)

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
        bind_contextvars(peer=self.peer)  # for each line of this thread
        try:
            attempt(self._run_or_abort, "association failed")
        finally:
            self._log_end()
            self._count()
            if self.transfers is not None:
                self.node_server.services.ended(self)
            self.dimse.give_back()

    def _count(self) -> None:
        """Count a connection that came to nothing; one that the node turned away for the time being is none."""
        failures = self.node_server.services.failures
        if self.admitted and (self.has_answered or self.ended_orderly):
            failures.make_good(self.peer)
        elif not (self.node_server.closing or (self.rejection and self.rejection.is_transient)):
            failures.add(self.peer)

    def _log_end(self) -> None:
        if self.dul.was_idle:
            log.info("association ended, idle for long", **self.dul.who())
        elif self.admitted and (ending := self.dul.ending):
            log.info("association ended without release", **self.dul.who(), how=ending.name.lower())
        elif self.admitted and self.node_server.closing and not self.is_released:
            log.info("association aborted", **self.dul.who(), reason="stopping")

    def _run_or_abort(self) -> None:
        with ExitStack() as stack:
            stack.callback(self.abort)  # a bug must not leave the peer waiting
            if self._agree_on_tls():
                super().run_reactor()
            stack.pop_all()

    def _agree_on_tls(self) -> bool:
        """Shake hands where this port speaks TLS; return False once the connection is closed for the lack of it."""
        tls, stream = self.node_server.tls, self.dul.socket
        if tls is None or not isinstance(stream, NodeSocket) or stream.socket is None:
            return True
        try:
            agreed = agree(stream.socket, tls(), stream.opened_at + (self.acse_timeout or 0))
        except HandshakeError as error:
            self.node_server.services.lines.warn("connection refused, no TLS", peer=self.peer, reason=str(error))
            self.dul.forgo()
            return False
        stream.socket = agreed
        self.certificate = shown_by(agreed)
        return True

    def _run_reactor(self) -> None:
        """Serve one request after the other; pynetdicom's own sleeps before it looks for each."""
        while not self._kill:
            context_id, message = self.dimse.get_msg()
            if message is not None:
                self._serve_request(message, context_id or 0)
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released, self.is_established = True, False
                self.kill()
            elif self.acse.is_aborted():
                self.is_aborted, self.is_established = True, False
                self.kill()
            elif not self.dul.is_alive():
                self.kill()
            elif self.dul.idle_timer_expired():
                self.abort()
                self.kill()
        self.dul.join(timeout=1)  # the connection is closed next: the last PDU goes out first

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        try:
            context = self.accepted(context_id)
            if context is None or not self.node_server.services.serve(self, msg, context):
                reason = f"request cannot be served: {type(msg).__name__}"
                self.dul.warn("association aborted", reason)
                self.abort()
            else:
                self.has_answered = True
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
        association.rejection = rejection = association.node_server.services.admit(association)
        if rejection:
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
