"""Who may open a connection, before a byte is read or a thread begins: values in, refusal out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scp_node.tls.sockets import is_client_hello

STRANGERS: Final = 16  # connections of addresses that are no peer's, all together
OF_ONE_STRANGER: Final = 4
UNDECIDED_OF_ONE: Final = 16  # of one peer's address that have not asked for an association: beyond them, one waits
KEPT_FOR_OTHERS: Final = 32  # places that one peer's address cannot take
LOOKED_AT: Final = 2  # bytes that tell what is no PDU
SPARE_CONNECTIONS: Final = 192  # beyond the associations: connections that have not asked for one yet

ALL_TAKEN: Final = "too many connections"
STRANGERS_TAKEN: Final = "too many connections of unknown addresses"
STRANGER_TAKEN: Final = "too many connections of one unknown address"
ADDRESS_TAKEN: Final = "too many connections of one address"
NO_REQUEST: Final = "it does not begin with an association request"
TOO_MANY_FAILED: Final = "too many connections of this address came to nothing"
UNKNOWN_CALLER: Final = "unknown"  # in place of an AE title, before one has come
UNKNOWN_PDU: Final = "unknown type of PDU"
SPEAKS_TLS: Final = "it speaks TLS; this port is plain"

_PDU_TYPES: Final = range(0x01, 0x08)  # PS3.8 section 9.3.1


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """A connection that is open now."""

    address: str
    is_known: bool  # the address is a peer's, a destination's or this machine's


def refusal_of(
    address: str, connections: Sequence[OpenConnection], *, is_known: bool, most: int, processes: int = 1
) -> str | None:
    """Return why a connection from `address` is closed at once; None accepts it.

    Args:
        address: of the peer.
        connections: those that are open.
        is_known: the address is a peer's, a destination's or this machine's.
        most: connections that there may be.
        processes: that share the port; each has its part of the numbers above.
    """
    if len(connections) >= most:
        return ALL_TAKEN
    here = sum(each.address == address for each in connections)
    if is_known:
        return ADDRESS_TAKEN if here >= max(1, most - KEPT_FOR_OTHERS // processes) else None
    if here >= OF_ONE_STRANGER // processes:
        return STRANGER_TAKEN
    strangers = sum(not each.is_known for each in connections)
    return STRANGERS_TAKEN if strangers >= STRANGERS // processes else None


def fault_of(beginning: bytes) -> str | None:
    """Return why a PDU does not begin so, on a port without TLS; None where one may, or too little has come.

    Args:
        beginning: the first two bytes of the peer, or fewer.
    """
    if len(beginning) < LOOKED_AT or beginning[0] in _PDU_TYPES:
        return None
    return SPEAKS_TLS if is_client_hello(beginning) else UNKNOWN_PDU
