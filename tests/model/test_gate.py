"""The gate: what looks like the films that it was fitted on passes, what does not is refused, on both runtimes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pneumonia_model.bundle import (
    MANIFEST,
    WEIGHTS,
    Bundle,
    BundleError,
    load_bundle,
    rendered,
    seal,
)
from pneumonia_model.errors import BackendError
from pneumonia_model.gate import GATE_WEIGHTS, Appearance, Gate, appearance, load_gate
from pneumonia_model.golden import verify_golden_gate
from pneumonia_model.network import pneumonia_resnet18
from pneumonia_model.opening import open_backend
from pneumonia_model.prediction import STAGE_FEATURES, Backend, NotFiniteError, checked_scores
from pneumonia_model.verification import Result, verify
from pneumonia_training.measuring.pixel_gate import FILMS_AN_AXIS, MOST_AXES, fit_gate
from safetensors.torch import load_file

from tests.model.gates import gate_of, gate_parts, phantoms, with_gate
from tests.model.serving import no_maps

RUNTIMES: Final[tuple[Literal["onnxruntime", "torch"], ...]] = ("onnxruntime", "torch")
Films = NDArray[np.float32]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(with_gate(tmp_path_factory.mktemp("gate") / "bundle"))


@pytest.fixture(scope="module")
def gate(bundle: Bundle) -> Gate:
    return gate_of(bundle)


@pytest.fixture(scope="module", params=RUNTIMES)
def backend(bundle: Bundle, request: pytest.FixtureRequest) -> Backend:
    return open_backend(bundle, request.param, "cpu", threads=1)


@pytest.fixture(scope="module")
def films() -> Films:
    return phantoms(2000, 6)


@pytest.fixture(scope="module")
def unlikeness(gate: Gate, backend: Backend) -> Callable[[Films], NDArray[np.float64]]:
    return lambda inputs: gate.unlikeness(backend.scores(np.ascontiguousarray(inputs)).features)


def test_films_like_the_fitted_ones_pass(unlikeness: Callable[[Films], NDArray[np.float64]], films: Films) -> None:
    assert (unlikeness(films) <= 1).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda films: np.rot90(films, 1, (1, 2)),
        lambda films: np.rot90(films, 2, (1, 2)),
        lambda films: np.rot90(films, 3, (1, 2)),
        lambda films: 1 - films,
        lambda films: np.tile(films[:, ::2, ::2], (1, 2, 2)),
        lambda films: np.random.default_rng(3).random(films.shape, dtype=np.float32),
        lambda films: np.full_like(films, 0.5),
    ],
    ids=["turned-left", "upside-down", "turned-right", "inverted", "montage", "noise", "grey"],
)
def test_other_pictures_are_refused(
    unlikeness: Callable[[Films], NDArray[np.float64]], films: Films, change: Callable[[Films], Films]
) -> None:
    assert (unlikeness(change(films)) > 1).all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda film: np.rot90(film, 1), Appearance.TURNED_LEFT),
        (lambda film: np.rot90(film, 2), Appearance.UPSIDE_DOWN),
        (lambda film: np.rot90(film, -1), Appearance.TURNED_RIGHT),
        (lambda film: 1 - film, Appearance.INVERTED),
        (lambda film: np.full_like(film, 0.5), Appearance.UNKNOWN),
    ],
    ids=["turned-left", "upside-down", "turned-right", "inverted", "grey"],
)
def test_what_a_refused_picture_looks_like_is_named(
    unlikeness: Callable[[Films], NDArray[np.float64]],
    films: Films,
    change: Callable[[Films], Films],
    expected: Appearance,
) -> None:
    assert [appearance(change(film), unlikeness) for film in films[:2]] == [expected] * 2


def test_a_picture_that_is_turned_left_has_its_top_on_the_left(films: Films) -> None:
    marked = films[0].copy()
    marked[0] = 1
    assert (np.rot90(marked, 1)[:, 0] == 1).all()


def test_what_is_said_of_a_film_does_not_depend_on_what_came_with_it(gate: Gate, bundle: Bundle, films: Films) -> None:
    backend = open_backend(bundle, "onnxruntime", "cpu", threads=1)
    together = gate.unlikeness(backend.scores(films).features)
    alone = [gate.unlikeness(backend.scores(films[row : row + 1]).features)[0] for row in range(len(films))]
    assert together.tolist() == alone


def test_the_logits_are_the_same_to_the_last_bit_with_and_without_the_features(backend: Backend, films: Films) -> None:
    assert np.array_equal(backend.scores(films).logits, backend.logits(films))


def test_the_features_are_the_means_of_nine_places_of_the_second_stage(
    bundle: Bundle, backend: Backend, films: Films
) -> None:
    network = pneumonia_resnet18().eval()
    network.load_state_dict(load_file(bundle.path / WEIGHTS))
    seen: list[torch.Tensor] = []
    network.layer2.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.inference_mode():
        network(torch.from_numpy(films)[:, None])
    stage = seen[0].numpy()
    assert stage.shape == (len(films), 128, 28, 28)
    starts = (0, 9, 18)
    places = [
        stage[:, :, row : row + 10, column : column + 10].mean(axis=(2, 3)) for row in starts for column in starts
    ]
    expected = np.stack(places, axis=2).reshape(len(films), STAGE_FEATURES)
    assert np.abs(backend.scores(films).features - expected).max() <= 1e-4


def test_features_that_are_no_numbers_never_pass(films: Films) -> None:
    features = np.full((len(films), STAGE_FEATURES), np.nan, dtype=np.float32)
    with pytest.raises(NotFiniteError):
        checked_scores(np.zeros(len(films), dtype=np.float32), features, no_maps, count=len(films))
    with pytest.raises(BackendError, match="features"):
        checked_scores(np.zeros(len(films), dtype=np.float32), features[:, :9], no_maps, count=len(films))


def test_golden_inputs_are_as_unlike_films_as_the_bundle_says(bundle: Bundle, backend: Backend, gate: Gate) -> None:
    verify_golden_gate(bundle, backend, gate)


def test_a_gate_that_answers_otherwise_never_serves(tmp_path: Path) -> None:
    golden = [1.002 * value for value in gate_parts()[2]]
    other = load_bundle(with_gate(tmp_path / "bundle", golden=golden))
    found = gate_of(other)
    with pytest.raises(BundleError, match=r"golden figures differ by 0\.002"):
        verify_golden_gate(other, open_backend(other, "onnxruntime", "cpu"), found)


def test_golden_figures_that_are_missing_are_noticed(tmp_path: Path) -> None:
    other = load_bundle(with_gate(tmp_path / "bundle", golden=[1.0]))
    found = gate_of(other)
    with pytest.raises(BundleError, match="1 golden figures"):
        verify_golden_gate(other, open_backend(other, "onnxruntime", "cpu"), found)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("mean", lambda part: part[:-1], "expected are"),
        ("axes", lambda part: part[:-1], "expected are"),
        ("deviations", lambda part: 0 * part, "not above 0"),
        ("scale", lambda part: -part, "not above 0"),
        ("mean", lambda part: part * np.float32(np.nan), "not finite"),
        ("unknown", lambda _: np.zeros(3, dtype=np.float32), "unknown"),
    ],
    ids=["short-mean", "axis-gone", "no-deviation", "negative-scale", "no-number", "unknown"],
)
def test_a_file_that_this_version_does_not_expect_is_refused(
    tmp_path: Path, part: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]], said: str
) -> None:
    parts = {part: change(gate_parts()[0].get(part, np.zeros(1, dtype=np.float32)).copy())}
    with pytest.raises(BundleError, match=said):
        load_gate(load_bundle(with_gate(tmp_path / "bundle", parts=parts)))


@pytest.mark.parametrize("limit", [0.0, -1.0])
def test_a_limit_that_lets_nothing_through_is_refused(tmp_path: Path, limit: float) -> None:
    with pytest.raises(BundleError, match="limit is not above 0"):
        load_gate(load_bundle(with_gate(tmp_path / "bundle", limit=limit)))


def changed_manifest(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Bundle:
    manifest = change(dict(load_bundle(folder).manifest))
    (folder / MANIFEST).write_bytes(rendered(seal(manifest)))
    return load_bundle(folder)


def test_a_section_without_its_file_is_refused(tmp_path: Path) -> None:
    def without_file(manifest: dict[str, Any]) -> dict[str, Any]:
        return manifest | {"files": {k: v for k, v in manifest["files"].items() if k != GATE_WEIGHTS}}

    with pytest.raises(BundleError, match=f"no {GATE_WEIGHTS}"):
        load_gate(changed_manifest(with_gate(tmp_path / "bundle"), without_file))


def test_a_section_that_lacks_something_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a gate's section"):
        load_gate(
            changed_manifest(with_gate(tmp_path / "bundle"), lambda manifest: manifest | {"gate": {"limit": 1.0}})
        )


def test_a_bundle_without_a_gate_has_none(tmp_path: Path) -> None:
    folder = with_gate(tmp_path / "bundle")
    bare = changed_manifest(folder, lambda manifest: {k: v for k, v in manifest.items() if k != "gate"})
    assert load_gate(bare) is None
    assert not [check for check in verify(folder).checks if check.name.startswith("gate")]


def test_verification_runs_the_gate_on_every_runtime(tmp_path: Path, bundle: Bundle) -> None:
    checks = {check.name: check for check in verify(bundle.path).checks}
    assert [checks[f"gate, {runtime}"].result for runtime in RUNTIMES] == [Result.PASSED] * 2
    spoilt = shutil.copytree(bundle.path, tmp_path / "bundle")
    changed_manifest(spoilt, lambda manifest: manifest | {"gate": manifest["gate"] | {"golden": [9.0] * 6}})
    assert set(verify(spoilt).failed) == {f"gate, {runtime}" for runtime in RUNTIMES}


def test_a_fit_uses_no_more_axes_than_films_can_tell_apart() -> None:
    features = np.random.default_rng(1).normal(size=(60, STAGE_FEATURES)).astype(np.float32)
    features[:, 0] = 0  # a channel that is dark on all films
    found = fit_gate(features)
    assert len(found.deviations) == 60 // FILMS_AN_AXIS < MOST_AXES
    assert (np.diff(found.deviations) <= 0).all()
    assert np.allclose(found.axes @ found.axes.T, np.eye(len(found.axes)), atol=1e-5)
    assert np.isfinite(found.unlikeness(features)).all()


def test_the_unlikeness_is_mahalanobis_distance_along_the_axes() -> None:
    random = np.random.default_rng(2)
    features = (random.normal(size=(300, 12)) @ random.normal(size=(12, STAGE_FEATURES))).astype(np.float32)
    found = fit_gate(features)
    kept = len(found.deviations)
    assert kept == 12
    standard = (features - found.mean) / found.scale
    covariance = standard.T @ standard / len(features)
    expected = np.sqrt(
        np.einsum("ni,ij,nj->n", standard, np.linalg.pinv(covariance, rcond=1e-6, hermitian=True), standard)
    )
    assert np.allclose(found.unlikeness(features), expected, rtol=1e-3)
