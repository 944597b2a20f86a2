"""What an answer means, and how long the node waits."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp_node.delivery import Disposition, classify, pause_before, remark

SECONDS: Final = st.floats(1, 86_400)


@pytest.mark.parametrize(
    ("status", "disposition"),
    [
        (0x0000, Disposition.DELIVERED),
        (0xB000, Disposition.DELIVERED),
        (0xB006, Disposition.DELIVERED),
        (0xB007, Disposition.DELIVERED),
        (0x0111, Disposition.DELIVERED),
        (0x0001, Disposition.DELIVERED),
        (0x0107, Disposition.DELIVERED),
        (0x0116, Disposition.DELIVERED),
        (0xB001, Disposition.DELIVERED),
        (0xBFFF, Disposition.DELIVERED),
        (0xA700, Disposition.BUSY),
        (0xA7FF, Disposition.BUSY),
        (0x0110, Disposition.RETRY),
        (0x0213, Disposition.RETRY),
        (0x0002, Disposition.RETRY),
        (0xFE00, Disposition.RETRY),
        (0xA900, Disposition.PERMANENT),
        (0xA9FF, Disposition.PERMANENT),
        (0xC000, Disposition.PERMANENT),
        (0xCFFF, Disposition.PERMANENT),
        (0x0117, Disposition.PERMANENT),
        (0x0122, Disposition.PERMANENT),
        (0x0124, Disposition.PERMANENT),
        (0x0211, Disposition.PERMANENT),
    ],
)
def test_a_status_is_classified(status: int, disposition: Disposition) -> None:
    assert classify(status) is disposition


@given(st.integers(0, 0xFFFF))
def test_only_success_warnings_and_a_duplicate_are_delivered(status: int) -> None:
    is_warning = status in {0x0001, 0x0107, 0x0116} or 0xB000 <= status <= 0xBFFF  # PS3.7 section C.4
    assert (classify(status) is Disposition.DELIVERED) == (status in {0x0000, 0x0111} or is_warning)
    assert bool(remark(status)) == is_warning


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0x0000, ""),
        (0x0111, ""),
        (0xA700, ""),
        (0xB000, "warning 0xB000: data elements were coerced"),
        (0x0107, "warning 0x0107: attribute list error"),
        (0xB123, "warning 0xB123"),
    ],
)
def test_a_warning_has_a_remark(status: int, text: str) -> None:
    assert remark(status) == text


@given(st.integers(0, 10**6), SECONDS, SECONDS, st.randoms())
def test_a_pause_is_never_longer_than_the_cap_nor_shorter_than_half(
    attempt: int, first: float, cap: float, random: Random
) -> None:
    pause = pause_before(attempt, first=timedelta(seconds=first), cap=timedelta(seconds=cap), random=random)
    assert min(first, cap) / 2 - 1e-6 <= pause.total_seconds() <= cap + 1e-6


def test_a_pause_doubles_until_the_cap() -> None:
    first, cap = timedelta(seconds=10), timedelta(seconds=900)
    pauses = [pause_before(attempt, first=first, cap=cap, random=Random(1)) for attempt in range(1, 12)]
    for attempt, pause in enumerate(pauses):
        longest = min(10 * 2**attempt, 900)
        assert longest / 2 <= pause.total_seconds() <= longest
