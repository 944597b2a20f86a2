"""Whether a picture is a film or its negative."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.preprocessing import input_from_display

from scp_node.analysis.pixels import LEAST_POLARITY
from scp_node.analysis.polarity import polarity
from scp_node.demo.phantom import phantom_pixels
from tests.scp_node.analysis.films import picture

STEP: Final = 20  # one film in this many is read
NEGATIVES: Final = {  # of the RSNA data, stored so
    "037e120a-24fa-4f9c-8813-111136e3c288",
    "74ef566d-21ce-4b66-b134-a713ca915762",
    "7f86ef64-225c-44ba-a1ab-e4ec82945ff0",
}


def inputs(display: NDArray[np.generic]) -> NDArray[np.float32]:
    return input_from_display(np.asarray(display, dtype=np.uint8))


def of(display: NDArray[np.generic]) -> float:
    return polarity(inputs(display))


def films(data: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    train = data / "train"
    for name, folder in (
        ("manifest.csv", train),
        ("rsna_manifest.csv", train),
        ("external/manifest.csv", train / "external"),
    ):
        with (train / name).open(encoding="utf-8", newline="") as lines:
            paths = [row["path"] for row in csv.DictReader(lines) if "/lungs/" not in row["path"]]
        for path in paths[::STEP]:
            yield path, np.asarray(cv2.imread(str(folder / path), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def test_a_film_has_a_positive_number_and_its_negative_the_opposite() -> None:
    film = picture()
    assert of(film) > 0.5
    assert of(255 - film) == pytest.approx(-of(film), abs=0.01)
    assert -1 <= of(255 - film) <= of(film) <= 1


@pytest.mark.parametrize("opacity", [True, False])
def test_a_phantom_is_a_film(opacity: bool) -> None:
    assert of(phantom_pixels(1, opacity=opacity, size=256) // 16) > 0.5


@pytest.mark.parametrize("border", [0, 255])
def test_plain_borders_of_either_colour_do_not_count(border: int) -> None:
    bordered = np.full((900, 800), border)
    bordered[20:532, 200:712] = picture()
    assert of(bordered) > 0.5
    bordered[20:532, 200:712] = 255 - picture()
    assert of(bordered) < -0.5


def test_a_picture_of_one_value_is_neither() -> None:
    assert polarity(np.zeros((224, 224), np.float32)) == 0
    assert polarity(np.full((224, 224), 0.5, np.float32)) == 0


def test_a_mirrored_film_is_the_same_film() -> None:
    assert of(picture()[:, ::-1]) == pytest.approx(of(picture()), abs=0.02)


def test_real_films_are_told_from_their_negatives(shared_data: Path) -> None:
    values = {Path(path).stem: (of(film), of(255 - film)) for path, film in films(shared_data)}
    assert len(values) > 400
    refused = {name for name, (film, _) in values.items() if film < LEAST_POLARITY}
    assert refused <= NEGATIVES
    missed = [name for name, (_, negative) in values.items() if negative >= LEAST_POLARITY and name not in NEGATIVES]
    assert len(missed) <= 0.005 * len(values)
