"""Draws the reading sample of each day that is over."""

from __future__ import annotations

from typing import Final

from scp_node.ledger import Ledger
from scp_node.logs import get_logger
from scp_node.settings import WebSettings

log = get_logger(__name__)

LONGEST_PAUSE: Final = 60.0  # seconds between two looks


class SampleDrawer:
    """Draws one day a step. However late that is, the draw is the same."""

    def __init__(self, *, ledger: Ledger, settings: WebSettings) -> None:
        """Draw as many studies as `settings` say."""
        self._ledger = ledger
        self._settings = settings

    def step(self) -> bool:
        """Draw the oldest day that is over and not drawn; return whether there may be more."""
        drawn = self._ledger.reading_sample.draw(
            positive=self._settings.sample_positive, negative=self._settings.sample_negative
        )
        if drawn is None:
            return False
        log.info("reading sample drawn", day=drawn.day, positive=drawn.positive, negative=drawn.negative)
        return True
