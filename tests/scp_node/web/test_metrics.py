"""The metrics: who may read them, what they say, and that the board and the alarm rules name only what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from scp_node.domain import NotAnalysed, Priority, Reason
from scp_node.ledger import LedgerUnreachableError, PersonRole
from scp_node.settings import WebSettings
from scp_node.tls.certificates import expiry_of
from scp_node.web import metrics
from tests.certificates import Certificates
from tests.scp_node.ledger_node import Node
from tests.scp_node.web.site import TESTER, Page, page_before

PACS: Final = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 4242}
_METRIC: Final = re.compile(r"\bscp_node_[a-z_]+\b")


@pytest.fixture
def page(sqlite_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page whose metrics are read anew each time."""
    monkeypatch.setattr(metrics, "CACHED_SECONDS", 0)
    (tmp_path / "var").mkdir()
    with page_before(Node(sqlite_engine), tmp_path, destinations=[PACS]) as opened:
        yield opened


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return each sample by its name and the values of its labels, in the order of the labels' names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def deliver(node: Node) -> None:
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    node.ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2")


def ask_from(page: Page, address: str, **headers: str) -> int:
    transport: Any = page.client._transport
    transport.client = (address, 50_000)
    return page.get("/metrics", headers=headers).status_code


def test_events_that_the_collector_of_audit_messages_has_not_got_are_counted(
    sqlite_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "CACHED_SECONDS", 0)
    (tmp_path / "var").mkdir()
    with page_before(Node(sqlite_engine), tmp_path, audit_messages={"host": "audit.example"}) as page:
        feed = page.node.ledger.feed
        page.node.receive("1", "2")
        feed.taken("one", feed.next("one"))
        page.node.receive("3")
        found = samples(page.get("/metrics").text)
    assert found["scp_node_audit_messages_waiting", ()] == 1


def test_queues_destinations_results_and_times_are_told(page: Page) -> None:
    before = samples(page.get("/metrics").text)
    assert before["scp_node_queue_depth", ("pacs", "deliver", "dead")] == 0, "an alarm needs a zero"
    assert before["scp_node_last_image_timestamp_seconds", ()] == 0
    node = page.node
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    node.report("pacs")
    node.clock.advance(seconds=7)
    deliver(node)
    node.receive("2", study="1.2.4", patient_key="k2", patient_id="SECRET-ID", priority=Priority.STAT)
    node.analyse(NotAnalysed(reason=Reason.VIEW))
    node.report("pacs")
    node.clock.advance(seconds=90)
    node.ledger.deliveries.destination_failed("pacs", detail="away", enough=1, pause=lambda _: node.policy.lease)
    answer = page.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.text)
    assert found["scp_node_queue_depth", ("pacs", "deliver", "ready")] == 1
    assert found["scp_node_queue_oldest_waiting_seconds", ("pacs", "deliver")] == 90
    assert found["scp_node_results_total", ("finding", "", "present")] == 1
    assert found["scp_node_results_total", ("not-attempted", "view", "")] == 1
    assert found["scp_node_deliveries_total", ("pacs", "delivered")] == 1
    assert found["scp_node_destination_paused", ("pacs",)] == 1
    assert found["scp_node_receipt_to_delivery_seconds_bucket", ("5",)] == 0
    assert found["scp_node_receipt_to_delivery_seconds_bucket", ("10",)] == 1
    assert found["scp_node_receipt_to_delivery_seconds_bucket", ("+Inf",)] == 1
    assert found["scp_node_receipt_to_delivery_seconds_sum", ()] == 7
    assert found["scp_node_last_image_timestamp_seconds", ()] == node.clock().timestamp() - 90
    assert found["scp_node_audit_events_total", ()] == node.rows("SELECT length FROM chain")[0][0]
    assert found["scp_node_database_up", ()] == 1
    assert found["scp_node_disk_free_bytes", ()] > 0
    assert any(name == "scp_node_model_info" and "research" in labels for name, labels in found)
    for private in ("SECRET-ID", "1.2.4", "P1", "CR1", "A1"):
        assert private not in answer.text


