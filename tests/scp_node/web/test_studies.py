"""The list of studies in a browser: filters in the address, pages by key, what is new, and exports."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import pytest

from scp_node.domain import Finding, NotAnalysed, Reason
from scp_node.ledger import WORKLIST_FIELDS, PersonRole
from scp_node.web.filters import Filters, key_of, key_text
from scp_node.web.pages.studies import StudyDocument
from tests.scp_node.ledger.projecting import followed, header
from tests.scp_node.ledger.test_companions import claimed
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.web.site import TESTER, Page, page_before

HOSTILE: Final = '<script>alert(1)</script>^"><img onerror>'

ESCAPED: Final = "&lt;script&gt;alert(1)&lt;/script&gt;, &#34;&gt;&lt;img onerror&gt;"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page before 60 studies; a viewer is logged in. The tests that share it change nothing but the trail."""
    folder = tmp_path_factory.mktemp("studies")
    with ledger_engine(folder / "ledger.sqlite3") as engine:
        node = Node(engine)
        for number in range(57):
            node.receive(
                str(number), study=f"1.{number}", header=header(f"Doe^Number{number}"), patient_id=f"P{number}"
            )
            node.clock.advance(seconds=1)
        node.analyse(Finding(probability=0.2, logit=-1.0, threshold=0.5))
        node.receive("a", study="2.1", header=header("Иванов^Пётр"), calling_ae="DX", accession="=1+1")
        node.analyse(Finding(probability=0.9, logit=2.0, threshold=0.5, grey_zone=0.1))
        node.clock.advance(seconds=11)
        node.ledger.upkeep.sweep()
        node.receive("b", study="2.2", header=header(HOSTILE), patient_id="@SUM(A1)")
        node.analyse(NotAnalysed(reason=Reason.VIEW))
        node.clock.advance(seconds=1)
        node.receive("c", study="2.3", header=header("山田^太郎"), calling_ae="DX")
        followed(node)
        with page_before(node, folder) as page:
            yield page.log_in(PersonRole.VIEWER)


def patients(text: str) -> list[str]:
    return re.findall(r"data-study><bdi>([^<]*)</bdi></a>", text)


def link(text: str, name: str) -> str:
    found = re.search(rf'href="([^"]+)"[^>]*>{name}</a>', text)
    assert found, name
    return found[1].replace("&amp;", "&")


def test_the_newest_studies_come_first_and_pages_go_on_by_key(shown: Page) -> None:
    first = shown.get("/studies").text
    assert patients(first)[:3] == [
        "山田, 太郎".replace(",", ""),
        ESCAPED,
        "Иванов, Пётр",
    ]
    assert "<h1>60 studies</h1>" in first
    second = shown.get(link(first, "Older")).text
    assert patients(second) == [f"Doe, Number{number}" for number in range(9, -1, -1)]
    assert "hx-get" not in second
    assert patients(shown.get(link(second, "Newer")).text) == patients(first)
    assert patients(shown.get(link(second, "Newest")).text) == patients(first)
    assert ">Older</a>" not in second


def test_hostile_names_are_text(shown: Page) -> None:
    for address in ("/studies", "/studies?q=%3Cscript%3E", "/studies?ae=%22%3E%3Cscript%3E"):
        text = shown.get(address).text
        assert "<img" not in text
        assert not re.search(r"<script(?! src=)", text)


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("/studies?q=иванов+петр", ["Иванов, Пётр"]),
        ("/studies?q=山田", ["山田 太郎"]),
        ("/studies?q=number55", ["Doe, Number55"]),
        ("/studies?q=1.2.3.b", []),
        ("/studies?q=2.1&verdict=present", ["Иванов, Пётр"]),
        ("/studies?verdict=present&ae=DX&model=test-model-1.0&state=analysed", ["Иванов, Пётр"]),
        ("/studies?reason=view&feedback=none", [ESCAPED]),
        ("/studies?since=2026-01-03", []),
        ("/studies?until=2026-01-01", []),
        ("/studies?since=2026-01-01&until=2026-01-03&ae=DX", ["山田 太郎", "Иванов, Пётр"]),
    ],
)
def test_every_filter_stands_in_the_address(shown: Page, address: str, names: list[str]) -> None:
    text = shown.get(address).text
    assert patients(text) == names
    if not names:
        assert "No study matches these filters." in text


def test_the_form_shows_what_is_chosen_and_the_links_keep_it(shown: Page) -> None:
    text = shown.get("/studies?verdict=not-detected&q=doe").text
    assert '<option value="not-detected" selected>' in text
    assert 'name="q" value="doe"' in text
    for name in ("Older", "CSV"):
        query = parse_qs(urlsplit(link(text, name)).query)
        assert (query["verdict"], query["q"]) == (["not-detected"], ["doe"])


