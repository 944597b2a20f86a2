"""A plugin of pytest: pynetdicom's own tests meet the listener's classes wherever they start an SCP.

Every decision that the node takes for itself is left to pynetdicom: who may connect and associate, and what a request
is answered. What is tried is the rest: server, association, negotiation, state machine, PDUs, messages.
"""

from __future__ import annotations

import re
import signal
import ssl
import threading
import time
from collections.abc import Generator
from typing import Any, Final

import pytest
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE, DimseServiceType
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationServer, AssociationSocket

from scp_node.incoming import Incoming
from scp_node.listener.association import NodeAssociation, NodeServer
from scp_node.listener.failures import FailedConnections
from scp_node.listener.policy import VERSION_NOT_SUPPORTED, Rejection
from scp_node.listener.upper_layer import NodeSocket
from scp_node.logs import get_logger
from scp_node.runtime.repeated import RepeatedLines
from scp_node.tls.sockets import TlsSocket

ASSOCIATIONS: Final = "associations"  # a property of each result: how many of the listener's took part

_LONGEST_SECONDS: Final = 6  # of one case: what waits for something that never comes would do so for ever
_LARGEST_DATASET: Final = 1 << 30  # bytes
_STARTS_AN_SCP: Final = frozenset({"make_server", "start_server"})
_OF_THE_STATE_MACHINE: Final = re.compile(r"TestState\d\d|TestParrotAttack|TestStateMachineFunctionalAcceptor")

_made: list[NodeAssociation] = []
_opened: list[StandInServer] = []


class LibraryServices:
    """Leaves to pynetdicom what it can decide: of a protocol version it hears nothing."""

    def __init__(self) -> None:
        self.lines = RepeatedLines(get_logger(__name__))
        self.failures = FailedConnections(0)

    def knows(self, address: str) -> bool:  # noqa: ARG002 - as the listener asks
        return True

    def admit(self, association: NodeAssociation) -> Rejection | None:
        association.admitted = bool(association.protocol_version & 1)
        return None if association.admitted else VERSION_NOT_SUPPORTED

    def begin(self, association: NodeAssociation, request: C_STORE, context_id: int) -> Incoming | None:  # noqa: ARG002
        return None

    def serve(self, association: NodeAssociation, message: DimseServiceType, context: PresentationContext) -> bool:
        Association._serve_request(association, message, context.context_id or 0)
        return True

    def ended(self, association: NodeAssociation) -> None:
        pass


class StandInServer(NodeServer):
    """The listener's server, as pynetdicom makes and uses one."""

    def __init__(  # noqa: PLR0917 - as pynetdicom makes one
        self,
        ae: ApplicationEntity,
        address: Any,
        ae_title: str,
        contexts: list[PresentationContext],
        ssl_context: ssl.SSLContext | None = None,
        evt_handlers: Any = (),
    ) -> None:
        super().__init__(
            ae,
            address,
            contexts,
            LibraryServices(),
            largest_dataset=_LARGEST_DATASET,
            renew=lambda: None,
            tls=None if ssl_context is None else (lambda: ssl_context),
        )
        _opened.append(self)
        self.ae_title = ae_title
        if ssl_context is not None:
            ssl_context.sslsocket_class = TlsSocket  # as in the contexts of the node
        self.RequestHandlerClass = _handler_of(self.RequestHandlerClass)
        for each in evt_handlers:
            self.bind(*each)

    def serve_forever(self, poll_interval: float = 0.1) -> None:
        super().serve_forever(poll_interval)

    def process_request(self, request: Any, client_address: Any) -> None:
        AssociationServer.process_request(self, request, client_address)  # the limits are the node's own


def _handler_of(base: Any) -> Any:
    class Handler(base):  # type: ignore[misc]  # a base that only its server knows
        def _create_association(self) -> NodeAssociation:
            association: NodeAssociation = super()._create_association()
            _made.append(association)
            for event, bound in self.server._handlers.items():
                for handler, arguments in [bound] if event.is_intervention else bound:
                    association.bind(event, handler, arguments)
            return association

    return Handler


class _NoServer:
    """What an association asks of a server, where there is none: a case brings its own connection."""

    tls = None
    closing = False
    largest_dataset = _LARGEST_DATASET

    def __init__(self, ae: ApplicationEntity) -> None:
        self.ae = ae
        self.services = LibraryServices()


class StandInAssociation(NodeAssociation):
    """An association without a server, in either role: the upper layer has one state machine for both."""

    def __init__(self, ae: ApplicationEntity, mode: str) -> None:
        super().__init__(_NoServer(ae), "127.0.0.1")  # type: ignore[arg-type]
        self.mode = mode
        self._server = None
        _made.append(self)

    def _bind_defaults(self) -> None:
        Association._bind_defaults(self)  # there is no server that has them


class StandInSocket(NodeSocket):
    """The listener's socket; that of a requestor connects by itself."""

    def __init__(self, assoc: Association, client_socket: Any = None, address: Any = None) -> None:
        if client_socket is not None:
            super().__init__(assoc, client_socket)
            return
        AssociationSocket.__init__(self, assoc, address=address)
        self.opened_at = time.monotonic()
        self._sending = threading.Lock()


def _make_server(ae: ApplicationEntity, address: Any, *, server_class: Any = None, **options: Any) -> Any:
    is_usual = (
        server_class is None or server_class.__module__ == AssociationServer.__module__
    )  # some cases load it anew
    return _LIBRARY_S(ae, address, server_class=StandInServer if is_usual else server_class, **options)


_LIBRARY_S: Final = ApplicationEntity.make_server


def pytest_configure() -> None:
    """Have each SCP be the listener's."""
    ApplicationEntity.make_server = _make_server  # type: ignore[assignment,method-assign]
    signal.signal(signal.SIGALRM, _give_up)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what starts no SCP: it would try pynetdicom alone."""
    kept = [each for each in items if isinstance(each, pytest.Function) and _has_scp(each)]
    config.hook.pytest_deselected(items=[each for each in items if each not in kept])
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Function) -> Generator[None, object, object]:
    """Lend the state machine's own cases an association, and close what a case that failed left open."""
    with pytest.MonkeyPatch.context() as lent:
        if _is_of_state_machine(item):
            lent.setattr(item.module, "Association", StandInAssociation)
            lent.setattr(item.module, "AssociationSocket", StandInSocket)
        try:
            return (yield)
        finally:
            for server in _opened:
                server.server_close()
            _opened.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Give up a case that takes too long, and count the associations of each."""
    signal.alarm(_LONGEST_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        item.user_properties.append((ASSOCIATIONS, len(_made)))
        _made.clear()


def _has_scp(item: pytest.Function) -> bool:
    return not _STARTS_AN_SCP.isdisjoint(item.function.__code__.co_names) and (
        "test_fsm" not in item.module.__name__ or _is_of_state_machine(item)
    )


def _is_of_state_machine(item: pytest.Function) -> bool:
    return item.cls is not None and _OF_THE_STATE_MACHINE.fullmatch(item.cls.__name__) is not None


def _give_up(*_: object) -> None:
    raise TimeoutError(f"not over after {_LONGEST_SECONDS} s")
