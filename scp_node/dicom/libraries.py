"""Keeps out of a process what pydicom or the log's library would load, and this process does not need."""

from __future__ import annotations

import sys
from typing import Final

# pydicom loads each of them, where it is installed, as soon as it is imported itself
DOWNLOADS: Final = ("requests", "tqdm")  # of its example files
PIXELS: Final = ("gdcm", "pylibjpeg", "jpeg_ls", "PIL")
ARRAYS: Final = ("numpy",)
# structlog loads it to print tracebacks, which the node does not have it do
CONSOLE: Final = ("rich",)


def leave_out_libraries(*names: str) -> None:
    """Hide libraries from others; without effect once pydicom is loaded.

    An import of a module that is None in `sys.modules` fails as if it were missing (Python reference 5.3.1). Without
    those of `PIXELS` pydicom decodes uncompressed pixels alone.
    """
    if "pydicom" not in sys.modules:
        for name in names:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type] # what stands for "not there"
