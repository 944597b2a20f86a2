"""Datasets written from plain values, beside pydicom's writer."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.filewriter import dcmwrite

from scp_node.dicom.writing import encoded
from scp_node.domain import Outcome
from scp_node.report.objects.common import quiet_pydicom
from tests.scp_node.report.reports import (
    OUTCOMES,
    PREVIOUS,
    SEEN,
    built,
    dataset,
    every_object,
    lateral,
    radiograph,
    rich_header,
)

# what a peer can put into a header, with what DICOM gives a meaning to more often than chance would
characters: Final = st.characters(codec="utf-8") | st.sampled_from("\\^= \0\n")
latin: Final = st.characters(max_codepoint=255) | st.sampled_from("\\ \0")
texts: Final = st.text(characters, max_size=20)
default_texts: Final = st.text(latin, max_size=20)
codes: Final = st.fixed_dictionaries({"CodeValue": texts, "CodingSchemeDesignator": texts, "CodeMeaning": texts})
values: Final[dict[str, st.SearchStrategy[Any]]] = {
    "SOPInstanceUID": default_texts,
    "StudyDate": default_texts,
    "StudyTime": default_texts,
    "Modality": default_texts,
    "PatientName": texts,
    "PatientID": texts | st.lists(texts.filter(lambda text: "\\" not in text), max_size=3),
    "DerivationDescription": texts,
    "TextValue": texts,
    "StudyDescription": texts,
    "SoftwareVersions": st.lists(texts, max_size=3),
    "NumericValue": st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-999, max_value=999).map(
        str
    ),
    "SeriesNumber": st.integers(-(10**6), 10**6),
    "PixelAspectRatio": st.just([1, 1]),
    "Rows": st.integers(0, 65_535),
    "GraphicData": st.lists(st.floats(0, 5000, width=32), max_size=6),
    "AnchorPoint": st.lists(st.floats(0, 5000, width=32), min_size=2, max_size=2),
    "DisplayedAreaTopLeftHandCorner": st.just([1, -1]),
    "DimensionIndexValues": st.lists(st.integers(0, 2**32 - 1), max_size=3),
    "DimensionIndexPointer": st.just(0x0062000B),
    "PixelData": st.binary(max_size=9),
    "ConceptNameCodeSequence": st.lists(codes, max_size=2),
    "ContentSequence": st.lists(
        st.fixed_dictionaries({}, optional={"TextValue": texts, "Date": default_texts}), max_size=2
    ),
}
IN_UTF_8: Final = {"SpecificCharacterSet": "ISO_IR 192"}


def written_by_pydicom(attributes: dict[str, Any]) -> bytes:
    written = BytesIO()
    dcmwrite(written, dataset(**attributes), implicit_vr=False, little_endian=True)
    return written.getvalue()


@given(st.fixed_dictionaries({}, optional=values))
@settings(max_examples=150, deadline=None)
def test_the_bytes_are_those_that_pydicom_writes(attributes: dict[str, Any]) -> None:
    assert b"".join(encoded(IN_UTF_8 | attributes)) == written_by_pydicom(IN_UTF_8 | attributes)


def test_a_value_that_is_too_long_for_its_kind_is_of_an_unknown_one() -> None:
    attributes = IN_UTF_8 | {"StudyDescription": "é" * 40_000, "TextValue": "x" * 70_000}
    with quiet_pydicom():
        assert b"".join(encoded(attributes)) == written_by_pydicom(attributes)


@pytest.mark.parametrize("header", [{}, rich_header()], ids=["plain", "rich"])
@pytest.mark.parametrize("outcome", [*OUTCOMES.values(), SEEN], ids=[*OUTCOMES, "with regions and map"])
def test_every_object_that_pydicom_reads_and_writes_again_is_the_same_file(
    outcome: Outcome, header: dict[str, Any]
) -> None:
    files = [built(radiograph(outcome, **header), lateral(), previous=PREVIOUS, incomplete=True).file]
    if outcome is SEEN:
        files += every_object(radiograph(outcome, **header), several_patients=True).values()
    for file in files:
        read = dcmread(BytesIO(file))
        for _decoded in read.iterall():  # what is not decoded would be copied
            pass
        again = BytesIO()
        dcmwrite(again, read, enforce_file_format=True)
        assert again.getvalue() == file


def test_an_attribute_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="PatientNames is not in the data dictionary"):
        encoded({"PatientNames": "Doe"})


def test_a_value_of_another_kind_than_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="RedPaletteColorLookupTableData is OW, which is not written here"):
        encoded({"RedPaletteColorLookupTableData": b""})


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(struct.error):
        encoded({"Rows": 70_000})
