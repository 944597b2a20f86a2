"""The system page: what needs a person comes first, with reason, number and age, and can be acted upon."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import Engine

from scp_node.domain import NotAnalysed, Priority, Reason
from scp_node.ledger import LedgerUnreachableError, PersonRole
from scp_node.ledger.queue_kinds import QueueKind
from scp_node.ledger.unregistrable import UnregistrableFile
from scp_node.web.pages import system
from scp_node.web.rendering import STATIC
from tests.scp_node.ledger_node import Node
from tests.scp_node.web.site import TESTER, Page, page_before, trail

ADMIN: Final = PersonRole.ADMIN
VIEWER: Final = PersonRole.VIEWER
HOSTILE: Final = "<script>alert(1)</script>"
PACS: Final = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 4242}


@pytest.fixture
def page(sqlite_engine: Engine, tmp_path: Path) -> Iterator[Page]:
    """A page before an empty ledger of a node with one destination, `pacs`."""
    listen = {"low_water_mib": 0}
    with page_before(Node(sqlite_engine), tmp_path, destinations=[PACS], listen=listen) as opened:
        yield opened


def study(node: Node, number: int, *destinations: str, calling_ae: str = "CR1") -> None:
    node.receive(
        f"{number}", study=f"1.2.{number}", calling_ae=calling_ae, patient_key=f"k{number}", priority=Priority.STAT
    )
    node.analyse()
    node.report(*destinations)


def bury(node: Node, destination: str, detail: str) -> None:
    task = node.ledger.deliveries.claim(destination, owner="s")
    assert task is not None
    node.ledger.deliveries.bury(task, status=0xA900, detail=detail)


def gave_up(node: Node) -> None:
    """Three dead letters: two of the settings' destination, one of a destination that was taken out of them."""
    for number, name, detail in ((1, "pacs", "status 0xA900"), (2, "pacs", HOSTILE), (3, "old", "away")):
        study(node, number, name, calling_ae=f"CR{number}")
        bury(node, name, detail)


def links(text: str, word: str) -> list[str]:
    """Return the addresses of the links that are written so."""
    return [unescape(found) for found in re.findall(rf'href="([^"]+)">{word}', text)]


