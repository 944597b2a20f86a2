"""The record of a training in its folder: it keeps other trainings out, and traces every figure to its training."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import Split

RUN: Final = "run.json"
_PACKAGES: Final = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "opencv-python-headless")


class RunError(Exception):
    """The run folder holds another training."""


def record_run(run: Path, prepared: PreparedFilms, split: Split, contents: Mapping[str, Any]) -> None:
    """Write the description of a training into its folder, or check that the folder holds the same training.

    `contents` are all other values that identify the training, its recipe first.

    Raises:
        RunError: the folder holds another one.
    """
    document = plain(dict(contents)) | {"data": prepared.digest, "split": sides_document(split)}
    path = run / RUN
    if path.is_file():
        found = json.loads(path.read_text())
        changed = [name for name in document if found.get(name) != document[name]]
        if changed:
            raise RunError(f"{run} holds another training: {', '.join(changed)} differ; take another folder")
        return
    run.mkdir(parents=True, exist_ok=True)
    environment = {"commit": commit(), "python": platform.python_version(), "machine": platform.machine()}
    environment |= {name: version(name) for name in _PACKAGES}
    path.write_text(json.dumps(document | {"environment": environment}, indent=2) + "\n")


def sides_document(split: Split) -> dict[str, Any]:
    """Return the number of films on each side of a split, and a hash that identifies them."""
    sides = {"train": split.train, "validation": split.validation, "test": split.test}
    return {name: {"films": len(rows), "sha256": _rows_sha256(rows)} for name, rows in sides.items()}


def commit() -> str:
    """Return the git commit of this package, with `+changes` if it has any; "unknown" outside a repository."""
    here = Path(__file__).parent.parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def plain(value: Any) -> Any:
    """Return tuples as lists, as in JSON, so that comparisons and digests do not depend on the difference."""
    return json.loads(json.dumps(value))


def _rows_sha256(rows: NDArray[np.intp]) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    command: Sequence[str] = ("git", "-C", str(folder), *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
