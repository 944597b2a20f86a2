"""From films to a bundle that serves, in one short training."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import onnx
import pytest
import torch
from pneumonia_model.bundle import (
    GRAPH,
    MANIFEST,
    WEIGHTS,
    Bundle,
    BundleError,
    file_sha256,
    load_bundle,
    rendered,
    seal,
)
from pneumonia_model.errors import BackendError
from pneumonia_model.golden import verify_golden
from pneumonia_model.opening import open_backend
from pneumonia_training import intervals
from pneumonia_training.films.manifests import ManifestError
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import SplitRule, split_by_patient
from pneumonia_training.learning.checkpoint import network_weights
from pneumonia_training.learning.fit import Hardware, fit
from pneumonia_training.learning.recipe import Recipe, Stage
from pneumonia_training.measuring.calibration import chosen_in
from pneumonia_training.measuring.external import read_external
from pneumonia_training.measuring.measure import measure_films
from pneumonia_training.measuring.pixel_gate import FILMS_AN_AXIS, REFUSED_SHARE, describe, measure_elsewhere
from pneumonia_training.release.cards import bundle_blocks
from pneumonia_training.release.export import METRICS, START_LICENCE, Release, export, rewrite_graph
from pneumonia_training.release.golden import golden_pictures
from safetensors.numpy import load_file

from tests.model.gates import gate_of
from tests.node import BUNDLE
from tests.training.small_films import film, prepared_films
from tests.training.start_weights import LICENCE_TEXT, write_start_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

RULE: Final = SplitRule(test_folds=(0, 1), validation_folds=(2, 3))
RECIPE: Final = Recipe(
    name="trial",
    seed=3,
    precision="32-true",
    monitor="val_auroc",
    split=RULE,
    stages=(
        Stage(name="small", epochs=1, side=32, learning_rate=1e-3, batch_size=12, averaging=0.0),
        Stage(name="large", epochs=2, side=224, learning_rate=1e-3, batch_size=12, averaging=0.7),
    ),
)
RELEASE: Final = Release(name="trial", version="0.0.1", status="demonstration", commit="none")


@pytest.fixture(scope="module", autouse=True)
def _few_replicates() -> Iterator[None]:
    """What is tested here are releases; `test_intervals` tests the intervals."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(intervals, "REPLICATES", 100)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFilms:
    return prepared_films(tmp_path_factory.mktemp("films"), patients=60, films_each=1)


