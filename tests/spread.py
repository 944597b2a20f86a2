"""How `make test` spreads the tests over its processes: those that take long begin, and what is shared stays together.

With `--dist loadgroup` each test goes to the process that is free next, unless it has a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

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
    "tests/scp_node/cli/",
)
ALONE: Final = (
    "tests/chaos/test_kills.py",
)  # no two of a file run side by side: they bound how long work stands still
_OF_ONE_TEST: Final = "function"
_OF_THE_RUN: Final = "session"


def group(items: Sequence[pytest.Item]) -> None:
    """Keep the tests of a file in one process that have a fixture in common, such as a server or a trained model."""
    for item in items:
        if item.nodeid.startswith(ALONE) or (isinstance(item, pytest.Function) and _shares(item)):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def _shares(item: pytest.Function) -> bool:
    fixtures = [definition for found in item._fixtureinfo.name2fixturedefs.values() for definition in found]
    return any(definition.scope not in {_OF_ONE_TEST, _OF_THE_RUN} for definition in fixtures)


def long_first(items: list[pytest.Item]) -> None:
    """Sort the tests by how long those beside them take."""
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)))
