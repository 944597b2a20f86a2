"""`model verify` says of each part of a bundle what it found, and which part is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from pneumonia_model.bundle import GOLDEN, GRAPH, MANIFEST, WEIGHTS, file_sha256, rendered, seal
from pneumonia_model.preprocessing import PREPROCESSING
from pneumonia_model.verification import Check, Result, Verification, verify
from safetensors.numpy import load_file, save_file

FILES: Final = (WEIGHTS, GRAPH, GOLDEN, "metrics.json")


@pytest.fixture(scope="module")
def released(repository: Path) -> Path:
    """The bundle that this repository ships."""
    (folder,) = sorted((repository / "model" / "bundles").iterdir())
    return folder


@pytest.fixture
def copied(released: Path, tmp_path: Path) -> Path:
    """A bundle of its own to damage."""
    return Path(shutil.copytree(released, tmp_path / "bundle"))


def flip(file: Path, place: float = 0.5) -> None:
    octets = bytearray(file.read_bytes())
    octets[round(place * (len(octets) - 1))] ^= 1
    file.write_bytes(octets)


def reseal(folder: Path, **changes: Any) -> None:
    """Seal the bundle again over what its files now are, as somebody who knows how would."""
    manifest = json.loads((folder / MANIFEST).read_bytes()) | changes
    manifest["files"] = {name: file_sha256(folder / name) for name in manifest["files"]}
    (folder / MANIFEST).write_bytes(rendered(seal(manifest)))


def of(verification: Verification, name: str) -> Check:
    (check,) = [check for check in verification.checks if check.name == name]
    return check


def not_made(verification: Verification) -> set[str]:
    return {check.name for check in verification.checks if check.result is Result.NOT_MADE}


def test_the_released_bundle_passes_every_check_and_says_what_was_found(released: Path) -> None:
    verification = verify(released)
    manifest = json.loads((released / MANIFEST).read_bytes())
    assert verification.failed == ()
    assert {check.result for check in verification.checks} == {Result.PASSED}
    assert manifest["digest"] in of(verification, "manifest").found
    for name, sha256 in manifest["files"].items():
        assert sha256 in of(verification, f"file {name}").found
    assert "version 1" in of(verification, "preprocessing").found
    assert "plain safetensors, no code: 122 tensors" in of(verification, "weights").found
    assert "acknowledge_demonstration" in of(verification, "status").found
    default = manifest["operating_points"][0]
    point = of(verification, "operating point").found
    assert f"{default['name']} (the default): threshold {default['threshold']:.3g}" in point
    assert of(verification, "training data").found == manifest["training"]["data"]
    assert of(verification, "training commit").found == manifest["training"]["commit"]
    for runtime in ("onnxruntime", "torch"):
        for threads in ("1 thread", "2 threads", "4 threads"):
            golden = of(verification, f"golden logits, {runtime}, {threads}")
            assert golden.difference is not None
            assert golden.difference <= 1e-4
        maps = of(verification, f"maps, {runtime}")
        assert maps.difference is not None
        assert maps.difference <= 1e-5


def test_a_verification_is_a_json_document(released: Path) -> None:
    document = json.loads(json.dumps(verify(released, operating_point="best").document()))
    assert (document["passed"], document["failed"]) == (False, ["operating point"])
    assert {"name", "result", "found", "difference"} == document["checks"][0].keys()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_network_is_not_run(copied: Path, name: str) -> None:
    flip(copied / name)
    verification = verify(copied)
    assert verification.failed == (f"file {name}",)
    assert "sha256 is" in of(verification, f"file {name}").found
    assert not_made(verification) == {"weights", "golden logits", "maps"}


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    verification = verify(copied)
    assert verification.failed == (f"file {name}",)
    assert "cannot be read" in of(verification, f"file {name}").found


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_damaged_manifest_says_nothing_else_can_be_checked(copied: Path, place: float) -> None:
    flip(copied / MANIFEST, place)
    verification = verify(copied)
    assert verification.failed == ("manifest",)
    assert not_made(verification) == {"everything else"}
    assert verification.digest == ""


def other_weights(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["fc.weight"] = weights["fc.weight"] * np.float32(1.01)
    save_file(weights, folder / WEIGHTS)


def other_golden_films(folder: Path) -> None:
    np.save(folder / GOLDEN, np.load(folder / GOLDEN)[:, ::-1])


def fewer_golden_films(folder: Path) -> None:
    np.save(folder / GOLDEN, np.load(folder / GOLDEN)[:-1])


def broken_graph(folder: Path) -> None:
    (folder / GRAPH).write_bytes(b"no graph")


@pytest.mark.parametrize("change", [other_weights, other_golden_films, fewer_golden_films])
def test_files_changed_under_a_new_seal_do_not_give_the_golden_logits(
    copied: Path, change: Callable[[Path], None]
) -> None:
    change(copied)
    reseal(copied)
    failed = verify(copied).failed
    assert {name for name in failed if name.startswith("golden logits")} == {
        f"golden logits, {runtime}, {threads}"
        for runtime in ("onnxruntime", "torch")
        for threads in ("1 thread", "2 threads", "4 threads")
    }
    others = {name for name in failed if not name.startswith("golden logits")}
    assert others == ({"gate, onnxruntime", "gate, torch"} if change is not other_weights else set())


def test_a_graph_that_the_runtime_cannot_open_is_a_failed_check_and_no_traceback(copied: Path) -> None:
    broken_graph(copied)
    reseal(copied)
    failed = verify(copied).failed
    assert "maps, onnxruntime" in failed
    assert "maps, torch" not in failed


def test_weights_with_code_in_them_are_not_run(copied: Path) -> None:
    (copied / WEIGHTS).write_bytes(b"\x80\x04\x95pickled")
    reseal(copied)
    verification = verify(copied)
    assert verification.failed == ("weights",)
    assert "not plain safetensors" in of(verification, "weights").found
    assert not_made(verification) == {"golden logits", "maps"}


def test_weights_that_are_not_finite_are_not_run(copied: Path) -> None:
    weights = load_file(copied / WEIGHTS)
    weights["fc.bias"] = np.array([np.nan], dtype=np.float32)
    save_file(weights, copied / WEIGHTS)
    reseal(copied)
    verification = verify(copied)
    assert verification.failed == ("weights",)
    assert "fc.bias" in of(verification, "weights").found


def test_other_preprocessing_says_in_what_it_differs(copied: Path) -> None:
    reseal(copied, preprocessing={**PREPROCESSING, "version": 2, "interpolation": "cv2.INTER_LINEAR"})
    verification = verify(copied)
    assert verification.failed == ("preprocessing",)
    assert "version is 2, here 1" in of(verification, "preprocessing").found
    assert "interpolation is 'cv2.INTER_LINEAR'" in of(verification, "preprocessing").found
    assert not_made(verification) == {"golden logits", "maps"}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"status": "approved"}, ("schema",)),
        ({"schema": 2}, ("schema",)),
        ({"preprocessing": None}, ("preprocessing",)),
        ({"training": {"commit": "abc", "data": "films.csv"}}, ("training data",)),
        ({"training": {"data": "sha256:" + "0" * 64}}, ("training commit",)),
        ({"training": "long ago"}, ("training data", "training commit")),
    ],
)
def test_a_manifest_that_makes_no_sense_is_told_by_its_part(
    copied: Path, changes: dict[str, Any], failed: tuple[str, ...]
) -> None:
    reseal(copied, **changes)
    assert verify(copied).failed == failed


def test_files_that_are_no_table_are_a_damaged_manifest(copied: Path) -> None:
    manifest = json.loads((copied / MANIFEST).read_bytes()) | {"files": [WEIGHTS]}
    (copied / MANIFEST).write_bytes(rendered(seal(manifest)))
    assert verify(copied).failed == ("manifest",)
