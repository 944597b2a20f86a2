"""The reading samples are drawn while the node runs."""

from __future__ import annotations

import pytest

from scp_node.loops.draw import SampleDrawer
from scp_node.settings import WebSettings
from tests.scp_node.ledger.test_feedback import NEGATIVE, POSITIVE
from tests.scp_node.ledger.test_reading_sample import at, day_of, lone
from tests.scp_node.ledger_node import Node

__all__ = ["lone"]


def test_the_web_role_draws_day_after_day_until_none_is_left(lone: Node, caplog: pytest.LogCaptureFixture) -> None:
    day_of(lone, 1, POSITIVE)
    day_of(lone, 2, NEGATIVE)
    at(lone, 4)
    drawer = SampleDrawer(ledger=lone.ledger, settings=WebSettings())
    with caplog.at_level("INFO"):
        assert [drawer.step(), drawer.step(), drawer.step()] == [True, True, False]
    assert [record.getMessage() for record in caplog.records] == [
        "reading sample drawn day=2026-03-01 positive=1 negative=0",
        "reading sample drawn day=2026-03-02 positive=0 negative=1",
    ]
