"""Notes every unpickling of the node's own processes, where Python looks for `sitecustomize`: the product has none.

A test copies this file into a folder of its own, for a decoder process gets few variables of the environment. The
folder `unpicklings` beside it then gets a file for each process that began, and in it a line for each unpickling: of a
class or function by CPython's audit event, which nothing escapes, and of anything else by the entrances of pickle.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent / "unpicklings"


class Notes:
    """What one process unpickles."""

    def __init__(self, folder: Path) -> None:
        """Begin the file of this process."""
        self._file = folder / f"{os.getpid()}.txt"
        self._file.write_text(f"{' '.join(sys.orig_argv[1:])}\n")

    def note(self, what: str) -> None:
        """Add what is unpickled, and who called for it."""
        callers = " < ".join(f"{each.name} ({each.filename})" for each in reversed(traceback.extract_stack()[:-2]))
        with self._file.open("a") as file:
            file.write(f"{what}: {callers}\n")

    def watch(self) -> None:
        """Note from now on; this cannot be taken back in the process."""
        sys.addaudithook(lambda event, found: self.note(".".join(found)) if event == "pickle.find_class" else None)
        for name in ("load", "loads"):
            setattr(pickle, name, self._noted(name, getattr(pickle, name)))
        pickle.Unpickler = self._class_noted(pickle.Unpickler)  # type: ignore[misc]

    def _noted(self, name: str, entrance: Any) -> Any:
        def noting(*arguments: Any, **options: Any) -> Any:
            self.note(name)
            return entrance(*arguments, **options)

        return noting

    def _class_noted(self, entrance: type[pickle.Unpickler]) -> type[pickle.Unpickler]:
        notes = self

        class Noting(entrance):  # type: ignore[misc,valid-type]
            def load(self) -> Any:
                notes.note("Unpickler.load")
                return super().load()

        return Noting


if FOLDER.is_dir():
    Notes(FOLDER).watch()
