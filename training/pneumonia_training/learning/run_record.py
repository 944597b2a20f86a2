"""What a training was, in its folder: nothing else may be written there, and every figure can be traced."""

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

from pneumonia_training.films.prepare import Prepared
from pneumonia_training.films.sampling import Split

RUN: Final = "run.json"
_PACKAGES: Final = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "opencv-python-headless")


class RunError(Exception):
    """The run folder holds another training."""


def record_run(run: Path, prepared: Prepared, split: Split, said: Mapping[str, Any]) -> None:
    """Write what a training is into its folder, or check that it is the one that the folder already holds.

    `said` is whatever else tells it from another training, its recipe first.

    Raises:
        RunError: the folder holds another one.
    """
    document = plain(dict(said)) | {"data": prepared.digest, "split": sides_document(split)}
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
    """Return how many films each side of a split has, and a hash that tells which."""
    sides = {"train": split.train, "validation": split.validation, "test": split.test}
    return {name: {"films": len(rows), "sha256": _rows_sha256(rows)} for name, rows in sides.items()}


def commit() -> str:
    """Return the git commit of this code, with `+changes` where the tree has any; "unknown" outside a repository."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def plain(value: Any) -> Any:
    """Return tuples as lists, as JSON will: neither a comparison nor a digest must depend on it."""
    return json.loads(json.dumps(value))


def _rows_sha256(rows: NDArray[np.intp]) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    command: Sequence[str] = ("git", "-C", str(folder), *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
