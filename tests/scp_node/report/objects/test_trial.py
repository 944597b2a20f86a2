"""The test report: about nobody wherever people look, in a study of its own, and never one of a patient."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO

from pydicom import Dataset, dcmread

from scp_node.domain import BuiltObject
from scp_node.listener.contexts import STORAGE_CLASSES
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.trial import build_trial_report
from scp_node.report.sop_class import SOP_CLASSES, with_sop_class
from scp_node.report.text import as_text
from tests.scp_node.report.reports import AT, SITE


def read(built: BuiltObject) -> Dataset:
    return dcmread(BytesIO(built.file))


def test_it_says_that_it_is_a_test_wherever_people_look() -> None:
    built = build_trial_report(SITE, AT)
    made = read(built)
    assert (made.PatientName, made.PatientID, made.PatientBirthDate) == ("TEST^SCP-NODE", "SCP-NODE-TEST", "")
    assert made.StudyDescription == made.SeriesDescription == "THIS IS A TEST, NO PATIENT"
    assert (made.VerificationFlag, made.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert "Conclusion: THIS IS A TEST, NO PATIENT. It shows that PNEUMONIA can send" in as_text(built.file)
    assert not any(word in as_text(built.file).lower() for word in ("pneumonia =", "probability", "absent"))


def test_all_of_a_day_lie_in_one_study_and_each_is_another_object() -> None:
    one, two = (read(build_trial_report(SITE, AT + timedelta(seconds=delay))) for delay in (0, 1))
    assert (one.StudyInstanceUID, one.SeriesInstanceUID) == (two.StudyInstanceUID, two.SeriesInstanceUID)
    later = read(build_trial_report(SITE, AT + timedelta(days=1)))
    assert later.StudyInstanceUID != one.StudyInstanceUID
    assert [each.StudyDate + each.StudyTime for each in (one, later)] == ["20260501000000", "20260502000000"]
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert build_trial_report(SITE, AT).file == build_trial_report(SITE, AT).file


def test_it_can_be_sent_in_each_class_of_a_report() -> None:
    built = build_trial_report(SITE, datetime(2026, 1, 1, tzinfo=UTC))
    assert built.sop_class_uid == ObjectKind.REPORT.sop_class_uid
    for sop_class in SOP_CLASSES:
        assert dcmread(BytesIO(with_sop_class(built.file, sop_class))).SOPClassUID == sop_class


def test_a_pacs_that_routes_it_back_is_refused_its_class() -> None:
    assert not set(SOP_CLASSES) & set(STORAGE_CLASSES)
