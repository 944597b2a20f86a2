"""The trivial baselines without a network, which stand next to every figure of the network."""

from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.films.sampling import resize

THUMBNAIL_SIDE: Final = 16
VIEW_TAG: Final = "view tag (AP above PA)"
THUMBNAIL: Final = f"{THUMBNAIL_SIDE} x {THUMBNAIL_SIDE} thumbnail, logistic regression"
_BATCH: Final = 256


def trivial_baselines(
    prepared: PreparedFilms, rows: NDArray[np.intp], folds: NDArray[np.int64], *, train: NDArray[np.intp] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return scores of `rows` by the view tag and by logistic regression on a thumbnail, if the films allow them.

    The regression learns from the rows `train`; without them, each fold is scored by a regression on the other folds.
    """
    films = prepared.films.iloc[rows]
    baselines = {}
    if films["view"].isin(["AP", "PA"]).any():
        baselines[VIEW_TAG] = np.asarray(films["view"] == "AP", dtype=np.float64)
    thumbnails = _thumbnails(prepared, rows)
    if train is not None:
        labels = _labels(prepared.films, train)
        scores = _scores(_thumbnails(prepared, train), labels, thumbnails)
    else:
        labels = _labels(prepared.films, rows)
        scores = np.full(len(rows), np.nan)
        for fold in np.unique(folds):
            here = folds == fold
            scores[here] = _scores(thumbnails[~here], labels[~here], thumbnails[here])
    if np.isfinite(scores).all():
        baselines[THUMBNAIL] = scores
    return baselines


def _labels(films: pd.DataFrame, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    return films["label"].to_numpy(dtype=np.float64)[rows]


def _thumbnails(prepared: PreparedFilms, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return flattened thumbnails with a constant column, shape (n, 257)."""
    small = np.ones((len(rows), THUMBNAIL_SIDE**2 + 1))
    for start in range(0, len(rows), _BATCH):
        part = slice(start, start + _BATCH)
        inputs = torch.from_numpy(prepared.images[rows[part]].astype(np.float32) / 255)
        small[part, :-1] = resize(inputs, THUMBNAIL_SIDE).flatten(1).double().numpy() - 0.5
    return small


def _scores(
    features: NDArray[np.float64], labels: NDArray[np.float64], of: NDArray[np.float64], *, penalty: float = 1e-2
) -> NDArray[np.float64]:
    """Return scores by a balanced logistic regression; NaN if it does not have both classes to learn from."""
    if len(np.unique(labels)) < 2:
        return np.full(len(of), np.nan)
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    balance = torch.where(y == 1, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        fit = functional.binary_cross_entropy_with_logits(x @ weights, y, weight=balance)
        loss = fit + penalty * weights[:-1].square().sum() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return np.asarray(of @ weights.detach().numpy(), dtype=np.float64)
