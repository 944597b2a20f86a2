"""An evaluation says of the films what a reader could work out by hand, and nothing that they do not allow."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pneumonia_model.bundle import load_bundle
from pneumonia_training import intervals
from pneumonia_training.evaluation import compare_bundles, evaluate_crossvalidation, evaluate_external, evaluate_films
from pneumonia_training.films.manifests import ManifestError
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.intervals import logistic
from pneumonia_training.learning.recipe import read_recipe
from pneumonia_training.measuring.calibration import CalibrationError, Chosen, choose, cross_fitted
from pneumonia_training.measuring.compare_bundles import COMPARED, columns, paired
from pneumonia_training.measuring.measure import age_in_years, evaluate, read_predictions
from pneumonia_training.measuring.probes import best_point, border_only, boxed, centre_only, peak, pointing_game
from pneumonia_training.measuring.provenance import split_by

from tests.node import BUNDLE
from tests.training.small_films import film, prepared_films

RATES: Final = ("accuracy", "precision", "recall", "specificity")
PLAIN: Final = Chosen(slope=1.0, intercept=0.0, thresholds={"half": 0.5, "quarter": 0.25})


@pytest.fixture(autouse=True)
def _few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here are the figures; `test_intervals` tests the intervals."""
    monkeypatch.setattr(intervals, "REPLICATES", 100)


def table(labels: NDArray[np.bool_], **columns: object) -> pd.DataFrame:
    films = pd.DataFrame({"label": labels.astype(int), "group": np.arange(len(labels)).astype(str)})
    return films.assign(**({"view": "", "sex": "", "age": "", "negative_class": ""} | columns))  # type: ignore[arg-type]


def test_two_published_confusion_matrices_give_back_their_figures() -> None:
    """2,668 films of the RSNA set, 604 positive: [[1950, 114], [290, 314]] at .5, [[1766, 298], [158, 446]] at .25."""
    bands = [(0.1, 1766, 158), (0.3, 1950 - 1766, 290 - 158), (0.7, 114, 314)]  # probability, negative, positive films
    probabilities = np.concatenate([np.full(negative + positive, value) for value, negative, positive in bands])
    labels = np.concatenate([np.repeat([False, True], of) for _, *of in bands])
    scores = PLAIN.applied(np.log(probabilities / (1 - probabilities)))
    half, quarter = evaluate(table(labels), scores, baselines={})["operating_points"]
    assert half["confusion"] == [[1950, 114], [290, 314]]
    assert quarter["confusion"] == [[1766, 298], [158, 446]]
    values = [point[rate][0] for point in (half, quarter) for rate in RATES]
    assert values == pytest.approx([0.849, 0.734, 0.520, 0.945, 0.829, 0.599, 0.738, 0.856], abs=6e-4)
    assert all(point[rate][1] < point[rate][0] < point[rate][2] for point in (half, quarter) for rate in RATES)


