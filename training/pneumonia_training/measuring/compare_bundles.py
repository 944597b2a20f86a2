"""Compares two bundles on the same films, with the certainty that one is better."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pneumonia_model.bundle import Bundle
from pneumonia_model.opening import open_backend

from pneumonia_training.films.manifests import ManifestError
from pneumonia_training.films.prepare import PreparedFilms
from pneumonia_training.intervals import (
    Figure,
    auc,
    average_precision,
    bootstrap_each,
    brier,
    calibration_error,
    of_both_classes,
    rates,
)
from pneumonia_training.measuring.calibration import Scores, chosen_in
from pneumonia_training.measuring.measure import CALLED
from pneumonia_training.measuring.probes import NetworkRows, predict
from pneumonia_training.measuring.provenance import bundle_document, films_document

_LOGIT: Final = 0
_PROBABILITY: Final = 1
_CALL: Final = 2
COMPARED: Final[dict[str, tuple[int, Figure]]] = {
    "auc": (_LOGIT, auc),
    "average_precision": (_LOGIT, average_precision),
    "brier": (_PROBABILITY, of_both_classes(brier)),
    "calibration_error": (_PROBABILITY, of_both_classes(calibration_error)),
    "recall": (_CALL, rates(CALLED)["recall"]),
    "specificity": (_CALL, rates(CALLED)["specificity"]),
}
"""What is compared; recall and specificity are at each bundle's own default operating point."""


def compare(first: Bundle, second: Bundle, prepared: PreparedFilms, rows: NDArray[np.intp]) -> dict[str, Any]:
    """Return each bundle's figures and `first` minus `second`, with 95 % intervals over the same resampled patients.

    Raises:
        ManifestError: the comparison has no films.
    """
    if not len(rows):
        raise ManifestError("no film to compare on")
    films = prepared.films.iloc[rows]
    labels, patients = films["label"].to_numpy() == 1, films["group"].to_numpy(dtype=np.str_)
    return {
        "data": prepared.digest,
        "films": films_document(prepared, rows),
        "first": bundle_document(first),
        "second": bundle_document(second),
        "figures": paired(_values(first, prepared, rows), _values(second, prepared, rows), labels, patients),
    }


def paired(
    first: NDArray[np.float64], second: NDArray[np.float64], labels: NDArray[np.bool_], patients: NDArray[np.str_]
) -> dict[str, dict[str, list[float | None]]]:
    """Return each figure of both and their difference; columns of shape (n, 3) are logit, probability and call."""
    width = first.shape[1]

    def figures(values: NDArray[np.float64], of: NDArray[np.bool_]) -> NDArray[np.float64]:
        sides = [
            np.array([figure(values[:, offset + column], of) for column, figure in COMPARED.values()])
            for offset in (0, width)
        ]
        return np.concatenate([*sides, sides[0] - sides[1]])

    estimates = bootstrap_each(figures, np.concatenate([first, second], axis=1), labels, patients)
    count = len(COMPARED)
    return {
        name: {
            side: estimates[number * count + place].as_list()
            for number, side in enumerate(("first", "second", "difference"))
        }
        for place, name in enumerate(COMPARED)
    }


def columns(scores: Scores) -> NDArray[np.float64]:
    """Return logit, probability and call at the default operating point, shape (n, 3)."""
    call = scores.calls[next(iter(scores.thresholds))]
    return np.stack([scores.logits, scores.probabilities, call.astype(np.float64)], axis=1)


def _values(bundle: Bundle, prepared: PreparedFilms, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    backend = open_backend(bundle, "onnxruntime", "cpu")
    logits = predict(prepared.images, [NetworkRows(backend, rows)])
    return columns(chosen_in(bundle).applied(logits))
