"""The collection of hard cases, sent over the network to a whole node: what each of them ends as."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.node import Node

# What ends otherwise than the collection's column says, and why.
ARGUED: Final = {
    "rows_bomb.dcm": {"rejected"},  # the size that it claims is not there
    "ts_jpeg_lossless_sv1.dcm": {"duplicate"},  # bits12_mono2 under its UID, in another encoding
    "pydicom__chrFrenMulti.dcm": {"duplicate"},  # pydicom__chrFren under its UID, in another character set
    "ts_big_endian_12bit.dcm": {"not offered"},  # retired syntax; the case itself allows a refusal
}
EXPECTED: Final = {
    "ANALYSE": {"analysed"},
    "ANALYSE_WARN": {"analysed with a note"},
    "SKIP": {"not-analysed", "not offered", "no DICOM file", "rejected"},
    "FAIL": {"failed", "rejected", "not offered", "no DICOM file"},
    "REJECT": {"rejected"},
    "CONFLICT": {"conflict"},
}
LOSSY: Final = {
    "ts_jpegls_near.dcm",
    "ts_jpeg_baseline.dcm",
    "ts_jpeg_extended_12bit.dcm",
    "bits12_voilut_sequence.dcm",  # its table undoes a gamma that merged greys: 195 are left of 199
}
SAME_FILM: Final = (
    "ts_",
    "bits",
    "ref_explicit",
    "sc_modality_cr",
    "age_",
    "name_",
    "view_missing",
    "body_missing",
    "rgb_",
)


@pytest.fixture(scope="module")
def outcomes(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """Return the manifest's rows by file name, each with the `ended` and `probability` of the node."""
    folder = shared_data / "robustness"
    with (folder / "manifest.csv").open(newline="") as file:
        cases = list(csv.DictReader(file))
    with ExitStack() as stack:
        node = Node(tmp_path_factory.mktemp("hard"), {"analysis": {"decoder_processes": 2}})
        stack.callback(node.end)
        node.start()
        statuses = {case["path"]: node.send_files([folder / case["path"]])[0] for case in cases}
        rows = node.run_until_idle(sum(status is not None for status in statuses.values()), 180)
        accepted = iter([row for row in rows if row["state"] != "rejected"])
        for case in cases:
            row = next(accepted) if statuses[case["path"]] == 0 else None
            case["ended"] = _ended(statuses[case["path"]], row)
            case["probability"] = row["probability"] if row else None
        yield {Path(case["path"]).name: case for case in cases}


def _ended(status: int | None, row: dict[str, Any] | None) -> str:
    if row is None:
        return "not offered" if status is None else "rejected"
    return "analysed with a note" if row["state"] == "analysed" and row["notes"] else str(row["state"])


def test_each_case_ends_as_the_collection_says_or_as_argued(outcomes: dict[str, dict[str, Any]]) -> None:
    wrong = {
        name: f"{case['action']}, but {case['ended']}"
        for name, case in outcomes.items()
        if case["ended"] not in (ARGUED.get(name) or EXPECTED[case["action"]])
    }
    assert wrong == {}


def test_the_same_film_gets_the_same_probability_in_every_encoding(outcomes: dict[str, dict[str, Any]]) -> None:
    reference = outcomes["ref_explicit_le.dcm"]["probability"]
    films = {
        name: case["probability"]
        for name, case in outcomes.items()
        if case["kind"] == "derived" and name.startswith(SAME_FILM) and case["probability"] is not None
    }
    assert len(films) > 20
    difference: Callable[[float], float] = lambda probability: abs(probability - reference)  # noqa: E731
    assert {name: p for name, p in films.items() if difference(p) > (0.03 if name in LOSSY else 0)} == {}