@pytest.fixture(scope="module")
def scored() -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """400 films, a quarter positive, and logits that tell them apart somewhat."""
    random = np.random.default_rng(1)
    labels = np.arange(400) % 4 == 0
    kinds = np.where(
        labels, "Lung Opacity", np.where(np.arange(400) % 4 == 1, "Normal", "No Lung Opacity / Not Normal")
    )
    views = np.where(random.random(400) < 0.5, "AP", "PA")
    ages = np.array(["061Y", "12", "34", "150"])[np.arange(400) // 4 % 4]
    films = table(labels, negative_class=kinds, view=views, age=ages, sex=np.where(random.random(400) < 0.5, "F", "M"))
    return films, random.normal(np.where(labels, 1.0, -1.0), 1.5)


def test_predictive_values_at_the_films_own_prevalence_are_the_ones_counted(
    scored: tuple[pd.DataFrame, NDArray[np.float64]],
) -> None:
    films, logits = scored
    found = evaluate(films, PLAIN.applied(logits), baselines={})
    assert [row["prevalence"] for row in found["predictive_values"]["half"]] == [0.01, 0.05, 0.1, 0.226]
    ppv = [row["ppv"][0] for row in found["predictive_values"]["half"]]
    npv = [row["npv"][0] for row in found["predictive_values"]["half"]]
    assert ppv == sorted(ppv)
    assert npv == sorted(npv, reverse=True)
    point = found["operating_points"][0]
    (_, _), (missed, hit) = point["confusion"]
    recall, specificity = hit / (missed + hit), point["specificity"][0]
    assert ppv[2] == pytest.approx(0.1 * recall / (0.1 * recall + 0.9 * (1 - specificity)), abs=1e-3)


def test_groups_are_those_that_the_films_name(scored: tuple[pd.DataFrame, NDArray[np.float64]]) -> None:
    films, logits = scored
    tag = np.asarray(films["view"] == "AP", dtype=np.float64)
    found = evaluate(films, PLAIN.applied(logits), baselines={"view tag": tag})
    groups = found["groups"]
    assert groups["all"] == {"films": 400, "positive": 100}
    assert groups["against Normal"] == {"films": 200, "positive": 100}
    assert groups["age under 18"]["films"] == groups["age 40-64"]["films"] == groups["age unknown"]["films"] == 100
    assert "age 65 and over" not in groups
    assert groups["women"]["films"] + groups["men"]["films"] == 400
    assert found["auc"]["view tag"]["view AP"][0] == 0.5
    difference = found["auc_difference"]["view tag"]["all"]
    assert difference[0] == pytest.approx(
        found["auc"]["model"]["all"][0] - found["auc"]["view tag"]["all"][0], abs=2e-4
    )
    assert difference[1] > 0


@pytest.mark.parametrize(
    ("age", "years"),
    [("032Y", 32), ("32", 32), ("32.0", 32), ("018M", 1), ("400D", 1), ("", None), ("1-5 y", None), ("148", None)],
)
def test_ages_are_read_as_dicom_and_the_challenge_state_them(age: str, years: int | None) -> None:
    found = age_in_years(age)
    assert np.isnan(found) if years is None else int(found) == years


def test_films_of_one_kind_have_a_recall_and_nothing_else(scored: tuple[pd.DataFrame, NDArray[np.float64]]) -> None:
    films, logits = scored
    ill = (films["label"] == 1).to_numpy()
    found = evaluate(films[ill], PLAIN.applied(logits[ill]), baselines={})
    point = found["operating_points"][0]
    assert point["recall"][0] == pytest.approx((logits[ill] >= 0).mean(), abs=1e-4)
    assert point["precision"] == point["accuracy"] == point["specificity"] == [None] * 3
    assert found["auc"]["model"]["all"] == found["brier"]["after"] == [None] * 3
    assert found["reliability"]["after"] == []


def test_calibration_mends_what_balanced_training_distorts(scored: tuple[pd.DataFrame, NDArray[np.float64]]) -> None:
    films, logits = scored
    labels, folds = (films["label"] == 1).to_numpy(), np.arange(400) % 5
    found = evaluate(films, cross_fitted(logits + 2, labels, folds), baselines={})
    errors = found["calibration_error"]
    assert errors["before"][0] > 0.2
    assert errors["after"][0] < 0.08
    assert sum(row["films"] for row in found["reliability"]["after"]) == 400
    assert found["operating_points"][0]["name"] == "recall-0.90"
    assert found["operating_points"][0]["recall"][0] == pytest.approx(0.9, abs=0.06)


def test_no_film_has_a_part_in_its_own_calibration(scored: tuple[pd.DataFrame, NDArray[np.float64]]) -> None:
    films, logits = scored
    labels, folds = (films["label"] == 1).to_numpy(), np.arange(400) % 5
    turned = np.where(folds == 2, ~labels, labels)
    before, after = cross_fitted(logits, labels, folds), cross_fitted(logits, turned, folds)
    assert np.array_equal(before.probabilities[folds == 2], after.probabilities[folds == 2])
    assert not np.array_equal(before.probabilities[folds == 1], after.probabilities[folds == 1])


@pytest.mark.parametrize("labels", [np.ones(10, dtype=bool), np.zeros(10, dtype=bool)])
def test_nothing_is_chosen_on_films_of_one_kind(labels: NDArray[np.bool_]) -> None:
    with pytest.raises(CalibrationError, match="both classes"):
        choose(np.linspace(-1, 1, 10), labels)


# --- where the network looks -----------------------------------------------------------------------------------------


def test_the_probes_leave_nothing_of_what_they_mask() -> None:
    random = np.random.default_rng(0)
    first = random.random((1, 224, 224), dtype=np.float32)
    second = first.copy()
    second[:, 28:-28, 28:-28] = random.random((1, 168, 168), dtype=np.float32)
    assert np.array_equal(border_only(first), border_only(second))
    assert not np.array_equal(centre_only(first), centre_only(second))
    assert np.array_equal(centre_only(border_only(first))[:, 30:-30, 30:-30], border_only(first)[:, 30:-30, 30:-30])
    assert np.ptp(border_only(first)[0, 28:-28, 28:-28]) == 0


def test_pointing_counts_maps_that_are_highest_in_a_box_beside_the_best_fixed_point() -> None:
    maps = np.zeros((4, 8, 8), dtype=np.float32)
    maps[0, 2, 2] = maps[1, 2, 2] = maps[2, 7, 7] = maps[3, 0, 0] = 1
    left, right = "[[256, 256, 128, 128]]", "[[640, 256, 256, 256]]"
    films = pd.DataFrame({"label": [1, 1, 1, 0], "boxes": [left, right, right, ""], "group": list("abcd")})
    assert boxed(films).tolist() == [True, True, True, False]
    game = pointing_game(films[:3], maps[:3])
    assert game["films"] == 3
    assert game["hits"][0] == pytest.approx(1 / 3, abs=1e-4)
    assert game["baseline"]["hits"][0] == pytest.approx(2 / 3, abs=1e-4)
    x, y = game["baseline"]["point"]
    assert 640 / 1024 < x < 896 / 1024
    assert 256 / 1024 < y < 512 / 1024
    assert peak(maps[2]) == (7.5 / 8, 7.5 / 8)
    assert best_point([[[0, 0, 512, 1024]], [[512, 0, 512, 1024]], [[500, 500, 524, 100]]])[1].sum() == 2


# --- two bundles -----------------------------------------------------------------------------------------------------


def test_a_comparison_is_paired(scored: tuple[pd.DataFrame, NDArray[np.float64]]) -> None:
    films, logits = scored
    labels, patients = (films["label"] == 1).to_numpy(), films["group"].to_numpy(dtype=np.str_)
    worse = PLAIN.applied(logits + np.random.default_rng(2).normal(0, 0.4, 400))
    same = paired(columns(PLAIN.applied(logits)), columns(PLAIN.applied(logits)), labels, patients)
    assert same.keys() == COMPARED.keys()
    assert all(figure["difference"] == [0, 0, 0] for figure in same.values())
    compared = paired(columns(PLAIN.applied(logits)), columns(worse), labels, patients)["auc"]
    low, high = compared["difference"][1:]
    alone = compared["first"]
    assert None not in (low, high, *alone)
    assert high - low < (alone[2] - alone[1]) / 2  # type: ignore[operator]


# --- the command's files ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFilms:
    return prepared_films(tmp_path_factory.mktemp("films"), patients=40, films_each=1)


def assert_needs_nothing_from_outside(page: str) -> None:
    assert page.startswith("<!DOCTYPE html>")
    assert {link[:11] for link in re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"'>)]*)", page)} <= {"data:image/"}
    assert "<script" not in page
    assert "@import" not in page


