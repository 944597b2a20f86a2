"""What a request passes first: names, proxies, headers of every answer, and a flood."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pytest
from fastapi.routing import APIRoute

from scp_node.ledger import PersonRole
from scp_node.settings import WebSettings
from scp_node.web import passwords
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.web.site import PASSWORD, Page, page_before

HTTPS: Final = {"x-forwarded-for": "10.1.2.3", "x-forwarded-proto": "https"}
PROTECTED: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page on loopback."""
    folder = tmp_path_factory.mktemp("local")
    with ledger_engine(folder / "ledger.sqlite3") as engine, page_before(Node(engine), folder) as page:
        yield page


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page behind a proxy."""
    folder = tmp_path_factory.mktemp("proxied")
    web = {"trusted_proxies": ["127.0.0.1", "10.0.0.0/24"], "public_url": "https://ai.example"}
    with ledger_engine(folder / "ledger.sqlite3") as engine, page_before(Node(engine), folder, web=web) as page:
        yield page


@contextmanager
def asked_from(page: Page, address: str) -> Iterator[None]:
    transport: Any = page.client._transport
    transport.client = (address, 50_000)
    try:
        yield
    finally:
        transport.client = ("127.0.0.1", 50_000)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost:8080", 200),
        ("[::1]:8080", 200),
        ("192.0.2.7", 200),
        ("evil.example", 421),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
        ("evil.example@127.0.0.1", 200),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_a_name_of_another_site_that_leads_here_is_refused(local: Page, host: str, status: int) -> None:
    assert local.get("/login", headers={"host": host}).status_code == status
    assert local.get("/healthz", headers={"host": host}).status_code == 200  # a container asks by any name


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", HTTPS, 200),
        ("127.0.0.1", {}, 200),  # on this machine
        ("127.0.0.1", {"x-forwarded-for": "10.1.2.3"}, 403),  # by what scheme?
        ("127.0.0.1", {"x-forwarded-for": "10.1.2.3", "x-forwarded-proto": "http"}, 403),
        ("10.0.0.7", {}, 403),
        ("10.0.0.7", HTTPS, 200),
        ("::ffff:10.0.0.7", HTTPS, 200),  # the same, on a socket for both kinds of address
        ("10.9.0.7", HTTPS, 403),
        ("127.0.0.2", HTTPS, 403),  # a proxy on this machine that nobody named
        ("127.0.0.2", {"forwarded": "for=10.1.2.3"}, 403),
    ],
)
def test_nothing_travels_in_the_clear_beyond_this_machine(
    proxied: Page, address: str, headers: Mapping[str, str], status: int
) -> None:
    with asked_from(proxied, address):
        assert proxied.get("/login", headers={**headers, "host": "ai.example"}).status_code == status


def test_probes_of_machines_beside_the_proxy_are_answered(proxied: Page) -> None:
    with asked_from(proxied, "10.0.0.7"):
        assert proxied.get("/healthz", headers={"host": "node:8080"}).status_code == 200


def test_by_https_a_browser_is_told_to_stay_there(proxied: Page, local: Page) -> None:
    answer = proxied.get("/login", headers={**HTTPS, "host": "ai.example"})
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in local.get("/login").headers


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "0.0.0.0"},  # noqa: S104 - what is refused
        {"host": "192.0.2.7"},
        {"host": "::"},
        {"host": "node.example"},
        {"host": "0.0.0.0", "trusted_proxies": ["10.0.0.1"], "public_url": "http://ai.example"},  # noqa: S104
    ],
)
def test_the_settings_serve_nothing_in_the_clear_beyond_this_machine(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="in the clear"):
        WebSettings.model_validate(changes)


def test_every_answer_says_what_a_browser_may_do_with_it(local: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    local.log_in(PersonRole.ADMIN)
    routes = [route for route in _routes(local.client.app) if "GET" in (route.methods or ())]
    paths = {route.path.split("{", maxsplit=1)[0] for route in routes}
    assert {"/login", "/persons", "/audit", "/tokens", "/sessions", "/api", "/api/openapi.json", "/healthz"} <= paths
    statuses = set()
    for path in sorted(paths | {"/nothing", "/static/style.css", "/static/nothing", "/api/v1/events?since=x"}):
        answer = local.get(path)
        statuses.add(answer.status_code)
        _assert_protected(answer.headers, path)
    assert {200, 303, 404, 422} <= statuses
    _assert_protected(local.client.post("/login", data={"name": "x" * 70_000}).headers, "413")
    _assert_protected(local.get("/login", headers={"host": "evil.example"}).headers, "421")

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(type(local.site.ledger.people), "everybody", fails)
    answer = local.get("/persons")
    assert answer.status_code == 500
    _assert_protected(answer.headers, "500")


def _routes(app: Any) -> Iterator[APIRoute]:
    for route in app.router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif (inner := getattr(route, "original_router", None)) is not None:  # of a router that was included
            yield from (each for each in inner.routes if isinstance(each, APIRoute))


def _assert_protected(headers: Mapping[str, str], where: str) -> None:
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy, where
    assert "frame-ancestors 'none'" in policy, where
    assert "unsafe" not in policy, where
    assert {name: headers[name] for name in PROTECTED} == PROTECTED, where
    if not where.startswith("/static/"):
        assert headers["cache-control"] == "no-store", where


def test_a_flood_of_logins_blocks_no_page_and_is_told_to_come_again(local: Page) -> None:
    local.log_in(PersonRole.VIEWER)
    with passwords._one_at_a_time:  # somebody's password is looked at, and takes its time
        names = [f"name-{number}" for number in range(7)]
        answers: list[int] = []

        def knock(name: str) -> None:
            answers.append(local.client.post("/login", data={"name": name, "password": PASSWORD}).status_code)

        threads = [threading.Thread(target=knock, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        while len(answers) < 4:
            threads[-1].join(0.01)
        assert local.get("/sessions").status_code == 200
    for thread in threads:
        thread.join()
    assert sorted(answers) == [401] * 3 + [503] * 4
