"""Files for the owner's eyes only: they may hold a password, or what is known of a patient."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600


def opener(path: str, flags: int) -> int:
    """Open a file as `open(..., opener=opener)` wants it; a new one is the owner's alone."""
    return os.open(path, flags, FILE_MODE)


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for the owner alone; what is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    except FileNotFoundError:
        make_private_folder(folder.parent)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read, whoever could read the one that was there.

    Raises:
        OSError: it cannot be written.
    """
    with open(path, "wb", opener=opener) as file:
        os.fchmod(file.fileno(), FILE_MODE)
        file.write(content)