def test_an_evaluation_is_one_page_and_its_figures(prepared: PreparedFilms, tmp_path: Path) -> None:
    page = evaluate_films(load_bundle(BUNDLE), prepared, None).written(tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    text = page.read_text()
    assert_needs_nothing_from_outside(text)
    assert text.count("data:image/svg+xml;base64,") >= 5
    assert f"{metrics['test']['auc']['model']['all'][0]:.3f}" in text
    assert metrics["bundle"]["digest"] in text
    titles = (
        "ROC",
        "Reliability",
        "Operating points",
        "Predictive values",
        "Subgroups",
        "Trivial baselines",
        "Shortcut",
    )
    assert [title for title in titles if title not in text] == []
    assert "NOT FOR CLINICAL USE" in text
    (doubt,) = metrics["warnings"]
    assert "other prepared films" in doubt
    assert doubt in text
    assert set(metrics["test"]["probes"]["auc"]) == {"border only", "border masked"}


def test_films_whose_patients_nobody_knows_are_split_by_image_whatever_the_recipe(prepared: PreparedFilms) -> None:
    unknown = replace(prepared, split_unit="image")
    assert split_by(prepared, read_recipe("default")) == "patient"
    assert split_by(prepared, read_recipe("reference")) == split_by(unknown, read_recipe("default")) == "image"


def test_a_bundle_compared_with_itself_differs_in_nothing(prepared: PreparedFilms) -> None:
    bundle = load_bundle(BUNDLE)
    compared = compare_bundles(bundle, bundle, prepared, None)
    assert_needs_nothing_from_outside(compared.report)
    assert json.loads(compared.metrics)["figures"]["auc"]["difference"] == [0, 0, 0]


def test_films_from_elsewhere_are_measured_as_far_as_they_can_be_read(tmp_path: Path) -> None:
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), film(number, ill=True))
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    names = [f"{number}.png" for number in range(4)]
    pd.DataFrame({"path": [*names, "torn.jpg", "gone.dcm"], "label": 1}).to_csv(tmp_path / "clinic.csv", index=False)
    result = evaluate_external(load_bundle(BUNDLE), tmp_path / "clinic.csv")
    metrics = json.loads(result.metrics)
    assert metrics["split"]["test"]["films"] == 4
    assert [film["path"] for film in metrics["unreadable"]] == ["torn.jpg", "gone.dcm"]
    assert len(metrics["warnings"]) == 3
    assert metrics["test"]["operating_points"][0]["recall"][0] is not None
    assert metrics["test"]["auc"]["model"]["all"] == [None] * 3
    assert "torn.jpg" in result.report
    assert "Predictive values" not in result.report


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("label\n1\n", "no column path"),
        ("path,label\na.png,2\n", "neither 0 nor 1"),
        ("path,label\na.png,1\n", "no film"),
    ],
)
def test_a_manifest_that_cannot_be_measured_is_told(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=reason):
        evaluate_external(load_bundle(BUNDLE), tmp_path / "m.csv")


