"""A ledger on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.scp_node.ledger_node import Node, ledger_engine


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger database of each kind."""
    url = request.getfixturevalue("postgres_ledger") if request.param == "postgresql" else tmp_path / "ledger.sqlite3"
    with ledger_engine(url) as engine:
        yield engine


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger database in SQLite, where one is enough."""
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        yield engine


@pytest.fixture
def node(engine: Engine) -> Node:
    """A ledger with the steps of a test."""
    return Node(engine)
