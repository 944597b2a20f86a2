"""What every page has in common: headers, errors, and that nothing comes from elsewhere."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from scp_node.ledger import LedgerUnreachableError, PersonRole
from scp_node.web.rendering import STATIC
from tests.scp_node.web.site import Page


def test_browsers_may_run_and_show_nothing_but_ours(page: Page) -> None:
    for path in ("/login", "/static/style.css", "/nothing", "/healthz"):
        headers = page.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert page.get("/login").headers["cache-control"] == "no-store"
    assert "immutable" in page.get("/static/style.css").headers["cache-control"]


def test_what_a_page_asks_again_and_again_keeps_no_idle_session_alive() -> None:
    asking = re.compile(r"<[^<]*hx-trigger=\"every[^<]*")
    templates = (STATIC.parent / "templates").rglob("*.html")
    found = [tag for file in templates for tag in asking.findall(file.read_text(encoding="utf-8"))]
    assert len(found) >= 4
    assert [tag for tag in found if '"X-Poll": "1"' not in tag] == []


def test_an_unknown_page_is_404_and_does_not_repeat_what_was_asked(page: Page) -> None:
    answer = page.get("/<script>alert(1)</script>")
    assert (answer.status_code, "alert" in answer.text) == (404, False)


def test_a_form_of_more_than_64_kibibytes_is_413(page: Page) -> None:
    assert page.client.post("/login", data={"name": "x" * 70_000, "password": "y"}).status_code == 413

    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert page.client.post("/login", content=(b"x" * 1024 for _ in range(70)), headers=headers).status_code == 413


def test_without_the_database_the_page_says_so_and_tries_again(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.log_in(PersonRole.ADMIN)

    def away(*_: object, **__: object) -> None:
        raise LedgerUnreachableError("away")

    monkeypatch.setattr(type(page.site.ledger.people), "session", away)
    monkeypatch.setattr(type(page.site.ledger.problems), "schema", away)
    answer = page.get("/persons")
    assert (answer.status_code, answer.headers["refresh"], answer.headers["retry-after"]) == (503, "5", "5")
    assert page.get("/readyz").status_code == 503
    assert page.get("/healthz").status_code == 200


def test_a_fault_of_the_program_is_told_without_its_insides(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.log_in(PersonRole.ADMIN)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(type(page.site.ledger.people), "everybody", fails)
    answer = page.get("/persons")
    assert (answer.status_code, "secret" in answer.text) == (500, False)


def test_every_file_of_others_is_the_one_that_was_taken() -> None:
    folder = STATIC / "vendor"
    listed = tomllib.loads((folder / "vendor.toml").read_text(encoding="utf-8"))["file"]
    for each in listed:
        assert hashlib.sha256((folder / each["name"]).read_bytes()).hexdigest() == each["sha256"], each["name"]
        assert (folder / each["licence"]).is_file()
    known = {each["name"] for each in listed} | {each["licence"] for each in listed} | {"vendor.toml"}
    assert {file.name for file in folder.iterdir()} == known


def test_templates_trust_nothing(repository: Path) -> None:
    templates = sorted((repository / "scp_node" / "web" / "templates").rglob("*.html"))
    assert templates
    for file in templates:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), file
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son[a-z]+=|\sstyle=|hx-on|js:|https?://", text), file


def test_who_is_logged_in_keeps_the_navigation_where_something_was_not_understood(page: Page) -> None:
    page.log_in(PersonRole.VIEWER)
    answer = page.get("/model?first=2026-02-01&last=2026-01-01")
    assert (answer.status_code, 'href="/studies"' in answer.text, "Not understood" in answer.text) == (422, True, True)


def test_what_is_sent_after_the_login_has_ended_is_said_to_be_lost_and_leads_back(page: Page) -> None:
    where = {"HX-Request": "true", "HX-Current-URL": "http://127.0.0.1:8080/studies/1.2?a=b"}
    answer = page.client.post("/studies/1.2/feedback", data={"opinion": "agree"}, headers=where)
    assert answer.headers["hx-redirect"] == "/login?next=/studies/1.2%3Fa%3Db&lost=1"
    assert "what you sent last was not kept" in page.get(answer.headers["hx-redirect"]).text


def test_a_form_that_comes_again_makes_no_second_token(page: Page) -> None:
    page.log_in(PersonRole.VIEWER)
    form = {"label": "script", "role": "viewer", "days": "30", "once": "abc"}
    assert "shown once" in page.post("/tokens", form).text
    assert page.post("/tokens", form).headers["location"] == "/tokens"
    assert page.get("/tokens").text.count("Take back") == 1
