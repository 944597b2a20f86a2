"""The same report for a PACS that takes another class of Structured Report."""

from __future__ import annotations

from io import BytesIO
from typing import Final

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import ImplicitVRLittleEndian

from scp_node.report.sop_class import SOP_CLASSES, with_sop_class
from scp_node.settings import COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ENHANCED_SR
from tests.scp_node.report.reports import built, radiograph, report

CHEST_CAD_SR: Final = "1.2.840.10008.5.1.4.1.1.88.65"


def test_the_classes_are_those_of_the_settings() -> None:
    assert set(SOP_CLASSES) == {COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ENHANCED_SR}


@pytest.mark.parametrize("sop_class_uid", SOP_CLASSES)
def test_only_the_two_values_of_the_sop_class_change(sop_class_uid: str) -> None:
    file = built().file
    changed = with_sop_class(file, sop_class_uid)
    assert changed == file.replace(COMPREHENSIVE_3D_SR.encode(), sop_class_uid.encode())
    assert file.count(COMPREHENSIVE_3D_SR.encode()) == 2
    read = dcmread(BytesIO(changed))
    assert read.SOPClassUID == read.file_meta.MediaStorageSOPClassUID == sop_class_uid


def test_a_uid_that_looks_the_same_elsewhere_stays() -> None:
    made = built(radiograph(PatientID=COMPREHENSIVE_3D_SR))
    read = dcmread(BytesIO(with_sop_class(made.file, ENHANCED_SR)))
    assert read.PatientID == COMPREHENSIVE_3D_SR
    assert read.SOPClassUID == ENHANCED_SR


def test_there_and_back_is_the_same_file() -> None:
    file = built().file
    assert with_sop_class(with_sop_class(file, COMPREHENSIVE_SR), COMPREHENSIVE_3D_SR) == file


def test_a_class_that_does_not_fit_the_content_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be stored as"):
        with_sop_class(built().file, CHEST_CAD_SR)


@pytest.mark.parametrize("file", [b"", b"\0" * 128 + b"DICM", b"\0" * 500, built().file[:200]])
def test_what_is_no_report_is_refused(file: bytes) -> None:
    with pytest.raises(ValueError, match="not one of our reports"):
        with_sop_class(file, ENHANCED_SR)


def test_a_report_in_another_encoding_is_refused() -> None:
    recoded = report()
    recoded.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, recoded, implicit_vr=True, little_endian=True, enforce_file_format=True)
    with pytest.raises(ValueError, match="not one of our reports"):
        with_sop_class(buffer.getvalue(), ENHANCED_SR)


def test_a_report_of_another_kind_is_refused() -> None:
    other = built().file.replace(COMPREHENSIVE_3D_SR.encode(), CHEST_CAD_SR.encode())
    with pytest.raises(ValueError, match="not one of our reports"):
        with_sop_class(other, ENHANCED_SR)
