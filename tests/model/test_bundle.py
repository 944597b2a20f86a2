"""A bundle with one wrong byte never serves, and two runtimes say the same of every film."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pneumonia_model.bundle import (
    GOLDEN,
    GRAPH,
    MANIFEST,
    WEIGHTS,
    Bundle,
    BundleError,
    Calibration,
    load_bundle,
    rendered,
    seal,
)
from pneumonia_model.errors import BackendError
from pneumonia_model.gate import load_gate
from pneumonia_model.golden import golden_difference, verify_golden, verify_golden_gate
from pneumonia_model.opening import open_backend
from pneumonia_model.precision import BOUNDS, Precision
from pneumonia_model.prediction import Backend, NotFiniteError, Scores, checked_logits, checked_maps
from pneumonia_model.preprocessing import PREPROCESSING

FILES: Final = (MANIFEST, WEIGHTS, GRAPH, GOLDEN, "metrics.json")


@pytest.fixture(scope="module")
def released(repository: Path) -> Bundle:
    """The bundle that this repository ships."""
    (folder,) = sorted((repository / "model" / "bundles").iterdir())
    return load_bundle(folder)


@pytest.fixture
def copied(released: Bundle, tmp_path: Path) -> Path:
    """A bundle of its own to damage; files are links until a test writes its own."""
    for file in released.path.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


@pytest.fixture(scope="module", params=["onnxruntime", "torch"])
def backend(request: pytest.FixtureRequest, released: Bundle) -> Backend:
    return open_backend(released, request.param, "cpu", threads=2)


def rewrite(path: Path, change: Callable[[bytearray], None]) -> None:
    octets = bytearray(path.read_bytes())
    change(octets)
    path.unlink()
    path.write_bytes(octets)


def test_the_released_bundle_says_what_it_is(released: Bundle) -> None:
    assert released.path.name == f"{released.name}-{released.version}"
    assert released.status == "demonstration"
    assert released.digest.startswith("sha256:")
    assert len(released.digest) == 71
    assert 0 < released.threshold < 1
    assert released.manifest["preprocessing"] == json.loads(json.dumps(PREPROCESSING))
    assert sum(file.stat().st_size for file in released.path.iterdir()) < 50_000_000


def test_loading_needs_no_runtime(released: Bundle) -> None:
    code = (
        "import sys; from pathlib import Path; from pneumonia_model.bundle import load_bundle; "
        "load_bundle(Path(sys.argv[1])); assert not {'torch', 'onnxruntime', 'cv2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, released.path], check=True)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.37, 1.0], ids=["first byte", "middle", "last byte"])
def test_one_flipped_bit_anywhere_stops_it(copied: Path, name: str, place: float) -> None:
    def flip(octets: bytearray) -> None:
        octets[round(place * (len(octets) - 1))] ^= 1

    rewrite(copied / name, flip)
    with pytest.raises(BundleError, match=name):
        load_bundle(copied)


@pytest.mark.parametrize(
    ("name", "open_"),
    [
        (WEIGHTS, lambda bundle: open_backend(bundle, "onnxruntime", "cpu")),
        (GRAPH, lambda bundle: open_backend(bundle, "onnxruntime", "cpu")),
        (WEIGHTS, lambda bundle: open_backend(bundle, "torch", "cpu")),
        (GOLDEN, lambda bundle: bundle.golden_inputs()),
    ],
    ids=["weights, onnxruntime", "graph, onnxruntime", "weights, torch", "golden inputs"],
)
def test_a_file_that_was_changed_after_its_check_is_not_opened(
    copied: Path, name: str, open_: Callable[[Bundle], object]
) -> None:
    bundle = load_bundle(copied)
    rewrite(copied / name, lambda octets: octets.__setitem__(-1, octets[-1] ^ 1))
    with pytest.raises(BundleError, match=name):
        open_(bundle)


def test_the_same_copy_undamaged_loads(copied: Path, released: Bundle) -> None:
    rewrite(copied / MANIFEST, lambda _: None)
    assert load_bundle(copied).digest == released.digest


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_stops_it_and_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(copied)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        load_bundle(tmp_path / "nowhere")


def resealed(copied: Path, **changes: Any) -> Path:
    """Change the manifest and seal it again, as somebody who knows how would."""
    manifest = json.loads((copied / MANIFEST).read_bytes())
    (copied / MANIFEST).unlink()
    (copied / MANIFEST).write_bytes(rendered(seal(manifest | changes)))
    return copied


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"status": "approved"},
        {"default_operating_point": "none"},
        {"operating_points": [{"name": "recall-0.90", "threshold": 1.5}]},
        {"calibration": {"method": "platt", "slope": -1.0, "intercept": 0.0}},
        {"calibration": {"method": "temperature", "slope": 1.0, "intercept": 0.0}},
        {"files": {}},
        {"files": {"../elsewhere": "0" * 64}},
    ],
)
def test_a_manifest_that_makes_no_sense_stops_it(copied: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=MANIFEST):
        load_bundle(resealed(copied, **changes))


def test_every_change_of_the_manifest_is_another_identity(copied: Path, released: Bundle) -> None:
    changed = load_bundle(resealed(copied, calibration={"method": "platt", "slope": 1.0, "intercept": 0.0}))
    assert changed.digest != released.digest


def test_a_bundle_of_other_preprocessing_is_refused(copied: Path) -> None:
    folder = resealed(copied, preprocessing={**PREPROCESSING, "interpolation": "cv2.INTER_LINEAR"})
    with pytest.raises(BackendError, match="preprocessing"):
        open_backend(load_bundle(folder), "onnxruntime", "cpu")


def test_golden_inputs_give_the_released_logits(released: Bundle, backend: Backend) -> None:
    verify_golden(released, backend)


def test_other_weights_than_the_released_ones_never_serve(released: Bundle, backend: Backend) -> None:
    class Drifted:
        name, device, precision = backend.name, backend.device, backend.precision

        def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            return backend.logits(inputs) + np.float32(2e-4)

        def scores(self, inputs: NDArray[np.float32]) -> Scores:
            raise AssertionError(f"nobody asked for the features of {len(inputs)} films")

    with pytest.raises(BundleError, match="golden"):
        verify_golden(released, Drifted())


def films(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).random((count, 224, 224), dtype=np.float32)


def test_two_runtimes_give_the_same_probability(released: Bundle) -> None:
    inputs = np.concatenate([films(4), released.golden_inputs()])
    one, other = (open_backend(released, name, "cpu").logits(inputs) for name in ("onnxruntime", "torch"))
    for first, second in zip(one, other, strict=True):
        assert abs(released.probability(float(first)) - released.probability(float(second))) < 1e-3


def test_a_films_score_does_not_depend_on_its_batch(backend: Backend) -> None:
    inputs = films(5)
    together = backend.logits(inputs)
    alone = np.concatenate([backend.logits(inputs[row : row + 1]) for row in range(5)])
    assert np.abs(together - alone).max() < 1e-5


def test_the_same_film_gets_the_same_logit_to_the_last_bit(backend: Backend) -> None:
    assert np.array_equal(backend.logits(films(2)), backend.logits(films(2)))


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((224, 224), dtype=np.float32),
        np.zeros((0, 224, 224), dtype=np.float32),
        np.zeros((1, 223, 224), dtype=np.float32),
        np.zeros((1, 1, 224, 224), dtype=np.float32),
        np.zeros((1, 224, 224), dtype=np.float64),
    ],
)
def test_inputs_of_another_shape_or_type_are_refused(backend: Backend, inputs: NDArray[np.float32]) -> None:
    for ask in (backend.logits, backend.scores):
        with pytest.raises(BackendError, match="inputs are"):
            ask(inputs)


def test_a_number_that_is_not_finite_is_no_result(backend: Backend) -> None:
    for ask in (backend.logits, backend.scores):
        with pytest.raises(BackendError, match="not finite"):
            ask(np.full((1, 224, 224), np.nan, dtype=np.float32))


def test_fewer_logits_than_films_are_no_result() -> None:
    with pytest.raises(BackendError, match="2 inputs"):
        checked_logits(np.zeros(1, dtype=np.float32), count=2)


@pytest.mark.parametrize("shape", [(1, 14, 14), (2, 7, 7)])
def test_fewer_or_smaller_maps_than_were_asked_for_are_no_result(shape: tuple[int, ...]) -> None:
    with pytest.raises(BackendError, match="2 films"):
        checked_maps(np.zeros(shape, dtype=np.float32), count=2)


def test_a_map_that_is_not_finite_is_no_result() -> None:
    with pytest.raises(NotFiniteError):
        checked_maps(np.full((1, 14, 14), np.nan, dtype=np.float32), count=1)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_has_no_probability(released: Bundle, logit: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        released.probability(logit)


@given(logit=st.floats(-1e30, 1e30), higher=st.floats(0, 1e6))
def test_probabilities_rise_with_the_logit_and_are_never_certain(logit: float, higher: float) -> None:
    calibration = Calibration(slope=1.2, intercept=-0.7)
    bundle = Bundle(
        path=Path(),
        name="",
        version="",
        status="demonstration",
        digest="",
        threshold=0.5,
        calibration=calibration,
        manifest={},
    )
    assert 0 < bundle.probability(logit) <= bundle.probability(logit + higher) < 1


def test_calibration_is_platts(released: Bundle) -> None:
    plain = replace(released, calibration=Calibration(slope=2.0, intercept=-1.0))
    assert plain.probability(0.75) == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_cuda_that_is_not_there_is_said_to_be_missing(released: Bundle) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BackendError, match="CUDA"):
        open_backend(released, "torch", "cuda")
    with pytest.raises(BackendError, match="CUDA"):
        open_backend(released, "onnxruntime", "cuda")


def test_auto_is_onnx_runtime_where_no_gpu_is(released: Bundle) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    backend = open_backend(released)
    assert (backend.name, backend.device) == ("onnxruntime", "cpu")


@pytest.fixture(scope="module")
def narrow(released: Bundle) -> Backend:
    return open_backend(released, "torch", "cpu", precision="bfloat16")


def test_bfloat16_answers_within_its_own_bound_and_not_within_that_of_float32(
    released: Bundle, narrow: Backend
) -> None:
    assert narrow.precision == "bfloat16"
    gate = load_gate(released)
    assert gate is not None
    verify_golden(released, narrow)
    verify_golden_gate(released, narrow, gate)
    assert BOUNDS["float32"].logit < golden_difference(released, narrow)


def test_answers_beyond_the_bound_name_the_setting_the_bound_and_what_came_out(
    released: Bundle, narrow: Backend
) -> None:
    golden = released.golden_logits()
    moved = {**released.manifest, "golden": {"logits": [float(golden[0]) + 1, *golden[1:].tolist()]}}
    wanted = r"differ by 1 on torch \(cpu\) with inference\.precision = bfloat16, allowed are 0\.015"
    with pytest.raises(BundleError, match=wanted):
        verify_golden(replace(released, manifest=moved), narrow)


@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        ("onnxruntime", "tf32"),
        ("onnxruntime", "float16"),
        ("onnxruntime", "bfloat16"),
        ("torch", "tf32"),
        ("torch", "float16"),
    ],
)
def test_a_precision_that_the_processor_lacks_is_refused_by_name(
    released: Bundle, backend: Literal["onnxruntime", "torch"], precision: Precision
) -> None:
    with pytest.raises(BackendError, match=rf"inference\.precision = {precision}: .* float32"):
        open_backend(released, backend, "cpu", precision=precision)
