"""The way from prepared films to a bundle with a detector, by the commands that a user types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pneumonia_model.bundle import load_bundle
from pneumonia_model.opening import open_detector
from pneumonia_model.preprocessing import PREPROCESSING
from pneumonia_model.regions import detector_threshold, has_detector
from pneumonia_training.cli import app
from typer.testing import CliRunner

from tests.node import BUNDLE
from tests.training.phantoms import phantoms

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms as `prepare` would leave them."""
    folder = tmp_path_factory.mktemp("cache")
    prepared = phantoms(40)
    np.save(folder / "images.npy", prepared.images)
    prepared.films.assign(subset="rsna224").to_csv(folder / "films.csv", index=False)
    document = {"preprocessing": PREPROCESSING, "films": 40, "digest": prepared.digest, "split_unit": "patient"}
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def checkpoint(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `fit` leaves."""
    folder = tmp_path_factory.mktemp("run")
    options = ("--recipe", "detect", "--smoke", "--set", "detector.side=64", "--accelerator", "cpu", "--devices", "1")
    run("fit", cache, folder, *options)
    return folder / "detector" / "final.ckpt"


@pytest.fixture(scope="module")
def bundles(cache: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of bundles where `detect-export` leaves its own."""
    folder = tmp_path_factory.mktemp("bundles")
    run("detect-export", BUNDLE, cache, checkpoint, "--version", "9.9.9", "--bundles", folder)
    return folder


def test_a_detector_is_trained_measured_and_released_by_commands(cache: Path, checkpoint: Path, bundles: Path) -> None:
    figures = json.loads(run("detect-evaluate", cache, checkpoint))
    assert figures["test"] == {"films": 8, "positive": 4, "patients": 8, "boxes": 4}
    assert figures["map"]["no box"][0] == 0

    released = load_bundle(bundles / f"{load_bundle(BUNDLE).name}-9.9.9")
    assert has_detector(released)
    assert detector_threshold(released) == figures["threshold"]["value"]
    assert released.manifest["detector"]["evaluation"] == figures
    assert released.digest != load_bundle(BUNDLE).digest
    assert open_detector(released, "cpu") is not None


def test_a_release_is_never_written_over(cache: Path, checkpoint: Path, bundles: Path) -> None:
    export: list[str | Path] = ["detect-export", BUNDLE, cache, checkpoint, "--version", "9.9.9", "--bundles", bundles]
    again = CliRunner().invoke(app, [str(argument) for argument in export])
    assert again.exit_code == 1
    assert "never written over" in str(again.exception)
