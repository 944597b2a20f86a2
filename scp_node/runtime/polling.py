"""The loop of every role: do a step, and wait a little longer each time there was nothing to do."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

log = logging.getLogger(__name__)

SHORTEST_PAUSE: Final = 0.02  # seconds
LONGEST_PAUSE: Final = 0.25
LONGEST_PAUSE_AFTER_ERROR: Final = 15.0


class UnfitProcessError(Exception):
    """This process can do its work no more, a new one may: the message says why."""


def poll(step: Callable[[], bool], stop: threading.Event, *, name: str, longest_pause: float = LONGEST_PAUSE) -> bool:
    """Call `step` until `stop` is set; a step returns whether there was something to do.

    Without anything to do the pauses grow to `longest_pause`, in seconds.

    This is the one place that catches everything: a step that raises is logged and tried again, later each time.
    What it had claimed comes back when its lease ends. A process that is unfit is ended: `stop` is set, False returned.
    """
    idle, failed = SHORTEST_PAUSE, SHORTEST_PAUSE
    while not stop.is_set():
        try:
            busy = step()
        except UnfitProcessError as error:
            log.error("process is unfit, ends step=%s reason=%s", name, error)  # noqa: TRY400 - logged where it was met
            stop.set()
            return False
        except Exception:
            log.exception("step failed step=%s", name)
            stop.wait(failed)
            failed = min(2 * failed, LONGEST_PAUSE_AFTER_ERROR)
            continue
        failed = SHORTEST_PAUSE
        if busy:
            idle = SHORTEST_PAUSE
            continue
        stop.wait(idle * random.uniform(0.75, 1.25))  # noqa: S311 - spreads pollers, guards nothing
        idle = min(1.5 * idle, longest_pause)
    return True


def have_ended(threads: Sequence[threading.Thread], seconds: float) -> bool:
    """Wait for threads that were told to end; one that hangs, in a database say, does not keep the process."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            log.error("step does not end, the process ends without it step=%s", thread.name)
    return not any(thread.is_alive() for thread in threads)
