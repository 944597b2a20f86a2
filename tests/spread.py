"""How `make test` spreads the tests over its processes: those that take long begin, and what is shared stays together.

xdist's own groups are not used: under pytest 9.2 it no longer sees them, without a word.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# What takes longest begins, so that no process ends alone with it. The rest follows in its own order.
LONG: Final = (
    "tests/chaos/test_kills.py",
    "tests/docker/test_dockerfile.py",
    "tests/training/",
    "tests/chaos/",
    "tests/story/",
    "tests/interop/",
    "tests/docker/",
    "tests/model/",
    "tests/viewer/",
    "tests/browser/",
    "tests/scp_node/cli/",
    "tests/scp_node/listener/test_pynetdicom_cases.py",
)
ALONE: Final = frozenset({"test_kills.py"})  # its tests do not run side by side: they bound how long work stands still
_SHARED: Final = re.compile(r'scope="(?:module|class|package)"')  # a fixture such as a server or a trained model
_OF_FOLDER: Final = 'scope="package"'  # in the conftest.py of a folder: all tests of the folder share it


class Spread(LoadScopeScheduling):  # type: ignore[misc]  # xdist publishes no types
    """Gives each test to the process that is free next, and those of a file or folder that share a fixture to one."""

    def _split_scope(self, nodeid: str) -> str:
        """Return the name of the unit of work that a test belongs to: xdist asks for it."""
        return unit_of(self.config.rootpath, nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Spread:
    """Return what spreads the tests; xdist calls it by this name where a conftest has it."""
    return Spread(config, log)


def unit_of(root: Path, nodeid: str) -> str:
    """Return the folder or the file of a test that shares a fixture with others of it, or the test itself."""
    name = nodeid.partition("::")[0]
    folder = name.rpartition("/")[0]
    if _is_one_unit(root / folder):
        return folder
    return name if _stays_together(root / name) else nodeid


@cache
def _stays_together(file: Path) -> bool:
    return file.name in ALONE or _SHARED.search(file.read_text(encoding="utf-8")) is not None


@cache
def _is_one_unit(folder: Path) -> bool:
    file = folder / "conftest.py"
    return file.is_file() and _OF_FOLDER in file.read_text(encoding="utf-8")


def long_first(items: list[pytest.Item]) -> None:
    """Sort the tests by how long those beside them take."""
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)))