def test_within_five_seconds_the_ledger_is_read_once(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CACHED_SECONDS", 60)
    first = page.get("/metrics").text
    page.node.receive("1")
    assert page.get("/metrics").text == first


def test_without_the_database_the_rest_is_told(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise LedgerUnreachableError("away")

    monkeypatch.setattr(type(page.site.ledger.figures), "state", away)
    answer = page.get("/metrics")
    found = samples(answer.text)
    assert (answer.status_code, found["scp_node_database_up", ()]) == (200, 0)
    assert ("scp_node_disk_free_bytes", ()) in found
    assert not any(name == "scp_node_queue_depth" for name, _ in found)


def test_the_expiry_of_each_certificate_that_can_be_read_is_told(
    sqlite_engine: Engine, tmp_path: Path, certificates: Certificates
) -> None:
    node = certificates.node
    listen = {"tls": certificates.listen()}
    web = {"certificate": str(tmp_path / "gone.pem"), "key": str(node.key)}
    with page_before(Node(sqlite_engine), tmp_path, web=web, listen=listen) as page:
        page.log_in(PersonRole.VIEWER)
        found = samples(page.get("/metrics").text)
    name = "scp_node_certificate_expiry_timestamp_seconds"
    expiry = expiry_of(node.certificate, "").timestamp()
    assert {key: value for key, value in found.items() if key[0] == name} == {
        (name, ("listen.tls.certificate",)): expiry
    }


def test_from_elsewhere_a_token_or_a_login_is_needed(sqlite_engine: Engine, tmp_path: Path) -> None:
    tls = {"certificate": str(tmp_path / "c.pem"), "key": str(tmp_path / "k.pem")}
    with page_before(Node(sqlite_engine), tmp_path, web={"metrics_from": ["192.0.2.8"], **tls}) as page:
        page.add("script", PersonRole.VIEWER)
        token = page.site.ledger.people.make_token("script", "prometheus", actor=TESTER)
        assert ask_from(page, "192.0.2.8") == 200
        assert ask_from(page, "127.0.0.1") == 401, "another list is the whole list"
        assert ask_from(page, "192.0.2.9") == 401
        assert ask_from(page, "192.0.2.9", authorization=f"Bearer {token}") == 200
        assert ask_from(page, "192.0.2.9", authorization="Bearer wrong") == 401
        page.log_in(PersonRole.VIEWER)
        assert page.get("/metrics").status_code == 200


def test_behind_a_proxy_no_address_counts(sqlite_engine: Engine, tmp_path: Path) -> None:
    for web in (
        {"trusted_proxies": ["127.0.0.1"]},
        {"trusted_proxies": ["127.0.0.1"], "metrics_from": ["127.0.0.1", "10.0.0.0/8"]},
    ):
        with page_before(Node(sqlite_engine), tmp_path, web=web) as page:
            assert ask_from(page, "127.0.0.1") == 401
            assert ask_from(page, "127.0.0.1", **{"x-forwarded-for": "10.1.2.3"}) == 401


def test_the_default_holds_without_a_proxy_only() -> None:
    assert WebSettings().metrics_networks == ["127.0.0.0/8", "::1"]
    assert WebSettings(trusted_proxies=["10.0.0.1"]).metrics_networks == []
    assert WebSettings(trusted_proxies=["10.0.0.1"], metrics_from=["10.0.0.2"]).metrics_networks == ["10.0.0.2"]
    with pytest.raises(ValueError, match="CIDR"):
        WebSettings(metrics_from=["monitoring.example"])


@pytest.fixture
def served(page: Page) -> set[str]:
    """The names of all metrics that a node with something of each kind serves."""
    page.node.receive("1", priority=Priority.STAT)
    page.get("/metrics")
    page.node.analyse()
    page.node.report("pacs")
    deliver(page.node)
    text = page.get("/metrics").text  # a certificate has a value where there is one
    return {name for name, _ in samples(text)} | {each.name for each in text_string_to_metric_families(text)}


def expressions(value: Any) -> Iterator[str]:
    """Yield every `expr` in a document."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "expr":
                yield inner
            yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


def test_the_board_shows_only_metrics_that_there_are(served: set[str], repository: Path) -> None:
    board = json.loads((repository / "docker" / "grafana-board.json").read_text(encoding="utf-8"))
    asked = [name for each in expressions(board) for name in _METRIC.findall(each)]
    assert len(set(asked)) > 10
    assert set(asked) - served == set()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_each_alarm_asks_for_metrics_that_there_are_and_says_what_to_do(served: set[str], repository: Path) -> None:
    rules = yaml.safe_load((repository / "docker" / "alerts.yaml").read_text(encoding="utf-8"))
    alarms = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alarms) > 6
    for alarm in alarms:
        names = set(_METRIC.findall(alarm["expr"]))
        assert names | ({"up"} if "up{" in alarm["expr"] else set()), alarm
        assert names - served == set(), alarm
        assert alarm["labels"]["severity"] in {"page", "ticket"}
        assert {"summary", "description"} <= set(alarm["annotations"])


def test_every_metric_is_explained_and_every_one_that_is_explained_is_served(page: Page, repository: Path) -> None:
    page.node.receive("1", priority=Priority.STAT)
    page.get("/metrics")
    page.node.analyse()
    page.node.report("pacs")
    deliver(page.node)
    text = (repository / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `scp_node_")]
    explained = [name for row in rows for name in _METRIC.findall(row.split("|")[1])]
    assert len(explained) == len(set(explained))
    assert set(explained) == {each.name for each in text_string_to_metric_families(page.get("/metrics").text)}
