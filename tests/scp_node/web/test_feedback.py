"""Feedback on the page: the box, the reading sample, the import, the figures, and the same for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import count
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient

from scp_node.domain import Actor, NotAnalysed, Reason
from scp_node.ledger import PersonRole, Truth
from tests.scp_node.ledger.test_feedback import NEGATIVE, OTHER, POSITIVE, receive, reported
from tests.scp_node.ledger_node import FakeClock, Node, ledger_engine
from tests.scp_node.web.site import ORIGIN, Page, page_before

HOSTILE: Final = "<script>alert(1)</script>"
_FRESH: Final = count(1)


class _Remembering(Page):
    """A page that asks once for the token of its forms."""

    @cached_property
    def _token(self) -> str:
        return super().csrf()

    def csrf(self) -> str:
        return self._token


@dataclass
class Site:
    """One ledger, and a browser for each role."""

    node: Node
    of: Mapping[PersonRole, Page]

    @property
    def reader(self) -> Page:
        return self.of[PersonRole.READER]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A page before one ledger for all tests, each with studies that no other has used."""
    folder = tmp_path_factory.mktemp("web")
    with ledger_engine(folder / "ledger.sqlite3") as engine:
        node = Node(engine, FakeClock(datetime.now(UTC)))
        with page_before(node, folder, web={"viewer_url": "https://pacs.example/?a={accession}"}) as first:
            pages = {}
            for role in PersonRole:
                client = TestClient(
                    first.client.app,
                    base_url=ORIGIN,
                    client=("127.0.0.1", 50_000),
                    follow_redirects=False,
                    raise_server_exceptions=False,
                )
                pages[role] = _Remembering(client, node, first.site).log_in(role)
            yield Site(node, pages)


@pytest.fixture
def study(site: Site) -> tuple[str, int]:
    """A positive study with one patient, and its subject."""
    uid = f"1.2.8.{next(_FRESH)}"
    return uid, reported(site.node, uid, POSITIVE, accession="A&1")


@pytest.fixture(scope="module")
def drawn(site: Site) -> list[tuple[str, int]]:
    """Three studies of the day before yesterday, all drawn."""
    now = site.node.clock.now
    site.node.clock.now = now - timedelta(days=2)
    uids = [f"1.2.7.{next(_FRESH)}" for _ in range(3)]
    outcomes = (POSITIVE, NEGATIVE, NEGATIVE)
    subjects = [reported(site.node, uid, outcome) for uid, outcome in zip(uids, outcomes, strict=True)]
    site.node.clock.now = now
    while site.node.ledger.reading_sample.draw(positive=50, negative=50):
        pass
    return list(zip(uids, subjects, strict=True))


@pytest.fixture(scope="module")
def quiet(site: Site) -> tuple[str, int]:
    """A positive study about which nobody says anything."""
    uid = f"1.2.8.{next(_FRESH)}"
    return uid, reported(site.node, uid, POSITIVE)


def give(page: Page, uid: str, subject: int, **data: Any) -> Any:
    return page.post(f"/studies/{uid}/feedback", {"subject": str(subject), **data})


