"""The loop of every role: runs a step again and again, with longer pauses while there is nothing to do."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from scp_node.logs import get_logger
from scp_node.runtime.bells import Bell

log = get_logger(__name__)

SHORTEST_PAUSE: Final = 0.02  # seconds
LONGEST_PAUSE: Final = 0.25
PAUSE_WITH_BELL: Final = 2.0  # of a loop whose bell everybody can ring who may have work for it
LONGEST_PAUSE_AFTER_ERROR: Final = 15.0


class UnfitProcessError(Exception):
    """This process can no longer do its work, but a new one may; the message says why."""


def poll(
    step: Callable[[], bool],
    stop: threading.Event,
    *,
    name: str,
    longest_pause: float = LONGEST_PAUSE,
    bell: Bell | None = None,
) -> bool:
    """Call `step` until `stop` is set; a step returns whether there was something to do.

    While there is nothing to do, the pauses grow to `longest_pause`, in seconds; `bell` ends one. Whoever sets `stop`
    rings it.

    This is the one place that catches everything. A step that raises is logged and tried again, later each time. Work
    that it had claimed comes back when its lease ends. If the process is unfit, it is ended: `stop` is set, and False
    is returned.
    """
    wait = bell.wait if bell else stop.wait
    shortest = SHORTEST_PAUSE
    if bell and bell.is_alone:
        shortest = longest_pause = PAUSE_WITH_BELL
    idle, failed = shortest, SHORTEST_PAUSE
    while not stop.is_set():
        try:
            busy = step()
        except UnfitProcessError as error:
            log.error("process is unfit, ends", step=name, reason=error)  # noqa: TRY400 - its traceback is logged already
            stop.set()
            return False
        except Exception:
            log.exception("step failed", step=name)
            stop.wait(failed)
            failed = min(2 * failed, LONGEST_PAUSE_AFTER_ERROR)
            continue
        failed = SHORTEST_PAUSE
        if busy:
            idle = shortest
            continue
        has_rung = wait(idle * random.uniform(0.75, 1.25))  # noqa: S311 - spreads pollers, guards nothing
        idle = shortest if has_rung else min(1.5 * idle, longest_pause)
    return True


def have_ended(threads: Sequence[threading.Thread], seconds: float) -> bool:
    """Wait for threads that must end; one that hangs, for example in a database, does not keep the process alive."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            log.error("step does not end, the process ends without it", step=thread.name)
    return not any(thread.is_alive() for thread in threads)
