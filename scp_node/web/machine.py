"""What this process sees of its machine: the disk with the received images, and which versions run."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Final

from scp_node import __version__
from scp_node.settings import Settings

_MIB: Final = 2**20
_PACKAGES: Final = (  # whose faults an operator would look up
    "pynetdicom",
    "pydicom",
    "sqlalchemy",
    "psycopg",
    "onnxruntime",
    "torch",
    "fastapi",
    "uvicorn",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The disk of `node.data_dir`."""

    free: int  # bytes
    total: int  # bytes
    low_water: int  # bytes; below it no store is accepted

    @property
    def is_low(self) -> bool:
        """Return whether stores are refused."""
        return self.free < self.low_water

    @property
    def is_scarce(self) -> bool:
        """Return whether that is near: less than twice as much is free."""
        return self.free < 2 * self.low_water


def disk_of(settings: Settings) -> Disk | None:
    """Return the disk of the data folder as this process sees it; None where it cannot be seen."""
    try:
        usage = shutil.disk_usage(settings.node.data_dir)
    except OSError:
        return None
    return Disk(free=usage.free, total=usage.total, low_water=settings.listen.low_water_mib * _MIB)


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return name and version of the program, of Python, and of the packages that are installed."""
    found = [("scp-node", __version__), ("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)
