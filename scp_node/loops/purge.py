"""Removes old originals that nothing needs any more.

It marks the rows, removes the files, and closes the rows, in this order. After an interruption the next pass continues
at the same point: the row of a missing file always says that the file is gone, or is about to say so.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from scp_node.ledger import Ledger, Original
from scp_node.logs import get_logger
from scp_node.spool import Spool

log = get_logger(__name__)

LONGEST_PAUSE: Final = 60.0  # seconds between two looks


class Purger:
    """Purges one batch a step."""

    def __init__(self, *, ledger: Ledger, spool: Spool, days: float) -> None:
        """Purge from `spool` what came more than `days` ago; with 0 days only finish an interrupted removal."""
        self._ledger = ledger
        self._spool = spool
        self._older_than = timedelta(days=days)
        self._interrupted = True  # an earlier process may have been

    def step(self) -> bool:
        """Purge some originals; return whether there may be more."""
        resuming, self._interrupted = self._interrupted, True  # until this step is done
        originals = self._ledger.retention.unfinished() if resuming else self._marked()
        if originals:
            self._spool.remove_for_good([original.spool_path for original in originals])
            number = self._ledger.retention.close(originals)
            log.info("originals removed", count=number)
        else:
            self._spool.remove_empty_days()
        self._interrupted = resuming and bool(originals)
        return resuming or bool(originals)

    def _marked(self) -> list[Original]:
        return self._ledger.retention.mark(self._older_than) if self._older_than else []