@pytest.fixture(scope="module")
def run(prepared: PreparedFilms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, start = tmp_path_factory.mktemp("run"), write_start_weights(tmp_path_factory.mktemp("start"))
    first, second = RECIPE.stages
    recipe = replace(RECIPE, stages=(replace(first, init=str(start)), second))
    fit(prepared, recipe, run=folder, hardware=Hardware(accelerator="cpu", devices=1))
    return folder


@pytest.fixture(scope="module")
def bundle(prepared: PreparedFilms, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(run / "1-large" / "best.ckpt", prepared, RECIPE, RELEASE, bundles=tmp_path_factory.mktemp("bundles"))


def test_a_training_leaves_its_course_as_csv_and_for_tensorboard(run: Path) -> None:
    with (run / "1-large" / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"train_loss", "val_auroc", "val_acc", "val_loss"} <= rows[0].keys()
    assert list((run / "1-large" / "tensorboard").glob("events.out.tfevents.*"))


def test_a_trained_network_tells_ill_films_from_others_and_can_be_released(bundle: Bundle) -> None:
    figures = json.loads((bundle.path / METRICS).read_text())
    assert figures["test"]["auc"]["model"]["all"][0] > 0.9
    assert bundle.status == "demonstration"
    assert bundle.manifest["files"].keys() >= {WEIGHTS, METRICS}
    for name in ("onnxruntime", "torch"):
        verify_golden(bundle, open_backend(bundle, name, "cpu"))


def test_a_bundle_names_the_weights_it_started_from_and_brings_their_licence(run: Path, bundle: Bundle) -> None:
    known = json.loads((run / "run.json").read_text())["start"]
    training = bundle.manifest["training"]
    expected = {"file": "start.safetensors", "sha256": known["sha256"], "licence": "The Licence of a Test"}
    assert training["start"] == expected
    assert [stage["init"] for stage in training["recipe"]["stages"]] == ["start.safetensors", ""]
    assert START_LICENCE in bundle.manifest["files"]
    assert (bundle.path / START_LICENCE).read_text() == LICENCE_TEXT
    assert known["sha256"] in bundle.manifest["attributions"][-1]
    assert f"SHA-256 `{known['sha256']}`, The Licence of a Test" in bundle_blocks(bundle.path)["identity"]
    assert str(Path(known["path"]).parent) not in (bundle.path / "manifest.json").read_text()


def test_a_release_brings_a_gate_with_its_figures(bundle: Bundle, prepared: PreparedFilms) -> None:
    gate, section = gate_of(bundle), bundle.manifest["gate"]
    assert section["films"] == len(split_by_patient(prepared.films, RULE).train)
    assert section["axes"] == len(gate.deviations) == section["films"] // FILMS_AN_AXIS
    figures = json.loads((bundle.path / METRICS).read_text())["gate"]
    counted = figures["refused"]
    assert counted["all"]["pictures"] == len(split_by_patient(prepared.films, RULE).test)
    assert counted["positive"]["pictures"] + counted["negative"]["pictures"] == counted["all"]["pictures"]
    assert {of["pictures"] for of in figures["changed"].values()} == {counted["all"]["pictures"]}
    assert len(bundle.manifest["reference"]["unlikeness"]) == len(bundle.manifest["reference"]["quantiles"])
    assert f"| all | {counted['all']['pictures']} | {counted['all']['refused']} |" in bundle_blocks(bundle.path)["gate"]


def test_the_limit_is_set_on_films_that_the_fit_has_not_seen(bundle: Bundle, prepared: PreparedFilms) -> None:
    split, gate = split_by_patient(prepared.films, RULE), gate_of(bundle)
    backend = open_backend(bundle, "onnxruntime", "cpu")
    unseen = gate.unlikeness(describe(prepared.images, backend, split.validation))
    assert np.quantile(unseen, 1 - REFUSED_SHARE) == pytest.approx(1, rel=1e-4)


def test_a_gate_is_tried_on_pictures_from_elsewhere(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("knee-1", "knee-2", "hand"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "film.png"), film(7, ill=False))
    (tmp_path / "others.csv").write_text("path,kind\nknee-1.png,knee\nknee-2.png,knee\nhand.png,hand\n")
    (tmp_path / "hospital.csv").write_text("path,label\nfilm.png,0\n")
    gate = gate_of(bundle)
    backend = open_backend(bundle, "onnxruntime", "cpu")
    films = {"hospital": read_external(tmp_path / "hospital.csv")}
    found = measure_elsewhere(gate, backend, external=films, outside=[tmp_path / "others.csv"])
    others = found["outside"]["others"]
    assert [others[kind]["pictures"] for kind in ("all", "hand", "knee")] == [3, 1, 2]
    assert others["all"]["refused"] == others["hand"]["refused"] + others["knee"]["refused"]
    assert found["external"]["hospital"]["pictures"] == 1


def test_pictures_without_their_kind_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    gate = gate_of(bundle)
    (tmp_path / "others.csv").write_text("path\nknee.png\n")
    with pytest.raises(ManifestError, match="no column kind"):
        measure_elsewhere(gate, open_backend(bundle, "torch", "cpu"), external={}, outside=[tmp_path / "others.csv"])


def test_the_weights_are_stored_once(bundle: Bundle) -> None:
    sizes = {file.name: file.stat().st_size for file in bundle.path.iterdir()}
    assert sizes["model.onnx"] < 50_000
    assert sizes[WEIGHTS] > 40_000_000
    assert sum(sizes.values()) < 49_000_000  # the gate of many films has 512 axes: 2.4 MB


def test_the_released_weights_are_trained_ones(bundle: Bundle) -> None:
    assert load_file(bundle.path / WEIGHTS)["bn1.num_batches_tracked"] > 0


def test_the_released_weights_are_the_average_that_was_validated(run: Path) -> None:
    checkpoint = run / "1-large" / "best.ckpt"
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    released = network_weights(checkpoint)
    assert torch.equal(released["fc.weight"], state["average.module.fc.weight"])
    assert not torch.equal(released["fc.weight"], state["network.fc.weight"])


def test_figures_in_the_manifest_are_those_that_evaluation_finds_again(prepared: PreparedFilms, bundle: Bundle) -> None:
    split = split_by_patient(prepared.films, RULE)
    backend = open_backend(bundle, "onnxruntime", "cpu")
    again = measure_films(prepared, split.test, backend, chosen_in(bundle), train=None).figures
    assert again["auc"]["model"]["all"] == bundle.manifest["auc"]
    assert again["operating_points"] == bundle.manifest["operating_points"]
    assert again["patients"] == prepared.films.group.iloc[split.test].nunique()


def test_a_release_can_be_made_again_byte_for_byte(
    prepared: PreparedFilms, run: Path, bundle: Bundle, tmp_path: Path
) -> None:
    again = export(run / "1-large" / "best.ckpt", prepared, RECIPE, RELEASE, bundles=tmp_path)
    assert again.digest == bundle.digest
    assert load_bundle(again.path).digest == bundle.digest


def test_golden_pictures_are_the_same_each_time_and_no_two_alike() -> None:
    assert np.array_equal(golden_pictures(), golden_pictures())
    assert len({picture.tobytes() for picture in golden_pictures()}) == len(golden_pictures())


def with_a_graph_without_features(folder: Path) -> Path:
    """Write the shipped bundle with a graph that gives less than this version asks for."""
    folder.mkdir()
    shipped = load_bundle(BUNDLE).manifest
    for name in shipped["files"]:
        (folder / name).write_bytes((BUNDLE / name).read_bytes())
    graph = onnx.load(folder / GRAPH, load_external_data=False)
    graph.graph.output.remove(next(output for output in graph.graph.output if output.name == "features"))
    (folder / GRAPH).write_bytes(graph.SerializeToString())
    files = {**shipped["files"], GRAPH: file_sha256(folder / GRAPH)}
    (folder / MANIFEST).write_bytes(rendered(seal({**shipped, "files": files})))
    return folder


def test_an_older_bundle_gets_the_graph_of_this_version_and_keeps_all_else(tmp_path: Path) -> None:
    folder = with_a_graph_without_features(tmp_path / "older")
    older = load_bundle(folder)
    with pytest.raises(BackendError, match="rewrite-graph"):
        open_backend(older, "onnxruntime", "cpu")
    rewritten = rewrite_graph(folder)
    shipped = load_bundle(BUNDLE)
    assert older.digest != rewritten.digest == shipped.digest
    assert dict(rewritten.manifest) == dict(shipped.manifest)


def test_no_graph_is_written_for_weights_that_were_altered(tmp_path: Path) -> None:
    folder = with_a_graph_without_features(tmp_path / "older")
    graph = (folder / GRAPH).read_bytes()
    with (folder / WEIGHTS).open("ab") as weights:
        weights.write(b"0")
    with pytest.raises(BundleError, match=WEIGHTS):
        rewrite_graph(folder)
    assert (folder / GRAPH).read_bytes() == graph
