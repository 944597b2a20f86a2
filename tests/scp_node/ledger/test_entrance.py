"""Tries to log in: strangers have to wait, and the owner of an account does not wait for them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import Engine

from scp_node.domain import Actor
from scp_node.ledger import LedgerError, Limit, PersonRole, limits
from scp_node.ledger import entrance as module
from tests.scp_node.ledger_node import Node

TESTER: Final = Actor(name="test", address="")
ADDRESS: Final = "192.0.2.1"
ACCOUNT: Final = (Limit(subject="account:ada", free=5),)


@pytest.fixture
def node(sqlite_engine: Engine) -> Node:
    return Node(sqlite_engine)


def fail(node: Node, counts: tuple[Limit, ...]) -> float:
    """Fail once, as soon as that is allowed; return how long it had to wait."""
    wait = node.ledger.entrance.try_once(counts)
    node.clock.now += wait
    if wait:
        assert node.ledger.entrance.try_once(counts) == timedelta(0)
    return wait.total_seconds()


def test_the_wait_is_doubled_up_to_a_quarter_of_an_hour(node: Node) -> None:
    waits = [fail(node, ACCOUNT) for _ in range(18)]
    assert waits == [0] * 5 + [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]


def test_tries_at_the_same_time_are_counted_before_their_passwords_are_looked_at(node: Node) -> None:
    waits = [node.ledger.entrance.try_once(ACCOUNT) for _ in range(8)]
    assert waits == [timedelta(0)] * 5 + [timedelta(seconds=1)] * 3


def test_a_login_ends_the_count_of_its_account_and_not_that_of_its_address(node: Node) -> None:
    for _ in range(19):
        node.ledger.entrance.try_once(limits("victim", ADDRESS, None)[1:])
    own = limits("attacker", ADDRESS, None)
    assert node.ledger.entrance.try_once(own) == timedelta(0)
    node.ledger.entrance.succeeded(own)
    fail(node, limits("victim", ADDRESS, None)[1:])
    assert node.ledger.entrance.try_once(own) > timedelta(0)


def test_an_owner_in_a_known_browser_does_not_wait_for_strangers(node: Node) -> None:
    node.ledger.people.add("ada", PersonRole.VIEWER, actor=TESTER)
    entrance = node.ledger.entrance
    browser = entrance.know_browser("ada", None)
    for number in range(10):
        fail(node, limits("ada", f"192.0.2.{number}", None))
    assert entrance.try_once(limits("ada", "192.0.2.99", None)) > timedelta(0)
    assert entrance.try_once(limits("ada", "192.0.2.99", browser)) == timedelta(0)
    waits = [entrance.try_once(limits("ada", "192.0.2.99", browser)) for _ in range(10)]
    assert waits[-1] > timedelta(0)  # a stolen browser guesses no faster


def test_a_browser_is_known_for_its_person_for_ninety_days(node: Node) -> None:
    for name in ("ada", "bob"):
        node.ledger.people.add(name, PersonRole.VIEWER, actor=TESTER)
    entrance = node.ledger.entrance
    token = entrance.know_browser("ada", "made up by a browser")
    assert token != "made up by a browser"  # noqa: S105 - no secret
    assert entrance.know_browser("ada", token) == token
    assert (entrance.knows_browser(token, "ada"), entrance.knows_browser(token, "bob")) == (True, False)
    node.clock.now += timedelta(days=91)
    assert not entrance.knows_browser(token, "ada")


def test_both_databases_count(engine: Engine) -> None:
    node = Node(engine)
    entrance = node.ledger.entrance
    node.ledger.people.add("ada", PersonRole.VIEWER, actor=TESTER)
    counts = limits("ada", ADDRESS, None)
    assert [fail(node, counts) for _ in range(6)] == [0] * 5 + [1]
    entrance.succeeded(counts)
    assert [fail(node, counts) for _ in range(6)] == [0] * 5 + [1]
    assert entrance.knows_browser(entrance.know_browser("ada", None), "ada")
    entrance.begin_sign_on("state", "browser", "/")
    assert entrance.end_sign_on("state", "browser") == "/"


def test_one_network_of_ipv6_is_one_address() -> None:
    subjects = {limits("ada", address, None)[1].subject for address in ("2001:db8::1", "2001:db8::ffff:2")}
    assert subjects == {"address:2001:db8::/64"}
    assert limits("ada", "2001:db8:0:1::1", None)[1].subject != "address:2001:db8::/64"


def test_a_sign_on_ends_once_in_its_own_browser_within_ten_minutes(node: Node) -> None:
    entrance = node.ledger.entrance
    for state in ("one", "two", "three"):
        entrance.begin_sign_on(state, "browser", "/studies")
    assert entrance.end_sign_on("one", "another browser") is None
    assert entrance.end_sign_on("one", "browser") == "/studies"
    assert entrance.end_sign_on("one", "browser") is None
    assert entrance.end_sign_on("made up", "browser") is None
    node.clock.now += timedelta(minutes=10)
    assert entrance.end_sign_on("two", "browser") is None


def test_not_everybody_may_begin_sign_ons_for_ever(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SIGN_ONS", 2)
    for state in ("one", "two"):
        node.ledger.entrance.begin_sign_on(state, "browser", "/")
    with pytest.raises(LedgerError, match="too many"):
        node.ledger.entrance.begin_sign_on("three", "browser", "/")
    node.clock.now += timedelta(minutes=11)
    node.ledger.entrance.begin_sign_on("three", "browser", "/")
