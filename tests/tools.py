"""External programs that tests drive: where they are, and what happens where one is missing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

_SYSTEM: Final = ["/usr/sbin", "/usr/local/sbin"]  # Debian's servers are there, and not every user's PATH is
_OURS: Final = Path(sys.executable).parent  # the virtual environment's: dciodvfy comes with pip
_FILES: Final = {
    "c-headers": Path("/usr/include/stdlib.h"),
    "orthanc-dicomweb": Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    "pixelmed": Path("/usr/share/java/pixelmed.jar"),
    "rsyslog-gnutls": next(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so"), Path("/usr/lib/rsyslog/lmnsd_gtls.so")),
}
PACKAGES: Final[Mapping[str, str]] = {  # tool -> Debian's name for what brings it
    "Orthanc": "orthanc",
    "c-headers": "libc6-dev",
    "cc": "gcc",
    "chromium": "chromium",
    "dcmdump": "dcmtk",
    "dcmp2pgm": "dcmtk",
    "dcmsend": "dcmtk",
    "dsrdump": "dcmtk",
    "echoscu": "dcmtk",
    "initdb": "postgresql",
    "java": "default-jre-headless",
    "npm": "npm",
    "orthanc-dicomweb": "orthanc-dicomweb",
    "pg_dump": "postgresql",
    "pg_restore": "postgresql",
    "pixelmed": "libpixelmed-java",
    "postgres": "postgresql",
    "rsyslog-gnutls": "rsyslog-gnutls",
    "rsyslogd": "rsyslog",
    "setpriv": "util-linux",
    "storescp": "dcmtk",
    "storescu": "dcmtk",
    "strace": "strace",
}


def find(tool: str) -> Path | None:
    """Return where `tool` is on this machine: a program, or a file that stands for one."""
    if tool in _FILES:
        return _FILES[tool] if _FILES[tool].exists() else None
    databases = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    path = [folder for folder in os.get_exec_path() if Path(folder) != _OURS]
    # ours last: pynetdicom installs a storescp, storescu and echoscu of its own there, which are not DCMTK's
    folders = [*path, *_SYSTEM, *map(str, reversed(databases)), str(_OURS)]
    found = shutil.which(tool, path=os.pathsep.join(folders))
    return Path(found) if found else None


def require(tool: str) -> Path:
    """Return where `tool` is; else skip the running test with the reason, or fail it with CI=true."""
    return find(tool) or leave_out(f"{tool} is not installed (Debian package {PACKAGES.get(tool, tool)})")


def leave_out(reason: str) -> NoReturn:
    """Skip the running test, or fail it with CI=true."""
    import pytest  # noqa: PLC0415 - the external programs are installed beside it, and not after it

    if is_ci():
        pytest.fail(f"{reason}; with CI=true no test may be skipped for a missing tool", pytrace=False)
    pytest.skip(reason)


def is_ci() -> bool:
    """Return whether this is a run that must not skip."""
    return os.environ.get("CI", "").lower() == "true"


def missing_packages(packages: Mapping[str, str] = PACKAGES) -> list[str]:
    """Return the Debian packages of the tools that are not installed."""
    return sorted({package for tool, package in packages.items() if not find(tool)})


if __name__ == "__main__":
    sys.stdout.write(" ".join(missing_packages()))
