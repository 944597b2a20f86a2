"""The locks are what `pyproject.toml` needs, and nothing is installed without a look at its hash."""

from __future__ import annotations

import os
import re
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.command import run
from tests.supply_chain.locks import BELOW, Locked, declared, installed, installed_with, needed, read_lock

VULNERABLE: Final = {  # package -> the last version that the floor must keep out, and what was wrong with it
    "h11": (
        "0.15.0",
        "CVE-2025-43859: a proxy sees other requests than the web page",
    ),
    "jinja2": ("3.1.5", "CVE-2025-27516: a filter leads out of the sandbox"),
    "joserfc": (
        "1.7.3",
        "CVE-2026-75509: a list passes for the issuer of a login",
    ),
    "pydicom": ("3.0.1", "CVE-2026-32711: a DICOMDIR names files outside its folder"),
    "python-multipart": (
        "0.0.29",
        "CVE-2026-53538: fields of a form that a proxy does not see",
    ),
    "starlette": ("1.0.0", "CVE-2026-48710: a character in the Host header changes the path that is looked at"),
    "torch": ("2.9.1", "CVE-2025-32434, CVE-2026-24747: weights_only=True runs code of a checkpoint"),
}


@pytest.mark.parametrize("name", BELOW)
def test_a_lock_has_each_dependency_in_the_range_that_we_promise(name: str) -> None:
    versions = {each.name: each.version for each in installed_with(name)}
    for requirement in declared(name):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), str(requirement)


@pytest.mark.parametrize("name", BELOW)
def test_a_lock_and_those_below_it_have_all_that_is_needed_here_and_nothing_else(name: str) -> None:
    asked = [requirement for each in (*BELOW[name], name) for requirement in declared(each)]
    assert {each.name for each in installed_with(name) if each.is_for_here} == needed(asked)


def test_what_an_extra_of_a_dependency_needs_would_be_missed() -> None:
    assert "psycopg-binary" in needed([Requirement("psycopg[binary]")]) - needed([Requirement("psycopg")])


@pytest.mark.parametrize("name", BELOW)
def test_each_package_has_one_version_and_its_hashes(name: str) -> None:
    for each in read_lock(name):
        assert Version(each.version), each.name
        assert each.hashes, each.name
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in each.hashes), each.name


def test_all_locks_together_have_one_version_of_a_package() -> None:
    versions: dict[str, set[str]] = {}
    for each in everything():
        versions.setdefault(each.name, set()).add(each.version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_tests_run_on_the_locked_versions() -> None:
    found = {each.name: (installed(each.name), each.version) for each in everything()}
    assert {name: pair for name, pair in found.items() if pair[0] not in {None, pair[1]}} == {}


def everything() -> list[Locked]:
    return [each for name in BELOW for each in read_lock(name)]


@pytest.mark.parametrize("package", VULNERABLE)
def test_a_version_that_is_known_to_be_vulnerable_is_out_of_range(package: str) -> None:
    last, reason = VULNERABLE[package]
    asked = [each for name in BELOW for each in declared(name) if canonicalize_name(each.name) == package]
    assert asked
    assert [str(each) for each in asked if each.specifier.contains(last)] == [], reason


# What installs them


def test_make_installs_all_locks_by_their_hashes_and_the_project_without_asking_for_more(repository: Path) -> None:
    told = run("make", "--dry-run", "--always-make", "check", cwd=repository)
    installs = re.findall(r" -m pip .*? install (.*)", told)
    assert len(installs) == 3
    assert all("--require-hashes --requirement" in one or "--no-deps --no-build-isolation" in one for one in installs)
    assert set(re.findall(r"--requirement requirements/(\w+)\.txt", told)) == set(BELOW)


def test_the_install_step_of_the_image_refuses_a_file_that_was_exchanged(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    wheel = tmp_path / "leaf-1-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("leaf-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: leaf\nVersion: 1\n")
        archive.writestr("leaf-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("leaf-1.dist-info/RECORD", "")
    locked = f"leaf==1 --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n"
    (tmp_path / "requirements" / "leaf.txt").write_text(locked)
    with ZipFile(wheel, "a") as archive:
        archive.writestr("leaf.py", "")
    python = Path(sys.executable).resolve().parent
    environment = {"PATH": f"{python}:{os.environ['PATH']}", "PIP_ARGS": f"--no-index --find-links {tmp_path}"}
    script = str(repository / "docker" / "install.sh")
    told = run("sh", script, "app", "leaf", cwd=tmp_path, expect=1, **environment)
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in told
