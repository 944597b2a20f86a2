"""Tests that share a fixture run in one process, all others wherever one is free."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.spread import unit_of

TESTS: Final = """
import os, pathlib, pytest

@pytest.fixture({scope})
def server():
    return object()

@pytest.mark.parametrize("number", range(6))
def test_it(server, number):
    pathlib.Path({folder!r}, f"{{number}}").write_text(os.environ["PYTEST_XDIST_WORKER"])
"""


@pytest.fixture
def processes(repository: Path, tmp_path: Path) -> Callable[[str], set[str]]:
    """Run six tests with one fixture of a scope, two at a time; return the processes that they ran in."""

    def run(scope: str) -> set[str]:
        (tmp_path / "test_planted.py").write_text(TESTS.format(scope=scope, folder=str(tmp_path)))
        (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_xdist_make_scheduler\n")
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadscope", f"--rootdir={tmp_path}"]
        environment = {**os.environ, "PYTHONPATH": str(repository)}
        subprocess.run([*command, "test_planted.py"], cwd=tmp_path, env=environment, check=True, capture_output=True)
        return {(tmp_path / str(number)).read_text() for number in range(6)}

    return run


def test_tests_that_share_a_fixture_run_in_one_process(processes: Callable[[str], set[str]]) -> None:
    assert len(processes('scope="module"')) == 1


def test_tests_that_share_nothing_are_spread(processes: Callable[[str], set[str]]) -> None:
    assert len(processes("")) == 2


def test_tests_of_a_folder_that_share_a_fixture_stay_together(repository: Path) -> None:
    names = ("tests/browser/test_login.py::test_a", "tests/browser/test_every_page.py::test_b[x]")
    assert {unit_of(repository, name) for name in names} == {"tests/browser"}


def test_the_storms_of_kills_stay_together(repository: Path) -> None:
    name = "tests/chaos/test_kills.py"
    assert (
        unit_of(repository, f"{name}::test_no_kill[sqlite]") == unit_of(repository, f"{name}::test_no_kill[x]") == name
    )
