"""Films and their targets: what a batch holds, how it is varied, and how often each kind is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd
import pytest
import torch
from pneumonia_training.films.manifests import NO_OPACITY_NOT_NORMAL
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import (
    BOX_GRID,
    FINDINGS,
    Augmentation,
    Films,
    balanced_loader,
    balanced_weights,
    resize,
    vary,
)

from tests.training.small_films import prepared_films

STILL: Final = Augmentation(rotation=0, scale=0, shift=0, brightness=0, contrast=0, gamma=0, blur=0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFilms:
    return prepared_films(tmp_path_factory.mktemp("films"), patients=60, films_each=1)


def films_with(prepared: PreparedFilms, **columns: str | int) -> Films:
    """Return the first film with other columns."""
    table = prepared.films.iloc[:1].assign(**columns)
    return Films(PreparedFilms(images=prepared.images, films=table, digest=""), np.array([0]))


def empty_boxes(count: int) -> torch.Tensor:
    return torch.zeros(count, BOX_GRID, BOX_GRID)


def test_training_films_vary_and_stay_pictures() -> None:
    torch.manual_seed(0)
    films = torch.rand(8, 224, 224)
    varied, _ = vary(films, empty_boxes(8), side=96, augmentation=Augmentation())
    again, _ = vary(films, empty_boxes(8), side=96, augmentation=Augmentation())
    assert varied.shape == (8, 96, 96)
    assert 0 <= varied.min() <= varied.max() <= 1
    assert not torch.equal(varied, again)


def test_a_film_is_made_wider_and_lower_by_the_same_share() -> None:
    torch.manual_seed(2)
    films = torch.zeros(64, 224, 224)
    films[:, 84:140, 84:140] = 1
    varied, _ = vary(films, empty_boxes(64), side=224, augmentation=replace(STILL, aspect=0.3))
    wide, high = (varied.amax(dim=dim).gt(0.5).sum(dim=1).float() for dim in (1, 2))
    assert (wide / high).max() > 1.4
    assert (wide / high).min() < 0.75
    assert torch.allclose(wide * high, torch.tensor(56.0**2), rtol=0.06)


def test_noise_is_of_each_place_and_at_most_as_strong_as_it_says() -> None:
    torch.manual_seed(0)
    films = torch.full((64, 224, 224), 0.5)
    varied, _ = vary(films, empty_boxes(64), side=224, augmentation=replace(STILL, noise=0.04))
    deviations = varied.std(dim=(1, 2))
    assert 0.03 < deviations.max() < 0.041
    assert deviations.min() < 0.01
    neighbours = torch.corrcoef(torch.stack([varied[:, :, 1:].flatten(), varied[:, :, :-1].flatten()]))
    assert abs(neighbours[0, 1]) < 0.02


def test_a_share_of_a_film_is_replaced_by_its_mean() -> None:
    torch.manual_seed(0)
    films = torch.rand(32, 224, 224).clamp(0.01, 1)
    varied, _ = vary(films, empty_boxes(32), side=224, augmentation=replace(STILL, erase=0.1))
    changed = (varied - films).abs() > 1e-3
    assert changed.float().mean() == pytest.approx(0.1, abs=0.02)
    patches = changed.reshape(32, 7, 32, 7, 32).float().mean(dim=(2, 4))
    assert ((patches < 0.05) | (patches > 0.95)).all()
    assert varied[changed].std() < 0.01


def test_no_film_is_mirrored() -> None:
    torch.manual_seed(0)
    film = torch.zeros(64, 224, 224)
    film[:, :, :80] = 1
    varied, _ = vary(film, empty_boxes(64), side=64, augmentation=Augmentation())
    assert (varied[:, :, :20].mean(dim=(1, 2)) > varied[:, :, -20:].mean(dim=(1, 2))).all()


def test_without_variation_a_film_is_only_resized() -> None:
    film = torch.rand(2, 224, 224).clamp(0.01, 1)
    varied, _ = vary(film, empty_boxes(2), side=112, augmentation=STILL)
    assert torch.allclose(varied, resize(film, 112), atol=1e-5)


def test_boxes_move_with_their_film() -> None:
    torch.manual_seed(1)
    films = torch.zeros(32, 224, 224)
    films[:, 40:100, 120:180] = 1
    boxes = resize(films, BOX_GRID)
    augmentation = Augmentation(brightness=0, contrast=0, gamma=0, blur=0, rotation=20, scale=0.2, shift=0.2)
    varied, moved = vary(films, boxes, side=224, augmentation=augmentation)
    assert (resize(varied, BOX_GRID) - moved).abs().mean() < 0.01
    assert (moved - boxes).abs().mean() > 0.02


def test_a_box_covers_its_part_of_the_film(prepared: PreparedFilms) -> None:
    film = films_with(prepared, label=1, boxes="[[512, 256, 256, 512]]")[0]
    assert film.boxes_known
    assert film.boxes.sum() == (BOX_GRID / 4) * (BOX_GRID / 2)
    assert film.boxes[BOX_GRID // 4 : BOX_GRID * 3 // 4, BOX_GRID // 2 : BOX_GRID * 3 // 4].all()


@pytest.mark.parametrize(("label", "known"), [(0, True), (1, False)])
def test_no_box_says_something_only_of_a_film_without_opacity(prepared: PreparedFilms, label: int, known: bool) -> None:
    assert bool(films_with(prepared, label=label, boxes="")[0].boxes_known) is known


@pytest.mark.parametrize(
    ("label", "kind", "ill"),
    [(0, "Normal", 0.0), (0, NO_OPACITY_NOT_NORMAL, 1.0), (0, "", np.nan), (1, NO_OPACITY_NOT_NORMAL, np.nan)],
)
def test_normal_and_ill_are_told_apart_among_negative_films_only(
    prepared: PreparedFilms, label: int, kind: str, ill: float
) -> None:
    found = float(films_with(prepared, label=label, negative_class=kind)[0].ill)
    assert found == pytest.approx(ill, nan_ok=True)


def test_findings_that_nobody_looked_for_are_not_taken_as_absent(prepared: PreparedFilms) -> None:
    assert torch.isnan(films_with(prepared, findings="")[0].findings).all()
    assert films_with(prepared, findings="No Finding")[0].findings.tolist() == [0.0] * len(FINDINGS)
    named = films_with(prepared, findings="Effusion|Mass")[0].findings
    assert [name for name, value in zip(FINDINGS, named, strict=True) if value] == ["Effusion", "Mass"]


def drawn(table: pd.DataFrame, **weights: dict[str, float]) -> pd.DataFrame:
    """Return the films of twenty epochs, as they are drawn."""
    each = balanced_weights(table, **({"negatives": {}, "shares": {}} | weights))
    return table.iloc[np.random.default_rng(0).choice(len(table), size=20 * len(table), p=each / each.sum())]


def test_as_many_ill_films_as_others_are_drawn(prepared: PreparedFilms) -> None:
    assert drawn(prepared.films)["label"].mean() == pytest.approx(0.5, abs=0.05)


def test_an_epoch_draws_as_many_films_as_the_recipe_says_by_their_weights(prepared: PreparedFilms) -> None:
    films = Films(prepared, np.arange(len(prepared.films)))
    weights = (films.labels == 1).astype(np.float64)
    loader = balanced_loader(films, weights, batch_size=16, seed=0, films_per_epoch=160)
    assert [batch.labels.tolist() for batch in loader] == [[1.0] * 16] * 10


def test_hard_negatives_are_drawn_as_often_as_the_recipe_says(prepared: PreparedFilms) -> None:
    table = drawn(prepared.films, negatives={NO_OPACITY_NOT_NORMAL: 9.0})
    assert (table.loc[table.label == 0, "negative_class"] == NO_OPACITY_NOT_NORMAL).mean() > 0.8


def test_a_subset_with_a_share_gets_it_and_its_name_does_not_tell_the_label(prepared: PreparedFilms) -> None:
    few = (
        np.flatnonzero(prepared.films["label"] == 1)[:2].tolist()
        + np.flatnonzero(prepared.films["label"] == 0)[:9].tolist()
    )
    table = prepared.films.assign(subset=["few" if row in few else "many" for row in prepared.films.index])
    table = drawn(table, shares={"few": 0.3})
    assert (table["subset"] == "few").mean() == pytest.approx(0.3, abs=0.05)
    assert table.groupby("subset")["label"].mean().to_dict() == pytest.approx({"few": 0.5, "many": 0.5}, abs=0.08)
