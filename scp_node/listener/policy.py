"""Who may open an association, and how it is rejected (PS3.8 section 9.3.4): values in, rejection out."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from scp_node.listener.request import is_ae_title
from scp_node.settings import DestinationSettings, PeerSettings, is_loopback
from scp_node.tls.certificates import ShownCertificate

ANY_AE_TITLE: Final = "*"

_PERMANENT: Final = 1
_TRANSIENT: Final = 2
_SERVICE_USER: Final = 1
_ACSE: Final = 2
_PRESENTATION: Final = 3

_VERSION_1: Final = 0x0001  # PS3.8 section 9.3.2: only this bit is tested

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Rejection:
    """The three numbers of an A-ASSOCIATE-RJ, and what they mean."""

    result: int
    source: int
    diagnostic: int
    reason: str

    @property
    def is_transient(self) -> bool:
        """Whether a later request may be accepted."""
        return self.result == _TRANSIENT


VERSION_NOT_SUPPORTED: Final = Rejection(_PERMANENT, _ACSE, 2, "protocol version is not 1")
CALLING_AE_BLANK_OR_MALFORMED: Final = Rejection(_PERMANENT, _SERVICE_USER, 3, "calling AE title is blank or malformed")
CALLING_AE_NOT_RECOGNISED: Final = Rejection(_PERMANENT, _SERVICE_USER, 3, "calling AE title or address is not a peer")
CERTIFICATE_NOT_RECOGNISED: Final = Rejection(
    _PERMANENT, _SERVICE_USER, 3, "certificate is missing, or not the one of this peer"
)
CALLED_AE_NOT_RECOGNISED: Final = Rejection(_PERMANENT, _SERVICE_USER, 7, "called AE title is not ours")
TEMPORARY_CONGESTION: Final = Rejection(_TRANSIENT, _PRESENTATION, 1, "no space to store, or stopping")
ADDRESS_LIMIT_EXCEEDED: Final = Rejection(_TRANSIENT, _PRESENTATION, 2, "too many associations of this address")
LOCAL_LIMIT_EXCEEDED: Final = Rejection(_TRANSIENT, _PRESENTATION, 2, "too many associations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who has opened an association, as far as it is known."""

    calling_ae: str
    peer: str  # its address
    certificate: ShownCertificate | None = None  # that it has shown by TLS


class Peers:
    """The peers that may send: AE title in exact case, address, and the certificate where one is expected."""

    def __init__(self, peers: Sequence[PeerSettings]) -> None:
        self._allowed: list[tuple[PeerSettings, _Network]] = [
            (peer, ipaddress.ip_network(peer.address, strict=False)) for peer in peers
        ]

    def know(self, peer: str) -> bool:
        """Return whether the address is one of theirs."""
        return any(_address(peer) in network for _, network in self._allowed)

    def include(self, caller: Caller) -> bool:
        """Return whether it may send."""
        return any(_is_certified(caller, entry) for entry in self._entries(caller))

    def name(self, caller: Caller) -> bool:
        """Return whether it may send by an entry that says its AE title, and not just "*"."""
        named = (entry for entry in self._entries(caller) if entry.ae_title != ANY_AE_TITLE)
        return any(_is_certified(caller, entry) for entry in named)

    def lack_certificate(self, caller: Caller) -> bool:
        """Return whether it could send with another certificate than the one it shows, or with one."""
        return not self.include(caller) and any(self._entries(caller))

    def end_by_closing(self, caller: Caller) -> bool:
        """Return whether it ends its transfers without A-RELEASE, by an entry of it."""
        return any(entry.ends_by_closing and _is_certified(caller, entry) for entry in self._entries(caller))

    def _entries(self, caller: Caller) -> Iterator[PeerSettings]:
        address = _address(caller.peer)
        for entry, network in self._allowed:
            if entry.ae_title in (ANY_AE_TITLE, caller.calling_ae) and address in network:
                yield entry


def _is_certified(caller: Caller, entry: PeerSettings) -> bool:
    return not entry.certificate or (
        caller.certificate is not None and caller.certificate.is_expected(entry.certificate)
    )


class Sources:
    """Which destinations may speak to us, each by the AE title and the address that it has as a destination.

    A peer in [[peers]] with that AE title is the destination as well: a PACS of several machines calls from any. One
    with the title "*" is not: anybody could report for every destination.
    """

    def __init__(
        self, destinations: Sequence[DestinationSettings], peers: Peers, resolve: Callable[[str], Collection[str]]
    ) -> None:
        self._destinations = [entry for entry in destinations if entry.commitment]
        self._peers = peers
        self._resolve = resolve

    def know(self, peer: str) -> bool:
        """Return whether the address stands in the settings as a destination's: names of hosts are not looked up."""
        return peer in {entry.host for entry in self._destinations}

    def names(self, caller: Caller) -> frozenset[str]:
        """Return the names of the destinations that the caller is."""
        return frozenset(
            entry.name
            for entry in self._destinations
            if entry.ae_title == caller.calling_ae
            and (self._peers.name(caller) or _address(caller.peer) in self._addresses(entry.host))
        )

    def _addresses(self, host: str) -> set[_Address]:
        return {_address(address) for address in self._resolve(host)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """What the A-ASSOCIATE-RQ and its connection say of who calls whom."""

    caller: Caller
    called_ae: str
    protocol_version: int = 1  # one bit for each version


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRules:
    """The settings that decide about a request."""

    ae_title: str  # of the node
    peers: Peers
    max_associations: int
    max_associations_of_one: int  # of one address


def rejection_of(
    request: AssociationRequest,
    rules: AdmissionRules,
    *,
    is_destination: bool,
    can_store: bool,
    associations: int,
    of_one: int,
) -> Rejection | None:
    """Return why an association is rejected; None admits it.

    Args:
        request: who asks.
        rules: the settings.
        is_destination: the requestor may report on storage commitment.
        can_store: there is space for images, and the node is not stopping.
        associations: how many were admitted and are not over.
        of_one: how many of them are of the requestor's address.
    """
    if not request.protocol_version & _VERSION_1:
        return VERSION_NOT_SUPPORTED
    if request.called_ae != rules.ae_title:
        return CALLED_AE_NOT_RECOGNISED
    caller = request.caller
    if not is_ae_title(caller.calling_ae):
        return CALLING_AE_BLANK_OR_MALFORMED
    # by C-ECHO; a C-STORE gets 0x0124
    is_health_check = caller.calling_ae == request.called_ae and is_loopback(caller.peer)
    if not (rules.peers.include(caller) or is_health_check or is_destination):
        return CERTIFICATE_NOT_RECOGNISED if rules.peers.lack_certificate(caller) else CALLING_AE_NOT_RECOGNISED
    if not can_store:
        return TEMPORARY_CONGESTION
    too_many_of_one = ADDRESS_LIMIT_EXCEEDED if of_one >= rules.max_associations_of_one else None
    return LOCAL_LIMIT_EXCEEDED if associations >= rules.max_associations else too_many_of_one


def resolved(host: str) -> Collection[str]:
    """Return the addresses of a host as the system knows them now; none where it knows none."""
    try:
        return {str(known[4][0]) for known in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def plain_address(peer: str) -> str:
    """Return the address as people write it: without the IPv6 form that IPv4 peers have on a socket for both."""
    return str(_address(peer))


@lru_cache(maxsize=1_024)
def _address(peer: str) -> _Address:
    address = ipaddress.ip_address(peer)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
