"""Says in words why a DICOM peer cannot be reached or did not answer, and what to change."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Final

from scp_node.delivery.connection import (
    AssociationError,
    ConnectionLostError,
    ForeignProtocolError,
    LateError,
    RejectedError,
    TlsError,
    UnreachableError,
)
from scp_node.settings import DestinationSettings, Settings

_ANY_ADDRESS: Final = {"0.0.0.0", "::", ""}  # noqa: S104 - what a listener on all addresses is set to
_UNROUTABLE: Final = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}

_STATUSES: Final = {  # PS3.7 section C.5, PS3.4 Table B.2-1
    0x0110: "processing failure: its log says more",
    0x0111: "duplicate SOP instance: it has that image already",
    0x0117: "SOP Instance UID is invalid",
    0x0122: "SOP class is not supported there",
    0x0124: "not authorised: this AE title may not store there",
    0x0210: "duplicate Message ID",
    0x0211: "C-STORE is not supported there",
    0x0212: "mistyped argument",
    0x0213: "resource limitation: a later try may succeed",
    0xFE00: "cancelled",
}
_STATUS_CLASSES: Final = {
    0xA7: "out of resources, such as disk space: a later try may succeed",
    0xA9: "the dataset does not match its SOP class",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a peer, and the words for where its parts are set."""

    host: str
    port: int
    called: str
    calling: str
    called_set_by: str  # such as "--called"
    calling_set_by: str
    address_set_by: str
    tls_set_by: str
    reachable_at: int | None = None  # the port of ours that the peer should know; None where it need not

    @property
    def where(self) -> str:
        """Return the peer's name for messages."""
        return f"{self.called} at {self.host}:{self.port}"


def why(error: AssociationError, call: Call) -> str:
    """Return in words why the association failed, and what to change."""
    match error:
        case RejectedError():
            return f"it rejected the association ({_numbers(error)}): {_rejection(error, call)}"
        case UnreachableError():
            return (
                f"{error}: see {call.tls_set_by}" if isinstance(error, TlsError) else _unreachable(error.reason, call)
            )
        case ForeignProtocolError():
            return _foreign(error.protocol, call)
        case LateError():
            return f"the port is open, but {error}: does the program there hang, or is it not DICOM?"
        case ConnectionLostError():
            return (
                f"it ended the connection without an answer ({error}): it may not know this host's address "
                f"{_own_address(call)}, expect TLS or a certificate, or not be DICOM: see its log"
            )
    return str(error)


def _foreign(protocol: str, call: Call) -> str:
    if protocol == "TLS":
        return f"it speaks TLS, and we do not: see {call.tls_set_by}, or name its port without TLS"
    found = f"it speaks {protocol}, not DICOM" if protocol else "what answers does not speak DICOM"
    return f"{found}: name the port of its Storage SCP ({call.address_set_by})"


def status_words(status: int) -> str:
    """Return a C-STORE status with its number, such as "status 0xA700: out of resources"."""
    words = _STATUSES.get(status) or _STATUS_CLASSES.get(status >> 8)
    if words is None and status >> 12 == 0xC:
        words = "it cannot understand the dataset: its log says more"
    return f"status 0x{status:04X}: {words or 'unknown to the standard: see its log'}"


def _numbers(error: RejectedError) -> str:
    return f"{error.result}/{error.source}/{error.diagnostic}"


def _rejection(error: RejectedError, call: Call) -> str:
    """Return the meaning of PS3.8 Table 9-21, and what to change."""
    entry = f"AE title {call.calling}, address {_own_address(call)}"
    if call.reachable_at is not None:
        entry += f", port {call.reachable_at}"
    meanings = {  # by source and diagnostic
        (1, 1): f"it gives no reason; most often it does not know who calls: enter {entry} there",
        (1, 2): "it does not support the DICOM application context: is it a Storage SCP?",
        (1, 3): f"it does not know our calling AE title {call.calling}: enter {entry} there, or call it by an AE title "
        f"that it knows ({call.calling_set_by})",
        (1, 7): f"it does not know the called AE title {call.called}: give its own AE title, in its exact case "
        f"({call.called_set_by})",
        (2, 1): "it gives no reason: see its log",
        (2, 2): "it does not support this version of the upper layer protocol",
        (3, 1): "it is busy or short of space: try later, or see its log",
        (3, 2): "it has as many associations as it allows: try later, or raise its limit",
    }
    unknown = "for a reason that the standard does not list: see its log"
    return meanings.get((error.source, error.diagnostic), unknown)


def _unreachable(reason: OSError | ValueError, call: Call) -> str:
    if isinstance(reason, socket.gaierror | ValueError):
        return f"host name {call.host} cannot be resolved: correct it ({call.address_set_by}), or give an IP address"
    if isinstance(reason, ConnectionRefusedError):
        return (
            f"connection refused: nothing listens on port {call.port} there; start it, or correct the port "
            f"({call.address_set_by})"
        )
    if isinstance(reason, TimeoutError):
        return (
            f"connection timed out: is the host up, the address right ({call.address_set_by}), and port {call.port} "
            "open in the firewall?"
        )
    if reason.errno in _UNROUTABLE:
        return f"no route to it ({reason.strerror}): is the address right ({call.address_set_by}), and the network up?"
    return f"no connection: {reason.strerror or type(reason).__name__}"


def _own_address(call: Call) -> str:
    """Return the address that the peer sees us call from, as far as this machine knows."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(call.host, call.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # chooses a route and sends nothing
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return "of this host"


def is_this_node(settings: Settings, destination: DestinationSettings) -> bool:
    """Return whether a destination is the port that this node listens on."""
    if destination.port != settings.listen.port:
        return False
    ours = {address for address in _addresses(destination.host) if _is_local(address)}
    listen = settings.listen.host
    return bool(ours) if listen in _ANY_ADDRESS else bool(ours & _addresses(listen))


def why_not_listening(settings: Settings) -> str | None:
    """Return why the node could not listen on its port now; None if it could. Nothing listens afterwards."""
    host, port = settings.listen.host, settings.listen.port
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError):
        return f"listen.host = {host!r} cannot be resolved"
    family, kind, protocol, _name, address = found[0]
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener does
            probe.bind(address)
    except OSError as error:
        return _unbindable(error, settings)
    return None


def held_by_another(settings: Settings) -> str:
    """Return the advice for a port that another program holds."""
    port = settings.listen.port
    return f"another program holds port {port} (`ss -ltnp 'sport = :{port}'` names it): stop it, or set listen.port"


def _unbindable(error: OSError, settings: Settings) -> str:
    host, port = settings.listen.host, settings.listen.port
    if error.errno == errno.EADDRINUSE:
        return held_by_another(settings)
    if error.errno == errno.EACCES:
        return (
            f"this user may not listen on port {port}: set listen.port to 1024 or more, or grant CAP_NET_BIND_SERVICE"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"listen.host = {host!r} is not an address of this machine"
    return f"cannot listen on {host} port {port}: {error.strerror}"


def _addresses(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, ValueError):
        return set()


def _is_local(address: str) -> bool:
    """Return whether the address belongs to this machine: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
