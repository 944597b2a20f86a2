"""Files that hold secrets: read only where no other user can."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from scp_node.settings import SettingsError

_MOST_BYTES: Final = 65_536


def refuse_if_others_read(file: Path, key: str) -> None:
    """Refuse a file that other users may read; one of root may be read by its group, as distributions arrange it.

    Raises:
        SettingsError: it is not there, or others may read it; the message names the setting `key`.
    """
    try:
        found = file.stat()
    except OSError as error:
        raise SettingsError(f"{key}: {file}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise SettingsError(f"{key}: {file} is not a file")
    allowed = 0o740 if found.st_uid == 0 else 0o700
    if stat.S_IMODE(found.st_mode) & 0o777 & ~allowed:
        mode = stat.S_IMODE(found.st_mode)
        raise SettingsError(f"{key}: {file} has mode {mode:04o}, others may use it: chmod 600 {file}")


def read_secret(file: Path, key: str) -> str:
    """Return the secret that a file holds, without the end of its line.

    Raises:
        SettingsError: it cannot be read, others may read it, or it is empty.
    """
    refuse_if_others_read(file, key)
    try:
        with file.open(encoding="utf-8") as opened:
            secret = opened.read(_MOST_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{key}: {file} cannot be read: {error}") from error
    if not secret:
        raise SettingsError(f"{key}: {file} is empty")
    return secret
