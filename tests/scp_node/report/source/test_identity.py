"""A report says whom it speaks of, and that the study names others."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any, Final

import pytest
from pydicom import Dataset, dcmread

from scp_node.domain import NotAnalysed, Reason
from scp_node.report.content.wording import REMARKS, SHORT_REMARKS
from scp_node.report.kinds import ObjectKind
from scp_node.report.version import Remark
from tests.scp_node.report.reports import NEGATIVE, SEEN, built, every_object, radiograph, report, words

SECOND: Final = "1.2.826.0.1.3680043.8.498.2"


def objects(**attributes: Any) -> dict[ObjectKind, Dataset]:
    """Return each object of a film in a study that names several patients."""
    files = every_object(radiograph(SEEN, **attributes), several_patients=True)
    return {kind: dcmread(BytesIO(file)) for kind, file in files.items()}


def test_the_documents_of_a_study_of_several_patients_are_partial_and_say_so() -> None:
    made = objects()
    for kind in (ObjectKind.REPORT, ObjectKind.TEXT):
        assert made[kind].CompletionFlag == "PARTIAL"
        assert made[kind].CompletionFlagDescription == SHORT_REMARKS[Remark.SEVERAL_PATIENTS]
    for kind in (ObjectKind.REPORT, ObjectKind.TEXT, ObjectKind.KEY_OBJECT):
        assert REMARKS[Remark.SEVERAL_PATIENTS] in words(made[kind])


def test_its_pictures_are_others_than_those_of_a_study_of_one_patient() -> None:
    alone = dcmread(BytesIO(every_object(radiograph(SEEN))[ObjectKind.OVERLAY]))
    picture = objects()[ObjectKind.OVERLAY]
    assert picture.SOPInstanceUID != alone.SOPInstanceUID
    assert picture.Rows > alone.Rows  # one line of text more


def test_each_patient_of_a_study_has_series_of_its_own() -> None:
    keys: list[dict[str, str]] = [
        {},
        {"PatientID": "ANOTHER"},
        {"IssuerOfPatientID": "ELSEWHERE"},
        {"PatientID": "", "PatientName": "A^B"},
        {"PatientID": "", "PatientName": "C^D"},
    ]
    series = [{dataset.SeriesInstanceUID for dataset in objects(**who).values()} for who in keys]
    assert len(set.union(*series)) == sum(map(len, series))


def test_two_films_with_one_sop_instance_uid_make_two_objects_of_each_kind() -> None:
    others: list[dict[str, Any]] = [{}, {"PatientID": "ANOTHER"}, {"StudyInstanceUID": SECOND}]
    made = [
        {kind: dcmread(BytesIO(file)).SOPInstanceUID for kind, file in every_object(radiograph(SEEN, **who)).items()}
        for who in others
    ]
    for kind in (ObjectKind.OVERLAY, ObjectKind.PRESENTATION_STATE, ObjectKind.SEGMENTATION):
        assert len({uids[kind] for uids in made}) == 3, kind


def test_which_of_two_films_with_one_uid_is_read_makes_another_report() -> None:
    read = replace(radiograph(NEGATIVE), sha256="1")
    other = replace(radiograph(NotAnalysed(reason=Reason.SET_ASIDE)), sha256="2")
    first, back = built(read, other), built(replace(read, sha256="2"), replace(other, sha256="1"))
    assert first.content_digest != back.content_digest


@pytest.mark.parametrize(
    ("other", "is_said"),
    [
        ({}, False),
        ({"PatientName": "DOE^JANE^^^"}, False),
        ({"PatientName": "doe^jane "}, False),
        ({"PatientName": ""}, False),
        ({"PatientBirthDate": None}, False),
        ({"PatientName": "DOE^JOAN"}, True),
        ({"PatientBirthDate": "19010101"}, True),
    ],
    ids=str,
)
def test_another_spelling_is_told_and_the_report_complete(other: dict[str, Any], is_said: bool) -> None:
    said: dict[str, Any] = {"PatientName": "DOE^JANE", "PatientBirthDate": "19000101"}
    second = replace(radiograph(NEGATIVE, **{**said, **other}), sop_instance_uid=SECOND)
    read = report(radiograph(NEGATIVE, **said), second)
    assert read.CompletionFlag == "COMPLETE"
    assert (REMARKS[Remark.SPELLINGS_DIFFER] in words(read)) is is_said
