"""Logging in, with the eyes of somebody who should not be able to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import pytest

from scp_node.ledger import PersonRole
from scp_node.web.passwords import hash_password
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.web.site import PASSWORD, TESTER, Page, page_before

RIGHT: Final = {"name": "ada", "password": PASSWORD}
WRONG: Final = {"name": "ada", "password": "not the password"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("login")
    with ledger_engine(folder / "ledger.sqlite3") as engine, page_before(Node(engine), folder) as page:
        page.add("ada", PersonRole.ADMIN)
        page.add("bob", PersonRole.VIEWER)
        yield page


@pytest.fixture
def page(opened: Page) -> Page:
    """Nobody is logged in, and no failure counts any more."""
    opened.client.cookies.clear()
    opened.node.clock.now += timedelta(days=2)
    return opened


def test_a_session_that_somebody_planted_is_not_taken_over(page: Page) -> None:
    page.client.cookies.set("scp-node", "planted", domain="127.0.0.1")
    assert page.client.post("/login", data=RIGHT).status_code == 303
    tokens = {cookie.value for cookie in page.client.cookies.jar if cookie.name == "scp-node"}
    assert tokens
    assert "planted" not in tokens


def test_a_second_login_in_a_browser_ends_the_first_session(page: Page) -> None:
    page.client.post("/login", data=RIGHT)
    first = page.client.cookies["scp-node"]
    page.client.post("/login", data={**RIGHT, "name": "bob"})
    page.client.cookies.clear()
    page.client.cookies.set("scp-node", first)
    assert page.get("/sessions").status_code == 303


def test_strangers_cannot_shut_an_owner_out(page: Page) -> None:
    page.client.post("/login", data=RIGHT)
    browser = page.client.cookies["scp-node-browser"]
    page.client.cookies.clear()
    assert [page.client.post("/login", data=WRONG).status_code for _ in range(6)] == [401] * 5 + [429]
    assert page.client.post("/login", data=RIGHT).status_code == 429
    page.client.cookies.set("scp-node-browser", browser)
    assert page.client.post("/login", data={**RIGHT, "name": "bob"}).status_code == 303  # another account's count
    page.client.cookies.clear()
    page.client.cookies.set("scp-node-browser", browser)
    assert page.client.post("/login", data=RIGHT).status_code == 303


def test_one_address_does_not_guess_at_many_accounts(page: Page) -> None:
    statuses = [page.client.post("/login", data={**WRONG, "name": f"n{number}"}).status_code for number in range(22)]
    assert statuses == [401] * 20 + [429] * 2


def test_what_was_typed_as_a_name_that_nobody_has_is_not_kept(page: Page) -> None:
    page.client.post("/login", data={"name": "my secret password", "password": "x"})
    page.client.post("/login", data=WRONG)
    assert [each["by"] for each in page.events("web-login-failed")[-2:]] == ["", "ada"]


def test_a_link_has_its_secret_where_no_log_sees_it(page: Page) -> None:
    token = page.site.ledger.people.make_link("ada", lifetime=timedelta(minutes=15))
    assert page.get(f"/login/link?token={token}").status_code == 200  # and nobody is logged in
    assert page.get("/sessions").status_code == 303
    assert page.client.post("/login/link", data={"token": token}).status_code == 303
    assert page.events("web-login-failed")[-1].get("by_link") is None
    assert page.client.post("/login/link", data={"token": token}).status_code == 401


def test_the_cookies_are_for_us_alone(page: Page) -> None:
    cookies = page.client.post("/login", data=RIGHT).headers.get_list("set-cookie")
    assert len(cookies) == 2
    for cookie in cookies:
        assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
        assert "Domain" not in cookie


def test_the_old_password_is_not_guessed_by_who_found_a_session(page: Page) -> None:
    page.log_in(name="ada")
    new = {"new": "a much better one", "again": "a much better one"}
    told = [page.post("/password", {"old": f"guess {number}", **new}).text for number in range(6)]
    assert ["old password is wrong" in each for each in told] == [True] * 5 + [False]
    assert "Too many failures" in told[5]
    assert "Too many failures" in page.post("/password", {"old": PASSWORD, **new}).text


@pytest.mark.parametrize(
    ("password", "told"),
    [
        ("short", "12 to 256"),
        ("x" * 257, "12 to 256"),
        ("aaaaaaaaaaaa", "6 different"),
        ("password1234", "guessed first"),
        ("Password-Password!", "guessed first"),
        ("ada-ada-1234567", "guessed first"),
        ("QWERTZ12345678", "guessed first"),
        ("2026-11-30 10:00", "guessed first"),
    ],
)
def test_a_password_that_is_guessed_first_is_refused(password: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        hash_password(password, name="ada")


def test_one_password_on_two_keyboards_is_one(page: Page) -> None:
    people = page.site.ledger.people
    people.add("zo\u00eb", PersonRole.VIEWER, actor=TESTER, password_hash=hash_password("na\u00efve s\u00f8nner 7"))
    data = {"name": "zoe\u0308", "password": "nai\u0308ve s\u00f8nner 7"}
    assert page.client.post("/login", data=data).status_code == 303


def test_no_password_means_no_form_and_no_login(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("none")
    web = {
        "local_login": False,
        "header": "X-User",
        "trusted_proxies": ["10.0.0.1"],
        "public_url": "https://ai.example",
    }
    with ledger_engine(folder / "ledger.sqlite3") as engine, page_before(Node(engine), folder, web=web) as page:
        page.add("ada", PersonRole.ADMIN)
        assert 'name="password"' not in page.get("/login").text
        assert page.client.post("/login", data=RIGHT).status_code == 403
        token = page.site.ledger.people.make_link("ada", lifetime=timedelta(minutes=15))
        assert page.client.post("/login/link", data={"token": token}).status_code == 303


def test_a_token_gives_nobody_more_access(page: Page) -> None:
    token = page.site.ledger.people.make_token("ada", "found", actor=TESTER, role=PersonRole.ADMIN)
    headers = {"authorization": f"Bearer {token}"}
    assert page.get("/api/v1/me", headers=headers).json() == {"name": "ada", "role": "admin", "means": "token"}
    assert page.get("/audit", headers=headers).status_code == 200
    for path in ("/tokens", "/sessions", "/persons"):
        assert page.get(path, headers=headers).status_code == 403
    data = {"old": PASSWORD, "new": "a much better one", "again": "a much better one"}
    assert page.client.post("/password", data=data, headers=headers).status_code == 403
    assert page.get("/api/v1/me", headers={"authorization": "Bearer x"}).status_code == 401
    assert page.get(f"/api/v1/me?token={token}").status_code == 401


def test_a_page_of_tokens_makes_one_shows_it_once_and_takes_it_back(page: Page) -> None:
    page.log_in(name="bob")
    made = page.post("/tokens", {"label": "<b>script</b>", "role": "admin", "days": "30"})
    token = re.findall(r"Bearer ([\w-]{43})", made.text)[0]
    assert "<b>script" not in made.text
    headers = {"authorization": f"Bearer {token}"}
    assert page.get("/api/v1/me", headers=headers).json()["role"] == "viewer"  # no more than bob
    shown = page.get("/tokens").text
    assert token not in shown
    assert page.post("/tokens", {"label": "x", "role": "viewer", "days": "31"}).status_code == 422
    assert page.post("/tokens", {"label": " ", "role": "viewer", "days": "30"}).status_code == 409
    [number] = [each.id for each in page.site.ledger.people.tokens("bob")]
    assert page.post(f"/tokens/{number}/revoke").status_code == 303
    assert page.get("/api/v1/me", headers=headers).status_code == 401
    kinds = [each["kind"] for each in page.events("web-token")]
    assert kinds[-2:] == ["web-token-made", "web-token-taken-back"]


def test_a_viewer_sees_and_ends_only_their_own_and_an_admin_all(page: Page) -> None:
    people, long = page.site.ledger.people, timedelta(hours=12)
    people.log_in("ada", address="192.0.2.44", lifetime=long)
    page.log_in(name="bob")
    assert "192.0.2.44" not in page.get("/sessions").text
    [handle] = [each.handle for each in people.sessions(lifetime=long, idle=long, name="ada")]
    page.post(f"/sessions/{handle}/end")
    assert len(people.sessions(lifetime=long, idle=long, name="ada")) == 1
    page.client.cookies.clear()
    page.log_in(name="ada")
    assert "192.0.2.44" in page.get("/sessions").text
    page.post(f"/sessions/{handle}/end")
    assert "192.0.2.44" not in page.get("/sessions").text
    people.log_in("ada", address="192.0.2.45", lifetime=long)
    page.post("/sessions/end")
    [left] = people.sessions(lifetime=long, idle=long, name="ada")
    assert left.address == "127.0.0.1"
    assert page.get("/sessions").status_code == 200
