"""The Storage SCP: accepts C-ECHO and C-STORE, and answers Success when the file is safely on disk."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import pydicom.config
from pynetdicom import _config as pynetdicom_config
from pynetdicom.ae import ApplicationEntity

from scp_node.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_node.domain import (
    Clock,
    CommitmentAnswer,
    NodeError,
    ReceivedInstance,
    RejectedInstance,
    TransferEnded,
    utc_now,
)
from scp_node.listener.association import NodeAssociation, NodeServer, require_seams
from scp_node.listener.connections import SPARE_CONNECTIONS
from scp_node.listener.contexts import accepted_contexts
from scp_node.listener.library_log import repeat_warnings
from scp_node.listener.services import NodeServices
from scp_node.logs import get_logger
from scp_node.settings import Settings
from scp_node.spool import Spool
from scp_node.tls.contexts import ServerTls

_MIB: Final = 1 << 20
_POLL_SECONDS: Final = 0.02

log = get_logger(__name__)


class ListenError(NodeError, OSError):
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
        `renew` is called each second, as long as connections are accepted. Where several processes share the ports,
        each keeps its part of the limits: together they never exceed those of the settings.
        """
        settings = settings.model_copy(update={"listen": settings.listen.of_one_process()})
        self._settings = settings
        self._services = NodeServices(
            settings,
            spool,
            on_received=on_received,
            on_rejected=on_rejected,
            on_ended=on_ended,
            on_commitment=on_commitment,
            clock=clock,
        )
        self._contexts = accepted_contexts(commitment=on_commitment is not None)
        self._renew = renew
        self._tls = ServerTls(settings.listen.tls) if settings.listen.tls.certificate else None
        self._servers: list[NodeServer] = []

    @property
    def address(self) -> tuple[str, int]:
        """The host and port that are listened on, once started."""
        return _address_of(self._servers[:1])

    @property
    def tls_address(self) -> tuple[str, int]:
        """The host and port on which TLS is spoken, once started."""
        return _address_of(self._servers[1:])

    def start(self) -> None:
        """Open the ports and serve in threads of its own.

        Raises:
            ListenError: an address is taken, or is not ours.
            UnsupportedPynetdicomError: the installed pynetdicom cannot be used.
        """
        require_seams()
        _configure_libraries()
        listen = self._settings.listen
        ae = self._application_entity()
        opened = [self._open(ae, listen.host, listen.port)]
        if self._tls is not None:
            try:
                opened.append(self._open(ae, listen.tls_host, listen.tls.port, self._tls.context))
            except ListenError:
                opened[0].server_close()
                raise
        self._servers = opened
        for server in opened:
            name = "listener" if server.tls is None else "listener-tls"
            threading.Thread(target=server.run, name=name, daemon=True).start()
        host, port = self.address
        log.info("listening", ae_title=self._settings.node.ae_title, host=host, port=port)
        if self._tls is not None:
            host, port = self.tls_address
            log.info("listening by TLS", ae_title=self._settings.node.ae_title, host=host, port=port)

    def renew_certificate(self) -> None:
        """Use the files of the certificate for new connections where they have changed; others go on undisturbed."""
        if self._tls is not None:
            self._tls.renew()

    def stop(self, grace_seconds: float) -> None:
        """Accept no more associations, let running stores finish for `grace_seconds`, abort the rest."""
        if not self._servers:
            return
        for server in self._servers:
            server.close()
        deadline = time.monotonic() + grace_seconds
        while (associations := self._servers[0].associations()) and time.monotonic() < deadline:
            for association in associations:
                if not association.busy:
                    _abort(association)
            time.sleep(_POLL_SECONDS)
        for association in self._servers[0].associations():
            log.warning("association aborted", reason="stopping", peer=association.peer)
            _abort(association).join(timeout=1)
            association.join(timeout=1)  # it reports what was cut off
        self._services.lines.write_numbers(at_once=True)
        log.info("listener stopped")

    def _open(
        self, ae: ApplicationEntity, host: str, port: int, tls: Callable[[], ssl.SSLContext] | None = None
    ) -> NodeServer:
        try:
            return NodeServer(
                ae,
                (host, port),
                self._contexts,
                self._services,
                largest_dataset=self._settings.listen.max_instance_mib * _MIB,
                renew=self._renew if tls is None else lambda: None,
                tls=tls,
                processes=self._settings.listen.processes,
            )
        except OSError as error:
            raise ListenError(f"cannot listen on {host} port {port}: {error.strerror}") from error

    def _application_entity(self) -> ApplicationEntity:
        listen = self._settings.listen
        ae = ApplicationEntity(self._settings.node.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = listen.max_pdu_bytes
        ae.maximum_associations = listen.max_associations + SPARE_CONNECTIONS // listen.processes
        ae.acse_timeout = listen.acse_timeout_seconds
        ae.dimse_timeout = listen.dimse_timeout_seconds
        ae.network_timeout = listen.network_timeout_seconds
        return ae


def _address_of(servers: Sequence[NodeServer]) -> tuple[str, int]:
    if not servers:
        raise RuntimeError("the listener has not been started, or speaks no TLS")
    host, port = servers[0].server_address[:2]
    return str(host), int(port)


def _abort(association: NodeAssociation) -> threading.Thread:
    thread = threading.Thread(target=association.abort, name="abort", daemon=True)
    thread.start()
    return thread


def _configure_libraries() -> None:
    """Keep the libraries from writing a peer's text to the log: the node checks values itself, and logs for itself.

    What pynetdicom warns of, and the node does not say, is in the log with its place: see `library_log`.
    """
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
    pynetdicom_config.VALIDATORS["UI"] = lambda _: (True, "")  # a malformed UID is answered 0x0117, not with an abort
    repeat_warnings()
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
