"""A bundle on trial is run beside the one that reports, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pneumonia_model.bundle import MANIFEST, WEIGHTS, file_sha256, load_bundle, read_manifest, rendered, seal
from pneumonia_model.preprocessing import PREPROCESSING

from scp_node.inference.identity import ShadowRefusedError, identify, promoted
from scp_node.inference.served_model import ServedModel
from scp_node.inference.shadow import describe_both, open_shadow
from scp_node.settings import InferenceSettings
from tests.model.bundles import second_bundle
from tests.node import BUNDLE


def settings(shadow: Path | None, **changes: Any) -> InferenceSettings:
    return InferenceSettings(bundle=BUNDLE, shadow_bundle=shadow, backend="onnxruntime", **changes)


def opened(shadow: Path | None, **changes: Any) -> ServedModel | None:
    chosen = settings(shadow, **changes)
    return open_shadow(chosen, identify(chosen))


def test_without_the_setting_there_is_none(tmp_path: Path) -> None:
    assert opened(None) is None
    assert "shadow" not in describe_both(settings(None))
    with pytest.raises(ShadowRefusedError, match="not set"):
        promoted(settings(None))
    assert promoted(settings(tmp_path)).bundle == tmp_path


def test_another_bundle_is_opened_with_the_operating_point_and_runtime_of_the_settings(tmp_path: Path) -> None:
    folder = second_bundle(tmp_path / "trial")
    model = opened(folder, operating_point="half")
    assert model is not None
    assert (model.identity.bundle, model.identity.threshold, model.backend) == ("trial-9.0.0", 0.5, "onnxruntime")
    assert model.identity.digest == load_bundle(folder).digest
    assert describe_both(settings(folder))["shadow"]["digest"] == load_bundle(folder).digest


def the_same(_folder: Path) -> Path:
    return BUNDLE


def a_copy(folder: Path) -> Path:
    """The same bundle at another place: its digest tells."""
    folder.mkdir()
    for file in BUNDLE.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    return folder


def absent(folder: Path) -> Path:
    return folder


def with_another_size(folder: Path) -> Path:
    return second_bundle(folder, preprocessing={**PREPROCESSING, "size": [256, 256], "clahe": True})


def without_its_operating_point(folder: Path) -> Path:
    point = load_bundle(BUNDLE).manifest["operating_points"][0]
    return second_bundle(folder, operating_points=[point])


def altered(folder: Path) -> Path:
    second_bundle(folder)
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).write_bytes(b"other")
    return folder


def answering_differently(folder: Path) -> Path:
    logits = [logit + 1e-3 for logit in load_bundle(BUNDLE).manifest["golden"]["logits"]]
    return second_bundle(folder, golden={"logits": logits})


def with_a_graph_of_another_runtime(folder: Path) -> Path:
    """The graph is what its manifest says, and no ONNX Runtime can load it."""
    second_bundle(folder)
    graph = folder / "model.onnx"
    graph.unlink()
    graph.write_bytes(b"no graph")
    manifest = read_manifest(folder)
    manifest["files"] = {**manifest["files"], "model.onnx": file_sha256(graph)}
    (folder / MANIFEST).write_bytes(rendered(seal(manifest)))
    return folder


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (the_same, "is the bundle that reports"),
        (a_copy, "is the bundle that reports"),
        (absent, r"manifest\.json: cannot be read"),
        (with_another_size, r"size is \[256, 256\], not \[224, 224\]; clahe is True, not None"),
        (without_its_operating_point, r"inference\.operating_point: trial has recall-0\.90, not 'half'"),
        (altered, r"weights\.safetensors: sha256 is"),
        (answering_differently, "golden logits differ by"),
        (with_a_graph_of_another_runtime, "(?i)protobuf"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_that_cannot_be_run_beside_it_is_refused_with_the_reason(
    make: Callable[[Path], Path], told: str, tmp_path: Path
) -> None:
    folder = make(tmp_path / "trial")
    with pytest.raises(ShadowRefusedError, match=told):
        opened(folder, operating_point="half")


def test_the_description_of_one_that_is_refused_says_why(tmp_path: Path) -> None:
    assert "is the bundle that reports" in describe_both(settings(a_copy(tmp_path / "copy")))["shadow"]["refused"]
