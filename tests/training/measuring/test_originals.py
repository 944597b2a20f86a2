"""A film scores the same however it came, or the difference is stated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from pneumonia_model.bundle import WEIGHTS
from pneumonia_training import intervals
from pneumonia_training.films.manifests import ManifestError
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.learning.recipe import read_recipe
from pneumonia_training.measuring.calibration import Chosen
from pneumonia_training.measuring.originals import measure_originals
from safetensors.torch import load_file

from tests.node import BUNDLE
from tests.training.small_films import prepared_films

CHOSEN: Final = Chosen(slope=1.0, intercept=0.0, thresholds={"half": 0.5})
RECIPE: Final = read_recipe("default")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of 20 patients, and a cross-validation whose two networks are the shipped one and its opposite."""
    folder = tmp_path_factory.mktemp("films")
    weights = load_file(BUNDLE / WEIGHTS)
    opposite = weights | {name: -weights[name] for name in ("fc.weight", "fc.bias")}
    for fold, state in enumerate((weights, opposite)):
        stage = folder / "run" / f"fold-{fold}" / "0-films"
        stage.mkdir(parents=True)
        torch.save({"state_dict": state}, stage / "final.ckpt")
        (stage / "stage.json").write_text(json.dumps({"checkpoint": "final.ckpt"}))
    return folder


@pytest.fixture(scope="module")
def prepared(folder: Path) -> PreparedFilms:
    prepared = prepared_films(folder, patients=20, films_each=1)
    table = pd.DataFrame({"row": range(20), "fold": prepared.films["fold"] % 2, "logit": np.linspace(-1, 1, 20)})
    table.to_csv(folder / "run" / "predictions.csv", index=False)
    return replace(prepared, films=prepared.films.assign(image_id=[f"image-{row}" for row in range(20)]))


def manifest(folder: Path, prepared: PreparedFilms, name: str, *, blur: bool) -> Path:
    """Write each second film anew, in another order, and return their manifest."""
    rows = []
    for row in range(18, -1, -2):
        picture = cv2.imread(str(folder / f"{row}-0.png"), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        cv2.imwrite(str(folder / f"{name}-{row}.png"), cv2.GaussianBlur(picture, (0, 0), 3) if blur else picture)
        rows.append((f"{name}-{row}.png", prepared.films["label"][row], f"image-{row}"))
    rows.append(("0-0.png", 0, "another"))
    pd.DataFrame(rows, columns=["path", "label", "image_id"]).to_csv(folder / f"{name}.csv", index=False)
    return folder / f"{name}.csv"


def measured(folder: Path, prepared: PreparedFilms, name: str, *, blur: bool) -> dict[str, object]:
    path = manifest(folder, prepared, name, blur=blur)
    return measure_originals(prepared, RECIPE, folder / "run" / "predictions.csv", path, CHOSEN)


def test_the_same_pixels_score_the_same_whatever_their_file(
    folder: Path, prepared: PreparedFilms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "REPLICATES", 50)
    found = measured(folder, prepared, "same", blur=False)
    assert found["films"] == found["patients"] == 10
    assert found["auc"]["difference"][0] == 0  # type: ignore[index]
    assert found["logits_apart"] == {"negative": 0, "positive": 0, "deviation": 0}
    assert found["decisions_that_differ"] == 0


def test_sharpness_that_moves_the_score_is_stated(
    folder: Path, prepared: PreparedFilms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "REPLICATES", 50)
    found = measured(folder, prepared, "blurred", blur=True)
    assert found["logits_apart"]["deviation"] > 0.01  # type: ignore[index]


def test_films_that_are_not_among_the_prepared_are_refused(folder: Path, prepared: PreparedFilms) -> None:
    predictions = folder / "run" / "predictions.csv"
    pd.DataFrame({"path": ["0-0.png"], "label": [0], "image_id": ["x"]}).to_csv(folder / "other.csv", index=False)
    with pytest.raises(ManifestError, match="none of its films"):
        measure_originals(prepared, RECIPE, predictions, folder / "other.csv", CHOSEN)
    pd.DataFrame({"path": ["0-0.png"], "label": [0]}).to_csv(folder / "nameless.csv", index=False)
    with pytest.raises(ManifestError, match="no column image_id"):
        measure_originals(prepared, RECIPE, predictions, folder / "nameless.csv", CHOSEN)
