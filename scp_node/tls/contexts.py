"""What is spoken: the BCP 195 profiles of DICOM (PS3.15 B.12 and B.13), for both sides of a connection.

That is TLS 1.2 with forward secrecy and authenticated encryption, and TLS 1.3 (RFC 9325 sections 3 and 4).
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Final

from scp_node.settings import (
    DestinationSettings,
    DestinationTlsSettings,
    ListenTlsSettings,
    SettingsError,
    TlsVersion,
)
from scp_node.tls.certificates import SHA256, Renewal, load_pair, shown_by
from scp_node.tls.sockets import TlsSocket, UntrustedPeerError, agree

LISTEN: Final = "listen.tls"  # where the settings of our server stand
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all of this kind

_VERSIONS: Final[dict[TlsVersion, ssl.TLSVersion]] = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_ASKED: Final = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def server_context(settings: ListenTlsSettings) -> ssl.SSLContext:
    """Return what the listener speaks.

    Raises:
        SettingsError: a file cannot be used, or there is no certificate.
    """
    if settings.certificate is None or settings.key is None:
        raise SettingsError(f"{LISTEN}.certificate: is not set")
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings.versions)
    context.options |= ssl.OP_NO_TICKET  # a session that is taken up again would outlive a change of ca_file
    context.num_tickets = 0
    load_pair(context, settings.certificate, settings.key, LISTEN)
    context.verify_mode = _ASKED[settings.client_certificate]
    if settings.ca_file is not None and settings.client_certificate != "none":
        _trust(context, settings.ca_file, LISTEN)
    return context


def client_context(settings: DestinationTlsSettings, setting: str) -> ssl.SSLContext:
    """Return what we speak to a destination; `setting` is where its settings stand, for messages.

    Raises:
        SettingsError: a file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings.versions)
    context.check_hostname = not settings.peer_certificate.startswith(SHA256)
    if settings.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, settings.ca_file, setting)
    if settings.certificate is not None and settings.key is not None:
        load_pair(context, settings.certificate, settings.key, setting)
    return context


class ServerTls:
    """TLS on the port of the listener, from files that may be renewed."""

    def __init__(self, settings: ListenTlsSettings) -> None:
        """Load the files.

        Raises:
            SettingsError: one cannot be used.
        """
        self._settings = settings
        files = (settings.certificate, settings.key, settings.ca_file)
        self._renewal = Renewal(files, self._load, section=LISTEN)

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        return self._context

    def renew(self) -> None:
        """Load the files again where they have changed."""
        self._renewal.renew()

    def _load(self) -> None:
        self._context = server_context(self._settings)


class ClientTls:
    """TLS to one peer, from files that may be renewed; safe for many threads."""

    def __init__(self, settings: DestinationTlsSettings, setting: str) -> None:
        """Load the files; `setting` is where the settings stand, for messages.

        Raises:
            SettingsError: one cannot be used.
        """
        self._settings = settings
        self._setting = setting
        self._renewing = threading.Lock()
        self._renewal = Renewal((settings.certificate, settings.key, settings.ca_file), self._load, section=setting)

    def agree(self, connection: socket.socket, host: str, deadline: float) -> TlsSocket:
        """Shake hands with the peer, by the files as they are now, and check that it is the expected one.

        Raises:
            HandshakeError: no TLS was agreed upon; UntrustedPeerError: the peer is another one.
        """
        with self._renewing:
            self._renewal.renew()
        expected = self._settings.peer_certificate
        is_digest = expected.startswith(SHA256)
        agreed = agree(connection, self._context, deadline, server_name=host if is_digest or not expected else expected)
        if is_digest and not ((shown := shown_by(agreed)) and shown.is_expected(expected)):
            agreed.close()
            raise UntrustedPeerError("its certificate is not the expected one")
        return agreed

    def _load(self) -> None:
        self._context = client_context(self._settings, self._setting)


def client_tls(destination: DestinationSettings) -> ClientTls | None:
    """Return the TLS to a destination; None where none is spoken to it.

    Raises:
        SettingsError: a file cannot be used.
    """
    if not destination.tls.enabled:
        return None
    return ClientTls(destination.tls, f"destinations.{destination.name}.tls")


def _context(protocol: int, versions: Collection[TlsVersion]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.sslsocket_class = TlsSocket
    spoken = sorted(_VERSIONS[version] for version in versions)
    context.minimum_version, context.maximum_version = spoken[0], spoken[-1]
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a certificate in ca_file is trusted as it is
    return context


def _trust(context: ssl.SSLContext, file: Path, setting: str) -> None:
    """Trust the certificates of a file.

    Raises:
        SettingsError: it holds none, or cannot be read.
    """
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise SettingsError(f"{setting}.ca_file: {file} holds no certificate in PEM form") from error
    except OSError as error:
        raise SettingsError(f"{setting}.ca_file: {file}: {error.strerror}") from error
