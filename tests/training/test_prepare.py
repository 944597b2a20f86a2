"""What training sees is what the node sees, and no patient is on two sides."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from pneumonia_model.preprocessing import to_input
from pneumonia_training.data import Split, SplitRule, refuse_leak, split_by_image, split_by_patient
from pneumonia_training.prepare import (
    ManifestError,
    film_input,
    fold_of,
    load_prepared,
    prepare,
    read_manifest,
    read_rsna_folder,
)

from tests.model import images
from tests.training.films import prepared_films, write_manifest

RULE = SplitRule(test_folds=(0, 1), validation_folds=(2,))


def test_a_dicom_film_and_its_picture_give_the_same_prepared_film(tmp_path: Path) -> None:
    picture = images.picture()
    cv2.imwrite(str(tmp_path / "film.png"), picture)
    image = images.radiograph(picture)
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    image.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    inputs = to_input(image)
    assert np.array_equal(film_input(tmp_path / "film.png"), inputs)
    assert np.array_equal(film_input(tmp_path / "film.dcm"), inputs)
    pd.DataFrame({"path": ["film.dcm"], "label": [1], "group": ["a"]}).to_csv(tmp_path / "manifest.csv", index=False)
    prepared = prepare(read_manifest(tmp_path / "manifest.csv"), root=tmp_path, cache=tmp_path / "cache")
    assert np.array_equal(prepared.images[0] / np.float32(255), inputs)


def test_prepared_films_are_found_again_with_the_same_digest(tmp_path: Path) -> None:
    prepared = prepared_films(tmp_path, patients=6)
    again = load_prepared(tmp_path / "cache")
    assert again.digest == prepared.digest
    assert np.array_equal(again.images, prepared.images)
    assert list(again.films.columns) == list(prepared.films.columns)


def test_one_other_pixel_is_another_digest(tmp_path: Path) -> None:
    before = prepared_films(tmp_path, patients=6).digest
    picture = cv2.imread(str(tmp_path / "0-0.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    picture[3, 3] ^= 64
    cv2.imwrite(str(tmp_path / "0-0.png"), picture)
    after = prepare(read_manifest(tmp_path / "manifest.csv"), root=tmp_path, cache=tmp_path / "cache").digest
    assert after != before


def test_films_prepared_under_other_preprocessing_are_not_trained_on(tmp_path: Path) -> None:
    prepared_films(tmp_path, patients=6)
    document = json.loads((tmp_path / "cache" / "dataset.json").read_text())
    document["preprocessing"]["version"] += 1
    (tmp_path / "cache" / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(ManifestError, match="preprocessing"):
        load_prepared(tmp_path / "cache")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"path": ["a.png"], "label": [1]}, "group"),
        ({"path": ["a.png"], "label": [2], "group": ["a"]}, "label"),
        ({"path": ["a.png", "b.png"], "label": [1, 0], "group": ["a", "a"], "fold": [1, 2]}, "fold"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(
    tmp_path: Path, table: dict[str, list[object]], complaint: str
) -> None:
    pd.DataFrame(table).to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(ManifestError, match=complaint):
        read_manifest(tmp_path / "manifest.csv")


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "film.jpg").write_bytes(b"no picture")
    with pytest.raises(ManifestError, match=r"film\.jpg"):
        film_input(tmp_path / "film.jpg")


def test_no_patient_is_on_two_sides(tmp_path: Path) -> None:
    films = prepared_films(tmp_path, patients=40).films
    split = split_by_patient(films, RULE)
    sides = [set(films.group.iloc[rows]) for rows in dataclasses.astuple(split)]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


def test_a_split_by_image_shares_patients_and_is_recognised(tmp_path: Path) -> None:
    films = prepared_films(tmp_path, patients=40).films
    with pytest.raises(ManifestError, match="two sides"):
        refuse_leak(films, split_by_image(films, test_share=0.1, seed=0))


def test_one_patient_on_two_sides_is_enough_to_refuse(tmp_path: Path) -> None:
    films = prepared_films(tmp_path, patients=4).films
    first, second, *others = np.arange(len(films))
    with pytest.raises(ManifestError, match="1 groups"):
        refuse_leak(films, Split(train=np.array([first]), validation=np.array(others), test=np.array([second])))


def test_only_films_of_the_natural_mix_are_measured_and_none_of_their_patients_trains(tmp_path: Path) -> None:
    films = prepared_films(tmp_path, patients=40).films
    films["subset"] = np.where(np.arange(len(films)) % 2, "natural", "extra")
    rule = SplitRule(test_folds=(0, 1), validation_folds=(2,), evaluated_subsets=("natural",))
    split = split_by_patient(films, rule)
    assert set(films.subset.iloc[split.test]) == {"natural"}
    assert set(films.fold.iloc[split.train]) == {3, 4, 5, 6, 7, 8, 9}


def test_a_film_without_a_fold_gets_the_one_of_its_patient(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, patients=12)
    pd.read_csv(manifest).drop(columns="fold").to_csv(manifest, index=False)
    films = read_manifest(manifest)
    assert (films.groupby("group").fold.nunique() == 1).all()
    assert films.fold.tolist() == [fold_of(group) for group in films.group]


def test_an_rsna_folder_is_grouped_by_nih_patient(tmp_path: Path) -> None:
    table = {"patientId": ["a", "a", "b", "c"], "Target": [1, 1, 0, 0], "x": 0}
    pd.DataFrame(table).to_csv(tmp_path / "stage_2_train_labels.csv", index=False)
    kinds = {"patientId": ["a", "a", "b", "c"], "class": ["Lung Opacity", "Lung Opacity", "Normal", "Normal"]}
    pd.DataFrame(kinds).to_csv(tmp_path / "stage_2_detailed_class_info.csv", index=False)
    pd.DataFrame({"rsna_id": ["a", "b"], "nih_patient": ["7", "7"]}).to_csv(tmp_path / "map.csv", index=False)
    films = read_rsna_folder(tmp_path, patients=tmp_path / "map.csv")
    assert films.path.tolist() == [f"stage_2_train_images/{image}.dcm" for image in "abc"]
    assert films.label.tolist() == [1, 0, 0]
    assert films.group.tolist() == ["7", "7", "c"]
    assert films.fold[0] == films.fold[1]


def test_the_real_manifest_has_no_patient_in_two_folds(shared_data: Path) -> None:
    films = read_manifest(shared_data / "train" / "rsna_manifest.csv")
    rule = SplitRule(test_folds=(0, 1, 2), validation_folds=(3, 4), evaluated_subsets=("rsna224",))
    split = split_by_patient(films, rule)
    assert len(split.test) > 300
    assert len(set(films.image_id.iloc[split.test]) & set(films.image_id.iloc[split.train])) == 0
