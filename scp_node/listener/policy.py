"""Who may open an association, and how a refusal is said (PS3.8 section 9.3.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scp_node.settings import PeerSettings

ANY_AE_TITLE: Final = "*"

_PERMANENT: Final = 1
_TRANSIENT: Final = 2
_SERVICE_USER: Final = 1
_PRESENTATION: Final = 3

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Rejection:
    """The three numbers of an A-ASSOCIATE-RJ, and what they mean."""

    result: int
    source: int
    diagnostic: int
    reason: str


CALLING_AE_NOT_RECOGNISED: Final = Rejection(_PERMANENT, _SERVICE_USER, 3, "calling AE title or address is not a peer")
CALLED_AE_NOT_RECOGNISED: Final = Rejection(_PERMANENT, _SERVICE_USER, 7, "called AE title is not ours")
TEMPORARY_CONGESTION: Final = Rejection(_TRANSIENT, _PRESENTATION, 1, "no space to store, or stopping")
LOCAL_LIMIT_EXCEEDED: Final = Rejection(_TRANSIENT, _PRESENTATION, 2, "too many associations")


class Peers:
    """The peers that may send: AE title in exact case, and address."""

    def __init__(self, peers: Sequence[PeerSettings]) -> None:
        self._allowed: list[tuple[str, _Network]] = [
            (peer.ae_title, ipaddress.ip_network(peer.address, strict=False)) for peer in peers
        ]

    def include(self, calling_ae: str, peer: str) -> bool:
        """Return whether `calling_ae` may send from the address `peer`."""
        address = _address(peer)
        return any(title in (ANY_AE_TITLE, calling_ae) and address in network for title, network in self._allowed)


def plain_address(peer: str) -> str:
    """Return the address as people write it: without the IPv6 form that IPv4 peers have on a socket for both."""
    return str(_address(peer))


def _address(peer: str) -> _Address:
    address = ipaddress.ip_address(peer)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
