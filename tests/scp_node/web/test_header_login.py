"""Persons whom a reverse proxy names: without a password, and without a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from httpx2 import Response

from scp_node.ledger import PersonRole
from scp_node.settings import SettingsError, WebSettings
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.web.site import TESTER, Page, page_before

PROXY: Final = {"x-forwarded-for": "10.1.2.3", "x-forwarded-proto": "https", "host": "ai.example"}
WEB: Final = {
    "trusted_proxies": ["127.0.0.1"],
    "header": "X-Remote-User",
    "public_url": "https://ai.example",
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("header")
    with ledger_engine(folder / "ledger.sqlite3") as engine, page_before(Node(engine), folder, web=WEB) as page:
        page.add("root", PersonRole.ADMIN)
        yield page


@pytest.fixture
def page(opened: Page) -> Page:
    opened.client.cookies.clear()
    return opened


def ask(page: Page, name: str, path: str = "/sessions", **headers: str) -> Response:
    return page.get(path, headers={**PROXY, "x-remote-user": name, **headers})


def test_the_person_is_logged_in_and_made_a_viewer(page: Page) -> None:
    answer = ask(page, "Ada@Hospital")
    assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
    assert "Log out" not in answer.text
    person = page.site.ledger.people.named("ada@hospital")
    assert person
    assert (person.role, person.origin) == (PersonRole.VIEWER, "header")
    assert page.events("web-person-added")[-1]["address"] == "10.1.2.3"
    assert ask(page, "ada@hospital", "/persons").status_code == 403
    utf8 = {name.encode(): value.encode() for name, value in {**PROXY, "x-remote-user": "J\u00fcrgen"}.items()}
    assert page.client.get("/sessions", headers=utf8).status_code == 200
    assert page.site.ledger.people.named("j\u00fcrgen")


def test_a_form_still_needs_its_token(page: Page) -> None:
    shown = ask(page, "ada@hospital").text
    token = shown.split('name="csrf" value="')[1].split('"')[0]
    headers = {**PROXY, "x-remote-user": "ada@hospital"}
    data = {"label": "x", "role": "viewer", "days": "30"}
    assert page.client.post("/tokens", data=data, headers=headers).status_code == 403
    other = {**headers, "x-remote-user": "bob"}
    assert page.client.post("/tokens", data={**data, "csrf": token}, headers=other).status_code == 403
    assert page.client.post("/tokens", data={**data, "csrf": token}, headers=headers).status_code == 200
    evil = {**headers, "origin": "https://evil.example"}
    assert page.client.post("/tokens", data={**data, "csrf": token}, headers=evil).status_code == 403


@pytest.mark.parametrize(
    ("name", "status"), [("root", 403), ("ROOT", 403), ("a/b", 403), ("..", 403), ("x" * 65, 403), ("", 303)]
)
def test_a_name_that_is_somebody_else_s_or_none_is_refused(page: Page, name: str, status: int) -> None:
    assert ask(page, name).status_code == status


def test_who_is_shut_out_is_out(page: Page) -> None:
    ask(page, "bob")
    page.site.ledger.people.set_disabled("bob", actor=TESTER, disabled=True)
    assert ask(page, "bob").status_code == 403


def test_the_header_counts_from_the_proxy_alone_and_once(page: Page) -> None:
    transport: Any = page.client._transport
    transport.client = ("127.0.0.2", 50_000)
    try:
        direct = page.get("/sessions", headers={"x-remote-user": "root"})
    finally:
        transport.client = ("127.0.0.1", 50_000)
    assert direct.status_code == 400
    twice = [*PROXY.items(), ("x-remote-user", "ada"), ("x-remote-user", "root")]
    assert page.client.get("/sessions", headers=twice).status_code == 400


def test_another_site_s_name_that_leads_here_is_refused(page: Page) -> None:
    assert ask(page, "ada@hospital", host="evil.example").status_code == 421


def test_groups_give_the_role_at_each_request(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("groups")
    web = {**WEB, "groups_header": "X-Groups", "header_role": "", "admin_groups": ["boss"], "reader_groups": ["radio"]}
    with ledger_engine(folder / "ledger.sqlite3") as engine, page_before(Node(engine), folder, web=web) as page:
        assert ask(page, "ada", "/persons", **{"x-groups": "staff, boss"}).status_code == 200
        assert ask(page, "ada", "/persons", **{"x-groups": "radio"}).status_code == 403
        assert ask(page, "ada", "/sessions", **{"x-groups": "radio"}).status_code == 200
        for groups in ({"x-groups": "staff"}, {"x-groups": ""}, {}):
            assert ask(page, "ada", **groups).status_code == 403
        kinds = [each["kind"] for each in page.events()]
        assert kinds == ["web-person-added", "web-role-changed"]


def test_unknown_persons_are_refused_where_the_settings_say_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("unknown")
    web = {**WEB, "header_role": ""}
    with ledger_engine(folder / "ledger.sqlite3") as engine, page_before(Node(engine), folder, web=web) as page:
        assert ask(page, "eve").status_code == 403
        assert page.site.ledger.people.everybody() == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trusted_proxies": []}, "list the proxy that sets it"),
        ({"public_url": ""}, "set public_url as well"),
        ({"header": "", "groups_header": "X-Groups"}, "set header as well"),
        ({"header": "", "local_login": False}, "nobody could log in"),
    ],
)
def test_settings_that_would_let_anybody_in_or_nobody_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        WebSettings.model_validate({**WEB, **changes})
    assert issubclass(SettingsError, ValueError)