def do(page: Page, address: str) -> tuple[str, str]:
    """Follow a link to the question, answer it, and return the question and what is said afterwards."""
    asked = page.get(address)
    assert asked.status_code == 200, asked.text
    fields = dict(re.findall(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">', asked.text))
    done = page.client.post("/system/act", data={name: unescape(value) for name, value in fields.items()})
    assert done.status_code == 303, done.text
    head = re.search(r"<h1>(.+?)</h1>", asked.text)
    told = re.search(r'<p class="done" role="status">(.+?)</p>', page.get(done.headers["location"]).text)
    assert head
    assert told
    return head[1], told[1]


def test_an_empty_node_has_nothing_for_a_person(page: Page) -> None:
    text = page.log_in(VIEWER).get("/system").text
    assert '<p class="done">Nothing.</p>' in text
    assert "Empty: everything is done." in text
    assert "SQLite 3." in text


@pytest.mark.parametrize("words", [system._STEPS, system._ADVICE, system._LATE])
def test_every_kind_of_work_has_its_words(words: Mapping[QueueKind, str]) -> None:
    assert set(words) == set(QueueKind)


def test_problems_come_first_with_reason_number_and_what_to_do(page: Page) -> None:
    gave_up(page.node)
    study(page.node, 4)
    page.node.clock.advance(minutes=20)
    study(page.node, 5, "pacs")
    page.node.clock.advance(minutes=16)
    page.node.receive("6", study="1.2.6")
    page.node.receive("7", study="1.2.6", sop_instance_uid="1.2.3.6")
    page.node.ledger.intake.record_unregistrable(
        UnregistrableFile(spool_path="a.dcm", reason=HOSTILE, received_at=page.node.clock(), calling_ae="CR9")
    )
    text = page.log_in(VIEWER).get("/system").text
    titles = re.findall(r'<tr id="problem-\d+">\s*<th scope="row">(.+?)</th>', text)
    assert titles == [
        "Delivery given up: old",
        "Delivery given up: pacs",
        "Delivery given up: pacs",
        "Reports that nobody gets",
        "Delivery waits too long: pacs",
        "Two images, one SOP Instance UID",
        "File cannot be registered, from CR9",
    ]
    assert text.index("What needs a person") < text.index("Queues") < text.index("Last errors")
    assert "36 min" in text
    assert "The settings name no such destination" in text
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_role_that_nobody_has_is_a_problem(page: Page) -> None:
    for role in ("web", "listener", "reporter", "sender"):
        page.node.ledger.processes.enter(f"host-a:12:{role}:0a1b2c3d", {}, may_differ=True)
    text = page.log_in(VIEWER).get("/system").text
    assert re.findall(r'<tr id="problem-\d+">\s*<th scope="row">(.+?)</th>', text) == ["No worker at work"]
    assert text.count("host-a") == 4
    assert "other settings allowed" in text  # of the sender


def test_a_viewer_sees_no_button_and_may_do_nothing(page: Page) -> None:
    gave_up(page.node)
    text = page.log_in(VIEWER).get("/system").text
    assert "Put back" not in text
    assert "Discard" not in text
    assert page.get("/system/confirm?action=requeue&trouble=given-up").status_code == 403
    assert page.post("/system/act", {"action": "requeue", "trouble": "given-up"}).status_code == 403
    assert page.post("/system/try", {"destination": "pacs"}).status_code == 403
    assert page.node.ledger.upkeep.counts()["deliver:pacs"] == {"dead": 2}


def test_one_group_is_put_back_after_a_question_with_the_number_and_who_did_it_is_noted(page: Page) -> None:
    gave_up(page.node)
    text = page.log_in(ADMIN, "ada").get("/system").text
    [first] = [
        each for each in links(text, "Put back") if parse_qs(urlsplit(each).query)["reason"] == ["status 0xA900"]
    ]
    assert do(page, first) == ("Put back 1 piece of work that was given up?", "1 put back.")
    assert page.node.ledger.upkeep.counts()["deliver:pacs"] == {"ready": 1, "dead": 1}
    [(_kind, uid, detail)] = trail(page.engine, "requeued")
    assert (uid, detail["by"], detail["address"]) == ("1.2.1", "ada", "127.0.0.1")


def test_a_reason_of_a_peer_that_looks_like_markup_selects_as_any_other(page: Page) -> None:
    gave_up(page.node)
    text = page.log_in(ADMIN).get("/system").text
    [hostile] = [each for each in links(text, "Discard") if parse_qs(urlsplit(each).query).get("reason") == [HOSTILE]]
    assert do(page, hostile) == ("Discard 1 piece of work that was given up?", "1 discarded.")


def test_a_button_is_there_only_where_it_can_work(page: Page) -> None:
    gave_up(page.node)
    text = page.log_in(ADMIN).get("/system").text
    assert {parse_qs(urlsplit(each).query)["destination"][0] for each in links(text, "Put back")} == {"pacs"}
    assert len(links(text, "Discard")) == 4  # each of the three, and all of them
    assert links(text, "Put all back") == []
    assert "choose one above" in text


def test_all_that_matches_a_filter_is_put_back_at_once(page: Page) -> None:
    gave_up(page.node)
    study(page.node, 4, "pacs", calling_ae="CR1")
    bury(page.node, "pacs", "too old")
    page.log_in(ADMIN)
    [every] = links(page.get("/system?destination=pacs&calling_ae=CR1").text, "Put all back")
    assert do(page, every)[1] == "2 put back."
    assert page.node.ledger.upkeep.counts()["deliver:pacs"] == {"ready": 2, "dead": 1}
    assert page.get("/system?study=1.2.404").text.count('id="problem-') == 0


def test_failed_analyses_say_how_many_are_left_out(page: Page) -> None:
    for number in (1, 2):
        page.node.receive(f"{number}", study=f"1.2.{number}", patient_key=f"k{number}", priority=Priority.STAT)
    page.node.analyse(NotAnalysed(reason=Reason.INFERENCE))
    while page.node.report("pacs"):
        task = page.node.ledger.deliveries.claim("pacs", owner="s")
        assert task is not None
        page.node.ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2")
    page.node.clock.advance(days=2)
    page.node.receive("3", study="1.2.3", patient_key="k3", priority=Priority.STAT)
    page.node.analyse(NotAnalysed(reason=Reason.INFERENCE))
    page.node.ledger.retention.close(page.node.ledger.retention.mark(timedelta(days=1)))
    text = page.log_in(ADMIN).get("/system").text
    assert "the network gave no usable value" in text
    [one] = links(text, "Put back")
    asked, told = do(page, one)
    assert asked == "Put back 1 image whose analysis failed?"
    assert told == "1 put back, 2 left out: their originals are no longer kept."


def test_undeliverable_reports_are_routed_again(page: Page) -> None:
    study(page.node, 1)
    [one] = links(page.log_in(ADMIN).get("/system").text, "Put back")
    assert do(page, one) == ("Put back 1 report that nobody gets?", "1 put back.")
    assert page.node.ledger.upkeep.counts()["report"] == {"ready": 1}


def test_a_paused_destination_is_tried_at_once(page: Page) -> None:
    study(page.node, 1, "pacs")
    failed = page.node.ledger.deliveries.destination_failed
    failed("pacs", detail="connection refused", enough=1, pause=lambda _: timedelta(minutes=5))
    text = page.log_in(ADMIN, "ada").get("/system").text
    assert "Destination paused: pacs" in text
    assert "connection refused (failures in a row: 1)" in text
    assert page.post("/system/try", {"destination": "nowhere"}).status_code == 422
    answer = page.post("/system/try", {"destination": "pacs"})
    assert "It is tried now" in page.get(answer.headers["location"]).text
    assert not page.node.ledger.deliveries.destination("pacs").paused
    [told] = page.events("web-destination")
    assert (told["destination"], told["by"]) == ("pacs", "ada")


def test_a_question_about_what_is_gone_says_so(page: Page) -> None:
    text = page.log_in(ADMIN).get("/system/confirm?action=requeue&trouble=given-up&destination=pacs").text
    assert "Nothing matches any more" in text
    assert '<form method="post" action="/system/act"' not in text


def test_a_filter_that_cannot_be_one_is_422_and_named(page: Page) -> None:
    page.log_in(ADMIN)
    for query, named in (
        ("kind=nonsense", "kind"),
        ("calling_ae=A-TITLE-THAT-IS-TOO-LONG", "calling_ae"),
        ("calling_ae=a%5Cb", "calling_ae"),
        ("destination=" + "x" * 33, "destination"),
        ("destination=a%00b", "destination"),
        ("study=" + "1" * 65, "study"),
        ("study=%C3%A4", "study"),
        ("reason=" + "x" * 2001, "reason"),
        ("reason=%00", "reason"),
        ("number=-1", "number"),
    ):
        answer = page.get(f"/system?{query}")
        assert (answer.status_code, f"{named}: " in answer.text) == (422, True), query


def test_an_action_that_cannot_be_one_is_422(page: Page) -> None:
    page.log_in(ADMIN)
    for data in (
        {"action": "delete", "trouble": "given-up"},
        {"action": "requeue", "trouble": "x"},
        {"action": "discard", "trouble": "failed"},
        {"action": "requeue", "trouble": "given-up", "kind": "x"},
    ):
        assert page.post("/system/act", data).status_code == 422
    assert page.get("/system/confirm?action=discard&trouble=failed").status_code == 422


def test_the_part_that_renews_itself_is_a_part_and_keeps_no_session_alive(page: Page) -> None:
    page.log_in(VIEWER)
    text = page.get("/system").text
    assert 'hx-get="/system/live"' in text
    assert 'hx-trigger="every 5s"' in text
    for _ in range(3):
        page.node.clock.advance(minutes=9)
        part = page.get("/system/live", headers={"X-Poll": "1", "HX-Request": "true"})
        assert (part.status_code, "<html" in part.text, 'id="queues"' in part.text) == (200, False, True)
    page.node.clock.advance(minutes=9)
    answer = page.get("/system/live", headers={"X-Poll": "1", "HX-Request": "true"})
    assert answer.headers["hx-redirect"] == "/login"


def test_the_disk_is_a_problem_before_it_is_full(sqlite_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    with page_before(Node(sqlite_engine), tmp_path, listen={"low_water_mib": 2**40}) as page:
        assert "No store is accepted" in page.log_in(VIEWER).get("/system").text


def test_a_data_folder_that_cannot_be_seen_is_told(page: Page) -> None:
    assert "The data folder cannot be seen from here." in page.log_in(VIEWER).get("/system").text


def test_scripts_read_the_same_as_json(page: Page) -> None:
    gave_up(page.node)
    page.add("script", VIEWER)
    token = page.site.ledger.people.make_token("script", "monitoring", actor=TESTER)
    page.client.cookies.clear()
    headers = {"Authorization": f"Bearer {token}"}
    answer = page.get("/api/v1/system?destination=pacs", headers=headers).json()
    assert [(each["destination"], each["number"]) for each in answer["given_up"]] == [("pacs", 1), ("pacs", 1)]
    assert page.get("/api/v1/system").status_code == 401
    described = page.get("/api/openapi.json", headers=headers).json()["paths"]["/api/v1/system"]["get"]
    assert "Overview" in str(described["responses"]["200"])


def in_conflict(node: Node) -> None:
    node.receive("1", sop_instance_uid="1.2.9", patient_id="P1", accession=HOSTILE)
    node.receive("2", sop_instance_uid="1.2.9", patient_id="P2", study="1.2.4", size=12, patient_key="other")
    node.analyse()


def test_the_images_of_one_uid_stand_side_by_side_and_one_is_chosen(page: Page) -> None:
    in_conflict(page.node)
    page.log_in(ADMIN, "ada")
    [link] = links(page.get("/system").text, "Compare")
    text = page.get(link).text
    for shown in ("P1", "P2", "1.2.4", "0" * 63 + "1", "0" * 63 + "2", ">12<", ">10<"):
        assert shown in text
    assert HOSTILE not in text
    assert text.count("differs") == 5  # patient, accession, study, size, digest
    assert sorted(each["study_uid"] for each in page.events("web-viewed")) == ["1.2.3", "1.2.4"]
    assert '<form method="post" action="/system/conflicts/' not in text
    asked = page.get(f"{link}?number=2").text
    for shown in (
        "Have image 2 read?",
        "Image 1 is set aside: what was reported of it is replaced",
        "different patients",
    ):
        assert shown in asked
    wrong = page.post("/system/conflicts/1.2.9", {"number": "2", "sha256": "0" * 64})
    assert (wrong.status_code, "look at them again" in wrong.text) == (409, True)
    done = page.post("/system/conflicts/1.2.9", {"number": "2", "sha256": "0" * 63 + "2"})
    assert done.headers["location"] == "/system/conflicts/1.2.9?done=1"
    text = page.get("/system/conflicts/1.2.9?done=1").text
    assert "The chosen image is read, the others are set aside." in text
    assert page.node.ledger.resolution.unresolved() == 0
    [(_kind, _uid, detail)] = trail(page.engine, "resolved")
    assert (detail["number"], detail["by"], detail["address"]) == (2, "ada", "127.0.0.1")


def test_a_viewer_compares_and_does_not_choose(page: Page) -> None:
    in_conflict(page.node)
    page.log_in(VIEWER)
    assert "Have this one read" not in page.get("/system/conflicts/1.2.9").text
    answer = page.post("/system/conflicts/1.2.9", {"number": "2", "sha256": "0" * 63 + "2"})
    assert answer.status_code == 403
    assert page.get("/system/conflicts/1.2.404").status_code == 404
    assert page.get("/system/conflicts/" + "9" * 200).status_code == 404


def test_ready_means_the_schema_of_this_program(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"ok, schema \d{4}\n", page.get("/readyz").text)
    with page.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    answer = page.get("/readyz")
    assert (answer.status_code, "schema is at 0001" in answer.text) == (503, True)

    def away(*_: object, **__: object) -> None:
        raise LedgerUnreachableError("away")

    monkeypatch.setattr(type(page.site.ledger.problems), "schema", away)
    assert page.get("/readyz").status_code == 503
    assert page.get("/healthz").status_code == 200


def test_what_renews_itself_never_uses_what_the_policy_forbids() -> None:
    source = (STATIC / "live.js").read_text(encoding="utf-8")
    assert "innerHTML" not in source
    assert "eval" not in source
