"""Small sets of made-up films with a sign of illness that a network can learn in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_training.prepare import Prepared, prepare, read_manifest


def film(seed: int, *, ill: bool) -> NDArray[np.uint8]:
    """Return a picture of 64 x 64 with noise, brighter below when ill."""
    random = np.random.default_rng(seed)
    picture = random.normal(110, 25, (64, 64))
    picture[36:] += 45 if ill else 0
    return np.asarray(picture.clip(0, 255), dtype=np.uint8)


def write_manifest(folder: Path, *, patients: int, films_each: int = 2) -> Path:
    """Write films of so many patients, every third one ill, and return their manifest."""
    rows = []
    for patient in range(patients):
        for number in range(films_each):
            name, ill = f"{patient}-{number}.png", patient % 3 == 0
            cv2.imwrite(str(folder / name), film(100 * patient + number, ill=ill))
            kind = "Lung Opacity" if ill else ("Normal", "No Lung Opacity / Not Normal")[patient % 2]
            row = (
                name,
                int(ill),
                f"patient-{patient}",
                patient % 10,
                kind,
                ("PA", "AP")[patient % 2],
                "FM"[patient // 2 % 2],
            )
            rows.append(row)
    columns = ["path", "label", "group", "fold", "negative_class", "view", "sex"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def prepared_films(folder: Path, *, patients: int, films_each: int = 2) -> Prepared:
    """Return such films, prepared."""
    manifest = write_manifest(folder, patients=patients, films_each=films_each)
    return prepare(read_manifest(manifest), root=folder, cache=folder / "cache")
