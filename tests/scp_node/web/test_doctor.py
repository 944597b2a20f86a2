"""The doctor page: an examination and a test report run as children, one at a time, and their answers are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine

from scp_node.domain import Actor
from scp_node.ledger import PersonRole
from scp_node.web.children import Examiner
from tests.scp_node.ledger_node import Node
from tests.scp_node.web.site import Page, page_before
from tests.waiting import wait_until

ADMIN: Final = PersonRole.ADMIN
VIEWER: Final = PersonRole.VIEWER
HOSTILE: Final = "<b>no</b>"
PACS: Final = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 4242}
FOUND: Final = [{"name": "database", "good": True, "message": "fine"}, {"name": "x", "good": False, "message": HOSTILE}]
SENT: Final = {
    "destination": "pacs",
    "good": False,
    "message": "out of resources",
    "status": "0xA700",
    "sop_instance_uid": "2.25.7",
}


@pytest.fixture
def page(sqlite_engine: Engine, tmp_path: Path) -> Iterator[Page]:
    with page_before(Node(sqlite_engine), tmp_path, destinations=[PACS]) as opened:
        yield opened


def program(page: Page, folder: Path, code: str) -> Examiner:
    """Have the page start a program of the test in place of scp-node; it gets the arguments."""
    file = folder / "child.py"
    file.write_text(code, encoding="utf-8")
    app: Any = page.client.app
    app.state.examiner = Examiner(page.site, (sys.executable, str(file)))
    examiner: Examiner = app.state.examiner
    return examiner


def printing(answer: object) -> str:
    return f"import sys\nassert '--json' in sys.argv\nprint({json.dumps(json.dumps(answer))})\nsys.exit(1)"


def ended(examiner: Examiner) -> None:
    wait_until(lambda: not examiner.is_running, 30, what="the child ends")


def test_an_examination_is_shown_when_it_has_ended(page: Page, tmp_path: Path) -> None:
    examiner = program(page, tmp_path, printing(FOUND))
    page.log_in(ADMIN, "ada")
    assert page.post("/doctor/examine").headers["location"] == "/doctor"
    ended(examiner)
    text = page.get("/doctor").text
    assert "fine" in text
    assert HOSTILE not in text
    assert "&lt;b&gt;no&lt;/b&gt;" in text
    assert "for ada." in text
    assert "hx-trigger" not in text, "it asks no more once it has ended"
    assert [(each["kind"], each["by"]) for each in page.events("web-doctor")] == [("web-doctor", "ada")]


def test_while_it_runs_the_page_asks_again_and_nothing_else_is_begun(page: Page, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists():\n    time.sleep(0.05)\n"
    examiner = program(page, tmp_path, wait + printing(FOUND))
    page.log_in(ADMIN)
    page.post("/doctor/examine")
    text = page.get("/doctor").text
    assert 'hx-get="/doctor/live" hx-trigger="every 1s"' in text
    assert "Looking" in text
    busy = page.post("/doctor/test", {"destination": "pacs"})
    assert "runs already" in page.get(busy.headers["location"]).text
    assert page.events("web-test") == []
    go.touch()
    ended(examiner)
    assert "Looked at" in page.get("/doctor/live").text


def test_a_test_report_tells_the_status_and_is_in_the_trail(page: Page, tmp_path: Path) -> None:
    examiner = program(page, tmp_path, printing(SENT))
    page.log_in(ADMIN, "ada")
    page.post("/doctor/test", {"destination": "pacs"})
    ended(examiner)
    text = page.get("/doctor").text
    assert "0xA700" in text
    assert "out of resources" in text
    asked, answered = page.events("web-test")
    assert (asked["kind"], asked["destination"], asked["by"]) == ("web-test-report", "pacs", "ada")
    assert (answered["kind"], answered["status"], answered["sent_uid"]) == ("web-test-result", "0xA700", "2.25.7")
    assert page.node.rows("SELECT count(*) FROM report")[0][0] == 0


def test_only_an_admin_may_and_only_a_destination_of_the_settings(page: Page) -> None:
    page.log_in(VIEWER)
    assert page.get("/doctor").status_code == 403
    assert page.post("/doctor/examine").status_code == 403
    assert page.post("/doctor/test", {"destination": "pacs"}).status_code == 403
    page.client.cookies.clear()
    page.log_in(ADMIN)
    answer = page.post("/doctor/test", {"destination": "--help"})
    assert (answer.status_code, "destination: " in answer.text) == (422, True)
    assert page.events("web-test") == []


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys\nsys.exit('scp-node: node.port: no such setting')", "node.port: no such setting"),
        ("print('no JSON')", "it ended without an answer"),
        ("print('[1]')", "it ended without an answer"),
        ("import os\nos.kill(os.getpid(), 9)", "it ended without an answer"),
    ],
)
def test_a_child_that_fails_is_told_with_its_last_line(page: Page, tmp_path: Path, code: str, told: str) -> None:
    examiner = program(page, tmp_path, code)
    page.log_in(ADMIN)
    page.post("/doctor/examine")
    ended(examiner)
    assert told in page.get("/doctor").text
    assert page.post("/doctor/examine").headers["location"] == "/doctor", "it can be begun again"
    ended(examiner)


def test_a_child_that_hangs_is_stopped_at_its_deadline_and_at_the_end(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scp_node.web.children._START_SECONDS", -119.5)  # the rest is for two peers, 60 s each
    examiner = program(page, tmp_path, "import time\ntime.sleep(60)")
    actor = Actor(name="ada", address="")
    assert examiner.examine(actor)
    ended(examiner)
    run = examiner.examination()
    assert run is not None
    assert "it was stopped" in run.problem
    monkeypatch.setattr("scp_node.web.children._START_SECONDS", 60)
    assert examiner.examine(actor)
    examiner.close()
    ended(examiner)


def test_a_program_that_is_not_there_is_told(page: Page) -> None:
    examiner = Examiner(page.site, ("/nowhere/python",))
    assert examiner.examine(Actor(name="ada", address=""))
    ended(examiner)
    run = examiner.examination()
    assert run is not None
    assert run.problem == "it could not be started: No such file or directory"
