"""A second bundle: the shipped network under another name, so that nothing has to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pneumonia_model.bundle import MANIFEST, load_bundle, rendered, seal

from tests.node import BUNDLE


def second_bundle(folder: Path, *, intercept: float = 3.0, **changes: Any) -> Path:
    """Write the shipped bundle as another one, which calls nearly every film positive; `changes` are of its manifest.

    Its files are links to the shipped ones.
    """
    shipped = load_bundle(BUNDLE).manifest
    folder.mkdir(parents=True)
    for name in shipped["files"]:
        (folder / name).symlink_to((BUNDLE / name).resolve())
    calibration = {**shipped["calibration"], "intercept": intercept}
    manifest = {**shipped, "name": "trial", "version": "9.0.0", "calibration": calibration, **changes}
    (folder / MANIFEST).write_bytes(rendered(seal(manifest)))
    return folder
