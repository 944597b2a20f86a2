"""The connection to a collector: framing, who is trusted, and what counts as taken."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import pytest

from scp_node.audit_messages.collector import Collector, CollectorError
from scp_node.audit_messages.syslog import framed, syslog_message
from scp_node.settings import AuditMessagesSettings
from tests.certificates import Certificates
from tests.scp_node.audit_messages.collecting import SyslogServer
from tests.servers import free_port

AT: Final = datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=UTC)
MESSAGES: Final = [syslog_message(f"<A>Müller {number}</A>".encode(), at=AT, host="node") for number in range(300)]
RFC_5424: Final = re.compile(
    rb"<85>1 2026-01-02T03:04:05\.000060Z [\x21-\x7e]{1,255} scp-node - DICOM\+RFC3881 - <A>", re.DOTALL
)


@pytest.fixture(params=["TLS 1.2", "TLS 1.3"])
def server(certificates: Certificates, request: pytest.FixtureRequest) -> Iterator[SyslogServer]:
    """A collector that wants a certificate."""
    version = ssl.TLSVersion.TLSv1_2 if request.param == "TLS 1.2" else ssl.TLSVersion.TLSv1_3
    changes = {"verify_mode": ssl.CERT_REQUIRED, "minimum_version": version, "maximum_version": version}
    with SyslogServer(certificates.context(certificates.node, side="server", **changes)) as server:
        yield server


def test_every_message_comes_whole_and_in_order_by_tls(server: SyslogServer, certificates: Certificates) -> None:
    Collector(server.settings(certificates)).send(MESSAGES)
    assert server.received == MESSAGES


def test_one_that_closes_without_a_close_notify_has_read_all_the_same(
    server: SyslogServer, certificates: Certificates
) -> None:
    server.polite = False
    Collector(server.settings(certificates)).send(MESSAGES)
    assert server.received == MESSAGES


def test_a_length_counts_octets_and_not_characters() -> None:
    assert framed("é".encode()) == b"2 \xc3\xa9"


def test_the_header_is_that_of_rfc_5424_with_the_priority_and_the_id_of_the_standard() -> None:
    assert RFC_5424.match(MESSAGES[0])
    odd = syslog_message(b"<A>", at=AT, host="a b\nü")
    assert RFC_5424.match(odd)
    assert b"a-b--" in odd


def test_a_collector_that_closes_before_it_has_read_has_not_taken_them(
    server: SyslogServer, certificates: Certificates
) -> None:
    server.reads = False
    with pytest.raises(CollectorError, match=r"connection lost|closed the connection|no TLS"):
        Collector(server.settings(certificates)).send(MESSAGES)


def test_a_collector_that_never_closes_has_not_taken_them(server: SyslogServer, certificates: Certificates) -> None:
    server.answers_end = False
    with pytest.raises(CollectorError, match="does not close the connection after us"):
        Collector(server.settings(certificates), seconds=0.5).send(MESSAGES)


def test_another_certificate_than_the_expected_one_gets_nothing(
    server: SyslogServer, certificates: Certificates
) -> None:
    settings = server.settings(certificates, peer_certificate="other.example")
    with pytest.raises(CollectorError, match="Hostname mismatch"):
        Collector(settings).send(MESSAGES)
    settings = server.settings(certificates, ca_file=str(certificates.foreign_authority.file))
    with pytest.raises(CollectorError, match="not trusted"):
        Collector(settings).send(MESSAGES)
    assert server.received == []


def test_a_collector_that_does_not_trust_us_has_not_taken_them(
    server: SyslogServer, certificates: Certificates
) -> None:
    settings = server.settings(certificates, certificate=None, key=None)
    with pytest.raises(CollectorError):
        Collector(settings).send(MESSAGES)
    assert server.received == []


def test_nobody_there_is_said_in_words() -> None:
    settings = AuditMessagesSettings.model_validate(
        {"host": "127.0.0.1", "port": free_port(), "tls": {"enabled": False}}
    )
    with pytest.raises(CollectorError, match="no connection: Connection refused"):
        Collector(settings).send(MESSAGES)


def test_one_on_this_machine_may_go_without_tls_and_another_one_may_not() -> None:
    with SyslogServer(None) as server:
        Collector(server.settings()).send(MESSAGES)
        assert server.received == MESSAGES
        server.reads = False
        with pytest.raises(CollectorError):
            Collector(server.settings()).send(MESSAGES)
    with pytest.raises(ValueError, match="speak TLS to it"):
        AuditMessagesSettings.model_validate({"host": "10.1.2.3", "tls": {"enabled": False}})