class TestTheBox:
    def test_asks_readers_and_shows_what_was_said(self, site: Site, study: tuple[str, int]) -> None:
        uid, subject = study
        box = site.reader.get(f"/studies/{uid}/feedback/{subject}").text
        assert "Nobody has answered yet" in box
        assert re.findall(r'value="(agree|disagree|unsure)"[^>]*data-key="(\w)"', box) == [
            ("agree", "a"),
            ("disagree", "d"),
            ("unsure", "u"),
        ]
        answer = give(site.reader, uid, subject, opinion="disagree", comment=f"{HOSTILE}\r\nsecond line")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/studies/{uid}#feedback-{subject}")
        shown = site.of[PersonRole.VIEWER].get(f"/studies/{uid}/feedback/{subject}").text
        assert "<strong>reader</strong>" in shown
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\nsecond line" in shown
        assert "<script" not in shown
        [row] = site.node.ledger.feedback.of_study(uid)
        assert (row.reader, row.opinion, row.comment) == ("reader", "disagree", f"{HOSTILE}\nsecond line")
        [event] = [each for each in site.reader.events("web-feedback") if each["study_uid"] == uid]
        assert (event["by"], event["address"]) == ("reader", "127.0.0.1")

    def test_comes_back_alone_to_a_script(self, site: Site, study: tuple[str, int]) -> None:
        uid, subject = study
        answer = site.reader.post(
            f"/studies/{uid}/feedback", {"subject": str(subject), "opinion": "agree"}, headers={"hx-request": "true"}
        )
        assert answer.status_code == 200
        assert answer.text.startswith(f'<section class="card feedback" id="feedback-{subject}"')
        assert re.search(r'value="agree"[^>]*aria-pressed="true"', answer.text)
        again = site.reader.post(
            f"/studies/{uid}/feedback", {"subject": str(subject), "opinion": "unsure"}, headers={"hx-request": "true"}
        )
        assert "answer 2" in again.text

    def test_says_that_an_answer_is_about_an_older_report(self, site: Site, study: tuple[str, int]) -> None:
        uid, subject = study
        give(site.reader, uid, subject, opinion="agree")
        reported(site.node, uid, POSITIVE, name="later", accession="A&1")
        assert (
            "of report version 1, not of the newest one" in site.reader.get(f"/studies/{uid}/feedback/{subject}").text
        )

    def test_needs_a_result(self, site: Site) -> None:
        uid = f"1.2.8.{next(_FRESH)}"
        subject = reported(site.node, uid, NotAnalysed(reason=Reason.VIEW))
        assert "nothing to agree or disagree with" in site.reader.get(f"/studies/{uid}/feedback/{subject}").text
        assert give(site.reader, uid, subject, opinion="agree").status_code == 409

    def test_is_closed_to_viewers(self, site: Site, quiet: tuple[str, int]) -> None:
        uid, subject = quiet
        viewer = site.of[PersonRole.VIEWER]
        assert "<form" not in viewer.get(f"/studies/{uid}/feedback/{subject}").text
        assert give(viewer, uid, subject, opinion="agree").status_code == 403
        for path in ("/sample", "/sample/next", "/feedback/import", "/feedback.csv"):
            assert viewer.get(path).status_code == 403
        assert site.node.ledger.feedback.of_study(uid) == []

    @pytest.mark.parametrize(
        ("data", "status", "told"),
        [
            ({"opinion": "maybe"}, 422, "opinion"),
            ({}, 422, "opinion"),
            ({"opinion": "agree", "truth": "positive"}, 422, "not both"),
            ({"opinion": "agree", "comment": "x" * 2_001}, 422, "at most 2,000 characters"),
            ({"opinion": "agree", "comment": "a\0b"}, 422, "NUL"),
            ({"opinion": "agree", "comment": "x" * 70_000}, 413, ""),
            ({"opinion": "agree", "subject": "404"}, 404, "no such study"),
            ({"opinion": "agree", "subject": str(2**64)}, 404, "no such study"),
            ({"opinion": "agree", "subject": "x"}, 422, "subject"),
            ({"opinion": "agree", "csrf": "forged"}, 403, "another login"),
            ({"opinion": "agree", "place": "elsewhere"}, 422, "place"),
        ],
    )
    def test_refuses_what_cannot_be_kept(
        self, site: Site, quiet: tuple[str, int], data: dict[str, str], status: int, told: str
    ) -> None:
        uid, subject = quiet
        answer = site.reader.post(f"/studies/{uid}/feedback", {"subject": str(subject), **data})
        assert answer.status_code == status
        assert told in answer.text
        assert site.node.ledger.feedback.of_study(uid) == []

    def test_does_not_answer_for_another_study(self, site: Site, quiet: tuple[str, int]) -> None:
        _, subject = quiet
        assert give(site.reader, "1.2.404", subject, opinion="agree").status_code == 404
        answer = site.reader.get(f"/studies/{HOSTILE}/feedback/{subject}")
        assert (answer.status_code, "alert" in answer.text) == (404, False)

    def test_loads_itself_into_the_page_of_its_study(self, site: Site, quiet: tuple[str, int]) -> None:
        uid, subject = quiet
        shown = site.of[PersonRole.VIEWER].get(f"/studies/{uid}")
        assert shown.status_code == 200
        assert f'hx-get="/studies/{uid}/feedback/{subject}" hx-trigger="load"' in shown.text
        assert re.search(r'<script src="/static/feedback\.js\?v=\w+" defer>', shown.text)


