"""The one place of the tests that waits: poll a condition, never sleep for a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

# seconds between two looks: four times as long as a look takes, so that what is waited for has the processor
PAUSE_FOR_A_LOOK: Final = 4
SHORTEST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 0.1


def wait_until(condition: Callable[[], T], timeout: float = 10.0, *, what: str = "") -> T:
    """Return the first true value of `condition`.

    Raises:
        AssertionError: it was not true within `timeout` seconds; the message names `what` and the last value.
    """
    deadline = time.monotonic() + timeout
    looked = time.monotonic()
    while not (value := condition()):
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"not true within {timeout:g} s: {name} (last value: {value!r})")
        time.sleep(min(max(SHORTEST_PAUSE, PAUSE_FOR_A_LOOK * (time.monotonic() - looked)), LONGEST_PAUSE))
        looked = time.monotonic()
    return value


def let_pass(seconds: float) -> None:
    """Return after so many seconds: for what lasts, such as an outage, and not for what is hoped to have happened."""
    over = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > over, seconds + 5)
