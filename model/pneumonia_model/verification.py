"""Checks a bundle piece by piece and reports on each; `load_bundle` stops at the first fault."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from pneumonia_model.bundle import MANIFEST, WEIGHTS, Bundle, BundleError, check_file, read_manifest, understood
from pneumonia_model.gate import SECTION, load_gate
from pneumonia_model.golden import golden_difference, golden_gate_difference
from pneumonia_model.opening import cuda_found, installed, open_backend
from pneumonia_model.precision import BOUNDS
from pneumonia_model.prediction import Backend
from pneumonia_model.preprocessing import PREPROCESSING

RUNTIMES: Final[tuple[Literal["onnxruntime", "torch"], ...]] = ("onnxruntime", "torch")
THREADS: Final = (1, 2, 4)
MAP_TOLERANCE: Final = 1e-5
"""Largest difference between a logit and its map's mean plus the bias; measured differences are below 1e-6."""

MEANINGS: Final[Mapping[str, str]] = {
    "demonstration": "to show the software, not for clinical use: every report says so, and none goes to another "
    "machine unless inference.acknowledge_demonstration = true",
    "research": "research use only: every report says that it is not a medical device's",
    "cleared": "the releaser states a clearance: reports carry no restriction of the software's own",
}
P = ParamSpec("P")

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Result(StrEnum):
    """The result of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_MADE = "not made"  # a part that it needs is damaged or not installed


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        found: the observation or the fault, for a person.
        difference: the largest difference measured; None for a check that measures none.
    """

    name: str
    result: Result
    found: str
    difference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All checks of one bundle; `digest` is empty if the manifest is damaged."""

    path: Path
    digest: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed; empty for a bundle that may serve."""
        return tuple(check.name for check in self.checks if check.result is Result.FAILED)

    def document(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "bundle": str(self.path),
            "digest": self.digest,
            "passed": not self.failed,
            "failed": list(self.failed),
            "checks": [asdict(check) for check in self.checks],
        }


def verify(path: Path, *, operating_point: str = "") -> Verification:
    """Check the bundle in a folder; `operating_point` names the one to serve with, "" for its default.

    The network runs only if every file is the released one.
    """
    try:
        manifest = read_manifest(path)
    except BundleError as error:
        return Verification(path=path, digest="", checks=(_failed("manifest", error), _not_made("everything else")))
    digest = str(manifest["digest"])
    checks = [
        Check(name="manifest", result=Result.PASSED, found=f"digest {digest} fits all that it says"),
        *(_checked(f"file {name}", _file, path / name, str(sha256)) for name, sha256 in manifest["files"].items()),
    ]
    whole = all(check.result is Result.PASSED for check in checks)
    try:
        bundle = understood(path, manifest)
    except BundleError as error:
        checks += [_failed("schema", error), _not_made("everything else")]
        return Verification(path=path, digest=digest, checks=tuple(checks))
    content = [
        Check(name="schema", result=Result.PASSED, found=_schema(bundle)),
        Check(name="status", result=Result.PASSED, found=f"{bundle.status}: {MEANINGS[bundle.status]}"),
        _checked("preprocessing", _preprocessing, bundle),
        _checked("operating point", _operating_point, bundle, operating_point),
        _checked("training data", _training_data, bundle),
        _checked("training commit", _training_commit, bundle),
        _checked("weights", _weights, bundle) if whole else _not_made("weights"),
    ]
    runnable = whole and not any(check.result is Result.FAILED for check in content)
    network = list(_network(bundle)) if runnable else [_not_made("golden logits"), _not_made("maps")]
    return Verification(path=path, digest=digest, checks=(*checks, *content, *network))


def _checked(name: str, check: Callable[P, str], *args: P.args, **kwargs: P.kwargs) -> Check:
    try:
        return Check(name=name, result=Result.PASSED, found=check(*args, **kwargs))
    except BundleError as error:
        return _failed(name, error)


def _failed(name: str, error: Exception) -> Check:
    return Check(name=name, result=Result.FAILED, found=str(error))


def _not_made(name: str, why: str = "what it needs failed") -> Check:
    return Check(name=name, result=Result.NOT_MADE, found=why)


def _file(path: Path, sha256: str) -> str:
    check_file(path, sha256)
    return f"sha256 {sha256}"


def _schema(bundle: Bundle) -> str:
    return f"{bundle.manifest['schema']}: {bundle.name} {bundle.version}, {bundle.manifest.get('architecture')}"


