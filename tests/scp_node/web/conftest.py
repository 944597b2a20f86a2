"""The web page before an empty ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.scp_node.ledger_node import Node
from tests.scp_node.web.site import Page, page_before


@pytest.fixture
def page(sqlite_engine: Engine, tmp_path: Path) -> Iterator[Page]:
    """A page before an empty ledger in SQLite; nobody is logged in."""
    with page_before(Node(sqlite_engine), tmp_path) as opened:
        yield opened
