"""A small disk that a test fills to the last byte, and empties again."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

MIB: Final = 1 << 20
_FILLER: Final = "filler"


class Disk:
    """A file system of its own at `folder`."""

    def __init__(self, folder: Path) -> None:
        """Use the file system that is mounted at `folder`."""
        self.folder = folder

    @property
    def free(self) -> int:
        """The bytes that nobody uses."""
        return os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize

    def fill(self, *, leave: int = 0) -> None:
        """Take every byte that is left, but for so many."""
        with (self.folder / _FILLER).open("ab") as file:
            while (size := self.free - leave) > 0:
                _extend(file.fileno(), size)

    def make_room(self) -> None:
        """Give back what `fill` took."""
        (self.folder / _FILLER).unlink()


def _extend(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, size)
    except OSError as error:
        if error.errno != errno.ENOSPC:  # somebody else took a part of it
            raise


@contextlib.contextmanager
def mounted(mebibytes: int) -> Iterator[Disk]:
    """Mount an empty file system in memory of this size, and unmount it at the end."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    with tempfile.TemporaryDirectory(prefix="scp-node-disk-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=755", "tmpfs", name], check=True)
        try:
            yield Disk(Path(name))
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)
