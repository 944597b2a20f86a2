"""Lists the films, from a manifest or an unpacked RSNA challenge, with each film's patient if known."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from pneumonia_training.films.problems import UNKNOWN_PATIENT, FilmProblem, Problem, join_groups, rsna_conflicts

FOLDS: Final = 10
REQUIRED_COLUMNS: Final = ("path", "label", "group")
OPTIONAL_COLUMNS: Final = ("fold", "subset", "negative_class", "view", "age", "sex", "image_id", "boxes", "findings")
BOX_FRAME: Final = 1024  # pixels: the side of the challenge's films, and the unit of its boxes
RSNA_IMAGES: Final = "stage_2_train_images"
NO_OPACITY_NOT_NORMAL: Final = "No Lung Opacity / Not Normal"  # the challenge's word for an ill lung without opacity


class ManifestError(Exception):
    """The manifest cannot be used for training."""


def read_manifest(path: Path, *, nih_map: Path | None = None) -> pd.DataFrame:
    """Return a manifest's films with the columns for training; a film without a fold gets one from its group.

    `boxes` is a JSON list of [x, y, width, height] in 1/1024 of the film's width and height, empty if no box is known.
    `findings` are names separated by `|`, empty if nobody looked for any. `nih_map` is a CSV with the columns `rsna_id`
    and `nih_patient`: all films of one patient get one group, together with the groups that they had before.

    Raises:
        ManifestError: a column is missing, a label is neither 0 nor 1, or a group lies in more than one fold.
    """
    films = _read_csv(path, columns=()).rename(
        columns={
            "fold10": "fold",
            "rsna_class": "negative_class",
            "rsna_id": "image_id",
            "rsna_boxes_1024": "boxes",
            "nih_findings": "findings",
        }
    )
    missing = [column for column in ("path", "label") if column not in films]
    if missing:
        raise ManifestError(f"{path.name}: no column {', '.join(missing)}")
    if nih_map is not None and "image_id" not in films:
        raise ManifestError(f"{path.name}: no column image_id (or rsna_id), which the map goes by")
    for column in ("group", *OPTIONAL_COLUMNS):
        if column not in films:
            films[column] = ""
    return _with_groups(films[[*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS]], name=path.name, nih_map=nih_map)


def fold_of(group: str) -> int:
    """Return the fold, 0 to 9, that a group always falls into."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) % FOLDS


def read_rsna_folder(folder: Path, *, nih_map: Path | None = None) -> tuple[pd.DataFrame, list[FilmProblem]]:
    """Return the films of an unpacked RSNA Pneumonia Detection Challenge, stage 2, and its tables' contradictions.

    `nih_map` is a CSV as for a manifest; RSNA's mapping to NIH ChestX-ray14 provides it. Without it every image counts
    as a patient, so that a split by patient is in fact one by image.

    Raises:
        ManifestError: a table or the folder of films is missing.
    """
    if not (folder / RSNA_IMAGES).is_dir():
        raise ManifestError(f"{folder}: no folder {RSNA_IMAGES}")
    columns = ("patientId", "x", "y", "width", "height", "Target")
    boxes = _read_csv(folder / "stage_2_train_labels.csv", columns=columns)
    if not boxes["Target"].isin(["0", "1"]).all():
        raise ManifestError("stage_2_train_labels.csv: a Target is neither 0 nor 1")
    boxes["Target"] = boxes["Target"].astype(int)
    sides = ["x", "y", "width", "height"]
    boxes[sides] = boxes[sides].apply(pd.to_numeric, errors="coerce")
    classes = _read_csv(folder / "stage_2_detailed_class_info.csv", columns=("patientId", "class"))

    films = boxes.drop_duplicates("patientId").merge(classes.drop_duplicates("patientId"), on="patientId", how="left")
    known = boxes.dropna().groupby("patientId")[sides]
    of_image = {str(image): json.dumps(rows.to_numpy().tolist()) for image, rows in known}
    table = pd.DataFrame(
        {
            "path": [_rsna_path(image) for image in films["patientId"]],
            "label": films["Target"].astype(str),
            "group": "",
            "fold": "",
            "subset": "rsna",
            "negative_class": films["class"].fillna("").astype(str),
            "view": "",
            "age": "",
            "sex": "",
            "image_id": films["patientId"],
            "boxes": [of_image.get(image, "") for image in films["patientId"]],
            "findings": "",
        }
    )
    files = {f"{RSNA_IMAGES}/{file.name}" for file in (folder / RSNA_IMAGES).glob("*.dcm")}
    findings = [
        FilmProblem(path=path, problem=Problem.WITHOUT_ROW, detail="stage_2_train_labels.csv does not name it")
        for path in sorted(files.difference(table["path"]))
    ]
    findings += rsna_conflicts(boxes, classes, _rsna_path)
    return _with_groups(table, name=folder.name, nih_map=nih_map), findings


def _rsna_path(image: str) -> str:
    return f"{RSNA_IMAGES}/{image}.dcm"


def _read_csv(path: Path, *, columns: Sequence[str]) -> pd.DataFrame:
    """Return a table of strings; if the file is missing, read it compressed by gzip.

    Raises:
        ManifestError: the table is missing, cannot be read, or lacks one of the columns.
    """
    packed = path.with_name(f"{path.name}.gz")
    try:
        table = pd.read_csv(packed if packed.exists() and not path.exists() else path, dtype=str, keep_default_na=False)
    except (OSError, EOFError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise ManifestError(f"{path}: {error}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise ManifestError(f"{path.name}: no column {', '.join(missing)}")
    return table


def _with_groups(films: pd.DataFrame, *, name: str, nih_map: Path | None) -> pd.DataFrame:
    """Return the films with label, fold and group: the table's group, else the map's, else one for this film alone."""
    if not films["label"].isin(["0", "1"]).all():
        raise ManifestError(f"{name}: a label is neither 0 nor 1")
    of_image = {} if nih_map is None else _patients(nih_map)
    patients = pd.Series([of_image.get(image, "") for image in films["image_id"]], index=films.index, dtype=str)
    if nih_map is not None and not patients.any():
        raise ManifestError(f"{nih_map.name}: names none of the images of {name}")
    own = UNKNOWN_PATIENT + films["image_id"].where(films["image_id"] != "", films["path"])
    group = films["group"].where(films["group"] != "", patients)
    films = films.assign(label=films["label"].astype(int), group=group.where(group != "", own))
    try:
        folds = [int(fold) if fold else fold_of(group) for fold, group in zip(films.fold, films.group, strict=True)]
    except ValueError as error:
        raise ManifestError(f"{name}: a fold is not a whole number") from error
    films["fold"] = folds
    if (films.groupby("group")["fold"].nunique() > 1).any():
        raise ManifestError(f"{name}: a group lies in more than one fold: its patient would be trained and tested")
    of_patient: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        if patient:
            of_patient.setdefault(patient, []).append(row)
    return join_groups(films, of_patient.values())


def _patients(nih_map: Path) -> dict[str, str]:
    table = _read_csv(nih_map, columns=("rsna_id", "nih_patient")).drop_duplicates(["rsna_id", "nih_patient"])
    if table["rsna_id"].duplicated().any():
        raise ManifestError(f"{nih_map.name}: gives an image to two patients")
    return dict(zip(table["rsna_id"], table["nih_patient"], strict=True))
