"""Read films once, through the node's own preprocessing, into one array on disk."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_model.preprocessing import INPUT_SIDE, PREPROCESSING, input_from_display, to_input
from pydicom import dcmread

FOLDS: Final = 10
REQUIRED_COLUMNS: Final = ("path", "label", "group")
OPTIONAL_COLUMNS: Final = ("fold", "subset", "negative_class", "view", "age", "sex", "image_id")

NO_OPACITY_NOT_NORMAL: Final = "No Lung Opacity / Not Normal"  # the challenge's word for an ill lung without opacity


class ManifestError(Exception):
    """The manifest cannot be trained on as it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Prepared films: `images` of shape (n, 224, 224), 8 bits, and one row of `films` for each."""

    images: NDArray[np.uint8]
    films: pd.DataFrame
    digest: str


def read_manifest(path: Path) -> pd.DataFrame:
    """Return a manifest's films with the columns that training uses; a film without a fold gets one from its group.

    Raises:
        ManifestError: a column is missing, a label is neither 0 nor 1, or a group lies in more than one fold.
    """
    films = pd.read_csv(path, dtype=str, keep_default_na=False).rename(
        columns={"fold10": "fold", "rsna_class": "negative_class", "rsna_id": "image_id"}
    )
    missing = [column for column in REQUIRED_COLUMNS if column not in films]
    if missing:
        raise ManifestError(f"{path.name}: no column {', '.join(missing)}")
    if not films["label"].isin(["0", "1"]).all():
        raise ManifestError(f"{path.name}: a label is neither 0 nor 1")
    for column in OPTIONAL_COLUMNS:
        if column not in films:
            films[column] = ""
    films["fold"] = [int(fold) if fold else fold_of(group) for fold, group in zip(films.fold, films.group, strict=True)]
    films["label"] = films["label"].astype(int)
    if (films.groupby("group")["fold"].nunique() > 1).any():
        raise ManifestError(f"{path.name}: a group lies in more than one fold: its patient would be trained and tested")
    return films[[*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS]]


def fold_of(group: str) -> int:
    """Return the fold, 0 to 9, that a group always falls into."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) % FOLDS


def read_rsna_folder(folder: Path, *, patients: Path | None) -> pd.DataFrame:
    """Return the films of an unpacked RSNA Pneumonia Detection Challenge, stage 2.

    `patients` is a CSV with the columns `rsna_id` and `nih_patient` (RSNA's own mapping to NIH ChestX-ray14 gives it).
    Without it every image counts as a patient, and a split by patient is one by image.
    """
    labels = pd.read_csv(folder / "stage_2_train_labels.csv").drop_duplicates("patientId")
    classes = pd.read_csv(folder / "stage_2_detailed_class_info.csv").drop_duplicates("patientId")
    films = labels.merge(classes, on="patientId", validate="one_to_one")
    groups = films.patientId
    if patients is not None:
        of_patient = pd.read_csv(patients, dtype=str).set_index("rsna_id")["nih_patient"]
        groups = films.patientId.map(of_patient).fillna(films.patientId)
    return pd.DataFrame(
        {
            "path": [f"stage_2_train_images/{image}.dcm" for image in films.patientId],
            "label": films.Target.astype(int),
            "group": groups,
            "fold": [fold_of(group) for group in groups],
            "subset": "rsna",
            "negative_class": films["class"],
            "view": "",
            "age": "",
            "sex": "",
            "image_id": films.patientId,
        }
    )


def film_input(path: Path) -> NDArray[np.float32]:
    """Return a DICOM, JPEG or PNG film as the network's input."""
    if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
        display = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if display is None:
            raise ManifestError(f"{path.name}: not a readable picture")
        return input_from_display(np.asarray(display, dtype=np.uint8))
    return to_input(dcmread(path))


def prepare(
    films: pd.DataFrame, *, root: Path, cache: Path, progress: Callable[[int], None] = lambda _: None
) -> Prepared:
    """Write the films' inputs below `cache` and return them.

    An input is a resized 8-bit picture over 255: 8 bits keep it whole.
    """
    cache.mkdir(parents=True, exist_ok=True)
    shape = (len(films), INPUT_SIDE, INPUT_SIDE)
    images = np.lib.format.open_memmap(cache / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    for row, path in enumerate(films.path):
        images[row] = np.rint(film_input(root / path) * 255).astype(np.uint8)
        progress(row)
    images.flush()
    films.to_csv(cache / "films.csv", index=False)
    digest = _digest(cache)
    document = {"preprocessing": PREPROCESSING, "films": len(films), "digest": digest}
    (cache / "dataset.json").write_text(json.dumps(document, indent=2) + "\n")
    return load_prepared(cache)


def load_prepared(cache: Path) -> Prepared:
    """Return films prepared earlier.

    Raises:
        ManifestError: the preprocessing has changed since.
    """
    document = json.loads((cache / "dataset.json").read_text())
    if document["preprocessing"] != json.loads(json.dumps(PREPROCESSING)):
        raise ManifestError("the films were prepared under another preprocessing: prepare them again")
    films = pd.read_csv(cache / "films.csv", dtype={"group": str}, keep_default_na=False)
    return Prepared(images=np.load(cache / "images.npy", mmap_mode="r"), films=films, digest=document["digest"])


def _digest(cache: Path) -> str:
    """Return one hash over the films' table and pixels: which data a model was made from."""
    digest = hashlib.sha256()
    for name in ("films.csv", "images.npy"):
        for block in _blocks(cache / name):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
