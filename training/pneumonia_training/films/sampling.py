"""Splits films by patient, balances them and varies them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from pneumonia_training.films.manifests import BOX_FRAME, NO_OPACITY_NOT_NORMAL, ManifestError
from pneumonia_training.films.prepare import PreparedFilms

BOX_GRID: Final = 56
_ERASED_GRID: Final = 7
FINDINGS: Final = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The fourteen of NIH ChestX-ray14 (Wang et al. 2017)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The rows that train, those that choose the checkpoint and calibrate, and those that only measure."""

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """Folds of patients. Only `evaluated_subsets` validate and test: the others do not have the natural mix."""

    test_folds: tuple[int, ...]
    validation_folds: tuple[int, ...]
    evaluated_subsets: tuple[str, ...] = ()  # empty for all


def split_by_patient(films: pd.DataFrame, rule: SplitRule) -> Split:
    """Return the split; a film of a validation or test patient never trains, whatever its subset.

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
    """Return a random split by image, whose sides share patients: only for comparison with figures made in this way."""
    order = np.random.default_rng(seed).permutation(len(films))
    held_out = round(len(films) * test_share)
    return Split(train=np.sort(order[held_out:]), validation=np.sort(order[:held_out]), test=np.sort(order[:held_out]))


def refuse_leak(films: pd.DataFrame, split: Split) -> None:
    """Raise ManifestError if a group lies on two sides of the split."""
    sides = [set(films["group"].iloc[rows]) for rows in (split.train, split.validation, split.test)]
    shared = (sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2])
    if shared:
        raise ManifestError(f"{len(shared)} groups lie on two sides of the split")


class Batch(NamedTuple):
    """Films and their training targets; NaN stands for an unknown value.

    Attributes:
        inputs: shape (n, side, side), 0 to 1.
        labels: shape (n,), 0 or 1.
        ill: shape (n,): 1 for No Lung Opacity / Not Normal, 0 for Normal, NaN for a positive film.
        boxes: shape (n, 56, 56): 1 inside a box, 0 outside.
        boxes_known: shape (n,): whether `boxes` is complete.
        findings: shape (n, 14), 0 or 1, in the order of `FINDINGS`.
        teacher: shape (n,): probability from another network.
    """

    inputs: Tensor
    labels: Tensor
    ill: Tensor
    boxes: Tensor
    boxes_known: Tensor
    findings: Tensor
    teacher: Tensor


class Films(Dataset[Batch]):
    """Rows of prepared films with their targets; `teacher` holds one probability for each prepared film."""

    def __init__(
        self, prepared: PreparedFilms, rows: NDArray[np.intp], teacher: NDArray[np.float32] | None = None
    ) -> None:
        self.images = prepared.images
        self.rows = rows
        films = prepared.films.iloc[rows]
        self.labels = films["label"].to_numpy(dtype=np.float32)
        ill = films["negative_class"].map({"Normal": 0.0, NO_OPACITY_NOT_NORMAL: 1.0}).to_numpy(dtype=np.float32)
        self.ill = np.where(self.labels == 1, np.float32(np.nan), ill)
        self.boxes = [json.loads(text) if text else [] for text in films["boxes"]]
        self.boxes_known = (self.labels == 0) | np.array([bool(boxes) for boxes in self.boxes])
        self.findings = np.stack([_findings(text) for text in films["findings"]])
        self.teacher = np.full(len(rows), np.nan, dtype=np.float32) if teacher is None else teacher[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        pixels = torch.from_numpy(np.array(self.images[self.rows[index]]))
        return Batch(
            inputs=pixels.float() / 255,
            labels=torch.tensor(self.labels[index]),
            ill=torch.tensor(self.ill[index]),
            boxes=torch.from_numpy(_inside(self.boxes[index])),
            boxes_known=torch.tensor(self.boxes_known[index]),
            findings=torch.from_numpy(self.findings[index]),
            teacher=torch.tensor(self.teacher[index]),
        )


def _findings(text: str) -> NDArray[np.float32]:
    """Return 1 for each named finding, 0 for the others, and NaN for all if nobody looked."""
    if not text:
        return np.full(len(FINDINGS), np.nan, dtype=np.float32)
    named = text.split("|")
    return np.array([finding in named for finding in FINDINGS], dtype=np.float32)


def _inside(boxes: list[list[float]]) -> NDArray[np.float32]:
    """Return 1 inside the boxes and 0 outside, on a grid of 56 x 56; boxes are [x, y, width, height] in 1/1024."""
    inside = np.zeros((BOX_GRID, BOX_GRID), dtype=np.float32)
    for x, y, width, height in boxes:
        left, top, right, bottom = (round(BOX_GRID * value / BOX_FRAME) for value in (x, y, x + width, y + height))
        inside[top:bottom, left:right] = 1
    return inside


def balanced_loader(
    films: Films,
    weights: NDArray[np.float64],
    *,
    batch_size: int,
    seed: int,
    films_per_epoch: int = 0,
) -> DataLoader[Batch]:
    """Return batches of films drawn by their weights."""
    sampler = WeightedRandomSampler(
        weights.tolist(), num_samples=films_per_epoch or len(films), generator=torch.Generator().manual_seed(seed)
    )
    return DataLoader(films, batch_size=batch_size, sampler=sampler, drop_last=True)


def balanced_weights(
    table: pd.DataFrame, *, negatives: Mapping[str, float], shares: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return how often each film is drawn: positives and negatives equally often, also within each subset with a share.

    `negatives` gives by class how often a negative film is drawn relative to the others, 1 for a class that is not
    named. `shares` gives by subset its share of the films drawn; the other subsets share the rest.
    """
    positive = table["label"].to_numpy() == 1
    weights = np.where(positive, 1.0, table["negative_class"].map(negatives).fillna(1.0)).astype(np.float64)
    part = table["subset"].where(table["subset"].isin(list(shares)), "").to_numpy()
    for name in np.unique(part):
        share = shares[name] if name else 1 - sum(shares.values())
        for side in (positive & (part == name), ~positive & (part == name)):
            if side.any():
                weights[side] *= share / weights[side].sum()
    return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Bounds of the random variation of each training film; a film is never mirrored, since the heart is on one side.

    Attributes:
        rotation: degrees.
        scale, shift: shares of the side.
        aspect: share by which a film is made wider and lower, or narrower and higher.
        brightness, contrast, gamma: shares.
        noise: largest standard deviation of noise, each place by itself, where white is 1.
        erase: share of the places of a grid of 7 x 7 that are replaced by the film's mean (DeVries and Taylor 2017).
        blur: share of films reduced to a random smaller side and enlarged again. Sharpness reveals a film's source,
            and with it the label, so the network must not learn from it.
        least_side: smallest side to which such a film is reduced, as a share.
    """

    rotation: float = 10.0
    scale: float = 0.12
    shift: float = 0.06
    brightness: float = 0.1
    contrast: float = 0.2
    gamma: float = 0.2
    blur: float = 0.5
    least_side: float = 0.45
    aspect: float = 0.0
    noise: float = 0.0
    erase: float = 0.0


def vary(inputs: Tensor, boxes: Tensor, *, side: int, augmentation: Augmentation | None) -> tuple[Tensor, Tensor]:
    """Return a batch of shape (n, h, w) varied at random and resized to `side`, and its boxes moved in the same way."""
    if augmentation is None:
        return resize(inputs, side), boxes
    count, device = len(inputs), inputs.device

    def draw(bound: float) -> Tensor:
        return (2 * torch.rand(count, device=device) - 1) * bound

    angle = torch.deg2rad(draw(augmentation.rotation))
    zoom = 1 + draw(augmentation.scale)
    stretch = 1 + draw(augmentation.aspect) if augmentation.aspect else torch.ones(count, device=device)
    across, down = zoom * stretch, zoom / stretch
    rows = [
        torch.stack([across * angle.cos(), -down * angle.sin(), 2 * draw(augmentation.shift)], dim=1),
        torch.stack([across * angle.sin(), down * angle.cos(), 2 * draw(augmentation.shift)], dim=1),
    ]
    transform = torch.stack(rows, dim=1)
    moved = _moved(resize(_blurred(inputs, augmentation), side), transform)
    gamma = (1 + draw(augmentation.gamma))[:, None, None]
    contrast = (1 + draw(augmentation.contrast))[:, None, None]
    brightness = draw(augmentation.brightness)[:, None, None]
    varied = ((moved.clamp(1e-4, 1) ** gamma - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    if augmentation.noise:
        deviation = augmentation.noise * torch.rand(count, 1, 1, device=device)
        varied = (varied + deviation * torch.randn_like(varied)).clamp(0, 1)
    if augmentation.erase:
        varied = _erased(varied, augmentation.erase)
    return varied, _moved(boxes, transform)


def _erased(films: Tensor, share: float) -> Tensor:
    """Return films of shape (n, h, w) with a share of the places of a grid replaced by the film's mean."""
    gone = (torch.rand(len(films), 1, _ERASED_GRID, _ERASED_GRID, device=films.device) < share).float()
    holes = functional.interpolate(gone, size=films.shape[1:])[:, 0] > 0
    return torch.where(holes, films.mean(dim=(1, 2), keepdim=True), films)


