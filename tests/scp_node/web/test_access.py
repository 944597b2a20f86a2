"""Who may do what: logins, sessions, roles, tokens, and requests from elsewhere."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine, select

from scp_node.domain import Actor
from scp_node.ledger import LedgerError, PersonRole
from scp_node.ledger.database.schema import web_session, web_token
from tests.scp_node.ledger_node import Node
from tests.scp_node.web.site import PASSWORD, TESTER, Page, page_before

ADMIN: Final = PersonRole.ADMIN
READER: Final = PersonRole.READER
VIEWER: Final = PersonRole.VIEWER


def test_without_a_login_every_page_leads_to_it_and_back(page: Page) -> None:
    answer = page.get("/persons?x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/persons%3Fx%3D1")
    page.add("ada", ADMIN)
    answer = page.client.post("/login", data={"name": " ADA ", "password": PASSWORD, "next": "/persons?x=1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/persons?x=1")
    assert page.get("/persons").status_code == 200


@pytest.mark.parametrize("place", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", ""])
def test_a_login_never_leads_to_another_site(page: Page, place: str) -> None:
    page.add("ada", ADMIN)
    answer = page.client.post("/login", data={"name": "ada", "password": PASSWORD, "next": place})
    assert answer.headers["location"] == "/studies"


def test_the_sixth_wrong_password_has_to_wait_and_the_right_one_too(page: Page) -> None:
    page.add("ada", ADMIN)
    wrong = {"name": "ada", "password": "not the password"}
    statuses = [page.client.post("/login", data=wrong).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    answer = page.client.post("/login", data={"name": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    page.node.clock.now += timedelta(seconds=2)
    assert page.client.post("/login", data={"name": "ada", "password": PASSWORD}).status_code == 303
    assert [each["kind"] for each in page.events("web-log")] == ["web-login-failed"] * 5 + ["web-logged-in"]


def test_an_unknown_name_is_answered_like_a_wrong_password(page: Page) -> None:
    page.add("ada", ADMIN)
    known = page.client.post("/login", data={"name": "ada", "password": "x" * 20})
    unknown = page.client.post("/login", data={"name": "bob", "password": "x" * 20})
    assert known.status_code == unknown.status_code == 401
    assert known.text.replace("ada", "bob") == unknown.text


def test_a_role_taken_away_counts_at_the_next_click(page: Page) -> None:
    page.add("root", ADMIN)
    page.log_in(ADMIN, "ada")
    assert page.get("/persons").status_code == 200
    page.site.ledger.people.change_role("ada", VIEWER, actor=TESTER)
    assert page.get("/persons").status_code == 303  # to the login
    page.log_in(VIEWER, "ada")
    answer = page.get("/persons")
    assert (answer.status_code, "This needs the role admin" in answer.text) == (403, True)


def test_who_is_shut_out_is_out_at_once_and_cannot_come_back(page: Page) -> None:
    page.add("root", ADMIN)
    page.log_in(ADMIN, "ada")
    token = page.site.ledger.people.make_token("ada", "script", actor=TESTER)
    page.site.ledger.people.set_disabled("ada", actor=TESTER, disabled=True)
    assert page.get("/persons").status_code == 303
    assert page.client.post("/login", data={"name": "ada", "password": PASSWORD}).status_code == 401
    assert page.site.ledger.people.bearer(token) is None


def test_the_last_admin_stays(page: Page) -> None:
    page.add("ada", ADMIN)
    people = page.site.ledger.people
    with pytest.raises(LedgerError, match="last admin"):
        people.change_role("ada", READER, actor=TESTER)
    with pytest.raises(LedgerError, match="last admin"):
        people.set_disabled("ada", actor=TESTER, disabled=True)


def test_a_session_ends_when_it_is_idle_and_when_it_is_old(page: Page) -> None:
    page.log_in(ADMIN)
    page.node.clock.now += timedelta(minutes=29)
    assert page.get("/persons").status_code == 200
    page.node.clock.now += timedelta(minutes=29)
    assert page.get("/persons").status_code == 200
    page.node.clock.now += timedelta(minutes=31)
    assert page.get("/persons").status_code == 303
    page.log_in(ADMIN)
    for _ in range(26):
        page.node.clock.now += timedelta(minutes=28)
        page.get("/persons")
    assert page.get("/persons").status_code == 303  # after twelve hours, however busy it was


def test_the_database_holds_no_secret(page: Page, sqlite_engine: Engine) -> None:
    page.log_in(ADMIN)
    cookie = page.client.cookies["scp-node"]
    token = page.site.ledger.people.make_token("admin", "script", actor=TESTER)
    with sqlite_engine.connect() as connection:
        dump = str([connection.execute(select(table)).all() for table in (web_session, web_token)])
    assert cookie not in dump
    assert token not in dump


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://127.0.0.1:8080"}, 303),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_a_form_of_another_page_is_refused(page: Page, headers: dict[str, str], status: int) -> None:
    page.log_in(ADMIN)
    assert page.post("/logout", headers=headers).status_code == status


def test_a_form_without_the_token_of_the_session_is_refused(page: Page) -> None:
    page.log_in(ADMIN)
    assert page.client.post("/persons", data={"name": "eve", "role": "admin"}).status_code == 403
    answer = page.client.post("/persons", data={"name": "eve", "role": "admin", "csrf": "x"})
    assert (answer.status_code, page.site.ledger.people.named("eve")) == (403, None)
    headers = {"x-csrf-token": page.csrf()}
    assert page.client.post("/persons", data={"name": "eve", "role": "viewer"}, headers=headers).status_code == 200


def test_a_made_password_has_to_be_changed_before_anything_else(page: Page) -> None:
    page.log_in(ADMIN)
    shown = page.post("/persons", {"name": "eve", "role": "reader"}).text
    password = shown.split("<code>")[1].split("</code>")[0]
    page.client.cookies.clear()
    assert page.client.post("/login", data={"name": "eve", "password": password}).status_code == 303
    assert page.get("/persons").headers["location"] == "/password"
    new = {"old": password, "new": "a much better one", "again": "a much better one"}
    assert page.post("/password", new | {"again": "another"}).status_code == 422
    assert page.post("/password", {"old": password, "new": "short", "again": "short"}).status_code == 422
    assert page.post("/password", new).status_code == 303
    assert page.get("/persons").status_code == 403  # logged in, and no admin


def test_a_link_logs_in_once(page: Page) -> None:
    page.add("ada", ADMIN)
    token = page.site.ledger.people.make_link("ada", lifetime=timedelta(minutes=10))
    assert page.get("/login/link").status_code == 200  # what looks at links beforehand uses none up
    assert page.client.post("/login/link", data={"token": token}).status_code == 303
    assert page.get("/persons").status_code == 200
    page.client.cookies.clear()
    assert page.client.post("/login/link", data={"token": token}).status_code == 401
    late = page.site.ledger.people.make_link("ada", lifetime=timedelta(minutes=10))
    page.node.clock.now += timedelta(minutes=11)
    assert page.client.post("/login/link", data={"token": late}).status_code == 401


def test_every_change_of_a_person_is_an_event_with_who_made_it(page: Page) -> None:
    page.log_in(ADMIN, "ada")
    page.post("/persons", {"name": "eve", "role": "viewer"})
    page.post("/persons/eve/role", {"role": "reader"})
    page.post("/persons/eve/disabled", {"disabled": "true"})
    told = [(each["kind"], each["by"], each["person"]) for each in page.events() if each["person"] == "eve"]
    kinds = ["web-person-added", "web-role-changed", "web-person-disabled"]
    assert told == [(kind, "ada", "eve") for kind in kinds]


def test_beyond_loopback_nothing_is_served_in_the_clear(sqlite_engine: Engine, tmp_path: Path) -> None:
    web = {
        "host": "192.0.2.7",
        "trusted_proxies": ["192.0.2.0/28"],
        "header": "X-Remote-User",
        "public_url": "https://ai.example",
    }
    with page_before(Node(sqlite_engine), tmp_path, web=web) as page:
        transport = page.client._transport
        for address, headers, status in (
            ("127.0.0.1", {}, 200),
            ("192.0.2.5", {}, 200),
            ("192.0.2.99", {}, 403),
            ("192.0.2.99", {"x-forwarded-for": "127.0.0.1"}, 403),
            ("127.0.0.1", {"X-Remote-User": "ada"}, 400),
        ):
            transport.client = (address, 50_000)  # type: ignore[attr-defined]
            answer = page.get("/healthz", headers=headers)
            assert (answer.status_code, address, headers) == (status, address, headers)


def test_a_proxy_names_the_address_of_who_asks(sqlite_engine: Engine, tmp_path: Path) -> None:
    web = {"trusted_proxies": ["127.0.0.1"]}
    with page_before(Node(sqlite_engine), tmp_path, web=web) as page:
        page.add("ada", ADMIN)
        headers = {"x-forwarded-for": "10.9.9.9, 10.1.2.3, 127.0.0.1", "x-forwarded-proto": "https"}
        data = {"name": "ada", "password": PASSWORD}
        answer = page.client.post("/login", data=data, headers=headers)
        assert "__Host-scp-node=" in answer.headers["set-cookie"]
        assert "Secure" in answer.headers["set-cookie"]
        assert page.events("web-logged-in")[0]["address"] == "10.1.2.3"


def test_a_name_is_one_in_whatever_case(page: Page) -> None:
    people = page.site.ledger.people
    people.add("Ada", ADMIN, actor=Actor(name="t", address=""))
    with pytest.raises(LedgerError, match="there already"):
        people.add("\uff21DA", VIEWER, actor=TESTER)  # with a wide A
    for name in ("", " ", "x" * 65, "a\0b", "a\nb", "a/b", "..", "a\u202eb"):
        with pytest.raises(LedgerError, match="printable"):
            people.add(name, VIEWER, actor=TESTER)
