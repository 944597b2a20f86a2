"""A ledger on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from scp_node.ledger import create_ledger_engine, upgrade
from tests.scp_node.ledger_node import Node


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger database of each kind."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres")
    engine = create_ledger_engine(url)
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def node(engine: Engine) -> Node:
    """A ledger with the steps of a test."""
    return Node(engine)
