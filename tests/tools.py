"""External programs that tests drive: where they are, and what happens where one is missing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

# Debian puts these outside PATH, or they are not programs at all.
_FOLDERS = [Path(sys.executable).parent, Path("/usr/sbin"), Path("/usr/local/sbin")]
_FILES = {
    "orthanc-dicomweb": Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    "pixelmed": Path("/usr/share/java/pixelmed.jar"),
}
_PACKAGES = {  # Debian's names, for the sentence that says what to install
    "Orthanc": "orthanc",
    "dcmsend": "dcmtk",
    "echoscu": "dcmtk",
    "initdb": "postgresql",
    "java": "default-jre-headless",
    "pixelmed": "libpixelmed-java",
    "postgres": "postgresql",
    "storescp": "dcmtk",
    "storescu": "dcmtk",
}


def find(tool: str) -> Path | None:
    """Return where `tool` is on this machine: a program, or a file that stands for one."""
    if tool in _FILES:
        return _FILES[tool] if _FILES[tool].exists() else None
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, [*_FOLDERS, *reversed(servers)])])
    found = shutil.which(tool, path=path)
    return Path(found) if found else None


def require(tool: str) -> Path:
    """Return where `tool` is; else skip the running test with the reason, or fail it with CI=true."""
    if found := find(tool):
        return found
    reason = f"{tool} is not installed (Debian package {_PACKAGES.get(tool, tool)})"
    if is_ci():
        pytest.fail(f"{reason}; with CI=true no test may be skipped for a missing tool", pytrace=False)
    pytest.skip(reason)


def is_ci() -> bool:
    """Return whether this is a run that must not skip."""
    return os.environ.get("CI", "").lower() == "true"
