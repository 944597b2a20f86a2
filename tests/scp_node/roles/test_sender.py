"""What the sender is made of."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from scp_node.domain import utc_now
from scp_node.roles.sender import run_sender
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.settings import Settings
from tests.certificates import Certificates
from tests.node import destination
from tests.scp_node.ledger_node import begin_ledger
from tests.servers import free_port


def test_all_that_speak_to_a_destination_share_its_certificate_which_is_told_once_to_expire(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expiring = certificates.authority.sign("expiring", ["node.example"], at=utc_now(), days=7)
    pacs = {**destination(free_port()), "commitment": True, "find": True, "tls": certificates.destination(expiring)}
    settings = Settings.model_validate({"node": {"data_dir": tmp_path / "var"}, "destinations": [pacs]})
    begin_ledger(settings)
    stop = threading.Event()
    stop.set()
    assert run_sender(settings, stop, Heartbeat()) == 0
    told = [line for line in caplog.messages if line.startswith("certificate expires")]
    assert len(told) == 1
