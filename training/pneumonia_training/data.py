"""Split films by patient, balance them and vary them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from pneumonia_training.prepare import ManifestError, Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which rows train, which choose the checkpoint and calibrate, and which only measure."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """Folds of patients. Only `evaluated_subsets` validate and test: the others have not the natural mix."""

    test_folds: tuple[int, ...]
    validation_folds: tuple[int, ...]
    evaluated_subsets: tuple[str, ...] = ()  # none: all


def split_by_patient(films: pd.DataFrame, rule: SplitRule) -> Split:
    """Return the split; films of a validation or test patient train nothing, whatever subset they are of.

    Raises:
        ManifestError: a group would lie on two sides.
    """
    evaluated = films["subset"].isin(rule.evaluated_subsets) if rule.evaluated_subsets else films["label"].notna()
    in_test, in_validation = (films["fold"].isin(folds) for folds in (rule.test_folds, rule.validation_folds))
    split = Split(
        train=np.flatnonzero(~in_test & ~in_validation),
        validation=np.flatnonzero(in_validation & ~in_test & evaluated),
        test=np.flatnonzero(in_test & evaluated),
    )
    refuse_leak(films, split)
    return split


def split_by_image(films: pd.DataFrame, *, test_share: float, seed: int) -> Split:
    """Return a random split by image, its sides sharing patients: only to compare with figures made so."""
    order = np.random.default_rng(seed).permutation(len(films))
    held_out = round(len(films) * test_share)
    return Split(train=np.sort(order[held_out:]), validation=np.sort(order[:held_out]), test=np.sort(order[:held_out]))


def refuse_leak(films: pd.DataFrame, split: Split) -> None:
    """Raise ManifestError if a group lies on two sides of the split."""
    sides = [set(films["group"].iloc[rows]) for rows in (split.train, split.validation, split.test)]
    shared = (sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2])
    if shared:
        raise ManifestError(f"{len(shared)} groups lie on two sides of the split")


class Films(Dataset[tuple[Tensor, Tensor]]):
    """Rows of prepared films as inputs in [0, 1], shape (224, 224), and labels."""

    def __init__(self, prepared: Prepared, rows: NDArray[np.intp]) -> None:
        self.images = prepared.images
        self.rows = rows
        self.labels = prepared.films["label"].to_numpy(dtype=np.float32)[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(np.array(self.images[self.rows[index]]))
        return pixels.float() / 255, torch.tensor(self.labels[index])


def balanced_loader(
    prepared: Prepared, rows: NDArray[np.intp], *, batch_size: int, weights: Mapping[str, float], seed: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return batches of as many positive as negative films on average.

    `weights` says how often a negative film of a class is drawn against the others, 1 where it is not named.
    """
    films = prepared.films.iloc[rows]
    weight = films["negative_class"].map(weights).fillna(1.0).to_numpy(dtype=np.float64, copy=True)
    positive = films["label"].to_numpy() == 1
    weight[positive] = 1.0
    for side in (positive, ~positive):
        weight[side] /= weight[side].sum()
    sampler = WeightedRandomSampler(
        weight.tolist(), num_samples=len(rows), generator=torch.Generator().manual_seed(seed)
    )
    return DataLoader(Films(prepared, rows), batch_size=batch_size, sampler=sampler, drop_last=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Bounds of the random variation of each training film; a film is never mirrored, for the heart has a side.

    Attributes:
        rotation: degrees.
        scale, shift: shares of the side.
        brightness, contrast, gamma: shares.
        blur: share of films reduced to a random smaller side and enlarged again. Sharpness tells the films' sources
            apart, and with them the labels: the network must not learn from it.
        least_side: smallest side that such a film is reduced to, as a share.
    """

    rotation: float = 10.0
    scale: float = 0.12
    shift: float = 0.06
    brightness: float = 0.1
    contrast: float = 0.2
    gamma: float = 0.2
    blur: float = 0.5
    least_side: float = 0.45


def vary(inputs: Tensor, *, side: int, augmentation: Augmentation) -> Tensor:
    """Return a batch of shape (n, h, w) varied at random and brought to `side`."""
    count = len(inputs)

    def draw(bound: float) -> Tensor:
        return (2 * torch.rand(count) - 1) * bound

    angle = torch.deg2rad(draw(augmentation.rotation))
    zoom = 1 + draw(augmentation.scale)
    rows = [
        torch.stack([zoom * angle.cos(), -zoom * angle.sin(), 2 * draw(augmentation.shift)], dim=1),
        torch.stack([zoom * angle.sin(), zoom * angle.cos(), 2 * draw(augmentation.shift)], dim=1),
    ]
    images = resize(_blurred(inputs, augmentation), side)[:, None]
    grid = functional.affine_grid(torch.stack(rows, dim=1), [count, 1, side, side], align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)[:, 0]
    gamma = (1 + draw(augmentation.gamma))[:, None, None]
    contrast = (1 + draw(augmentation.contrast))[:, None, None]
    brightness = draw(augmentation.brightness)[:, None, None]
    return ((moved.clamp(1e-4, 1) ** gamma - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


def resize(inputs: Tensor, side: int) -> Tensor:
    """Return a batch of shape (n, h, w) at another side, averaging where it shrinks."""
    if inputs.shape[-1] == side:
        return inputs
    resized = functional.interpolate(inputs[:, None], size=(side, side), mode="bilinear", antialias=True)
    return resized[:, 0]


def _blurred(inputs: Tensor, augmentation: Augmentation) -> Tensor:
    """Return the batch with a random part of it reduced together and enlarged again."""
    chosen = torch.rand(len(inputs)) < augmentation.blur
    if not chosen.any():
        return inputs
    whole = inputs.shape[-1]
    share = augmentation.least_side + (1 - augmentation.least_side) * float(torch.rand(()))
    reduced = resize(inputs[chosen], max(8, round(whole * share)))
    varied = inputs.clone()
    varied[chosen] = resize(reduced, whole)
    return varied
