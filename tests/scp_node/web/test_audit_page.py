"""The audit page and the API: who did what, who saw a study, and whether the trail is whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Final

import pytest

from scp_node.domain import Actor
from scp_node.ledger import PersonRole
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.web.site import TESTER, Page, page_before
from tests.waiting import wait_until

HOSTILE: Final = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """An admin before a study that two persons saw, one of them with a name that is markup."""
    folder = tmp_path_factory.mktemp("audit")
    with ledger_engine(folder / "ledger.sqlite3") as engine:
        node = Node(engine)
        url = str(engine.url)
        with page_before(node, folder, database={"url": url}, web={"time_zone": "Europe/Berlin"}) as opened:
            opened.add("admin", PersonRole.ADMIN)
            opened.site.ledger.people.add("ada", PersonRole.VIEWER, actor=TESTER)
            node.receive("1")
            for name in ("ada", HOSTILE):
                node.clock.now += timedelta(minutes=10)
                actor = Actor(name=name, address="192.0.2.1")
                assert node.ledger.visits.note_view(actor, "1.2.3")
                assert not node.ledger.visits.note_view(actor, "1.2.3")
            opened.log_in(PersonRole.ADMIN)
            yield opened


def test_an_admin_sees_who_did_what_and_who_saw_a_study(page: Page) -> None:
    shown = page.get("/audit").text
    assert "web-viewed" in shown
    assert "2026-01-02 04:14:05 CET" in shown
    assert HOSTILE not in shown
    study = page.get("/audit?study=1.2.3").text
    assert "Who saw this study" in study
    assert re.findall(r'<tr><th scope="row">([^<]+)</th>', study) == [
        HOSTILE.replace("<", "&lt;").replace(">", "&gt;"),
        "ada",
    ]
    assert "Nobody has looked at it" in page.get("/audit?study=7.8.9").text


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        ("person=ADA", {"web-viewed"}),
        ("person=admin", {"web-logged-in"}),
        ("person=*&kind=web-viewed", {"web-viewed"}),
        ("kind=received", {"received"}),
        ("kind=nothing", set()),
        ("since=2026-01-02T04:14&until=2026-01-02T04:15", {"web-viewed"}),  # in the site's zone
        ("since=2026-01-02T03:14:00Z&until=2026-01-02T03:15:00Z", {"web-viewed"}),
        ("until=2026-01-01", set()),
    ],
)
def test_each_filter_is_in_the_address(page: Page, asked: str, kinds: set[str]) -> None:
    if "admin" in asked:
        page.log_in(PersonRole.ADMIN)
    shown = page.get(f"/audit?{asked}").text
    assert set(re.findall(r'<th scope="row">((?:web-)?[a-z-]+)</th>\n<td>', shown)) == kinds


@pytest.mark.parametrize(
    "asked",
    [
        "since=yesterday",
        "until=2026-02-30",
        "since=0001-01-01",
        "until=9999-12-31T23:59:59-14:00",
        "person=%00",
        "study=a%0ab",
    ],
)
def test_a_filter_that_makes_no_sense_is_named(page: Page, asked: str) -> None:
    answer = page.get(f"/audit?{asked}")
    assert (answer.status_code, asked.partition("=")[0] + ":" in answer.text) == (422, True)


@pytest.mark.parametrize(
    "key",
    [
        "x",
        "~",
        "2026-01-01~1",
        "2026-01-01T00:00:00Z~x",
        "2026-01-01T00:00:00Z~" + "9" * 30,
        "-",
        "1-x",
        "1-" + "9" * 30,
    ],
)
def test_a_key_that_was_made_up_is_the_first_page(page: Page, key: str) -> None:
    assert "web-viewed" in page.get("/audit", params={"before": key}).text


def test_pages_follow_each_other(page: Page) -> None:
    for _ in range(60):
        page.site.ledger.visits.note("web-searched", TESTER)
    first = page.get("/audit?kind=web-searched").text
    older = re.findall(r'href="(/audit\?[^"]*before=[^"]*)">Older', first)
    second = page.get(unescape(older[0])).text
    assert (first.count('row">web-searched<'), second.count('row">web-searched<')) == (50, 10)
    assert "Older" not in second
    assert "Newest" in second


def test_a_viewer_sees_nothing_of_it(page: Page) -> None:
    page.add("viewer", PersonRole.VIEWER)
    token = page.site.ledger.people.make_token("viewer", "x", actor=TESTER)
    headers = {"authorization": f"Bearer {token}"}
    for path in ("/audit", "/audit/verify", "/api/v1/events"):
        assert page.get(path, headers=headers).status_code == 403
    assert page.client.post("/audit/verify", headers=headers).status_code == 403


def test_a_program_reads_the_same_page_by_page(page: Page) -> None:
    token = page.site.ledger.people.make_token("admin", "siem", actor=TESTER, role=PersonRole.ADMIN)
    headers = {"authorization": f"Bearer {token}"}
    first = page.get("/api/v1/events?kind=web-viewed&most=1", headers=headers).json()
    [event] = first["events"]
    assert (event["kind"], event["person"], event["study_uid"]) == ("web-viewed", HOSTILE, "1.2.3")
    second = page.get(
        "/api/v1/events?kind=web-viewed&most=1",
        params={"before": first["next"], "kind": "web-viewed", "most": 1},
        headers=headers,
    ).json()
    assert (second["events"][0]["person"], second["next"]) == ("ada", None)
    assert page.get("/api/v1/events?since=x", headers=headers).status_code == 422
    assert page.get("/api/v1/events?most=501", headers=headers).status_code == 422


def test_the_api_is_described_to_who_may_use_it(page: Page) -> None:
    description = page.get("/api/openapi.json").json()
    assert description["paths"]["/api/v1/events"]["get"]["responses"]["200"]
    assert not [path for path in description["paths"] if not path.startswith("/api/v1/")]
    assert description["security"] == [{"token": []}]
    shown = page.get("/api").text
    assert "GET /api/v1/events" in shown
    assert 'curl --header "Authorization: Bearer $TOKEN" "http://127.0.0.1:8080/api/v1/me"' in unescape(shown)
    cookies = dict(page.client.cookies)
    page.client.cookies.clear()
    assert page.get("/api/openapi.json").status_code == 401
    assert page.get("/api").status_code == 303
    page.client.cookies.update(cookies)


def test_a_button_checks_the_whole_chain_in_a_process_of_its_own(page: Page) -> None:
    assert "Nobody has checked it" in page.get("/audit").text
    assert page.post("/audit/verify").status_code == 303
    page.post("/audit/verify")  # which runs already
    assert 'hx-trigger="every 2s"' in page.get("/audit/verify").text
    wait_until(lambda: "hx-trigger" not in page.get("/audit/verify").text, 120, what="the check has ended")
    shown = page.get("/audit/verify").text
    assert "Nothing was edited, removed, added or moved." in shown
    assert re.search(r"head   [0-9a-f]{64}", shown)
    assert len(page.events("web-chain-checked")) == 1