def test_fields_that_were_left_empty_leave_the_address(shown: Page) -> None:
    answer = shown.get("/studies?q=&since=&verdict=present&state=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/studies?verdict=present")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("verdict=maybe", "verdict"),
        ("state=lost", "state"),
        ("reason=bad", "reason"),
        ("feedback=yes", "feedback"),
        ("since=yesterday", "since"),
        ("until=2026-02-30", "until"),
        ("since=0001-01-01", "since"),
        ("until=9999-12-31", "until"),
        ("verdicts=present", "verdicts"),
        ("q=" + "x" * 201, "q"),
        ("ae=a%00b", "ae"),
    ],
)
def test_an_unknown_filter_or_value_is_named(shown: Page, query: str, name: str) -> None:
    for path in ("/studies", "/studies.csv", "/api/v1/studies"):
        answer = shown.get(f"{path}?{query}")
        assert answer.status_code == 422
        assert f"{name}: " in answer.text


@pytest.mark.parametrize("key", ["x", "1", "99999999999999999999-1", "1-99999999999999999999", "-1-1", "%00"])
def test_a_forged_key_leads_to_the_first_page(shown: Page, key: str) -> None:
    answer = shown.get(f"/studies?older={key}")
    if key == "%00":
        assert answer.status_code == 422
    else:
        assert patients(answer.text)[0] == "山田 太郎"


def test_a_key_comes_back_as_it_went(shown: Page) -> None:
    [row] = shown.site.ledger.worklist.study("2.3")
    assert key_of(key_text(row.key)) == row.key


def test_a_row_says_in_words_what_happened(shown: Page) -> None:
    text = shown.get("/studies").text
    assert '<span class="chip positive">Present</span>' in text
    assert "90.0 %" in text
    assert 'title="test-model-1.0, threshold 50.0 %"' in text
    assert "waits for its analysis" in text
    assert "view is outside the intended use" in text
    assert 'title="2026-01-02 03:05:' in text  # UTC
    assert "64 y" in text


def test_times_are_in_the_zone_of_the_site(tmp_path: Path) -> None:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        node = Node(engine)
        node.receive("1")
        followed(node)
        with page_before(node, tmp_path, web={"time_zone": "Asia/Tokyo"}) as page:
            page.log_in()
            assert "2026-01-02 12:04 JST" in page.get("/studies").text
            assert len(patients(page.get("/studies?since=2026-01-02").text)) == 1
            assert len(patients(page.get("/studies?until=2026-01-01").text)) == 0


def test_what_is_new_is_asked_by_key_and_moves_no_row(tmp_path: Path) -> None:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        node = Node(engine)
        followed(node)
        with page_before(node, tmp_path) as page:
            page.log_in()
            empty = page.get("/studies").text
            assert "No study has come yet." in empty
            new = re.search(r'hx-get="([^"]+)"', empty)
            assert new
            address = new[1].replace("&amp;", "&")
            assert page.get(address).status_code == 204
            for number in range(3):
                node.receive(str(number), study=f"1.{number}")
            followed(node)
            answer = page.get(address)
            assert (answer.status_code, "3 new</a>" in answer.text) == (200, True)
            filtered = page.get("/studies?ae=CR1").text
            new = re.search(r'hx-get="([^"]+)"', filtered)
            assert new
            node.clock.advance(seconds=1)
            node.receive("x", study="1.x", calling_ae="OTHER")
            followed(node)
            assert page.get(new[1].replace("&amp;", "&")).status_code == 204
            assert page.get("/studies.new").status_code == 204


