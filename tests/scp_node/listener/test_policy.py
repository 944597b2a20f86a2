"""Who is a peer."""

from __future__ import annotations

import pytest

from scp_node.listener.policy import Peers, plain_address
from scp_node.listener.text import escaped
from scp_node.settings import PeerSettings


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
    assert Peers([PeerSettings(ae_title=title, address=network)]).include("CR1", peer) == is_peer


def test_without_peers_there_is_no_peer() -> None:
    assert not Peers([]).include("CR1", "127.0.0.1")


def test_an_ipv4_peer_is_recorded_as_one() -> None:
    assert plain_address("::ffff:10.1.2.3") == "10.1.2.3"
    assert plain_address("fd00::1") == "fd00::1"


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
