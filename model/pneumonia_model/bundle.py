"""A released model: a folder with a hash over every byte, and the one identity that its results carry.

This module needs only the standard library, and numpy for the golden inputs, so that the parts of the node that only
name the model never load a runtime.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "weights.safetensors"
GRAPH: Final = "model.onnx"
GOLDEN: Final = "golden.npy"
SCHEMA: Final = 1


LEAST_PROBABILITY: Final = 1e-4
"""Probabilities are kept this far from 0 and 1: no film is ever reported as certain."""

STATUSES: Final = ("demonstration", "research", "cleared")


class BundleError(Exception):
    """The bundle is missing, damaged, or unknown to this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Platt's calibration: the probability is the logistic function of `slope` x logit + `intercept`."""

    slope: float
    intercept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified model.

    Attributes:
        digest: the model's identity: `sha256:` and 64 hexadecimal digits over the manifest, which holds the hash of
            every other file.
        threshold: the calibrated probability from which a film counts as positive.
        manifest: the contents of `manifest.json`.
    """

    path: Path
    name: str
    version: str
    status: str
    digest: str
    threshold: float
    calibration: Calibration
    manifest: Mapping[str, Any]

    def probability(self, logit: float) -> float:
        """Return the calibrated probability of pneumonia.

        Raises:
            ValueError: the logit is not finite.
        """
        if not math.isfinite(logit):
            raise ValueError("logit is not finite")
        exponent = self.calibration.slope * logit + self.calibration.intercept
        probability = 1 / (1 + math.exp(-max(-100.0, min(100.0, exponent))))
        return max(LEAST_PROBABILITY, min(1 - LEAST_PROBABILITY, probability))

    def content(self, file: str) -> bytes:
        """Return the bytes of a file that the manifest lists, the very bytes that were hashed.

        Raises:
            BundleError: the file is missing, or no longer the one of the manifest.
        """
        return checked_content(self.path / file, str(self.manifest["files"][file]))

    def section(self, name: str, *, keys: Collection[str], file: str) -> dict[str, Any]:
        """Return the section of the manifest that describes a part, which lies in `file`.

        Raises:
            BundleError: the section is not there or lacks one of the `keys`, or the manifest does not list the file.
        """
        section = self.manifest.get(name)
        if not isinstance(section, dict) or not set(keys) <= section.keys():
            raise BundleError(f"{self.path}: not a {name}'s section")
        if file not in self.manifest["files"]:
            raise BundleError(f"{self.path}: no {file}")
        return section

    def golden_inputs(self) -> NDArray[np.float32]:
        """Return the synthetic inputs whose logits the manifest holds, shape (n, 224, 224).

        Raises:
            BundleError: see `content`.
        """
        import numpy as np  # noqa: PLC0415 - 11 MiB that a process which only names the model does not need

        pictures = np.load(io.BytesIO(self.content(GOLDEN)), allow_pickle=False)
        return np.asarray(pictures, dtype=np.float32) / np.float32(255)

    def golden_logits(self) -> NDArray[np.float64]:
        import numpy as np  # noqa: PLC0415 - as above

        return np.asarray(self.manifest["golden"]["logits"], dtype=np.float64)


def load_bundle(path: Path) -> Bundle:
    """Return the bundle in a folder, after every file of it was read and checked.

    Raises:
        BundleError: a file is missing or differs from its hash, or the manifest does not follow this schema.
    """
    manifest = read_manifest(path)
    for name, expected in manifest["files"].items():
        check_file(path / name, expected)
    return understood(path, manifest)


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with the digest over its contents."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return {**content, "digest": f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"}


def rendered(manifest: Mapping[str, Any]) -> bytes:
    """Return the only valid text of a manifest, so that no byte of the file can change unnoticed."""
    return (json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest in a folder after a check of its digest; no other file is read.

    Raises:
        BundleError: it is missing, altered, or names a file outside the folder.
    """
    file = path / MANIFEST
    try:
        text = file.read_bytes()
        manifest = json.loads(text)
        expected = seal(manifest)
        names = [str(name) for name, _ in manifest["files"].items()]
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{file}: not a manifest: {error!r}") from error
    if manifest.get("digest") != expected["digest"] or text != rendered(expected):
        raise BundleError(f"{file}: digest is {expected['digest']}, the manifest states {manifest.get('digest')}")
    if any(Path(name).name != name for name in names):
        raise BundleError(f"{file}: names a file outside the bundle")
    return dict(manifest)


def checked_content(path: Path, expected: str) -> bytes:
    """Return the bytes of a file after a comparison with their SHA-256.

    Raises:
        BundleError: the file is missing or differs.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    _compare(path, hashlib.sha256(content).hexdigest(), expected)
    return content


def check_file(path: Path, expected: str) -> None:
    """Compare a file with its SHA-256.

    Raises:
        BundleError: the file is missing or differs.
    """
    try:
        found = file_sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    _compare(path, found, expected)


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise BundleError(f"{path}: sha256 is {found}, the manifest states {expected}")


def understood(path: Path, manifest: dict[str, Any]) -> Bundle:
    """Return the bundle that a manifest describes.

    Raises:
        BundleError: the manifest does not follow this schema.
    """
    try:
        return _bundle(path, manifest)
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise BundleError(f"{path / MANIFEST}: not a manifest of schema {SCHEMA}: {error!r}") from error


def _bundle(path: Path, manifest: dict[str, Any]) -> Bundle:
    if manifest["schema"] != SCHEMA or not {WEIGHTS, GRAPH, GOLDEN} <= manifest["files"].keys():
        raise ValueError("schema or files")
    if manifest["status"] not in STATUSES:
        raise ValueError("status")
    points = {point["name"]: float(point["threshold"]) for point in manifest["operating_points"]}
    threshold = points[manifest["default_operating_point"]]
    calibration = manifest["calibration"]
    platt = Calibration(slope=float(calibration["slope"]), intercept=float(calibration["intercept"]))
    if calibration["method"] != "platt" or not 0 < threshold < 1 or not platt.slope > 0:
        raise ValueError("calibration or threshold")
    return Bundle(
        path=path,
        name=str(manifest["name"]),
        version=str(manifest["version"]),
        status=str(manifest["status"]),
        digest=str(manifest["digest"]),
        threshold=threshold,
        calibration=platt,
        manifest=MappingProxyType(manifest),
    )
