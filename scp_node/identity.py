"""Which installation this is: an identifier drawn once and kept in the data folder."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

FILE_NAME = "installation-id"


def installation_id(data_dir: Path) -> uuid.UUID:
    """Return the installation's identifier, drawing it on the first start.

    Raises:
        OSError: the data folder cannot be written.
        ValueError: the file does not hold an identifier.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = data_dir / FILE_NAME
    if not path.exists():
        temporary = data_dir / f"{FILE_NAME}.{os.getpid()}"
        temporary.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        try:
            os.link(temporary, path)  # fails when another process was faster: theirs is the identifier
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return uuid.UUID(path.read_text(encoding="ascii").strip())
