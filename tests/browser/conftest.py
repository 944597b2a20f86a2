"""One node and one Chromium for all tests of this folder: `tests/spread.py` keeps the folder in one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests import servers
from tests.browser.place import SLOWEST, Place, films_of_all_kinds, open_place
from tests.chromium import chromium


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A Chromium."""
    expect.set_options(timeout=1_000 * SLOWEST)
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="package")
def place(browser: Browser) -> Iterator[Place]:
    """A node with its page, and studies in it."""
    with servers.open_folder() as folder, open_place(folder, browser, films_of_all_kinds()) as opened:
        yield opened
