"""What tests take from npm's registry: fetched once, pinned by version and digest, kept in the virtual environment."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.tools import find, leave_out, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package, and the part of it that is kept."""

    name: str
    version: str
    sha512: str  # of the archive, in base64, as the registry states it
    part: str = ""  # a folder or a file inside; empty: everything
    kept_as: str

    @property
    def place(self) -> Path:
        """Return where the part is kept."""
        return Path(sys.prefix) / "share" / self.kept_as

    @property
    def title(self) -> str:
        """Return name and version, as npm writes them."""
        return f"{self.name}@{self.version}"


OHIF: Final = Package(
    name="@ohif/app",
    version="3.12.10",
    sha512="0kuF66Mq9c9dMD++bUsTjMrJpXJwaZhz9B4uS244DawAjSkTwIYFU93pxPuRUQixaRi7QAHlF3Fe1qudBlZrmA==",
    part="dist",
    kept_as="ohif-3.12.10",
)
AXE: Final = Package(
    name="axe-core",
    version="4.14.1",
    sha512="FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    part="axe.min.js",
    kept_as="axe-core-4.14.1.min.js",
)
PACKAGES: Final = (OHIF, AXE)


def required(package: Package) -> Path:
    """Return where the part of a package is; else skip the running test with the reason, or fail it with CI=true."""
    if not package.place.exists():
        require("npm")
        leave_out(f"{package.title} is not there: make tools fetches it")
    return package.place


def fetch(package: Package) -> None:
    """Download a package, unless it is there.

    Raises:
        RuntimeError: npm gives no package, or another one.
    """
    npm = find("npm")
    if package.place.exists() or npm is None:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = subprocess.run([npm, "pack", package.title], cwd=folder, capture_output=True, text=True, check=False)
        archives = list(folder.glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise RuntimeError(f"npm pack {package.title}: {done.stderr[-500:]}")
        digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
        if digest != package.sha512:
            raise RuntimeError(f"{package.title} has the digest {digest}, not {package.sha512}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(folder, filter="data")
        _keep(folder / "package" / package.part, package.place)


def _keep(taken: Path, place: Path) -> None:
    """Copy beside `place` first: what is there is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    if taken.is_dir():
        shutil.copytree(taken, part, dirs_exist_ok=True)
    else:
        shutil.copy(taken, part)
    part.rename(place)


if __name__ == "__main__":
    for each in PACKAGES:
        fetch(each)
