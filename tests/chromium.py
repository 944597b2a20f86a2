"""The system's Chromium without a window, driven by Playwright.

While it is open, the thread has a running event loop: `asyncio.run` is refused there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.tools import require


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Open a Chromium with further arguments; each of its contexts is a browser that has never been anywhere."""
    program = require("chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--disable-dev-shm-usage", *arguments])
        try:
            yield opened
        finally:
            opened.close()
