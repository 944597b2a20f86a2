"""Removes the originals of a stopped node, as the node does, and stands still at a step: to be killed there.

    python -m tests.chaos.kit.purging CONFIG STEP

It writes a line once it has come to the step, and waits for ever.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path

from scp_node.loops.purge import Purger
from scp_node.opening import SPOOL_FOLDER, open_ledger
from scp_node.settings_file import load_settings
from scp_node.spool import Spool


class Step(StrEnum):
    """Where a purge may be cut off."""

    MARKED = "rows marked, no file removed"
    HALF = "half of the files removed"
    REMOVED = "all files removed, no row closed"


class StandingSpool(Spool):
    """A spool that stands still at a step."""

    step: Step

    def remove_for_good(self, paths: Collection[str]) -> None:
        if self.step is Step.MARKED:
            _stand()
        if self.step is Step.HALF:
            super().remove_for_good(list(paths)[: len(paths) // 2])
            _stand()
        super().remove_for_good(paths)
        _stand()


def _stand() -> None:
    sys.stdout.write("here\n")
    sys.stdout.flush()
    signal.pause()


def main() -> None:
    config, step = Path(sys.argv[1]), Step(sys.argv[2])
    settings = load_settings(config)
    spool = StandingSpool(settings.node.data_dir / SPOOL_FOLDER, low_water_bytes=0)
    spool.step = step
    retention = Purger(ledger=open_ledger(settings), spool=spool, days=settings.retention.days)
    while retention.step():
        pass


if __name__ == "__main__":
    main()
