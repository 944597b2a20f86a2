"""Reads films once, through the node's preprocessing, into one array on disk."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_model.preprocessing import INPUT_SIDE, PREPROCESSING

from pneumonia_training.films.manifests import ManifestError
from pneumonia_training.films.problems import (
    NEAR_BITS,
    UNKNOWN_PATIENT,
    FilmProblem,
    Problem,
    compare_films,
    join_groups,
    label_conflicts,
    write_findings,
)
from pneumonia_training.films.reading import Chunk, ReadFilm, read_in_order

CHUNK: Final = 32  # films that one process reads at a time; an interruption costs at most this many per process
_FORMAT: Final = 1  # of the cache; increased whenever the same films would give other files
_BY_IMAGE: Final = """
!!! ---------------------------------------------------------------------------------------------------------------
!!! SPLIT BY IMAGE: of %d of %d films nobody knows the patient. Each counts as a patient of its own.
!!! Several films of one patient will lie on both sides of the split, and every figure will look better than it is.
!!! In the RSNA challenge that are about 70 %% of the test films. Give --nih-map, or a `group` for every film.
!!! ---------------------------------------------------------------------------------------------------------------"""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFilms:
    """PreparedFilms films: `images` of shape (n, 224, 224), 8 bits, and one row of `films` for each.

    `split_unit` is "patient" if the patient of every film is known, and otherwise "image".
    """

    images: NDArray[np.uint8]
    films: pd.DataFrame
    digest: str
    split_unit: str = "patient"


def prepare(
    films: pd.DataFrame,
    *,
    root: Path,
    cache: Path,
    findings: Sequence[FilmProblem] = (),
    jobs: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> PreparedFilms:
    """Write the films' inputs below `cache` and return them; resume an interrupted call with the same films.

    Films that are missing or cannot be read are left out. `checks.csv` names them, all other problems, and `findings`,
    which come from the films' tables. Films that show one picture get one group. `progress` is called with the number
    of films done. The files do not depend on `jobs` (0: read in this process) nor on interruptions.

    Raises:
        ManifestError: no film could be read, or another process prepares this cache.
    """
    unknown = int(films["group"].str.startswith(UNKNOWN_PATIENT).sum())
    if unknown:
        log.warning(_BY_IMAGE, unknown, len(films))
    inputs = _inputs(films, root, findings)
    with _locked(cache):
        if _is_complete(cache, inputs):
            log.info("films are prepared already: cache=%s", cache)
            return load_prepared(cache)
        partial = _Partial(cache, inputs)
        if partial.read:
            log.info("going on: done=%d films=%d", len(partial.read), len(films))
        progress(len(partial.read))
        paths = [root / path for path in films["path"]]
        chunks = (paths[start : start + CHUNK] for start in range(len(partial.read), len(paths), CHUNK))
        for chunk in read_in_order(chunks, jobs=jobs):
            partial.add(chunk)
            progress(len(partial.read))
        return _finish(partial, films, findings, split_unit="image" if unknown else "patient")


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Hold a lock on the cache, since two processes would mix their pictures; the lock ends with its process."""
    cache.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cache, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ManifestError(f"{cache}: another process prepares it") from error
        yield
    finally:
        os.close(descriptor)


