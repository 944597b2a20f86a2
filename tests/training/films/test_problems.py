"""What is wrong with a set of films is found, and nothing else is called wrong."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pneumonia_training.films import problems
from pneumonia_training.films.problems import FilmProblem, Problem
from pneumonia_training.films.reading import film_input

from tests.training.small_films import RSNA_TABLES, film


def picture(path: Path) -> NDArray[np.uint8]:
    return np.rint(film_input(path) * 255).astype(np.uint8)


def films(**columns: list[object]) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    return table.assign(path=[f"{row}.png" for row in range(len(table))])


def test_a_picture_kept_as_jpeg_is_near_and_another_film_is_not() -> None:
    one, other = (cv2.resize(film(seed, ill=True), (224, 224), interpolation=cv2.INTER_AREA) for seed in (1, 2))
    again = cv2.imdecode(cv2.imencode(".jpg", one, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_GRAYSCALE)
    assert again is not None
    assert not np.array_equal(one, again)
    fingerprints = [problems.fingerprint(np.asarray(each, dtype=np.uint8)) for each in (one, other, again)]
    assert [pair[:2] for pair in problems.near_pairs(fingerprints)] == [(0, 2)]


def test_a_film_of_one_grey_is_near_no_other() -> None:
    black, white = (np.full((224, 224), grey, dtype=np.uint8) for grey in (0, 255))
    assert list(problems.near_pairs([problems.fingerprint(black), problems.fingerprint(white)])) == []


def test_near_films_are_found_however_far_apart_their_rows_are() -> None:
    random = np.random.default_rng(0)
    fingerprints = [random.bytes(32) for _ in range(700)]
    fingerprints[100] = b""
    fingerprints[650] = bytes([fingerprints[3][0] ^ 0b101]) + fingerprints[3][1:]
    assert list(problems.near_pairs(fingerprints)) == [(3, 650, 2)]


def test_no_two_patients_are_near_and_one_film_stored_twice_is(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "train" / "rsna_manifest.csv", dtype=str, keep_default_na=False)
    table = table[table.subset.isin(["rsna224", "held224"])]
    stored = pd.read_csv(shared_data / "dicom" / "labels.csv", dtype=str, keep_default_na=False)
    stored = stored[stored.rsna_id.isin(table.rsna_id)].head(60)
    paths = [shared_data / "train" / path for path in table.path] + [shared_data / "dicom" / p for p in stored.path]
    image = [*table.rsna_id, *stored.rsna_id]
    near = list(problems.near_pairs([problems.fingerprint(picture(path)) for path in paths]))
    assert {(image[first], image[second]) for first, second, _ in near} == {(name, name) for name in stored.rsna_id}
    assert len(near) == len(stored) == 60
    assert max(bits for _, _, bits in near) <= 8


def test_the_same_pixels_are_a_duplicate_and_join_their_groups() -> None:
    table = films(label=[1, 1, 0], group=["a", "b", "a"])
    found, pairs = problems.compare_films(table, pixels=["x", "x", "y"], fingerprints=[b"\1" * 32, b"\1" * 32, b""])
    assert [(each.path, each.problem, each.detail) for each in found] == [
        ("1.png", Problem.DUPLICATE, "same pixels as 0.png; groups a and b joined")
    ]
    assert pairs == [(0, 1)]


def test_a_near_duplicate_of_another_group_says_that_they_are_joined() -> None:
    table = films(label=[1, 1], group=["a", "b"])
    near = [b"\1" * 32, b"\1" * 31 + b"\0"]
    found, pairs = problems.compare_films(table, pixels=["x", "y"], fingerprints=near)
    assert [(each.problem, each.detail) for each in found] == [
        (Problem.NEAR_DUPLICATE, "1 of 256 bits from 0.png; groups a and b joined")
    ]
    assert pairs == [(0, 1)]


def test_the_same_pixels_with_both_labels_are_a_conflict() -> None:
    table = films(label=[1, 0], group=["a", "a"])
    found, _ = problems.compare_films(table, pixels=["x", "x"], fingerprints=[b"", b""])
    assert [each.problem for each in found] == [Problem.DUPLICATE, Problem.LABEL_CONFLICT]
    assert found[1].detail == "label 0, but 1 for 0.png, which has the same pixels"


def test_films_without_an_identity_have_none_in_common() -> None:
    assert problems.label_conflicts(films(label=[1, 0]), "image id", ["", ""]) == []


@pytest.mark.parametrize(
    ("instead", "complaint"),
    [
        (("c,,,,,0", "c,,,,,0\nc,,,,,1"), "Target 0 and Target 1"),
        (("a,10.0,20.0,200.0,300.0,1\na,500.0,30.0,210.0,310.0,1", "a,,,,,1"), "Target 1 without a box"),
        (("b,,,,,0", "b,1,2,3,4,0"), "Target 0 with a box"),
        (("b,Normal", "b,Lung Opacity"), "class and Target disagree"),
        (("b,Normal", "b,Normal\nb,Lung Opacity"), "more than one class"),
        (("b,,,,,0\n", ""), "no Target"),
        (("b,Normal\n", ""), "no class"),
    ],
)
def test_tables_of_the_challenge_that_contradict_are_named(instead: tuple[str, str], complaint: str) -> None:
    tables = [pd.read_csv(io.StringIO(text.replace(*instead))) for text in RSNA_TABLES.values()]
    found = problems.rsna_conflicts(tables[0], tables[1], "{}.dcm".format)
    assert complaint in {each.detail for each in found}
    assert {each.problem for each in found} == {Problem.LABEL_CONFLICT}


def test_the_tables_of_the_challenge_do_not_contradict(shared_data: Path) -> None:
    boxes, classes = (pd.read_csv(shared_data / "meta" / f"{name}.gz") for name in RSNA_TABLES)
    assert problems.rsna_conflicts(boxes, classes, str) == []


def test_groups_that_share_a_film_become_one_with_the_smallest_fold() -> None:
    table = films(group=["image:x", "b", "c", "d", "e"], fold=[4, 7, 3, 5, 1])
    joined = problems.join_groups(table, [(2, 1), (1, 0)])
    assert joined.group.tolist() == ["b", "b", "b", "d", "e"]
    assert joined.fold.tolist() == [3, 3, 3, 5, 1]


def test_findings_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = [
        FilmProblem(path='a, "b".png', problem=Problem.MISSING, detail="no such file"),
        FilmProblem(path="c.png", problem=Problem.LABEL_CONFLICT, detail="label 0, but 1"),
    ]
    problems.write_findings(tmp_path / "checks.csv", found)
    assert problems.read_findings(tmp_path / "checks.csv") == found
    assert problems.summary(found) == "1 missing, 1 label conflict"
    problems.write_findings(tmp_path / "checks.csv", [])
    assert problems.summary(problems.read_findings(tmp_path / "checks.csv")) == "nothing found"