def _preprocessing(bundle: Bundle) -> str:
    stated = bundle.manifest.get("preprocessing")
    if stated == PREPROCESSING:
        return f"version {PREPROCESSING['version']}, which is this software's"
    if not isinstance(stated, Mapping):
        raise BundleError(f"{bundle.path / MANIFEST}: states no preprocessing")
    keys = [key for key in sorted({*PREPROCESSING, *stated}) if stated.get(key) != PREPROCESSING.get(key)]
    others = "; ".join(f"{key} is {stated.get(key)!r}, here {PREPROCESSING.get(key)!r}" for key in keys)
    raise BundleError(f"made for other preprocessing than this software's: {others}")


def _training_data(bundle: Bundle) -> str:
    data = _training(bundle).get("data")
    if not isinstance(data, str) or not _DIGEST.fullmatch(data):
        raise BundleError(f"{bundle.path / MANIFEST}: names no digest of the training's films")
    return data


def _training_commit(bundle: Bundle) -> str:
    commit = _training(bundle).get("commit")
    if not isinstance(commit, str) or not commit:
        raise BundleError(f"{bundle.path / MANIFEST}: names no commit of the training's code")
    return commit


def _training(bundle: Bundle) -> Mapping[str, Any]:
    training = bundle.manifest.get("training")
    return training if isinstance(training, Mapping) else {}


def _operating_point(bundle: Bundle, wanted: str) -> str:
    points = {str(point["name"]): point for point in bundle.manifest["operating_points"]}
    name = wanted or str(bundle.manifest["default_operating_point"])
    if name not in points:
        raise BundleError(f"inference.operating_point: {bundle.name} has {', '.join(points)}, not {name!r}")
    point = points[name]
    figures = "".join(f", {key} {point[key]}" for key in ("recall", "specificity", "precision") if key in point)
    return f"{name}{'' if wanted else ' (the default)'}: threshold {float(point['threshold']):g}{figures}"


def _weights(bundle: Bundle) -> str:
    """Check that the weights are only numbers: safetensors, unlike a pickle, cannot hold code."""
    try:
        weights = load(bundle.content(WEIGHTS))
    except SafetensorError as error:
        raise BundleError(f"{bundle.path / WEIGHTS}: not plain safetensors: {error}") from error
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise BundleError(f"{bundle.path / WEIGHTS}: {name} holds a number that is not finite")
    count = sum(values.size for values in weights.values())
    return f"plain safetensors, no code: {len(weights)} tensors, {count:,} numbers, all finite"


def _network(bundle: Bundle) -> Iterator[Check]:
    """Run the golden inputs on every installed runtime."""
    gated = SECTION in bundle.manifest
    for runtime in RUNTIMES:
        if not installed(runtime):
            yield _not_made(f"golden logits, {runtime}", "not installed")
            continue
        for threads in THREADS:
            name = f"golden logits, {runtime}, {threads} thread{'s' if threads > 1 else ''}"
            opened = partial(open_backend, bundle, runtime, "cpu", threads=threads)
            yield _measured(name, golden_difference, bundle, opened, BOUNDS["float32"].logit)
        opened = partial(open_backend, bundle, runtime, "cpu", threads=THREADS[0])
        yield _measured(f"maps, {runtime}", _map_difference, bundle, opened, MAP_TOLERANCE)
        if gated:
            yield _measured(f"gate, {runtime}", _gate_difference, bundle, opened, BOUNDS["float32"].unlikeness)
    if cuda_found():
        opened = partial(open_backend, bundle, "torch", "cuda")
        yield _measured("golden logits, torch, cuda", golden_difference, bundle, opened, BOUNDS["float32"].logit)


def _measured(
    name: str,
    measure: Callable[[Bundle, Backend], float],
    bundle: Bundle,
    opened: Callable[[], Backend],
    allowed: float,
) -> Check:
    try:
        difference = measure(bundle, opened())
    except Exception as error:  # noqa: BLE001 - a runtime may raise anything for a graph or weights it cannot use
        return _failed(name, error)
    result = Result.PASSED if difference <= allowed else Result.FAILED
    found = f"largest difference {difference:.1e}, allowed are {allowed:g}"
    return Check(name=name, result=result, found=found, difference=difference)


def _gate_difference(bundle: Bundle, backend: Backend) -> float:
    gate = load_gate(bundle)
    if gate is None:
        raise BundleError(f"{bundle.path}: no gate")
    return golden_gate_difference(bundle, backend, gate)


def _map_difference(bundle: Bundle, backend: Backend) -> float:
    """Return how much a map's mean over every second row and column, plus the bias, differs from its logit."""
    bias: NDArray[np.float32] = load(bundle.content(WEIGHTS))["fc.bias"]
    answer = backend.scores(bundle.golden_inputs())
    maps = answer.maps(range(len(answer.logits)))
    return float(np.abs(maps[:, ::2, ::2].mean(axis=(1, 2)) + bias - answer.logits).max())
