"""Has glibc return to the system what a process no longer uses; elsewhere nothing happens."""

from __future__ import annotations

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h, like the next one
_M_ARENA_MAX: Final = -8


def return_large_blocks() -> None:
    """Return large blocks as soon as they are free, and share the pools between threads (mallopt(3)).

    By itself glibc keeps the 19 MiB of a password's hash for the next one, in each thread.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, 2**20)
        library.mallopt(_M_ARENA_MAX, 2)


def return_free_memory() -> None:
    """Return once what is free now (malloc_trim(3)): of a network that was opened, more than the network itself."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
