"""Looks now and then whether files were renewed, and at once on SIGHUP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

RENEWAL_SECONDS: Final = 30.0  # between two looks


def watch_files(look: Callable[[], object], stop: threading.Event, renew: threading.Event) -> None:
    """Call `look` in a thread, every half minute and whenever `renew` is set, until `stop` is set."""

    def watch() -> None:
        while not stop.is_set():
            renew.wait(RENEWAL_SECONDS)
            renew.clear()
            if not stop.is_set():
                look()

    threading.Thread(target=watch, name="renewal", daemon=True).start()
