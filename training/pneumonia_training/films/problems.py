"""Reports what is wrong with a set of films, as a table of findings and never as a crash."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

UNKNOWN_PATIENT: Final = "image:"
"""How the group of a film begins whose patient nobody knows: the film is then a group of its own."""

LUNG_OPACITY: Final = "Lung Opacity"  # the challenge's class of every film with Target 1, and of no other
FINGERPRINT_BITS: Final = 256
NEAR_BITS: Final = 20
"""Fingerprints of films that differ in no more bits are taken for the same picture.

Measured on 4,028 RSNA films of 224 x 224 pixels. Pictures of one film differ in 8 bits at most when they came by
another way (reduced from 1,024 pixels, kept as JPEG), in 12 as JPEG of quality 50, in 22 when brightened by a gamma of
0.8 (99 % of films in 18). Films of different patients differ in 46 bits and more, two visits of one patient in 36 and
more. Among 5,961 films with all but the lungs blacked out, different patients differ in 28 bits and more. A crop by 2 %
is not found: it changes 38 bits and more. The usual 64 bits are too few: within 2 of them lie six pairs of patients.
"""
_BLOCK: Final = 256  # films compared with all others at a time; for 26,684 films that is 27 MB of distances


class Problem(StrEnum):
    """A possible problem of a film."""

    MISSING = "missing"  # a table names it, but there is no such file
    UNREADABLE = "unreadable"  # the decoder refuses it
    WITHOUT_ROW = "file without row"  # it lies in the folder, but no table names it
    DUPLICATE = "duplicate"  # an earlier film has the very same pixels
    NEAR_DUPLICATE = "near-duplicate"  # an earlier film shows the same picture
    LABEL_CONFLICT = "label conflict"  # two sources disagree on it


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmProblem:
    """One problem of one film; `path` names the film in the same way as its table."""

    path: str
    problem: Problem
    detail: str


def write_findings(path: Path, findings: Iterable[FilmProblem]) -> None:
    """Write a CSV with the columns path, problem and detail."""
    columns = [field.name for field in fields(FilmProblem)]
    pd.DataFrame([asdict(finding) for finding in findings], columns=columns).to_csv(path, index=False)


def read_findings(path: Path) -> list[FilmProblem]:
    """Return the findings that `write_findings` wrote."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows = table.itertuples(index=False, name=None)
    return [FilmProblem(path=film, problem=Problem(problem), detail=detail) for film, problem, detail in rows]


def summary(findings: Sequence[FilmProblem]) -> str:
    """Return the number of findings of each kind, on one line."""
    count = Counter(finding.problem for finding in findings)
    return ", ".join(f"{count[problem]} {problem}" for problem in Problem if count[problem]) or "nothing found"


def fingerprint(picture: NDArray[np.uint8]) -> bytes:
    """Return 256 bits that stay nearly the same when a picture is compressed, resized or brightened.

    A bit says whether one of the 16 x 16 lowest frequencies of the cosine transform is above their median. A picture of
    a single grey has no fingerprint: the result is empty.
    """
    if picture.std() < 1:
        return b""
    small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    frequencies = cv2.dct(small)[:16, :16].ravel()
    frequencies[0] = -np.inf  # the mean: brightness says nothing about the identity of a picture
    return np.packbits(frequencies > np.median(frequencies[1:])).tobytes()