class TestTheSample:
    """The tests of this class follow one another: each reads one of the drawn studies."""

    def test_lists_what_waits_oldest_first_without_its_result(self, site: Site, drawn: list[tuple[str, int]]) -> None:
        shown = site.reader.get("/sample").text
        places = [shown.index(f"/sample/{subject}?") for _, subject in drawn]
        assert places == sorted(places)
        assert "present" not in shown
        assert "not-detected" not in shown

    def test_hides_the_result_until_the_answer_and_goes_on(self, site: Site, drawn: list[tuple[str, int]]) -> None:
        (uid, subject), (_, second), _ = drawn
        shown = site.reader.get(f"/sample/{subject}")
        assert "hidden until you have answered" in shown.text
        assert "90.0" not in shown.text
        film = site.node.ledger.feedback.films(subject)[0]
        assert f'data-pixels="/studies/{uid}/images/{film}/pixels" data-regions="[]"' in shown.text
        assert "data-attention" not in shown.text  # which would tell the result
        assert "https://pacs.example/?a=A1" in shown.text
        answer = give(site.reader, uid, subject, truth="negative", blind="1", again="0", place="sample")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/sample/next?done={subject}&blind=1&again=0")
        after = site.reader.get(answer.headers["location"]).text
        assert "The result was “present”: you disagree" in " ".join(after.split())
        assert f'name="subject" value="{second}"' in after
        [row] = site.node.ledger.feedback.of_study(uid)
        assert (row.truth, row.opinion, row.blind) == (Truth.NEGATIVE, "disagree", True)

    def test_shows_the_result_to_who_wants_it(self, site: Site, drawn: list[tuple[str, int]]) -> None:
        _, (_, second), _ = drawn
        shown = site.reader.get(f"/sample/{second}?blind=0").text
        assert "not-detected" in shown
        assert f"/sample/{second}?blind=1" in shown

    def test_can_be_put_off(self, site: Site, drawn: list[tuple[str, int]]) -> None:
        _, (_, second), (_, third) = drawn
        assert f'value="{third}"' in site.reader.get(f"/sample/next?skip={second}").text
        assert site.reader.get(f"/sample/next?skip={third}").headers["location"] == "/sample?blind=1&again=0"

    def test_is_read_a_second_time_by_who_wants_it(self, site: Site, drawn: list[tuple[str, int]]) -> None:
        (_, first), *_ = drawn
        admin = site.of[PersonRole.ADMIN]
        assert admin.get(f"/sample/{first}").status_code == 404
        assert admin.get(f"/sample/{first}?again=1").status_code == 200

    @pytest.mark.parametrize("query", ["blind=maybe", "again=x", "done=x", "done=-1", f"skip={2**70}"])
    def test_names_a_wrong_value(self, site: Site, query: str) -> None:
        answer = site.reader.get(f"/sample/next?{query}")
        assert answer.status_code == 422
        assert query.partition("=")[0] in answer.text

    def test_notes_who_looked(self, site: Site, drawn: list[tuple[str, int]]) -> None:
        (uid, _), *_ = drawn
        assert next(each["by"] for each in site.reader.events("web-viewed") if each["study_uid"] == uid) == "reader"

    def test_makes_figures(self, site: Site, drawn: list[tuple[str, int]]) -> None:
        uid, subject = drawn[1]
        give(site.reader, uid, subject, truth="positive", blind="1", place="sample")
        give(site.reader, *drawn[2], truth="negative", blind="1", place="sample")
        found = site.reader.get("/api/v1/quality").json()
        assert found["sample_positive"]["known"] >= 1
        assert found["sensitivity"]["value"] is not None
        shown = site.of[PersonRole.VIEWER].get("/quality").text
        assert "<polyline" in shown
        assert "No study has two readers who know" in shown
        give(site.of[PersonRole.ADMIN], *drawn[2], truth="negative", again="1", place="sample")
        assert "admin, reader</th>" in site.of[PersonRole.VIEWER].get("/quality").text

    def test_figures_of_a_filter_have_its_days(self, site: Site, drawn: list[tuple[str, int]]) -> None:
        del drawn
        none = site.reader.get("/api/v1/quality?first=2001-01-01&last=2001-01-02").json()
        assert (none["days"], none["sensitivity"]["value"]) == (0, None)
        assert none["why_no_sensitivity"].startswith("No day of this selection")
        one = site.reader.get("/api/v1/quality?calling_ae=CR1&bundle=test-model-1.0").json()
        assert one["days"] >= 1


