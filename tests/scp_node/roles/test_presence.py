"""Processes of one ledger decide by the same settings, or say that they do not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import pytest

from scp_node.ledger import JournalQuery, LedgerError
from scp_node.ledger.processes import GONE_AFTER, STARTED, STOPPED
from scp_node.roles import presence as module
from scp_node.roles.presence import announced, deciding, presence
from scp_node.settings import Settings
from tests.node import destination
from tests.scp_node.ledger_node import Node
from tests.waiting import wait_until

NEVER: Final = timedelta(days=1)


def settings(**changes: Any) -> Settings:
    return Settings(destinations=[destination(11113)], **changes)


@contextmanager
def at_work(node: Node, owner: str = "one", *, allow: bool = False, **changes: Any) -> Iterator[None]:
    with presence(node.ledger, owner, deciding(settings(**changes)), threading.Event(), allow_different=allow):
        yield


class Waits:
    """Moves the clock on where a process waits to see whether another one is at work."""

    def __init__(self, node: Node, alive: str) -> None:
        self.node = node
        self.alive = alive
        self.count = 0

    def wait(self, _seconds: float) -> bool:
        self.count += 1
        self.node.clock.advance(seconds=1)
        self.node.ledger.processes.renew(self.alive)
        return False

    def is_set(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the thread that renews from doing so: the tests move the clock."""
    monkeypatch.setattr(module, "SEEN_EVERY", NEVER)


def compare(node: Node, *, alive: str = "one", allow: bool = False, **changes: Any) -> Waits:
    """Start a process beside the others, of which one renews its row; return how long it waited."""
    waits = Waits(node, alive)
    with presence(node.ledger, "new", deciding(settings(**changes)), waits, allow_different=allow):  # type: ignore[arg-type]
        return waits


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"routing": {"reply_to": []}}, "routing.reply_to"),
        ({"report": {"overlay": "all"}}, "report.overlay"),
        ({"analysis": {"minimum_age": 12}}, "analysis.minimum_age"),
        ({"inference": {"operating_point": "sensitive"}}, "inference.operating_point"),
        ({"study": {"quiet_seconds": 99}}, "study.quiet_seconds"),
    ],
    ids=str,
)
def test_other_settings_than_those_at_work_are_refused_by_name(node: Node, changes: dict[str, Any], named: str) -> None:
    with (
        at_work(node),
        pytest.raises(LedgerError, match=f"settings differ from those of one, .*: {named}; ") as refused,
    ):
        compare(node, **changes)
    assert "--allow-different-settings" in str(refused.value)


def test_other_destinations_are_refused_too(node: Node) -> None:
    waits: Any = Waits(node, "one")
    new = presence(node.ledger, "new", deciding(Settings()), waits, allow_different=False)
    with at_work(node), pytest.raises(LedgerError, match="destinations"), new:
        pass


def test_they_may_be_allowed_and_then_hold_up_nobody(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    with at_work(node), at_work(node, "two", allow=True, study={"quiet_seconds": 99}):
        assert "study.quiet_seconds" in caplog.text
        assert compare(node).count == 0


def test_the_same_settings_and_those_that_decide_nothing_are_welcome(node: Node) -> None:
    with at_work(node), at_work(node, "two", inference={"batch_size": 3}, log={"level": "DEBUG"}):
        assert node.rows("SELECT count(*) FROM process") == [(2,)]
    assert node.rows("SELECT count(*) FROM process") == [(0,)]


def test_another_bundle_is_another_setting_but_a_sender_has_none() -> None:
    one, two, sender = deciding(settings(), "sha256:1"), deciding(settings(), "sha256:2"), deciding(settings())
    assert {name for name in one if one[name] != two[name]} == {"model"}
    assert {name: one[name] for name in sender} == sender


def test_workers_of_one_ledger_agree_on_the_precision() -> None:
    one, two = deciding(settings()), deciding(settings(inference={"precision": "bfloat16"}))
    assert {name for name in one if one[name] != two[name]} == {"inference.precision"}


def test_what_was_killed_is_waited_for_until_it_counts_as_gone(node: Node) -> None:
    node.ledger.processes.enter("killed", deciding(settings(study={"quiet_seconds": 99})))
    waits = compare(node, alive="nobody")
    assert waits.count == GONE_AFTER.total_seconds() + 1
    assert node.rows("SELECT count(*) FROM process") == [(0,)]


def events(node: Node) -> list[tuple[str, str]]:
    """Return what the trail says of processes: kind, and which one."""
    found = node.ledger.journal.page(JournalQuery()).events
    return [(each.kind, dict(each.details)["process"]) for each in reversed(found)]


def test_the_trail_says_when_a_process_starts_and_stops(node: Node) -> None:
    with at_work(node):
        assert events(node) == [(STARTED, "one")]
    assert events(node) == [(STARTED, "one"), (STOPPED, "one")]
    node.ledger.processes.leave("one")
    assert len(events(node)) == 2


def test_the_next_start_says_what_was_killed_before(node: Node) -> None:
    node.ledger.processes.enter("killed", {})
    node.clock.advance(seconds=GONE_AFTER.total_seconds() + 1)
    with at_work(node):
        assert events(node) == [(STARTED, "killed"), (STOPPED, "killed"), (STARTED, "one")]
    [stopped, *_] = node.ledger.journal.page(JournalQuery(kind=STOPPED)).events[1:]
    assert dict(stopped.details)["noticed_by"] == "one"
    assert "version" not in dict(stopped.details)


def test_one_that_took_the_place_of_a_killed_one_at_once_notices_it_later(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEEN_EVERY", timedelta(milliseconds=1))
    for owner in ("next", "killed"):
        node.ledger.processes.enter(owner, {})
    node.clock.advance(seconds=GONE_AFTER.total_seconds() + 1)
    with announced(node.ledger, "next"):
        wait_until(lambda: (STOPPED, "killed") in events(node))
    assert events(node) == [(STARTED, "next"), (STARTED, "killed"), (STOPPED, "killed"), (STOPPED, "next")]
