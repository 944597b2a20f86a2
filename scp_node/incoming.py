"""A dataset on its way to the disk: a file that is written as the bytes come, and gone unless somebody keeps it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from scp_node.private_files import opener

_LOOK_BYTES: Final = 1 << 20  # written between two looks at the free space


class Incoming:
    """A temporary file with a head and the dataset that follows it, for one thread at a time.

    The file is locked as long as it is open, so that nobody takes it for one that a dead process left.
    """

    def __init__(self, path: Path, head: bytes, *, require_space: Callable[[], None]) -> None:
        """Create the file and write its head; `require_space` raises where too little is left.

        Raises:
            OSError: the file cannot be created or written; nothing of it remains.
        """
        self.path = path
        self.size = 0  # bytes of the dataset
        self._head_size = len(head)
        self._require_space = require_space
        self._unseen = 0  # bytes since the last look
        self._digest = hashlib.sha256()
        self._file = _created(path)
        try:
            while not _is_locked(self._file):
                self._file = _created(path)
            _write_all(self._file.fileno(), memoryview(head))
        except OSError:
            self.discard()
            raise

    @property
    def sha256(self) -> str:
        """SHA-256 of the dataset, hexadecimal."""
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the dataset.

        Raises:
            OSError: it cannot be written. What `require_space` raises comes through.
        """
        self._unseen += len(data)
        if self._unseen >= _LOOK_BYTES:
            self._unseen = 0
            self._require_space()
        _write_all(self._file.fileno(), memoryview(data))
        self._digest.update(data)
        self.size += len(data)

    @contextlib.contextmanager
    def dataset(self) -> Iterator[memoryview]:
        """Yield the dataset without reading it into memory; the view must not be used after the block."""
        with mapped(self._file) as content, content[self._head_size :] as dataset:
            yield dataset

    def beginning(self, size: int) -> bytes:
        """Return the first bytes of the dataset, at most `size`."""
        return os.pread(self._file.fileno(), size, self._head_size)

    def sync(self, sync_file: Callable[[int], None]) -> None:
        """Have `sync_file` make what was written survive a power cut.

        Raises:
            OSError: it cannot be written.
        """
        sync_file(self._file.fileno())

    def discard(self) -> None:
        """Close the file, and remove it unless it was moved; nothing happens where it was closed."""
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self._file.close()


@contextlib.contextmanager
def mapped(file: io.FileIO) -> Iterator[memoryview]:
    """Yield the contents of a file without reading it into memory; the view must not be used after the block."""
    if not os.fstat(file.fileno()).st_size:
        yield memoryview(b"")
        return
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(mapping)
    try:
        yield view
    finally:
        # an error that is on its way may hold a part of the view: then the mapping ends with the error
        with contextlib.suppress(BufferError):
            view.release()
            mapping.close()


def _created(path: Path) -> io.FileIO:
    return open(path, "x+b", buffering=0, opener=opener)


def _is_locked(file: io.FileIO) -> bool:
    """Lock a new file; return False, and close it, if a sweep of another process took it for abandoned just before."""
    fcntl.flock(file, fcntl.LOCK_EX)
    if os.fstat(file.fileno()).st_nlink:
        return True
    file.close()
    return False


def _write_all(descriptor: int, part: memoryview) -> None:
    while part:
        part = part[os.write(descriptor, part) :]
