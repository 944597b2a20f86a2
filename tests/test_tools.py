"""What the tests themselves stand on: waiting, missing tools, and clinical data that may be absent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a run of pytest ended: its exit status, and what it wrote."""

    returncode: int
    stdout: str


RunPytest = Callable[..., Run]


@pytest.fixture
def run_pytest(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunPytest:
    """Run one test file with the fixtures of this project in this process, with CI unset unless given."""

    def run(source: str, **environment: str) -> Run:
        file = tmp_path / "test_planted.py"
        file.write_text(source)
        for name in ("CI", DATA_VARIABLE):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        options = ["-c", str(repository / "pyproject.toml"), "-p", "tests.conftest"]
        plugins = ["-p", "no:cacheprovider", "-p", "no:faulthandler"]
        status = pytest.main([*options, *plugins, str(file)])
        return Run(returncode=status, stdout=capsys.readouterr().out)

    return run


def test_waiting_ends_with_the_first_true_value() -> None:
    numbers = count()
    assert wait_until(lambda: next(numbers) >= 3 and "there", timeout=5) == "there"


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match=r"not true within 0\.05 s: the PACS has the report"):
        wait_until(lambda: False, timeout=0.05, what="the PACS has the report")


def test_a_test_is_skipped_with_the_reason_where_its_tool_is_missing(run_pytest: RunPytest) -> None:
    run = run_pytest(ABSENT_TOOL)
    assert run.returncode == 0, run.stdout
    assert "1 skipped" in run.stdout
    assert "no-such-program is not installed" in run.stdout


def test_in_ci_a_missing_tool_is_a_failure(run_pytest: RunPytest) -> None:
    run = run_pytest(ABSENT_TOOL, CI="true")
    assert run.returncode == 1, run.stdout
    assert "no test may be skipped for a missing tool" in run.stdout


@pytest.mark.parametrize("ci", ["", "true"])
def test_absent_clinical_data_is_said_and_skipped_even_in_ci(run_pytest: RunPytest, tmp_path: Path, ci: str) -> None:
    run = run_pytest(CLINICAL_DATA, CI=ci, **{DATA_VARIABLE: str(tmp_path / "nowhere")})
    assert run.returncode == 0, run.stdout
    assert "clinical test data: absent" in run.stdout
    assert "1 skipped" in run.stdout


def test_clinical_data_is_found_where_the_variable_says(run_pytest: RunPytest, tmp_path: Path) -> None:
    run = run_pytest(CLINICAL_DATA, **{DATA_VARIABLE: str(tmp_path)})
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
