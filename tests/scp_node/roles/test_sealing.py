"""The roles that seal: what any process writes on PostgreSQL gets its place in the chain while one of them runs."""

from __future__ import annotations

import threading
from pathlib import Path

from scp_node.roles.sender import run_sender
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.settings import Settings
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.waiting import wait_until


def test_a_sender_seals_what_others_write(tmp_path: Path, postgres_ledger: str) -> None:
    settings = Settings.model_validate({"node": {"data_dir": tmp_path}, "database": {"url": postgres_ledger}})
    stop = threading.Event()
    sender = threading.Thread(target=run_sender, args=(settings, stop, Heartbeat()))
    with ledger_engine(postgres_ledger) as engine:
        node = Node(engine)
        sender.start()
        try:
            for name in ("1", "2"):
                node.receive(name)
                wait_until(lambda: node.ledger.verifier.unsealed().events == 0, what="it is sealed")
        finally:
            stop.set()
            sender.join()
        places = [seq for (seq,) in node.rows("SELECT seq FROM event ORDER BY id")]
        assert places == list(range(1, len(places) + 1))
        assert {"application-started", "received"} <= {kind for (kind,) in node.rows("SELECT kind FROM event")}
        assert node.ledger.verifier.verify().problems == ()
