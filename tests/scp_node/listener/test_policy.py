"""Who is a peer, and whose association is rejected why."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from scp_node.listener.policy import (
    ADDRESS_LIMIT_EXCEEDED,
    CALLED_AE_NOT_RECOGNISED,
    CALLING_AE_BLANK_OR_MALFORMED,
    CALLING_AE_NOT_RECOGNISED,
    CERTIFICATE_NOT_RECOGNISED,
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    VERSION_NOT_SUPPORTED,
    AdmissionRules,
    AssociationRequest,
    Caller,
    Peers,
    Rejection,
    plain_address,
    rejection_of,
)
from scp_node.listener.text import escaped
from scp_node.settings import PeerSettings
from scp_node.tls.certificates import ShownCertificate


@pytest.mark.parametrize(
    ("title", "network", "peer", "is_peer"),
    [
        ("*", "10.0.0.0/8", "10.1.2.3", True),
        ("*", "10.0.0.0/8", "11.1.2.3", False),
        ("*", "10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("*", "10.0.0.0/8", "fd00::1", False),
        ("*", "fd00::/8", "fd00::1", True),
        ("*", "fe80::/10", "fe80::1%eth0", True),
        ("CR1", "10.1.2.3", "10.1.2.3", True),
        ("CR2", "10.1.2.3", "10.1.2.3", False),
        ("cr1", "10.1.2.3", "10.1.2.3", False),
    ],
)
def test_a_peer_has_the_title_in_exact_case_and_an_address_in_the_network(
    title: str, network: str, peer: str, *, is_peer: bool
) -> None:
    peers = Peers([PeerSettings(ae_title=title, address=network)])
    assert peers.include(Caller(calling_ae="CR1", peer=peer)) == is_peer


def test_without_peers_there_is_no_peer() -> None:
    assert not Peers([]).include(Caller(calling_ae="CR1", peer="127.0.0.1"))


def test_an_ipv4_peer_is_recorded_as_one() -> None:
    assert plain_address("::ffff:10.1.2.3") == "10.1.2.3"
    assert plain_address("fd00::1") == "fd00::1"


def rejection(
    calling_ae: str = "CR1",
    called_ae: str = "PNEUMONIA",
    peer: str = "10.1.2.3",
    *,
    is_destination: bool = False,
    can_store: bool = True,
    associations: int = 0,
    of_one: int = 0,
    version: int = 1,
    expected: str = "",
    certificate: ShownCertificate | None = None,
) -> Rejection | None:
    """Return what a node with one peer and room for three associations, two of one address, answers."""
    peers = Peers([PeerSettings(ae_title="CR1", address="10.0.0.0/8", certificate=expected)])
    return rejection_of(
        AssociationRequest(
            caller=Caller(calling_ae=calling_ae, peer=peer, certificate=certificate),
            called_ae=called_ae,
            protocol_version=version,
        ),
        AdmissionRules(ae_title="PNEUMONIA", peers=peers, max_associations=3, max_associations_of_one=2),
        is_destination=is_destination,
        can_store=can_store,
        associations=associations,
        of_one=of_one,
    )


@pytest.mark.parametrize("version", [1, 3, 0xFFFF])
def test_only_bit_0_of_the_version_counts(version: int) -> None:
    assert rejection(version=version) is None
    assert rejection("", "OTHER", version=version - 1) is VERSION_NOT_SUPPORTED


def test_a_blank_calling_title_is_rejected_though_any_may_call() -> None:
    assert rejection("") is CALLING_AE_BLANK_OR_MALFORMED
    assert rejection("A\\B") is CALLING_AE_BLANK_OR_MALFORMED
    assert rejection("", is_destination=True) is CALLING_AE_BLANK_OR_MALFORMED


def test_who_ends_by_closing_is_said_for_each_peer() -> None:
    closing = PeerSettings(ae_title="CT1", address="10.0.0.0/8", ends_by_closing=True)
    peers = Peers([PeerSettings(ae_title="*", address="0.0.0.0/0"), closing])
    assert peers.end_by_closing(Caller(calling_ae="CT1", peer="10.1.2.3"))
    assert not peers.end_by_closing(Caller(calling_ae="CT1", peer="11.1.2.3"))
    assert not peers.end_by_closing(Caller(calling_ae="CR1", peer="10.1.2.3"))


@pytest.mark.parametrize(
    "expected", ["cr1.hospital.example", "CR1.Hospital.Example", "10.1.2.3", "sha256:" + "AB" * 32, "ab:" * 31 + "ab"]
)
def test_a_peer_with_a_certificate_needs_title_address_and_that_certificate(expected: str) -> None:
    if expected.startswith("ab:"):
        expected = f"sha256:{expected}"
    shown = ShownCertificate(names=frozenset({"cr1.hospital.example", "10.1.2.3"}), sha256="ab" * 32)
    other = ShownCertificate(names=frozenset({"cr2.hospital.example"}), sha256="cd" * 32)
    assert rejection(expected=expected, certificate=shown) is None
    assert rejection(expected=expected, certificate=other) is CERTIFICATE_NOT_RECOGNISED
    assert rejection(expected=expected) is CERTIFICATE_NOT_RECOGNISED
    assert rejection("CR2", expected=expected, certificate=shown) is CALLING_AE_NOT_RECOGNISED
    assert rejection(peer="11.1.2.3", expected=expected, certificate=shown) is CALLING_AE_NOT_RECOGNISED


@pytest.mark.parametrize("wrong", ["sha256:", "sha256:12", "cr1 hospital", "*.hospital.example"])
def test_what_can_match_no_certificate_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="certificate"):
        PeerSettings(address="10.0.0.0/8", certificate=wrong)


def test_a_peer_is_admitted_while_there_is_room() -> None:
    assert rejection() is None
    assert rejection(associations=1) is None


@pytest.mark.parametrize("called_ae", ["", "OTHER", "pneumonia"])
def test_whoever_calls_another_ae_title_is_rejected(called_ae: str) -> None:
    assert rejection(called_ae=called_ae) is CALLED_AE_NOT_RECOGNISED
    assert rejection(called_ae=called_ae, is_destination=True) is CALLED_AE_NOT_RECOGNISED


@pytest.mark.parametrize(("calling_ae", "peer"), [("CR2", "10.1.2.3"), ("cr1", "10.1.2.3"), ("CR1", "11.1.2.3")])
def test_whoever_is_no_peer_is_rejected_unless_it_is_a_destination(calling_ae: str, peer: str) -> None:
    assert rejection(calling_ae, peer=peer) is CALLING_AE_NOT_RECOGNISED
    assert rejection(calling_ae, peer=peer, is_destination=True) is None


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
def test_the_node_may_ask_itself_whether_it_answers(peer: str) -> None:
    assert rejection("PNEUMONIA", peer=peer) is None


def test_nobody_may_call_as_the_node_from_another_machine() -> None:
    assert rejection("PNEUMONIA", peer="10.1.2.3") is CALLING_AE_NOT_RECOGNISED


def test_a_node_that_cannot_store_rejects_for_now() -> None:
    assert rejection(can_store=False) is TEMPORARY_CONGESTION


def test_one_address_leaves_room_for_the_others() -> None:
    assert rejection(associations=2, of_one=1) is None
    assert rejection(associations=2, of_one=2) is ADDRESS_LIMIT_EXCEEDED


@pytest.mark.parametrize("associations", [3, 4])
def test_an_association_beyond_the_limit_is_rejected_for_now(associations: int) -> None:
    assert rejection(associations=associations) is LOCAL_LIMIT_EXCEEDED


def test_a_stranger_learns_neither_of_the_space_nor_of_the_load() -> None:
    assert rejection("CR2", can_store=False, associations=3) is CALLING_AE_NOT_RECOGNISED


def test_a_node_without_space_says_so_before_it_speaks_of_the_limit() -> None:
    assert rejection(can_store=False, associations=3) is TEMPORARY_CONGESTION


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("MODALITY1", "MODALITY1"),
        ("1.2.3", "1.2.3"),
        ("", "''"),
        ("TWO WORDS", "'TWO WORDS'"),
        ("a\nb", r"'a\nb'"),
        ("\x1b[31m", r"'\x1b[31m'"),
        ("Ä", r"'\xc4'"),
        ("x=1 y=2", "'x=1 y=2'"),
    ],
)
def test_text_of_a_peer_is_one_plain_word_or_quoted(text: str, safe: str) -> None:
    assert escaped(text) == safe
