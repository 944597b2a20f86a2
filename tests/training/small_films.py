"""Small sets of made-up films with a sign of illness that a network can learn in seconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_training.films.manifests import read_manifest
from pneumonia_training.films.prepare import PreparedFilms, prepare
from pneumonia_training.films.reading import Chunk, read_films
from pydicom.config import disable_value_validation

from tests.model import images

RSNA_TABLES: Final = {
    "stage_2_train_labels.csv": (
        "patientId,x,y,width,height,Target\na,10.0,20.0,200.0,300.0,1\na,500.0,30.0,210.0,310.0,1\nb,,,,,0\nc,,,,,0\n"
    ),
    "stage_2_detailed_class_info.csv": (
        "patientId,class\na,Lung Opacity\na,Lung Opacity\nb,Normal\nc,No Lung Opacity / Not Normal\n"
    ),
}


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


def prepared_films(folder: Path, *, patients: int, films_each: int = 2) -> PreparedFilms:
    """Return such films, prepared."""
    manifest = write_manifest(folder, patients=patients, films_each=films_each)
    return prepare(read_manifest(manifest), root=folder, cache=folder / "cache")


def write_dicom(path: Path, picture: NDArray[np.uint8], **attributes: Any) -> None:
    """Write a picture as a DICOM file with these attributes, be they valid or, as in the challenge, not."""
    with disable_value_validation():
        image = images.radiograph(picture, **attributes)
        image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
        image.save_as(path, enforce_file_format=True)


def write_rsna_folder(folder: Path) -> Path:
    """Write a challenge of three films, a, b and c, of which a is ill, and a map that gives a and b to patient 7."""
    (folder / "stage_2_train_images").mkdir(parents=True)
    for name, text in RSNA_TABLES.items():
        (folder / name).write_text(text)
    for seed, (name, view) in enumerate(zip("abc", ("AP", "PA", "PA"), strict=True)):
        header = {"ViewPosition": view, "PatientAge": f"{30 + seed}", "PatientSex": "F"}
        write_dicom(folder / "stage_2_train_images" / f"{name}.dcm", film(seed, ill=name == "a"), **header)
    (folder / "map.csv").write_text("rsna_id,nih_patient\na,7\nb,7\nc,8\n")
    return folder


def swap_unnoticed(path: Path) -> None:
    """Spoil a file, but leave it its size and its time of change."""
    status = path.stat()
    path.write_bytes(b"?" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def read_or_die(paths: Sequence[Path]) -> Chunk:
    """Read films as ever, but end the process at one called deadly: what a decoder in C can do."""
    if any(path.stem == "deadly" for path in paths):
        os._exit(139)
    return read_films(paths)
