"""Measure a network on held-out patients, beside what needs no network at all."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pneumonia_model.backends import Backend
from pneumonia_model.bundle import Bundle
from torch.nn import functional

from pneumonia_training.data import Split, resize
from pneumonia_training.figures import (
    Figure,
    auc,
    bootstrap,
    calibration_error,
    confusion,
    logistic,
    platt,
    rates,
    threshold_for_recall,
)
from pneumonia_training.prepare import NO_OPACITY_NOT_NORMAL, Prepared

THUMBNAIL_SIDE: Final = 16
CHOSEN_RECALL: Final = 0.90
DEFAULT_POINT: Final = "recall-0.90"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What is chosen on the validation films and then only applied: calibration and thresholds of probability."""

    slope: float
    intercept: float
    thresholds: Mapping[str, float]

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return logistic(self.slope * logits + self.intercept)


def choose(logits: NDArray[np.float64], labels: NDArray[np.bool_]) -> Chosen:
    """Return calibration and operating points from validation films."""
    slope, intercept = platt(logits, labels)
    threshold = threshold_for_recall(logistic(slope * logits + intercept), labels, CHOSEN_RECALL)
    return Chosen(slope=slope, intercept=intercept, thresholds={DEFAULT_POINT: threshold, "half": 0.5, "quarter": 0.25})


def predict(backend: Backend, images: NDArray[np.uint8], *, batch: int = 32) -> NDArray[np.float64]:
    """Return the logits of prepared films, shape (n,), from the runtime that the node uses."""
    inputs = (images[start : start + batch] for start in range(0, len(images), batch))
    logits = [backend.predict(part.astype(np.float32) / np.float32(255)).logits for part in inputs]
    return np.concatenate(logits).astype(np.float64)


def evaluate(
    films: pd.DataFrame, logits: NDArray[np.float64], chosen: Chosen, *, baselines: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Return every figure over these films, each as [value, low, high] with a 95 % interval by patient."""
    labels = films["label"].to_numpy() == 1
    patients = films["group"].to_numpy(dtype=np.str_)
    probabilities = chosen.probabilities(logits)

    def estimate(figure: Figure, scores: NDArray[np.float64], rows: NDArray[np.bool_] | None = None) -> Any:
        keep = np.ones(len(films), dtype=np.bool_) if rows is None else rows
        return bootstrap(figure, scores[keep], labels[keep], patients[keep]).as_list()

    groups_of_films = _groups(films, labels)
    return {
        "patients": len(set(patients)),
        "groups": {
            name: {"films": int(rows.sum()), "positive": int(labels[rows].sum())}
            for name, rows in groups_of_films.items()
        },
        "auc": {
            scorer: {name: estimate(auc, scores, rows) for name, rows in groups_of_films.items()}
            for scorer, scores in {"model": logits, **baselines}.items()
        },
        "calibration_error": {
            "before": estimate(calibration_error, logistic(logits)),
            "after": estimate(calibration_error, probabilities),
        },
        "operating_points": [
            {
                "name": name,
                "threshold": threshold,
                "confusion": confusion(probabilities, labels, threshold),
                **{rate: estimate(figure, probabilities) for rate, figure in rates(threshold).items()},
            }
            for name, threshold in chosen.thresholds.items()
        ],
    }


def _groups(films: pd.DataFrame, labels: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    def rows(column: str, value: str) -> NDArray[np.bool_]:
        return np.asarray(films[column] == value, dtype=np.bool_)

    return {
        "all": np.ones(len(films), dtype=np.bool_),
        "view AP": rows("view", "AP"),
        "view PA": rows("view", "PA"),
        "against Normal": labels | rows("negative_class", "Normal"),
        f"against {NO_OPACITY_NOT_NORMAL}": labels | rows("negative_class", NO_OPACITY_NOT_NORMAL),
        "women": rows("sex", "F"),
        "men": rows("sex", "M"),
    }


def trivial_baselines(prepared: Prepared, split: Split, rows: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    """Return scores of `rows` that need no network: the view tag, and logistic regression on a 16 x 16 thumbnail.

    The thumbnails' regression is trained on the evaluated subsets' kind of films among the training rows only.
    """
    films = prepared.films
    full_films = split.train[films["subset"].iloc[split.train].ne("lungs").to_numpy()]
    weights = _logistic_regression(
        _thumbnails(prepared, full_films), films["label"].to_numpy(dtype=np.float64)[full_films]
    )
    return {
        "view tag (AP above PA)": np.asarray(films["view"].iloc[rows] == "AP", dtype=np.float64),
        f"{THUMBNAIL_SIDE} x {THUMBNAIL_SIDE} thumbnail, logistic regression": _thumbnails(prepared, rows) @ weights,
    }


def _thumbnails(prepared: Prepared, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return flattened thumbnails with a constant column, shape (n, 257)."""
    inputs = torch.from_numpy(prepared.images[rows].astype(np.float32) / 255)
    small = resize(inputs, THUMBNAIL_SIDE).reshape(len(rows), -1).double().numpy() - 0.5
    return np.concatenate([small, np.ones((len(rows), 1))], axis=1)


def _logistic_regression(
    features: NDArray[np.float64], labels: NDArray[np.float64], *, penalty: float = 1e-2
) -> NDArray[np.float64]:
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
    return weights.detach().numpy()


def chosen_in(bundle: Bundle) -> Chosen:
    """Return a released bundle's calibration and thresholds."""
    points = {str(point["name"]): float(point["threshold"]) for point in bundle.manifest["operating_points"]}
    return Chosen(**asdict(bundle.calibration), thresholds=points)
