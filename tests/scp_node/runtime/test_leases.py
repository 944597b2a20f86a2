"""Leases are renewed while the work is done, also when the database fails for a moment."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, text

from scp_node.ledger import Ledger, Policy
from scp_node.runtime.leases import LeaseKeeper
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.waiting import wait_until

LEASE: Final = timedelta(seconds=4.5)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        yield engine


def test_a_lease_that_could_not_be_renewed_is_renewed_soon_after_and_not_only_a_third_of_its_length_later(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    node, third = Node(engine), LEASE.total_seconds() / 3
    ledger = Ledger(engine, Policy(quiet=timedelta(0), lease=LEASE, max_attempts=3))
    node.receive("1")
    [task] = ledger.analyses.claim(owner="w", limit=1)

    def until() -> Any:
        return node.rows("SELECT lease_until FROM work WHERE queue = 'analyse'")[0][0]

    def change(statement: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement))

    first = until()
    leases = LeaseKeeper(ledger, LEASE).start()
    with leases.hold([task.claim]), caplog.at_level(logging.WARNING):
        change("ALTER TABLE work RENAME TO hidden")
        wait_until(lambda: "leases not renewed" in caplog.text, 2 * third)
        change("ALTER TABLE hidden RENAME TO work")
        wait_until(lambda: until() != first, 0.75 * third)
    leases.close()
    assert datetime.fromisoformat(until()) > datetime.fromisoformat(first)