def _inputs(films: pd.DataFrame, root: Path, findings: Sequence[FilmProblem]) -> str:
    """Return one hash over all inputs of a cache; a file counts by its size and modification time."""
    digest = hashlib.sha256(json.dumps([_FORMAT, PREPROCESSING, NEAR_BITS]).encode())
    digest.update(films.to_csv(index=False).encode())
    digest.update(repr([(finding.path, finding.problem, finding.detail) for finding in findings]).encode())
    for path in films["path"]:
        file = root / path
        status = file.stat() if file.is_file() else None
        digest.update(b"-" if status is None else f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _is_complete(cache: Path, inputs: str) -> bool:
    names = ("dataset.json", "images.npy", "films.csv", "checks.csv")
    if not all((cache / name).is_file() for name in names):
        return False
    document: dict[str, object] = json.loads((cache / "dataset.json").read_text())
    return document.get("inputs") == inputs


class _Partial:
    """The films read so far, on disk: their pictures as an array that can grow, and a line of JSON for each film.

    The line is written after the picture, so an interruption loses only films that have no line yet.
    """

    def __init__(self, cache: Path, inputs: str) -> None:
        self.cache = cache
        self.folder = cache / f"partial-{inputs[:16]}"
        for other in cache.glob("partial-*"):
            if other != self.folder:
                shutil.rmtree(other)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.inputs, self.images, self._lines = inputs, self.folder / "images.npy", self.folder / "films.jsonl"
        self._begin = _write_header(self.images, 0)
        self.read = self._done()

    def _done(self) -> list[ReadFilm]:
        """Return the finished films; cut off whatever an interruption left half-written."""
        lines = self._lines.read_bytes().splitlines(keepends=True) if self._lines.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        read = [ReadFilm(**json.loads(line)) for line in whole]
        size = self._begin + INPUT_SIDE**2 * sum(not film.problem for film in read)
        if self.images.stat().st_size < size:  # it was already moved to its place, so start again
            whole, read, size = [], [], self._begin
        os.truncate(self.images, size)
        with self._lines.open("ab") as file:
            file.truncate(sum(map(len, whole)))
        return read

    def add(self, chunk: Chunk) -> None:
        with self.images.open("ab") as file:
            file.writelines(picture.tobytes() for _, picture in chunk if picture is not None)
            file.flush()
            os.fsync(file.fileno())
        with self._lines.open("ab") as file:
            file.write(b"".join(json.dumps(asdict(film)).encode() + b"\n" for film, _ in chunk))
        self.read += [film for film, _ in chunk]


def _write_header(path: Path, count: int) -> int:
    """Write the header of an array of `count` pictures over the file's beginning, and return its length.

    NumPy leaves room in the header for the first axis to grow, so the length is the same for every count.
    """
    with path.open("r+b" if path.exists() else "w+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, INPUT_SIDE, INPUT_SIDE)}
        np.lib.format.write_array_header_1_0(file, header)
        return file.tell()


def _finish(
    partial: _Partial, films: pd.DataFrame, findings: Sequence[FilmProblem], *, split_unit: str
) -> PreparedFilms:
    """Check the films and finish the cache; `dataset.json` comes last, so an unfinished cache never has one."""
    read, folder, cache = partial.read, partial.folder, partial.cache
    failed = [
        FilmProblem(path=path, problem=Problem(film.problem), detail=film.detail)
        for path, film in zip(films["path"], read, strict=True)
        if film.problem
    ]
    kept = [film for film in read if not film.problem]
    table = films[[not film.problem for film in read]].reset_index(drop=True)
    for column in ("view", "age", "sex"):
        stated = [getattr(film, column) for film in kept]
        table[column] = table[column].where(table[column] != "", pd.Series(stated, index=table.index, dtype=str))
    found, pairs = compare_films(
        table, pixels=[film.pixels for film in kept], fingerprints=[bytes.fromhex(film.fingerprint) for film in kept]
    )
    found = [*findings, *failed, *label_conflicts(films, "image id", films["image_id"].tolist()), *found]
    write_findings(folder / "checks.csv", found)
    if not kept:
        raise ManifestError(f"not one film could be read: {folder / 'checks.csv'} says why")
    join_groups(table, pairs).to_csv(folder / "films.csv", index=False)
    _write_header(partial.images, len(kept))
    document = {
        "preprocessing": PREPROCESSING,
        "films": len(kept),
        "digest": _digest(folder),
        "split_unit": split_unit,
        "inputs": partial.inputs,
    }
    (folder / "dataset.json").write_text(json.dumps(document, indent=2) + "\n")
    (cache / "dataset.json").unlink(missing_ok=True)
    for name in ("films.csv", "checks.csv", "images.npy", "dataset.json"):
        (folder / name).replace(cache / name)
    shutil.rmtree(folder)
    return load_prepared(cache)


def npy_names(films: pd.DataFrame) -> list[str]:
    """Return the file name of each film for `write_npy`: its image id, else the stem of its file.

    Raises:
        ManifestError: two films would get one name, or a name is not a valid file name.
    """
    named = zip(films["image_id"], films["path"], strict=True)
    names = pd.Series([f"{image or Path(path).stem}.npy" for image, path in named], dtype=str)
    for name in names[names.duplicated() | names.map(lambda name: Path(name).name != name)]:
        raise ManifestError(f"no file for each film: {name} would be that of two films, or lie in another folder")
    return names.tolist()


def write_npy(prepared: PreparedFilms, folder: Path) -> None:
    """Write each film as a separate array: float32, shape (224, 224), 0 to 1, as the node's `to_input` returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture, name in zip(prepared.images, npy_names(prepared.films), strict=True):
        np.save(folder / name, picture.astype(np.float32) / np.float32(255))


def load_prepared(cache: Path) -> PreparedFilms:
    """Return films prepared earlier.

    Raises:
        ManifestError: the films are not prepared, or the preprocessing has changed since.
    """
    if not (cache / "dataset.json").is_file():
        raise ManifestError(f"{cache}: no prepared films")
    document = json.loads((cache / "dataset.json").read_text())
    if document["preprocessing"] != json.loads(json.dumps(PREPROCESSING)):
        raise ManifestError("the films were prepared under another preprocessing: prepare them again")
    films = pd.read_csv(cache / "films.csv", dtype={"group": str, "image_id": str}, keep_default_na=False)
    return PreparedFilms(
        images=np.load(cache / "images.npy", mmap_mode="r"),
        films=films,
        digest=document["digest"],
        split_unit=document.get("split_unit", "patient"),
    )


def _digest(cache: Path) -> str:
    """Return one hash over the films' table and pixels, which identifies the data of a model."""
    digest = hashlib.sha256()
    for name in ("films.csv", "images.npy"):
        for block in _blocks(cache / name):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