def _moved(images: Tensor, transform: Tensor) -> Tensor:
    """Return images of shape (n, h, w) under affine transforms of shape (n, 2, 3)."""
    grid = functional.affine_grid(transform, [len(images), 1, *images.shape[1:]], align_corners=False)
    moved: Tensor = functional.grid_sample(images[:, None], grid, align_corners=False)
    return moved[:, 0]


def resize(inputs: Tensor, side: int) -> Tensor:
    """Return a batch of shape (n, h, w) resized to `side`, averaging where it shrinks."""
    if inputs.shape[-1] == side:
        return inputs
    resized = functional.interpolate(inputs[:, None], size=(side, side), mode="bilinear", antialias=True)
    return resized[:, 0]


def _blurred(inputs: Tensor, augmentation: Augmentation) -> Tensor:
    """Return the batch with a random part of it reduced and enlarged again."""
    chosen = torch.rand(len(inputs), device=inputs.device) < augmentation.blur
    if not chosen.any():
        return inputs
    whole = inputs.shape[-1]
    share = augmentation.least_side + (1 - augmentation.least_side) * float(torch.rand(()))
    reduced = resize(inputs[chosen], max(8, round(whole * share)))
    varied = inputs.clone()
    varied[chosen] = resize(reduced, whole)
    return varied
