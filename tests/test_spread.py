"""Tests that share a fixture run in one process, all others wherever one is free."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests import conftest
from tests.spread import pytest_xdist_make_scheduler, unit_of

TESTS: Final = """
import os, pathlib, pytest

@pytest.fixture({scope})
def server():
    return object()

@pytest.mark.parametrize("number", range(6))
def test_it(server, number):
    pathlib.Path({folder!r}, f"{{number}}").write_text(os.environ["PYTEST_XDIST_WORKER"])
"""
SCOPES: Final = {
    "own": "",
    "shared": 'scope="module"',
}  # in this order, so that both processes begin with one of the first


@pytest.fixture(scope="module")
def processes(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Run six tests with one fixture and six with one each, two at a time; return the processes that they ran in."""
    place = tmp_path_factory.mktemp("planted")
    for name, scope in SCOPES.items():
        (place / name).mkdir()
        (place / f"test_{name}.py").write_text(TESTS.format(scope=scope, folder=str(place / name)))
    (place / "conftest.py").write_text("from tests.spread import pytest_xdist_make_scheduler\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "xdist",
        "-n",
        "2",
        "--dist",
        "loadscope",
        "--no-loadscope-reorder",
    ]
    environment = {**os.environ, "PYTHONPATH": str(repository), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run([*command, f"--rootdir={place}"], cwd=place, env=environment, check=True, capture_output=True)
    return {name: {(place / name / str(number)).read_text() for number in range(6)} for name in SCOPES}


def test_tests_that_share_a_fixture_run_in_one_process(processes: dict[str, set[str]]) -> None:
    assert len(processes["shared"]) == 1


def test_tests_that_share_nothing_are_spread(processes: dict[str, set[str]]) -> None:
    assert len(processes["own"]) == 2


def test_so_are_the_tests_of_this_project() -> None:
    assert conftest.pytest_xdist_make_scheduler is pytest_xdist_make_scheduler


def test_tests_of_a_folder_that_share_a_fixture_stay_together(repository: Path) -> None:
    names = ("tests/browser/test_login.py::test_a", "tests/browser/test_every_page.py::test_b[x]")
    assert {unit_of(repository, name) for name in names} == {"tests/browser"}


def test_the_storms_of_kills_stay_together(repository: Path) -> None:
    name = "tests/chaos/test_kills.py"
    assert (
        unit_of(repository, f"{name}::test_no_kill[sqlite]") == unit_of(repository, f"{name}::test_no_kill[x]") == name
    )