def test_a_list_to_which_nothing_happened_is_not_read_again(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.node.receive("1")
    followed(page.node)
    new = re.search(r'hx-get="([^"]+)"', page.log_in().get("/studies").text)
    assert new

    def read(*_: object, **__: object) -> None:
        raise AssertionError("the list was read")

    followed(page.node)  # the visit, which changes no row
    address = re.sub(r"position=\d+", f"position={page.site.ledger.worklist.standing().position}", new[1])
    monkeypatch.setattr(type(page.site.ledger.worklist), "newer", read)
    assert page.get(address.replace("&amp;", "&")).status_code == 204
    page.node.receive("2")
    followed(page.node)
    assert page.get(address.replace("&amp;", "&")).status_code == 500


def test_a_row_that_changed_is_told_and_stays_where_it_is(page: Page) -> None:
    page.node.receive("1")
    followed(page.node)
    new = re.search(r'hx-get="([^"]+)"', page.log_in().get("/studies").text)
    assert new
    address = new[1].replace("&amp;", "&")
    assert page.get(address).status_code == 204
    page.node.analyse()
    followed(page.node)
    answer = page.get(address)
    assert (answer.status_code, "Rows have changed" in answer.text) == (200, True)


def test_a_side_view_beside_a_verdict_needs_no_words(page: Page) -> None:
    page.node.receive("1")
    page.node.analyse()
    page.node.receive("2")
    page.node.analyse(NotAnalysed(reason=Reason.VIEW))
    followed(page.node)
    text = page.log_in().get("/studies").text
    assert "; view is outside the intended use" not in text
    assert 'title="Not analysed: view is outside' in text


def test_the_page_says_when_the_list_is_behind_or_incomplete(page: Page) -> None:
    page.log_in()
    assert "is being made again" in page.get("/studies").text
    followed(page.node)
    assert "Nothing keeps this list up to date" in page.get("/studies").text


def test_the_page_and_its_exports_need_a_login(page: Page) -> None:
    for path in ("/studies", "/studies.csv", "/studies.json", "/studies.new"):
        assert page.get(path).status_code == 303
    assert page.get("/api/v1/studies").status_code == 401


def test_a_csv_has_every_row_and_no_formula(shown: Page) -> None:
    answer = shown.get("/studies.csv?since=2026-01-01")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="studies-\d{4}-\d\d-\d\d\.csv"', answer.headers["content-disposition"])
    assert answer.text.startswith("\N{BYTE ORDER MARK}study_uid,patient_id")
    rows = list(csv.DictReader(io.StringIO(answer.text.lstrip("\N{BYTE ORDER MARK}"))))
    assert len(rows) == 60
    by_study = {row["study_uid"]: row for row in rows}
    assert (by_study["2.1"]["accession"], by_study["2.2"]["patient_id"]) == ("'=1+1", "'@SUM(A1)")
    assert (by_study["2.1"]["patient_name"], by_study["2.1"]["probability"]) == ("Иванов, Пётр", "0.9")


def test_a_json_file_has_the_same_rows(shown: Page) -> None:
    assert json.loads(shown.get("/studies.json?ae=NOBODY").text) == []
    rows = json.loads(shown.get("/studies.json").text)
    assert (len(rows), list(rows[0])) == (60, list(WORKLIST_FIELDS))
    assert rows[0]["patient_name"] == "山田 太郎"


def test_a_parquet_file_has_the_same_rows(shown: Page, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "studies.parquet").write_bytes(shown.get("/studies.parquet").content)
    table = parquet.read_table(tmp_path / "studies.parquet")
    assert (table.num_rows, table.column_names) == (60, list(WORKLIST_FIELDS))
    assert table["probability"].to_pylist()[2] == 0.9


def test_a_parquet_file_that_cannot_be_written_is_an_error_and_no_file(
    shown: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scp_node.web.export._PARQUET", ("-c", "raise SystemExit(3)"))
    answer = shown.get("/studies.parquet")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")


def test_without_pyarrow_there_is_no_parquet(shown: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp_node.web.pages.studies.has_parquet", lambda: False)
    assert "Parquet" not in shown.get("/studies").text
    answer = shown.get("/studies.parquet")
    assert (answer.status_code, "pyarrow" in answer.text) == (404, True)


def test_searches_and_exports_are_noted_with_who_and_from_where(page: Page) -> None:
    page.log_in(PersonRole.VIEWER, "ada")
    followed(page.node)
    page.get("/studies")
    page.get("/studies?q=doe%00&verdict=present")
    page.get("/studies?q=doe&older=1-1")  # a further page of it
    page.get("/studies.csv?ae=CR1")
    who = {"by": "ada", "address": "127.0.0.1"}
    noted = [each for each in page.events() if each["kind"] in {"web-searched", "web-exported"}]
    assert noted == [
        {"kind": "web-searched", "study_uid": "", "search": "doe ", **who},
        {"kind": "web-exported", "study_uid": "", "format": "csv", "filters": {"ae": "CR1"}, **who},
    ]


def test_a_script_reads_pages_by_key(shown: Page) -> None:
    token = shown.site.ledger.people.make_token("viewer", "script", actor=TESTER)
    headers = {"authorization": f"Bearer {token}"}
    seen: list[str] = []
    older: str | None = ""
    while older is not None:
        place = {"older": older} if older else {}
        answer = shown.client.get("/api/v1/studies", params={"limit": 25, **place}, headers=headers).json()
        seen += [each["study_uid"] for each in answer["studies"]]
        older = answer["older"]
    assert (len(seen), len(set(seen))) == (60, 60)
    assert shown.get("/api/v1/studies?verdict=present").json()["studies"][0]["probability"] == 0.9
    assert shown.get("/api/v1/studies?limit=501").status_code == 422


def test_the_document_of_a_study_has_the_fields_of_the_exports() -> None:
    assert tuple(StudyDocument.model_fields) == WORKLIST_FIELDS


def test_days_are_those_of_the_zone_and_may_be_of_23_hours() -> None:
    spring = Filters.model_validate({"since": "2026-03-29", "until": "2026-03-29"}).query("Europe/Berlin")
    assert spring.since is not None
    assert spring.until is not None
    assert spring.until - spring.since == timedelta(days=1)  # by the clock on the wall
    assert spring.until.timestamp() - spring.since.timestamp() == 23 * 3600


def test_a_delivered_study_says_so_and_one_that_was_given_up_says_why(page: Page) -> None:
    node = page.node
    for study in ("1.1", "1.2"):
        node.receive(study, study=study)
    node.analyse()
    node.clock.advance(seconds=11)
    for _ in range(2):
        node.report("pacs")
    node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
    node.ledger.deliveries.bury(claimed(node, "pacs"), status=0x0122, detail="<b>SOP class</b> not supported")
    followed(node)
    text = page.log_in().get("/studies").text
    assert "every destination has the report" in text
    assert "pacs: &lt;b&gt;SOP class&lt;/b&gt; not supported" in text
