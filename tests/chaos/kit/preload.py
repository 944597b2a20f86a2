"""Builds what is preloaded into a program to change what the system tells it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.tools import require


def build(name: str, folder: Path) -> Path:
    """Build `name`.c of this folder as a library in `folder`, which the programs must be able to read."""
    require("c-headers")
    library = folder / f"{name}.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library)]
    subprocess.run([str(require("cc")), *options, str(Path(__file__).with_name(f"{name}.c"))], check=True)
    return library
