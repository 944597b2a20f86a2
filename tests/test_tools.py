"""What the tests themselves stand on: waiting, missing tools, and clinical data that may be absent."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests import tools
from tests.conftest import DATA_VARIABLE
from tests.waiting import wait_until

ABSENT_TOOL: Final = """
import pytest

@pytest.mark.needs("no-such-program")
def test_that_needs_it():
    pass
"""
CLINICAL_DATA: Final = """
def test_that_needs_it(shared_data):
    assert shared_data.is_dir()
"""


def run_pytest(source: str, tmp_path: Path, repository: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one test file with the fixtures of this project, CI unset unless given."""
    file = tmp_path / "test_planted.py"
    file.write_text(source)
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", DATA_VARIABLE}}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            "pyproject.toml",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            file,
        ],
        cwd=repository,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_waiting_ends_with_the_first_true_value() -> None:
    numbers = count()
    assert wait_until(lambda: next(numbers) >= 3 and "there", timeout=5) == "there"


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match=r"not true within 0\.05 s: the PACS has the report"):
        wait_until(lambda: False, timeout=0.05, what="the PACS has the report")


def test_a_test_is_skipped_with_the_reason_where_its_tool_is_missing(tmp_path: Path, repository: Path) -> None:
    run = run_pytest(ABSENT_TOOL, tmp_path, repository)
    assert run.returncode == 0, run.stdout
    assert "1 skipped" in run.stdout
    assert "no-such-program is not installed" in run.stdout


def test_in_ci_a_missing_tool_is_a_failure(tmp_path: Path, repository: Path) -> None:
    run = run_pytest(ABSENT_TOOL, tmp_path, repository, CI="true")
    assert run.returncode == 1, run.stdout
    assert "no test may be skipped for a missing tool" in run.stdout


@pytest.mark.parametrize("ci", ["", "true"])
def test_absent_clinical_data_is_said_and_skipped_even_in_ci(tmp_path: Path, repository: Path, ci: str) -> None:
    run = run_pytest(CLINICAL_DATA, tmp_path, repository, CI=ci, **{DATA_VARIABLE: str(tmp_path / "nowhere")})
    assert run.returncode == 0, run.stdout
    assert "clinical test data: absent" in run.stdout
    assert "1 skipped" in run.stdout


def test_clinical_data_is_found_where_the_variable_says(tmp_path: Path, repository: Path) -> None:
    run = run_pytest(CLINICAL_DATA, tmp_path, repository, **{DATA_VARIABLE: str(tmp_path)})
    assert "1 passed" in run.stdout


@pytest.mark.needs("storescp")
def test_dcmtk_is_found_before_the_programs_of_the_same_name_in_an_active_virtual_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = Path(sys.executable).parent
    assert (ours / "storescp").exists(), "pynetdicom no longer installs one: this guard can go"
    monkeypatch.setenv("PATH", os.pathsep.join([str(ours), *os.get_exec_path()]))
    found = tools.find("storescp")
    assert found
    assert found.parent != ours


def test_the_packages_of_missing_tools_are_given_for_the_installer() -> None:
    packages = {"sh": "dash", "no-such-program": "a-package", "nor-this-one": "a-package"}
    assert tools.missing_packages(packages) == ["a-package"]