class TestTheFigures:
    @pytest.mark.parametrize(
        ("query", "told"),
        [
            ("first=yesterday", "first: give a day"),
            ("last=2026-02-30", "last: give a day"),
            ("first=2026-03-02&last=2026-03-01", "last: it lies before"),
            (f"calling_ae={HOSTILE}", "calling_ae: no study has this value"),
            ("view=SIDEWAYS", "view: no study has this value"),
            ("bundle=absent-1.0", "bundle: no study has this value"),
        ],
    )
    @pytest.mark.parametrize("path", ["/quality", "/api/v1/quality"])
    def test_name_a_wrong_value(self, site: Site, path: str, query: str, told: str) -> None:
        answer = site.reader.get(f"{path}?{query}")
        assert answer.status_code == 422
        assert told in answer.text
        assert "<script>alert" not in answer.text

    def test_need_a_login(self, page: Page) -> None:
        assert page.get("/quality").status_code == 303
        assert page.get("/api/v1/quality").status_code == 401


class TestTheImport:
    def send(self, site: Site, content: bytes, **data: str) -> Any:
        token = site.reader.csrf()
        return site.reader.client.post(
            "/feedback/import", data={"csrf": token, **data}, files={"file": ("truth.csv", content, "text/csv")}
        )

    def test_takes_a_file_after_a_dry_run(self, site: Site, study: tuple[str, int]) -> None:
        uid, _ = study
        content = f"\ufeffstudy_uid;truth;comment\r\n{uid};negative;CT\r\n".encode()
        assert "1 new" in self.send(site, content, dry_run="true").text
        assert site.node.ledger.feedback.of_study(uid) == []
        assert "1 new" in self.send(site, content).text
        [row] = site.node.ledger.feedback.of_study(uid)
        assert (row.truth, row.reader, row.source, row.comment) == ("negative", "ris", "import", "CT")
        event = [each for each in site.reader.events("web-feedback") if each["study_uid"] == uid][-1]
        assert (event["by"], event["reader"]) == ("reader", "ris")

    def test_refuses_a_file_with_its_lines(self, site: Site, quiet: tuple[str, int]) -> None:
        uid, _ = quiet
        answer = self.send(site, f"study_uid,truth,comment\n{uid},positive,\n1.2.404,{HOSTILE},\n".encode())
        assert answer.status_code == 422
        assert "line 3: truth is" in answer.text
        assert "<script>alert" not in answer.text
        assert site.node.ledger.feedback.of_study(uid) == []

    @pytest.mark.parametrize(
        ("content", "status", "told"),
        [
            (b"", 422, "names the columns"),
            ("accession,truth\nÄ,positive".encode("latin-1"), 422, "not UTF-8"),
            (b"x" * (5 * 2**20 + 1), 422, "more than 5,242,880"),
            (b"x" * (6 * 2**20), 413, "At most"),
        ],
    )
    def test_refuses_what_is_no_such_file(self, site: Site, content: bytes, status: int, told: str) -> None:
        answer = self.send(site, content)
        assert (answer.status_code, told in answer.text) == (status, True)

    def test_needs_a_file_and_a_token(self, site: Site) -> None:
        assert site.reader.post("/feedback/import").status_code == 422
        answer = site.reader.client.post("/feedback/import", files={"file": ("x.csv", b"a", "text/csv")})
        assert answer.status_code == 403

    def test_hands_out_all_answers_and_notes_it(self, site: Site, study: tuple[str, int]) -> None:
        uid, subject = study
        give(site.reader, uid, subject, opinion="agree", comment="=1+1")
        answer = site.reader.get("/feedback.csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert f"{uid},A&1,P1,positive,reader,'=1+1" in answer.text
        assert site.reader.events("web-exported")[-1]["what"] == "feedback"


class TestPrograms:
    def test_give_and_get_by_a_token(self, site: Site, study: tuple[str, int]) -> None:
        uid, _ = study
        people = site.node.ledger.people
        token = people.make_token("reader", "script", actor=Actor(name="admin", address=""))
        client = TestClient(
            site.reader.client.app,
            base_url=ORIGIN,
            client=("127.0.0.1", 50_000),
            headers={"authorization": f"Bearer {token}"},
        )
        answer = client.post(
            f"/api/v1/studies/{uid}/feedback", json={"truth": "negative", "comment": "é", "blind": True}
        )
        assert answer.status_code == 200, answer.text
        assert (answer.json()["opinion"], answer.json()["truth"]) == ("disagree", "negative")
        assert client.get(f"/api/v1/studies/{uid}/feedback").json() == [answer.json()]

    def test_say_which_patient(self, site: Site) -> None:
        uid = f"1.2.8.{next(_FRESH)}"
        reported(site.node, uid)
        second = reported(site.node, uid, name="2", **OTHER)
        answer = self.post(site, uid, {"opinion": "agree"})
        assert (answer.status_code, "names 2 patients" in answer.text) == (422, True)
        assert self.post(site, uid, {"opinion": "agree", "patient_id": "P9"}).status_code == 422
        assert self.post(site, uid, {"opinion": "agree", "patient_id": "P2"}).status_code == 200
        assert [row.subject_id for row in site.node.ledger.feedback.of_study(uid)] == [second]

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"opinion": "maybe"}, 422),
            ({}, 422),
            ({"opinion": "agree", "more": 1}, 422),
            ({"opinion": "agree", "comment": "x" * 2_001}, 422),
            ({"opinion": "agree", "comment": "a\0b"}, 422),
            ({"opinion": "agree", "comment": "\ud800"}, 422),
            ([], 422),
            ({"opinion": "agree", "comment": "x" * 70_000}, 413),
        ],
    )
    def test_are_told_what_is_wrong(self, site: Site, quiet: tuple[str, int], body: Any, status: int) -> None:
        uid, _ = quiet
        answer = self.post(site, uid, body)
        assert answer.status_code == status, answer.text
        assert site.node.ledger.feedback.of_study(uid) == []

    def test_get_404_for_a_study_that_is_not_there(self, site: Site) -> None:
        for uid in ("1.2.404", HOSTILE, "%00"):
            answer = site.reader.get(f"/api/v1/studies/{uid}/feedback")
            assert answer.status_code == 404
            assert "alert" not in answer.text
        assert self.post(site, "1.2.404", {"opinion": "agree"}).status_code == 404

    def test_get_409_where_there_is_no_result(self, site: Site) -> None:
        uid = f"1.2.8.{next(_FRESH)}"
        receive(site.node, uid)
        assert self.post(site, uid, {"opinion": "agree"}).status_code == 409

    def test_of_viewers_may_not_answer(self, site: Site, quiet: tuple[str, int]) -> None:
        uid, _ = quiet
        viewer = site.of[PersonRole.VIEWER]
        headers = {"x-csrf-token": viewer.csrf()}
        answer = viewer.client.post(f"/api/v1/studies/{uid}/feedback", json={"opinion": "agree"}, headers=headers)
        assert answer.status_code == 403
        assert viewer.get(f"/api/v1/studies/{uid}/feedback").status_code == 200

    def post(self, site: Site, uid: str, body: Any) -> Any:
        headers = {"x-csrf-token": site.reader.csrf(), "content-type": "application/json"}
        return site.reader.client.post(
            f"/api/v1/studies/{uid}/feedback", content=json.dumps(body).encode(), headers=headers
        )
