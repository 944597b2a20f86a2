"""One line of an address and a reason is written a minute, then the number of those that were not."""

from __future__ import annotations

from typing import Final

import pytest

from scp_node.logs import get_logger
from scp_node.runtime.repeated import EVERY_SECONDS, MOST_KEYS, Repeated, RepeatedLines, Untold

ONE: Final = "10.0.0.1"
OTHER: Final = "10.0.0.2"


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def refuse(lines: RepeatedLines, peer: str, count: int = 1) -> None:
    for _ in range(count):
        lines.warn("refused", peer=peer, reason="full")


def test_what_repeats_is_counted_and_said_when_its_minute_is_over(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    lines = RepeatedLines(get_logger("test"), clock=clock)
    refuse(lines, ONE, 3)
    refuse(lines, OTHER)
    lines.warn("refused", peer=ONE, reason="stranger")
    lines.write_numbers()
    assert caplog.messages == [
        "refused peer=10.0.0.1 reason=full",
        "refused peer=10.0.0.2 reason=full",
        "refused peer=10.0.0.1 reason=stranger",
    ]
    clock.now += EVERY_SECONDS
    lines.write_numbers()
    assert caplog.messages[3:] == ["refused peer=10.0.0.1 reason=full unsaid=2"]
    refuse(lines, ONE)
    assert caplog.messages[4:] == ["refused peer=10.0.0.1 reason=full"]


def test_the_number_is_said_before_the_next_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    lines = RepeatedLines(get_logger("test"), clock=clock)
    refuse(lines, ONE, 3)
    clock.now += EVERY_SECONDS
    refuse(lines, ONE)
    assert caplog.messages[1:] == ["refused peer=10.0.0.1 reason=full unsaid=2", "refused peer=10.0.0.1 reason=full"]


def test_what_is_counted_has_a_limit_and_no_number_is_lost() -> None:
    repeated = Repeated[str](clock=Clock())
    for _ in range(3):
        repeated.is_news("first", "reason", "line")
    for number in range(MOST_KEYS):
        assert repeated.is_news(str(number), "reason", "line")
    assert repeated.take_untold() == [Untold("line", 2)], "the oldest made way"
    assert repeated.is_news("first", "reason", "line")
    assert not repeated.is_news(str(MOST_KEYS - 1), "reason", "line")


def test_a_few_of_a_kind_may_be_told_within_a_minute() -> None:
    clock = Clock()
    repeated = Repeated[str](most=2, clock=clock)
    for told in ([True, True, False, False], [True, True, False, False]):
        assert [repeated.is_news(ONE, "reason", str(number)) for number in range(4)] == told
        clock.now += EVERY_SECONDS
        assert repeated.take_untold() == [Untold("3", 2)]


def test_a_process_that_ends_says_every_number() -> None:
    repeated = Repeated[str](clock=Clock())
    told = [repeated.is_news(ONE, "reason", str(number)) for number in range(5)]
    assert told == [True, False, False, False, False]
    assert repeated.take_untold(at_once=True) == [Untold("4", 4)]
    assert repeated.take_untold(at_once=True) == []