def near_pairs(fingerprints: Sequence[bytes]) -> Iterator[tuple[int, int, int]]:
    """Yield (earlier, later, differing bits) for every two fingerprints that are close to each other."""
    known = np.array([row for row, bits in enumerate(fingerprints) if bits], dtype=np.intp)
    octets = np.frombuffer(b"".join(fingerprints), dtype=np.uint8).reshape(len(known), FINGERPRINT_BITS // 8)
    signs = np.unpackbits(octets, axis=1).astype(np.float32) * 2 - 1
    for start in range(0, len(known), _BLOCK):
        agreement = signs[start : start + _BLOCK] @ signs[start:].T  # equal bits minus different bits: exact in 32 bits
        apart = (FINGERPRINT_BITS - agreement) / 2
        for first, second in np.argwhere(np.triu(apart <= NEAR_BITS, k=1)):
            yield int(known[start + first]), int(known[start + second]), int(apart[first, second])


def compare_films(
    films: pd.DataFrame, *, pixels: Sequence[str], fingerprints: Sequence[bytes]
) -> tuple[list[FilmProblem], list[tuple[int, int]]]:
    """Return the conflicts between films, and the pairs of rows that show one picture.

    `pixels` (a hash of the decoded pixels) and `fingerprints` hold one value for each row of `films`.
    """
    paths, groups = films["path"].tolist(), films["group"].tolist()
    findings, pairs = [], []

    def joined(first: int, second: int) -> str:
        return f"; groups {groups[first]} and {groups[second]} joined" if groups[first] != groups[second] else ""

    first_with = _firsts(pixels)
    for row, first in enumerate(first_with):
        if row != first:
            detail = f"same pixels as {paths[first]}{joined(first, row)}"
            findings.append(FilmProblem(path=paths[row], problem=Problem.DUPLICATE, detail=detail))
            pairs.append((first, row))
    distinct = [bits if first_with[row] == row else b"" for row, bits in enumerate(fingerprints)]
    named: set[int] = set()
    for first, row, bits in near_pairs(distinct):
        pairs.append((first, row))
        if row not in named or groups[first] != groups[row]:
            named.add(row)
            detail = f"{bits} of {FINGERPRINT_BITS} bits from {paths[first]}{joined(first, row)}"
            findings.append(FilmProblem(path=paths[row], problem=Problem.NEAR_DUPLICATE, detail=detail))
    return findings + label_conflicts(films, "pixels", pixels), pairs


def label_conflicts(films: pd.DataFrame, word: str, identities: Sequence[str]) -> list[FilmProblem]:
    """Return the films whose label differs from that of the first film of the same identity; "" is not an identity."""
    paths, labels = films["path"].tolist(), films["label"].tolist()
    return [
        FilmProblem(
            path=paths[row],
            problem=Problem.LABEL_CONFLICT,
            detail=f"label {labels[row]}, but {labels[first]} for {paths[first]}, which has the same {word}",
        )
        for row, first in enumerate(_firsts(identities))
        if identities[row] and labels[row] != labels[first]
    ]


def rsna_conflicts(boxes: pd.DataFrame, classes: pd.DataFrame, path_of: Callable[[str], str]) -> list[FilmProblem]:
    """Return the contradictions within and between the challenge's two tables, which have one row for each box.

    `boxes` has the columns patientId, x, y, width, height and Target, `classes` patientId and class.
    """
    table = boxes.assign(box=boxes[["x", "y", "width", "height"]].notna().all(axis=1)).groupby("patientId")
    targets = table.agg(low=("Target", "min"), high=("Target", "max"), boxes=("box", "sum"))
    kinds = classes.groupby("patientId").agg(kind=("class", "first"), kinds=("class", "nunique"))
    images = targets.join(kinds, how="outer")
    both = images["high"].notna() & images["kind"].notna()
    complaints = {
        "Target 0 and Target 1": images["low"] < images["high"],
        "Target 1 without a box": (images["high"] == 1) & (images["boxes"] == 0),
        "Target 0 with a box": (images["high"] == 0) & (images["boxes"] > 0),
        "more than one class": images["kinds"] > 1,
        "class and Target disagree": both & ((images["high"] == 1) != (images["kind"] == LUNG_OPACITY)),
        "no Target": images["high"].isna(),
        "no class": images["kind"].isna(),
    }
    return [
        FilmProblem(path=path_of(str(image)), problem=Problem.LABEL_CONFLICT, detail=complaint)
        for complaint, concerned in complaints.items()
        for image in images.index[concerned]
    ]


def join_groups(films: pd.DataFrame, together: Iterable[Sequence[int]]) -> pd.DataFrame:
    """Return the films, with each set of rows merged into one group together with the rest of their groups.

    The merged group gets the first of the names, a known patient's before an unknown one's, and the smallest of the
    folds.
    """
    groups = films["group"].tolist()
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for rows in together:
        roots = sorted({root(groups[row]) for row in rows}, key=lambda name: (name.startswith(UNKNOWN_PATIENT), name))
        parent |= dict.fromkeys(roots, roots[0])
    joined = films.assign(group=[root(group) for group in groups])
    return joined.assign(fold=joined.groupby("group")["fold"].transform("min"))


def _firsts(identities: Sequence[str]) -> list[int]:
    """Return for each row the first row of the same identity."""
    first: dict[str, int] = {}
    return [first.setdefault(identity, row) for row, identity in enumerate(identities)]