def write_predictions(prepared: PreparedFilms, path: Path) -> Path:
    labels = prepared.films["label"].to_numpy()
    logits = np.random.default_rng(4).normal(2.0 * labels - 1, 1)
    folds = prepared.films["fold"] % 5
    pd.DataFrame({"row": np.arange(len(labels)), "fold": folds, "logit": logits}).to_csv(path, index=False)
    return path


def test_a_cross_validation_is_measured_from_its_table(prepared: PreparedFilms, tmp_path: Path) -> None:
    predictions = write_predictions(prepared, tmp_path / "predictions.csv")
    result = evaluate_crossvalidation(load_bundle(BUNDLE), prepared, predictions)
    metrics = json.loads(result.metrics)
    assert metrics["split"]["kind"] == "cross-validation"
    assert metrics["split"]["folds"] == 5
    assert metrics["test"]["auc"]["model"]["all"][0] > 0.8
    (doubt,) = metrics["warnings"]
    assert "not chosen by this cross-validation" in doubt
    assert "probes" not in metrics["test"]  # no networks of the folds lie beside the table
    assert_needs_nothing_from_outside(result.report)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.drop(columns="fold"), "columns"),
        (lambda table: pd.concat([table, table[:1]]), "twice"),
        (lambda table: table.assign(row=table["row"] + 1), "not among"),
        (lambda table: table.assign(logit=np.nan), "finite"),
        (lambda table: table.assign(fold=0), "at least two"),
    ],
)
def test_a_table_that_is_no_cross_validation_is_refused(
    prepared: PreparedFilms, tmp_path: Path, change: object, reason: str
) -> None:
    path = write_predictions(prepared, tmp_path / "predictions.csv")
    change(pd.read_csv(path)).to_csv(path, index=False)  # type: ignore[operator]
    with pytest.raises(ManifestError, match=reason):
        read_predictions(path, prepared)


def test_a_patient_in_two_folds_of_a_table_is_refused(tmp_path: Path) -> None:
    prepared = prepared_films(tmp_path, patients=10, films_each=2)
    table = pd.DataFrame({"row": range(20), "fold": [0, 1] * 10, "logit": np.linspace(-1, 1, 20)})
    table.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(ManifestError, match="more than one fold"):
        read_predictions(tmp_path / "p.csv", prepared)


def test_probabilities_follow_from_the_released_calibration() -> None:
    chosen = Chosen(slope=0.5, intercept=-1.0, thresholds={"half": 0.5})
    said = chosen.applied(np.array([0.0, 2.0, 4.0]))
    assert said.probabilities.tolist() == logistic(np.array([-1.0, 0.0, 1.0])).tolist()
    assert said.calls["half"].tolist() == [False, True, True]
