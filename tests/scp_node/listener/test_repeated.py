"""A line of one address and reason is written once a minute, with the number of those that were not."""

from __future__ import annotations

import logging

import pytest

from scp_node.listener.repeated import EVERY_SECONDS, MOST_KEYS, RepeatedWarnings


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_what_repeats_is_counted_and_said_with_the_next_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    warnings = RepeatedWarnings(logging.getLogger("test"), clock=clock)
    for _ in range(3):
        warnings.warn("10.0.0.1", "too many", "refused peer=%s", "10.0.0.1")
    warnings.warn("10.0.0.2", "too many", "refused peer=%s", "10.0.0.2")
    warnings.warn("10.0.0.1", "unknown", "unknown peer=%s", "10.0.0.1")
    clock.now += EVERY_SECONDS
    warnings.warn("10.0.0.1", "too many", "refused peer=%s", "10.0.0.1")
    assert [each.getMessage() for each in caplog.records] == [
        "refused peer=10.0.0.1",
        "refused peer=10.0.0.2",
        "unknown peer=10.0.0.1",
        "refused peer=10.0.0.1 unsaid=2",
    ]


def test_what_is_counted_has_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    warnings = RepeatedWarnings(logging.getLogger("test"), clock=Clock())
    for number in range(MOST_KEYS + 1):
        warnings.warn(str(number), "reason", "line %d", number)
    caplog.clear()
    warnings.warn("0", "reason", "line again")  # the oldest was forgotten
    warnings.warn(str(MOST_KEYS), "reason", "line again")
    assert len(caplog.records) == 1
