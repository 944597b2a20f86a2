"""The trail at the site's collector: in order, at least once, and nothing lost while it is away."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine

from scp_node.audit_messages.collector import Collector, CollectorError
from scp_node.audit_messages.events import source_of
from scp_node.cli.doctor import _audit_messages
from scp_node.domain import Actor
from scp_node.ledger.trail import feed as module
from scp_node.ledger.trail.feed import LEASE
from scp_node.loops import audit_messages
from scp_node.loops.audit_messages import AuditSender
from scp_node.opening import open_ledger
from scp_node.roles.sender import run_sender
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.settings import AuditMessagesSettings, Settings
from tests.certificates import Certificates
from tests.scp_node.audit_messages.collecting import SyslogServer
from tests.scp_node.ledger_node import Node, begin_ledger
from tests.servers import free_port
from tests.waiting import wait_until

PERSON: Final = Actor(name="anna", address="10.0.0.7")


@pytest.fixture
def context(certificates: Certificates) -> ssl.SSLContext:
    """What a collector speaks that wants a certificate."""
    return certificates.context(certificates.node, side="server", verify_mode=ssl.CERT_REQUIRED)


@pytest.fixture
def server(context: ssl.SSLContext) -> Iterator[SyslogServer]:
    with SyslogServer(context) as server:
        yield server


@pytest.fixture
def node(sqlite_engine: Engine) -> Node:
    """A ledger in SQLite: the other database has its tests beside those of the messages."""
    return Node(sqlite_engine)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REST_SECONDS", "FIRST_PAUSE"):
        monkeypatch.setattr(audit_messages, name, 0)


def sender(node: Node, settings: AuditMessagesSettings, owner: str = "one", **changes: Any) -> AuditSender:
    return AuditSender(
        ledger=node.ledger,
        collector=changes.get("collector") or Collector(settings, seconds=1),
        source=source_of(Settings(audit_messages=settings)),
        owner=owner,
    )


def told(server: SyslogServer) -> list[str]:
    """Return the SOP Instance UIDs that the collector has got, in order."""
    return [each.get("UID", "") for message in server.xml() for each in message.iter("Instance")]


def test_the_trail_goes_to_the_collector_in_order(
    node: Node, server: SyslogServer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    monkeypatch.setattr(audit_messages, "BATCH", 3)
    for number in range(7):
        node.receive(str(number))
    sending = sender(node, server.settings(certificates))
    assert [sending.step() for _ in range(4)] == [True, True, False, False]
    assert told(server) == [f"1.2.3.{number}" for number in range(7)]
    assert node.ledger.feed.backlog().events == 0


def test_nothing_is_lost_while_the_collector_is_away(
    node: Node, context: ssl.SSLContext, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    with SyslogServer(context) as server:
        port, sending = server.port, sender(node, server.settings(certificates))
        node.receive("1")
        sending.step()
    node.receive("2")
    for _ in range(3):
        assert not sending.step()
    assert node.ledger.feed.backlog().events == 1
    node.receive("3")
    with SyslogServer(context, port=port) as server:
        sending.step()
        assert told(server) == ["1.2.3.2", "1.2.3.3"]
    warnings = [each for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "no connection" in warnings[0].getMessage()


def test_what_a_collector_does_not_confirm_is_sent_again(
    node: Node, server: SyslogServer, certificates: Certificates
) -> None:
    server.answers_end = False  # it reads, and nobody knows whether it keeps
    node.receive("1", "2")
    sending = sender(node, server.settings(certificates))
    assert not sending.step()
    assert node.ledger.feed.backlog().events == 2
    server.answers_end = True
    sending.step()
    assert told(server) == ["1.2.3.1", "1.2.3.2"] * 2
    assert server.received[0] == server.received[2], "a collector knows it again"


def test_a_wrong_certificate_gets_nothing_and_costs_nothing(
    node: Node, server: SyslogServer, certificates: Certificates
) -> None:
    node.receive("1")
    wrong = server.settings(certificates, peer_certificate="other.example")
    assert not sender(node, wrong).step()
    assert server.received == []
    sender(node, server.settings(certificates)).step()
    assert told(server) == ["1.2.3.1"]


def test_one_process_at_a_time_sends_and_another_one_takes_over(
    node: Node, server: SyslogServer, certificates: Certificates
) -> None:
    settings = server.settings(certificates)
    first, second = sender(node, settings), sender(node, settings, "two")
    node.receive("1")
    first.step()
    node.receive("2")
    second.step()
    assert told(server) == ["1.2.3.1"], "the first one has the lease"
    node.clock.advance(seconds=LEASE.total_seconds() + 1)
    second.step()
    node.receive("3")
    first.step()
    assert told(server) == ["1.2.3.1", "1.2.3.2"]
    second.close()
    first.step()
    assert told(server) == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


def test_whoever_lost_the_lease_while_sending_moves_nothing(node: Node) -> None:
    node.receive("1")
    events = node.ledger.feed.next("one")
    node.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert node.ledger.feed.next("two") == events
    assert not node.ledger.feed.taken("one", events)
    assert node.ledger.feed.taken("two", events)
    assert not node.ledger.feed.taken("two", events), "twice would count twice"


def test_an_event_without_a_message_does_not_hold_up_the_others(node: Node, server: SyslogServer) -> None:
    class Silent:
        def send(self, _messages: list[bytes]) -> None:
            raise CollectorError("nothing is to be sent")

    node.ledger.visits.note("web-doctor", PERSON)
    sending = sender(node, server.settings(), collector=Silent())
    sending.step()
    assert node.ledger.feed.backlog().events == 0


def test_the_sender_sends_them_by_itself_and_doctor_says_how_far_behind_the_collector_is(
    server: SyslogServer, certificates: Certificates, tmp_path: Path
) -> None:
    section = server.settings(certificates)
    folder = {"data_dir": tmp_path / "var"}
    settings = Settings.model_validate({"node": folder, "audit_messages": section.model_dump()})
    begin_ledger(settings)
    with closing(open_ledger(settings)) as ledger:
        ledger.visits.note_view(PERSON, "1.2.3")
    assert "1 events wait since " in _audit_messages(settings).message
    stop = threading.Event()
    role = threading.Thread(target=run_sender, args=(settings, stop, Heartbeat()))
    role.start()
    try:
        wait_until(lambda: len(server.received) == 2, 30, what="the event and the start of the sender are told")
        wait_until(lambda: "takes them; 0 events wait" in _audit_messages(settings).message, 30)
    finally:
        stop.set()
        role.join(30)
    elsewhere = AuditMessagesSettings.model_validate({**section.model_dump(), "port": free_port()})
    found = _audit_messages(settings.model_copy(update={"audit_messages": elsewhere}))
    assert not found.good
    assert "no connection: Connection refused; 1 events wait since" in found.message  # the sender has stopped
