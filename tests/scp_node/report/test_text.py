"""A report as text says what the DICOM library reads in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Final

import pytest
from pydicom import Dataset, dcmread

from scp_node.dicom.encoding import DamagedError
from scp_node.domain import Outcome
from scp_node.report.content.wording import REMARKS, study_sentence
from scp_node.report.text import as_text, conclusion_of
from scp_node.report.version import Remark
from tests.scp_node.report.reports import MODEL, OUTCOMES, SEEN, built, lateral, radiograph, text_report


def said(item: Dataset, depth: int = 0) -> Iterator[str]:
    """Yield name and value of each content item as the DICOM library reads them."""
    named = item.get("ConceptNameCodeSequence")
    name = str(named[0].CodeMeaning) if named else str(item.ValueType)
    yield "  " * depth + ": ".join(part for part in (name, value(item)) if part)
    for child in item.get("ContentSequence", []):
        yield from said(child, depth + 1)


def value(item: Dataset) -> str:
    read = VALUES.get(item.ValueType)
    return str(read(item)) if read else ""


def number(item: Dataset) -> str:
    if not item.MeasuredValueSequence:
        return str(item.NumericValueQualifierCodeSequence[0].CodeMeaning)
    measured = item.MeasuredValueSequence[0]
    return f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"


VALUES: Final[dict[str, Callable[[Dataset], object]]] = {
    "TEXT": lambda item: item.TextValue,
    "CODE": lambda item: item.ConceptCodeSequence[0].CodeMeaning,
    "NUM": number,
    "UIDREF": lambda item: item.UID,
    "DATE": lambda item: item.Date,
    "IMAGE": lambda item: item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
    "COMPOSITE": lambda item: item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
    "SCOORD": lambda item: item.GraphicType,
}


@pytest.mark.parametrize("outcome", [*OUTCOMES.values(), SEEN], ids=[*OUTCOMES, "with regions"])
def test_every_kind_of_outcome_is_said_as_the_library_reads_it(outcome: Outcome) -> None:
    file = built(radiograph(outcome, PatientName="Müller^Jörg"), lateral()).file
    assert as_text(file).splitlines() == list(said(dcmread(BytesIO(file))))


def test_the_basic_text_report_is_read_too() -> None:
    file = text_report(radiograph()).file
    assert as_text(file).splitlines() == list(said(dcmread(BytesIO(file))))


@pytest.mark.parametrize("outcome", [*OUTCOMES.values(), SEEN], ids=[*OUTCOMES, "with regions"])
def test_the_conclusion_is_the_sentence_over_all_images(outcome: Outcome) -> None:
    file = built(radiograph(outcome), lateral()).file
    remarks = [REMARKS[Remark.INCOMPLETE]]
    assert conclusion_of(file) == study_sentence([outcome, lateral().outcome], MODEL)
    assert conclusion_of(built(radiograph(outcome), incomplete=True).file).endswith(remarks[0])


@pytest.mark.parametrize("file", [b"", b"\0" * 400, built(radiograph()).file[:-7]])
def test_a_file_that_is_no_report_is_refused(file: bytes) -> None:
    with pytest.raises(DamagedError):
        as_text(file)
