"""Persons who log in elsewhere, their tokens, sessions and links."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import Engine

from scp_node.domain import Actor
from scp_node.ledger import LedgerError, Origin, PersonRole
from tests.scp_node.ledger_node import Node

TESTER: Final = Actor(name="test", address="")
ADMIN: Final = PersonRole.ADMIN
READER: Final = PersonRole.READER
VIEWER: Final = PersonRole.VIEWER
LONG: Final = timedelta(hours=12)


@pytest.fixture
def node(sqlite_engine: Engine) -> Node:
    return Node(sqlite_engine)


def test_a_person_of_the_single_sign_on_is_who_they_are_there_whatever_they_are_called(node: Node) -> None:
    people = node.ledger.people
    first = people.arrive("Ada", Origin.OIDC, subject="s1", address="192.0.2.1", new_role=VIEWER)
    assert (first.name, first.role, first.origin) == ("ada", VIEWER, Origin.OIDC)
    again = people.arrive("Ada Married", Origin.OIDC, subject="s1", address="192.0.2.1", new_role=VIEWER)
    assert again.id == first.id
    with pytest.raises(LedgerError, match="does not log in by oidc"):
        people.arrive("ada", Origin.OIDC, subject="s2", address="192.0.2.1", new_role=VIEWER)


def test_nobody_becomes_a_local_admin_by_being_called_like_one_elsewhere(node: Node) -> None:
    node.ledger.people.add("admin", ADMIN, actor=TESTER, password_hash="x")  # noqa: S106 - no password
    for origin in (Origin.OIDC, Origin.HEADER):
        with pytest.raises(LedgerError, match="admin is somebody who does not log in by"):
            node.ledger.people.arrive("ADMIN", origin, subject=None, address="", role=ADMIN)


def test_an_unknown_person_without_a_role_is_refused_and_one_who_is_shut_out_too(node: Node) -> None:
    people = node.ledger.people
    with pytest.raises(LedgerError, match="may not use this page"):
        people.arrive("eve", Origin.HEADER, address="")
    people.arrive("bob", Origin.HEADER, address="", new_role=VIEWER)
    people.set_disabled("bob", actor=TESTER, disabled=True)
    with pytest.raises(LedgerError, match="shut out"):
        people.arrive("bob", Origin.HEADER, address="", new_role=VIEWER)


def test_groups_that_change_end_the_sessions_of_their_person(node: Node) -> None:
    people = node.ledger.people
    people.arrive("ada", Origin.OIDC, subject="s", address="", role=ADMIN)
    token = people.log_in("ada", address="", lifetime=LONG)
    assert people.arrive("ada", Origin.OIDC, subject="s", address="", role=ADMIN).role is ADMIN
    assert people.session(token, lifetime=LONG, idle=LONG)
    assert people.arrive("ada", Origin.OIDC, subject="s", address="", role=VIEWER).role is VIEWER  # the last admin
    assert people.session(token, lifetime=LONG, idle=LONG) is None
    assert people.arrive("ada", Origin.OIDC, subject="s", address="").role is VIEWER


def test_a_token_may_no_more_than_its_person_and_than_it_was_made_for(node: Node) -> None:
    people = node.ledger.people
    people.add("root", ADMIN, actor=TESTER)
    people.add("ada", ADMIN, actor=TESTER)
    tokens = {role: people.make_token("ada", "x", actor=TESTER, role=role) for role in (VIEWER, ADMIN)}
    roles = {role: person.role for role, token in tokens.items() if (person := people.bearer(token))}
    assert roles == {VIEWER: VIEWER, ADMIN: ADMIN}
    people.change_role("ada", READER, actor=TESTER)
    roles = {role: person.role for role, token in tokens.items() if (person := people.bearer(token))}
    assert roles == {VIEWER: VIEWER, ADMIN: READER}


def test_a_token_ends_and_only_its_person_takes_it_back(node: Node) -> None:
    people = node.ledger.people
    for name in ("ada", "bob"):
        people.add(name, VIEWER, actor=TESTER)
    short = people.make_token("ada", "short", actor=TESTER, lifetime=timedelta(days=1))
    [listed] = people.tokens("ada")
    assert people.tokens("bob") == []
    assert not people.take_back_token(listed.id, actor=TESTER, name="bob")
    assert people.bearer(short)
    node.clock.now += timedelta(days=1)
    assert people.bearer(short) is None
    assert people.take_back_token(listed.id, actor=TESTER, name="ada")
    for label in ("", " ", "x" * 65, "a\nb"):
        with pytest.raises(LedgerError, match="a label has"):
            people.make_token("ada", label, actor=TESTER)


def test_sessions_are_listed_and_ended_by_those_who_may(node: Node) -> None:
    people = node.ledger.people
    for name in ("ada", "bob"):
        people.add(name, VIEWER, actor=TESTER)
    own = people.log_in("ada", address="192.0.2.1", lifetime=LONG)
    other = people.log_in("ada", address="192.0.2.2", lifetime=LONG)
    people.log_in("bob", address="192.0.2.3", lifetime=LONG)
    listed = people.sessions(lifetime=LONG, idle=LONG, name="ada", own=own)
    assert {(each.address, each.is_own) for each in listed} == {("192.0.2.1", True), ("192.0.2.2", False)}
    assert len(people.sessions(lifetime=LONG, idle=LONG)) == 3
    [handle] = [each.handle for each in listed if not each.is_own]
    assert not people.end_session(handle, actor=TESTER, name="bob")
    assert not people.end_session("", actor=TESTER)  # which every session begins with
    assert not people.end_session("%" * 16, actor=TESTER)
    assert people.end_session(handle, actor=TESTER, name="ada")
    assert people.session(other, lifetime=LONG, idle=LONG) is None
    third = people.log_in("ada", address="", lifetime=LONG)
    people.end_sessions("ada", actor=TESTER, keep=own)
    assert people.session(third, lifetime=LONG, idle=LONG) is None
    assert people.session(own, lifetime=LONG, idle=LONG)
    assert len(people.sessions(lifetime=LONG, idle=LONG, name="bob")) == 1


def test_a_new_password_and_being_shut_out_end_links_and_known_browsers(node: Node) -> None:
    people, entrance = node.ledger.people, node.ledger.entrance
    people.add("root", ADMIN, actor=TESTER)
    people.add("ada", ADMIN, actor=TESTER)
    ends: list[Callable[[], None]] = [
        lambda: people.change_password("ada", "hash", actor=TESTER),
        lambda: people.set_disabled("ada", actor=TESTER, disabled=True),
    ]
    for end in ends:
        link = people.make_link("ada", lifetime=timedelta(minutes=15))
        browser = entrance.know_browser("ada", None)
        end()
        assert people.use_link(link) is None
        assert not entrance.knows_browser(browser, "ada")


def test_both_databases_keep_them(engine: Engine) -> None:
    node = Node(engine)
    people = node.ledger.people
    people.arrive("ada", Origin.OIDC, subject="s", address="", role=ADMIN)
    own = people.log_in("ada", address="", lifetime=LONG)
    [open_session] = people.sessions(lifetime=LONG, idle=LONG, own=own)
    assert people.end_session(open_session.handle, actor=TESTER)
    token = people.make_token("ada", "x", actor=TESTER, role=READER, lifetime=LONG)
    assert [person.role for person in [people.bearer(token)] if person] == [READER]
    assert people.take_back_token(people.tokens()[0].id, actor=TESTER)
    assert people.use_link(people.make_link("ada", lifetime=LONG)) == "ada"


def test_a_new_login_in_a_browser_ends_the_one_before(node: Node) -> None:
    people = node.ledger.people
    people.add("ada", VIEWER, actor=TESTER)
    first = people.log_in("ada", address="", lifetime=LONG)
    people.log_in("ada", address="", lifetime=LONG, instead_of=first)
    assert people.session(first, lifetime=LONG, idle=LONG) is None
