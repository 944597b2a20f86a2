"""rsyslog as a collector of audit messages: it reads our frames, and closes its connections as RFC 5425 wants it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from scp_node.audit_messages.collector import Collector, CollectorError
from scp_node.audit_messages.syslog import syslog_message
from scp_node.settings import AuditMessagesSettings
from scp_node.tls.authority import Pair
from tests.certificates import Certificates
from tests.servers import LOOPBACK, free_port
from tests.tools import require
from tests.waiting import wait_until

pytestmark = pytest.mark.needs("rsyslogd", "rsyslog-gnutls")
AT: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LINES: Final = [f'<AuditMessage text="Müller {number}"/>' for number in range(250)]
MESSAGES: Final = [syslog_message(line.encode(), at=AT, host="node") for line in LINES]


@contextmanager
def rsyslog(folder: Path, port: int, certificates: Certificates) -> Iterator[Path]:
    """Run it as docs/audit-messages.md says, and give the file that it writes."""
    written, pair = folder / "audit.log", certificates.node
    lines = [
        f'global(workDirectory="{folder}" maxMessageSize="64k"',
        f'  defaultNetstreamDriverCAFile="{certificates.authority.file}"',
        f'  defaultNetstreamDriverCertFile="{pair.certificate}" defaultNetstreamDriverKeyFile="{pair.key}")',
        'module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1"',
        '  streamDriver.authMode="x509/name" permittedPeer=["modality.example"])',
        f'input(type="imtcp" port="{port}" address="{LOOPBACK}")',
        'template(name="content" type="string" string="%msg%\\n")',
        f'if $msgid == "DICOM+RFC3881" then action(type="omfile" file="{written}" template="content")',
    ]
    config = folder / "rsyslog.conf"
    config.write_text("\n".join(lines) + "\n")
    command: list[str | Path] = [require("rsyslogd"), "-n", "-f", config, "-i", folder / "pid"]
    with (folder / "rsyslog.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield written
        finally:
            process.terminate()


def collector(port: int, pair: Pair, certificates: Certificates) -> Collector:
    section = {"host": LOOPBACK, "port": port, "tls": certificates.destination(pair)}
    return Collector(AuditMessagesSettings.model_validate(section))


def takes(asked: Collector) -> bool:
    try:
        asked.send([])
    except CollectorError:
        return False
    return True


def test_rsyslog_has_written_every_message_once_it_has_closed_the_connection(
    tmp_path: Path, certificates: Certificates
) -> None:
    port = free_port()
    with rsyslog(tmp_path, port, certificates) as written:
        known = collector(port, certificates.modality, certificates)
        wait_until(lambda: takes(known), 30, what="rsyslog listens")
        known.send(MESSAGES)
        wait_until(lambda: written.exists() and len(written.read_text().splitlines()) == len(LINES), 10)
        assert [line.strip() for line in written.read_text(encoding="utf-8").splitlines()] == LINES
        with pytest.raises(CollectorError, match=r"connection lost|closed the connection"):
            collector(port, certificates.other, certificates).send(MESSAGES)
        assert len(written.read_text().splitlines()) == len(LINES), "a stranger writes nothing"
