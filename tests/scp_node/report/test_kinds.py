"""The kinds of objects: each has its row and its builder, and its objects are as the row says."""

from __future__ import annotations

from io import BytesIO
from typing import Final

import pytest
from pydicom import Dataset, dcmread

from scp_node.report.kinds import ObjectKind
from scp_node.report.sop_class import COMPANION_SOP_CLASSES, SOP_CLASSES
from tests.scp_node.report.reports import MODEL, SEEN, SITE, every_object, radiograph

COMPANIONS: Final = [kind for kind in ObjectKind if kind is not ObjectKind.REPORT]


@pytest.fixture(scope="module")
def objects() -> dict[ObjectKind, Dataset]:
    """An object of each kind, of a film that has all of them."""
    files = every_object(radiograph(SEEN, Rows=40, Columns=80))
    return {kind: dcmread(BytesIO(file)) for kind, file in files.items()}


def test_each_kind_has_a_builder(objects: dict[ObjectKind, Dataset]) -> None:
    assert set(objects) == set(ObjectKind)


@pytest.mark.parametrize("kind", ObjectKind)
def test_an_object_is_what_the_row_of_its_kind_says(objects: dict[ObjectKind, Dataset], kind: ObjectKind) -> None:
    read = objects[kind]
    assert read.SOPClassUID == read.file_meta.MediaStorageSOPClassUID == kind.sop_class_uid
    assert read.Modality == kind.modality
    assert read.SeriesNumber == SITE.series_number + kind.series_offset
    assert read.SeriesDescription == f"{kind.series_description or SITE.series_description} {MODEL.version}"


def test_no_two_kinds_share_a_word_an_sop_class_or_a_series(objects: dict[ObjectKind, Dataset]) -> None:
    for column in ("word", "sop_class_uid", "series_offset", "series_description"):
        assert len({getattr(kind, column) for kind in ObjectKind}) == len(ObjectKind), column
    assert len({read.SeriesInstanceUID for read in objects.values()}) == len(ObjectKind)
    assert len({read.SOPInstanceUID for read in objects.values()}) == len(ObjectKind)


def test_the_sop_class_of_every_companion_is_offered() -> None:
    assert list(COMPANION_SOP_CLASSES) == [kind.sop_class_uid for kind in COMPANIONS]
    assert SOP_CLASSES[0] == ObjectKind.REPORT.sop_class_uid


def test_a_companion_describes_its_series_itself() -> None:
    assert all(kind.series_description.startswith("AI PNEUMONIA ") for kind in COMPANIONS)


def test_the_words_that_uids_are_derived_from_never_change() -> None:
    assert {kind.word: kind.series_word for kind in ObjectKind} == {
        "report": "report series",
        "overlay": "overlay series",
        "text": "text series",
        "presentation-state": "presentation state series",
        "segmentation": "segmentation series",
        "key-object": "key object series",
    }
