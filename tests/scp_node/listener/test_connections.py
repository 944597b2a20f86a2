"""Who may open a connection: the share of strangers, of one address, and of all."""

from __future__ import annotations

import pytest

from scp_node.listener.connections import (
    ADDRESS_TAKEN,
    ALL_TAKEN,
    KEPT_FOR_OTHERS,
    OF_ONE_STRANGER,
    SPEAKS_TLS,
    STRANGER_TAKEN,
    STRANGERS,
    STRANGERS_TAKEN,
    UNKNOWN_PDU,
    OpenConnection,
    fault_of,
    refusal_of,
)


def strangers(number: int, each: int = 1) -> list[OpenConnection]:
    return [OpenConnection(f"10.9.0.{one}", is_known=False) for one in range(number) for _ in range(each)]


def of(address: str, number: int) -> list[OpenConnection]:
    return [OpenConnection(address, is_known=True)] * number


@pytest.mark.parametrize(
    ("held", "address", "is_known", "expected"),
    [
        ([], "10.9.9.9", False, None),
        (strangers(1, OF_ONE_STRANGER), "10.9.0.0", False, STRANGER_TAKEN),
        (strangers(1, OF_ONE_STRANGER), "10.9.9.9", False, None),
        (strangers(STRANGERS), "10.9.9.9", False, STRANGERS_TAKEN),
        (strangers(STRANGERS), "10.1.1.1", True, None),
        (of("10.1.1.1", 100 - KEPT_FOR_OTHERS), "10.1.1.1", True, ADDRESS_TAKEN),
        (of("10.1.1.1", 100 - KEPT_FOR_OTHERS), "10.1.1.2", True, None),
        (of("10.1.1.1", 100), "10.1.1.2", True, ALL_TAKEN),
    ],
)
def test_a_connection_is_refused_for_its_own_share_alone(
    held: list[OpenConnection], address: str, *, is_known: bool, expected: str | None
) -> None:
    assert refusal_of(address, held, is_known=is_known, most=100) == expected


def test_a_node_of_few_places_lets_a_peer_in() -> None:
    assert refusal_of("10.1.1.1", [], is_known=True, most=4) is None


@pytest.mark.parametrize(
    ("beginning", "fault"),
    [
        (b"", None),
        (b"G", None),
        (b"\x01\0", None),
        (b"\x04\0", None),
        (b"\x07\xff", None),
        (b"GE", UNKNOWN_PDU),
        (b"\0\x01", UNKNOWN_PDU),
        (b"\x08\0", UNKNOWN_PDU),
        (b"\x16\x03", SPEAKS_TLS),
        (b"\x16\x01", UNKNOWN_PDU),
    ],
)
def test_what_is_no_pdu_is_told_by_two_bytes(beginning: bytes, fault: str | None) -> None:
    assert fault_of(beginning) == fault
