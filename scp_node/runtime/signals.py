"""Notes signals in events, and has them wait while a process is not ready to note them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
RENEWING: Final = (signal.SIGHUP,)


def set_on(*numbers: signal.Signals) -> threading.Event:
    """Return an event that is set by these signals, and by one that has waited."""
    event = threading.Event()
    for number in numbers:
        # In a thread: a second signal may come while the first holds the lock of `set`.
        signal.signal(number, lambda *_: threading.Thread(target=event.set, name="signal", daemon=True).start())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return event


@contextmanager
def signals_wait() -> Iterator[None]:
    """Have the signals above wait until the block ends; a program that is begun in it by `exec` gets them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*STOPPING, *RENEWING))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
