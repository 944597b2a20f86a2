"""C-ECHO to ourselves and to destinations, with the reason where there is no answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from scp_node.delivery.association import VERIFICATION, RequestedAssociation
from scp_node.delivery.connection import AssociationError, ConnectionLostError, TlsError, UntrustedError
from scp_node.dicom.syntaxes import NATIVE
from scp_node.settings import DestinationSettings, DestinationTlsSettings, Settings, SettingsError
from scp_node.tls.certificates import sha256_of
from scp_node.tls.contexts import LISTEN, ClientTls, client_tls

_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where we listen, and where we ask


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoAnswer:
    """What came of a C-ECHO."""

    error: AssociationError | None = None  # why there was no response
    status: int | None = None  # of the response; 0 is Success
    takes_reports: bool = False  # whether a context for a Structured Report was accepted

    @property
    def good(self) -> bool:
        """Return whether the answer is Success."""
        return self.status == 0


def answers_echo(settings: Settings) -> bool:
    """Return whether the running node answers a C-ECHO, and on its port for TLS, if it has one, speaks TLS."""
    if not echo_ourselves(settings).good:
        return False
    if settings.listen.tls.certificate is None:
        return True
    try:
        answer = echo_ourselves_by_tls(settings)
    except SettingsError:  # new files that do not fit: the node goes on with those that it has, and doctor names them
        return True
    is_refused = isinstance(answer.error, TlsError | ConnectionLostError)  # peers' certificates may have other issuers
    return answer.good or (is_refused and not isinstance(answer.error, UntrustedError))


def echo_ourselves(settings: Settings) -> EchoAnswer:
    """Return what comes of a C-ECHO to the port that the node listens on."""
    host = _EVERY_ADDRESS.get(settings.listen.host, settings.listen.host)
    return echo(settings, ae_title=settings.node.ae_title, host=host, port=settings.listen.port)


def echo_ourselves_by_tls(settings: Settings) -> EchoAnswer:
    """Return what comes of a C-ECHO to the port on which the node speaks TLS; it is to show the certificate as it is.

    Raises:
        SettingsError: the certificate or its key cannot be used, or there is none.
    """
    listen = settings.listen
    if listen.tls.certificate is None:
        raise SettingsError(f"{LISTEN}.certificate: is not set")
    ours = DestinationTlsSettings(
        enabled=True,
        ca_file=listen.tls.certificate,
        peer_certificate=sha256_of(listen.tls.certificate, f"{LISTEN}.certificate"),
        certificate=listen.tls.certificate,
        key=listen.tls.key,
    )
    host = _EVERY_ADDRESS.get(listen.tls_host, listen.tls_host)
    tls = ClientTls(ours, LISTEN)
    return echo(settings, ae_title=settings.node.ae_title, host=host, port=listen.tls.port, tls=tls)


def echo_destination(settings: Settings, destination: DestinationSettings) -> EchoAnswer:
    """Return what comes of a C-ECHO from us to a destination.

    Raises:
        SettingsError: a file of its TLS cannot be used.
    """
    return echo(
        settings,
        ae_title=destination.ae_title,
        host=destination.host,
        port=destination.port,
        tls=client_tls(destination),
    )


def echo(settings: Settings, *, ae_title: str, host: str, port: int, tls: ClientTls | None = None) -> EchoAnswer:
    """Return what comes of a C-ECHO that also offers our reports, within `delivery.send_seconds`."""
    deadline = time.monotonic() + settings.delivery.send_seconds
    classes = settings.report.sop_classes
    try:
        association = RequestedAssociation.request(
            host,
            port,
            calling_ae=settings.node.ae_title,
            called_ae=ae_title,
            contexts=[(uid, list(NATIVE)) for uid in (*classes, VERIFICATION)],
            seconds=min(settings.delivery.connect_seconds, settings.delivery.send_seconds),
            tls=tls,
        )
    except AssociationError as error:
        return EchoAnswer(error=error)
    takes_reports = any(association.context_for(uid) for uid in classes)
    try:
        status = association.echo(seconds=max(0.0, deadline - time.monotonic()))
    except AssociationError as error:
        association.abort()
        return EchoAnswer(error=error, takes_reports=takes_reports)
    association.release()
    return EchoAnswer(status=status, takes_reports=takes_reports)
