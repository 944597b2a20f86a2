"""Films with the boxes of their opacities, drawn and varied together."""

import json
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from pneumonia_training.detection.metric import Corners
from pneumonia_training.detection.recipe import DetectionRecipe, Variation
from pneumonia_training.films.manifests import BOX_FRAME
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import Split, split_by_patient
from pneumonia_training.learning.recipe import RecipeError

_LEAST_LEFT: Final = 0.25  # of a box's area after a variation: a smaller part of an opacity cannot be seen


class BoxedBatch(NamedTuple):
    """Films of shape (n, 224, 224), 0 to 1, with each film's boxes, shape (k, 4): corners in shares of the film."""

    inputs: Tensor
    boxes: list[Tensor]


def corners(text: str) -> Corners:
    """Return the boxes of a manifest, a JSON list of [x, y, width, height] in 1/1024, as corners in shares."""
    stated = np.array(json.loads(text) if text else [], dtype=np.float64).reshape(-1, 4) / BOX_FRAME
    return np.clip(np.hstack([stated[:, :2], stated[:, :2] + stated[:, 2:]]), 0, 1)


def split_boxed(prepared: PreparedFilms, recipe: DetectionRecipe) -> Split:
    """Return the recipe's split by patient, of films that have a box for every opacity.

    Raises:
        ManifestError: a patient would lie on two sides.
        RecipeError: a side has no film with a box.
    """
    films = prepared.films
    usable = ((films["label"] == 0) | (films["boxes"] != "")).to_numpy()
    whole = split_by_patient(films, recipe.split)
    subsets = recipe.detector.subsets
    trained = films["subset"].isin(subsets).to_numpy() if subsets else np.ones(len(films), dtype=np.bool_)
    split = Split(
        train=whole.train[(usable & trained)[whole.train]],
        validation=whole.validation[usable[whole.validation]],
        test=whole.test[usable[whole.test]],
    )
    for name, rows in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        if not (films["label"].iloc[rows] == 1).any():
            raise RecipeError(f"no film with a box among the {name} films")
    return split


class BoxedFilms(Dataset[BoxedBatch]):
    """Rows of prepared films with their boxes; each is a batch of one."""

    def __init__(self, prepared: PreparedFilms, rows: NDArray[np.intp]) -> None:
        self._images = prepared.images
        self._rows = rows
        self._boxes = [corners(text) for text in prepared.films["boxes"].iloc[rows]]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> BoxedBatch:
        pixels = torch.from_numpy(np.array(self._images[self._rows[index]]))
        return BoxedBatch(inputs=pixels.float()[None] / 255, boxes=[torch.from_numpy(self._boxes[index]).float()])


def training_loader(prepared: PreparedFilms, rows: NDArray[np.intp], recipe: DetectionRecipe) -> DataLoader[BoxedBatch]:
    """Return batches in which positive films have the recipe's share on average."""
    settings = recipe.detector
    positive = (prepared.films["label"].iloc[rows] == 1).to_numpy()
    share = settings.positive_share
    weights = np.where(positive, share / positive.sum(), (1 - share) / max(1, (~positive).sum()))
    sampler = WeightedRandomSampler(
        weights.tolist(),
        num_samples=settings.films_per_epoch or len(rows),
        generator=torch.Generator().manual_seed(recipe.seed),
    )
    return DataLoader(
        BoxedFilms(prepared, rows),
        batch_size=settings.batch_size,
        sampler=sampler,
        collate_fn=_together,
        drop_last=True,
    )


def _together(films: list[BoxedBatch]) -> BoxedBatch:
    return BoxedBatch(inputs=torch.cat([film.inputs for film in films]), boxes=[film.boxes[0] for film in films])


def vary(batch: BoxedBatch, variation: Variation) -> BoxedBatch:
    """Return the films turned, zoomed, shifted and shaded at random, and their boxes moved in the same way."""
    count, device = len(batch.inputs), batch.inputs.device

    def draw(bound: float) -> Tensor:
        return (2 * torch.rand(count, device=device) - 1) * bound

    angle, zoom = torch.deg2rad(draw(variation.rotation)), 1 + draw(variation.zoom)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)
    shift = 2 * torch.stack([draw(variation.shift), draw(variation.shift)], dim=1)
    moved = _moved(batch.inputs, zoom[:, None, None] * turn, shift)
    gamma, contrast, brightness = (
        draw(bound)[:, None, None] for bound in (variation.gamma, variation.contrast, variation.brightness)
    )
    shaded = (moved.clamp(1e-4, 1) ** (1 + gamma) - 0.5) * (1 + contrast) + 0.5 + brightness
    boxes = [moved_boxes(*of_film) for of_film in zip(batch.boxes, turn, zoom, shift, strict=True)]
    return BoxedBatch(inputs=shaded.clamp(0, 1), boxes=boxes)


def _moved(inputs: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    transform = torch.cat([linear, shift[:, :, None]], dim=2)
    grid = functional.affine_grid(transform, [len(inputs), 1, *inputs.shape[1:]], align_corners=False)
    return functional.grid_sample(inputs[:, None], grid, align_corners=False)[:, 0]


def moved_boxes(boxes: Tensor, turn: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Return the boxes of one film after the film's variation, without those that it moved out of the film.

    A place u of the varied film, -1 to 1, shows the place `zoom` x `turn` x u + `shift` of the original. A box stays
    upright and only its centre is moved: at a few degrees, a box around the turned one would be too large.
    """
    centres = boxes[:, :2] + boxes[:, 2:] - 1  # from shares, 0 to 1, to the scale from -1 to 1
    halves = (boxes[:, 2:] - boxes[:, :2]) / zoom
    centres = (centres - shift) @ turn / zoom  # rows times a rotation: this is the transpose, which is the inverse
    whole = torch.cat([centres - halves, centres + halves], dim=1) / 2 + 0.5
    clipped = whole.clamp(0, 1)
    return clipped[_areas(clipped) > _LEAST_LEFT * _areas(whole)]


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def truths(films: pd.DataFrame) -> list[Corners]:
    """Return each film's boxes."""
    return [corners(text) for text in films["boxes"]]
