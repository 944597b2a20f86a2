"""What the senders of one destination know of each other: who sends at the moment, and whether that is too much for it.

A PACS may take one association at a time: it rejects the second, leaves it without an answer, or says that it is busy.
So a further association is tried only while the first is in use, and what fails on either while both are in use is
nobody's fault: for a while there is one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scp_node.logs import get_logger

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class Use:
    """One object that is being sent."""

    was_alone: bool  # no other association to the destination was in use at any time


class Associations:
    """The associations to one destination that this process sends by."""

    def __init__(self, name: str, *, pause: float, now: Callable[[], float] = time.monotonic) -> None:
        """Be content with one for `pause` seconds after more were too much for the destination `name`."""
        self._name = name
        self._pause = pause
        self._now = now
        self._lock = threading.Lock()
        self._uses: set[Use] = set()
        self._one_until = now()
        self._is_told = False

    @contextmanager
    def in_use(self) -> Iterator[Use]:
        """Count an association as one that is in use, until the block ends."""
        with self._lock:
            use = Use(was_alone=not self._uses)
            for other in self._uses:
                other.was_alone = False
            self._uses.add(use)
        try:
            yield use
        finally:
            with self._lock:
                self._uses.remove(use)

    def may_be_more(self) -> bool:
        """Return whether a further association may help: one is in use, and more were not too much of late."""
        return bool(self._uses) and not self.is_one

    @property
    def is_one(self) -> bool:
        """Whether more were too much of late."""
        return self._now() < self._one_until

    def keep_to_one(self, reason: str) -> None:
        """Use one association for a while, since the destination did not take more; say so once."""
        self._one_until = self._now() + self._pause
        if not self._is_told:
            self._is_told = True
            log.info(
                "destination takes no further association, goes on with one", destination=self._name, reason=reason
            )
