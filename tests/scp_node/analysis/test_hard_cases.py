"""The collection of hard cases: for each, what its manifest expects is what the analysis does."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from scp_node.analysis.analyse import analyse_file
from scp_node.analysis.answers import Prepared
from scp_node.domain import Completion, NotAnalysed, Note, Reason
from scp_node.settings import AnalysisSettings
from tests.conftest import clinical_data

# Where the analysis of the bare file differs from the manifest's column, and why it is right to.
NO_FILE_META: Final = "a bare dataset: no sender's tool takes it as a file, and our spool writes its own file meta"
DIFFERENT: Final = {
    "derived/missing_study_uid.dcm": ("ANALYSE", "refused by the listener: without a study there is no report"),
    "derived/dup_b_normal.dcm": ("ANALYSE", "recorded as a conflict by the registrar; the image itself is in order"),
    "derived/rows_bomb.dcm": ("SKIP", "60000 rows are out of bounds, whatever the pixel data: image size"),
    "upstream/dcm4che__3gb-bulk-data-truncated.dcm": ("SKIP", "an MR image is out of scope before its pixels count"),
    "upstream/io__OT-MONO2-8-hip.dcm": ("FAIL", NO_FILE_META),
    "upstream/pydicom__no_meta.dcm": ("FAIL", NO_FILE_META),
    "upstream/pydicom-data__OT-PAL-8-face.dcm": ("FAIL", NO_FILE_META),
    "upstream/orthanc-tests__1.2.840.10008.1.2.dcm": ("FAIL", NO_FILE_META),
    "upstream/pydicom__meta_missing_tsyntax.dcm": ("FAIL", "neither SOP class nor modality: nothing says what it is"),
    "upstream/pydicom__no_meta_group_length.dcm": ("FAIL", "neither SOP class nor modality: nothing says what it is"),
    "upstream/pydicom__empty_charset_LEI.dcm": ("FAIL", "neither SOP class nor modality: nothing says what it is"),
    "upstream/pydicom__nested_priv_SQ.dcm": ("FAIL", "neither SOP class nor modality: nothing says what it is"),
}


def manifest() -> Iterator[tuple[str, str]]:
    file = clinical_data() / "robustness" / "manifest.csv"
    if not file.exists():
        return
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            yield row["path"], row["action"]


def action(outcome: Prepared | NotAnalysed) -> str:
    if isinstance(outcome, Prepared):
        return "ANALYSE_WARN" if outcome.notes else "ANALYSE"
    return "FAIL" if outcome.reason.completion is Completion.FAILED else "SKIP"


@pytest.mark.parametrize(("path", "expected"), list(manifest()))
def test_a_hard_case_ends_as_the_manifest_says(shared_data: Path, path: str, expected: str) -> None:
    outcome = analyse_file(shared_data / "robustness" / path, AnalysisSettings())
    allowed, _ = DIFFERENT.get(path, (expected, ""))
    assert action(outcome) == allowed, outcome


def test_every_exception_from_the_manifest_is_still_one(shared_data: Path) -> None:
    assert shared_data.exists()
    expected = dict(manifest())
    assert all(expected[path] != allowed for path, (allowed, _) in DIFFERENT.items())


def test_every_syntax_and_bit_depth_of_one_film_gives_nearly_one_input(shared_data: Path) -> None:
    folder = shared_data / "robustness" / "derived"
    reference = analyse_file(folder / "ref_explicit_le.dcm", AnalysisSettings())
    assert isinstance(reference, Prepared)
    for path in [*sorted(folder.glob("ts_*.dcm")), *sorted(folder.glob("bits*.dcm"))]:
        other = analyse_file(path, AnalysisSettings())
        assert isinstance(other, Prepared), path.name
        assert abs(other.inputs - reference.inputs).mean() < 0.01, path.name


def test_an_animals_film_is_recognised_by_its_species(shared_data: Path) -> None:
    film = shared_data / "robustness" / "upstream" / "orthanc-tests__Issue56-NoPixelData.dcm"
    outcome = analyse_file(film, AnalysisSettings())
    assert isinstance(outcome, NotAnalysed)
    assert outcome.reason is Reason.SPECIES


def test_every_real_chest_film_of_an_adult_is_analysed(shared_data: Path) -> None:
    films = sorted((shared_data / "dicom").glob("*/*.dcm"))
    outcomes = {film.relative_to(shared_data / "dicom"): analyse_file(film, AnalysisSettings()) for film in films}
    refused = {str(path): o.reason for path, o in outcomes.items() if isinstance(o, NotAnalysed)}
    children = [path for path, reason in refused.items() if reason is Reason.PATIENT_AGE]
    assert len(outcomes) == 264
    assert len(children) == 18
    assert {path: reason for path, reason in refused.items() if path not in children} == {
        "nih_udacity/test4.dcm": Reason.BODY_PART,  # RIBCAGE
        "nih_udacity/test5.dcm": Reason.MODALITY,  # CT
        "real_cr/CR-MONO1-10-chest.dcm": Reason.UNREADABLE_HEADER,  # see NO_FILE_META
    }


def test_films_that_do_not_state_their_view_carry_a_note(shared_data: Path) -> None:
    for film in sorted((shared_data / "dicom" / "nih_google").glob("*.dcm")):
        outcome = analyse_file(film, AnalysisSettings())
        assert isinstance(outcome, Prepared)
        assert outcome.notes == (Note.VIEW_MISSING, Note.BODY_PART_MISSING)
