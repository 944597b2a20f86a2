"""What is made of a quiet study: its report, and pictures by the settings."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from pydicom import dcmread

from scp_node.analysis.answers import Picture
from scp_node.domain import BuiltObject, Finding, NotAnalysed, PreviousReport, Reason, Region, ReportedImage
from scp_node.ledger import StudySnapshot
from scp_node.loops.report_builder import ReportBuilder, wants_attention, wants_overlay
from scp_node.report import codes
from scp_node.report.sop_class import SOP_CLASSES
from scp_node.settings import ReportSettings
from tests.scp_node.report.reports import AT, LATERAL, MODEL, NEGATIVE, POSITIVE, SITE, found, lateral, radiograph
from tests.scp_node.spooled import FilesByName

MAP: Final = np.zeros((14, 14), "<f4").tobytes()
REGION: Final = Region(left=0.1, top=0.1, right=0.4, bottom=0.4, score=0.5)
SEEN: Final = replace(POSITIVE, attention=MAP, regions=(REGION,))


class Films:
    """Shows every film, or answers as it is set; notes what it was asked for."""

    def __init__(self, answer: NotAnalysed | Exception | None = None) -> None:
        self.answer = answer
        self.asked: list[Path] = []

    def picture(self, path: Path) -> Picture | NotAnalysed:
        self.asked.append(path)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or Picture(display=np.zeros((100, 100), np.uint8))


def builder(films: Films | None = None, **settings: Any) -> ReportBuilder:
    return ReportBuilder(
        settings=ReportSettings(**settings),
        model=MODEL,
        site=SITE,
        files=FilesByName(),
        pictures=films or Films(),
        clock=lambda: AT,
    )


def study(
    *images: ReportedImage, previous: PreviousReport | None = None, digest: str | None = None, incomplete: bool = False
) -> StudySnapshot:
    return StudySnapshot(
        images=images,
        spool_paths=tuple(f"{number}.dcm" for number in range(len(images))),
        result_ids=(1,),
        unread=(),
        calling_aes=frozenset({"CR1"}),
        priority=10,
        incomplete=incomplete,
        patients=1,
        version=previous.version + 1 if previous else 1,
        previous=previous,
        previous_id=1 if previous else None,
        previous_content_digest=digest,
    )


def companions(build: ReportBuilder, snapshot: StudySnapshot) -> list[BuiltObject]:
    """Return what goes with the report of this study."""
    return build.companions(snapshot, at=AT, content_digest=build(snapshot).content_digest)


@pytest.mark.parametrize(
    ("settings", "positive", "negative"),
    [
        ({}, True, False),
        ({"overlay": "none"}, False, False),
        ({"overlay": "all"}, True, True),
        ({"overlay": "all", "flag_only": True}, False, False),
    ],
)
def test_which_films_get_a_picture(settings: dict[str, Any], *, positive: bool, negative: bool) -> None:
    chosen = ReportSettings(**settings)
    assert (wants_overlay(chosen, POSITIVE), wants_overlay(chosen, NEGATIVE)) == (positive, negative)
    films = Films()
    images = (radiograph(SEEN), lateral(replace(NEGATIVE, attention=MAP)), lateral(LATERAL, SOPInstanceUID="1.2.9"))
    made = companions(builder(films, **settings), study(*images))
    assert [each.kind for each in made] == ["overlay"] * (positive + negative)
    assert films.asked == [Path(f"{n}.dcm") for n, wanted in enumerate((positive, negative)) if wanted]


def test_a_text_report_goes_with_the_report_where_it_is_wanted() -> None:
    made = companions(builder(text_sr=True), study(radiograph(SEEN), lateral(LATERAL)))
    assert [each.kind for each in made] == ["text", "overlay"]
    read = dcmread(BytesIO(made[0].file))
    assert read.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.11"
    assert read.SeriesNumber == SITE.series_number - 1
    assert [len(study.ReferencedSeriesSequence) for study in read.CurrentRequestedProcedureEvidenceSequence] == [1]
    assert companions(builder(text_sr=True), study(radiograph(SEEN), lateral(LATERAL))) == made


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"presentation_state": True}, ["overlay", "presentation-state"]),
        ({"segmentation": True}, ["overlay", "segmentation"]),
        ({"key_object": True}, ["overlay", "key-object"]),
        ({"presentation_state": True, "segmentation": True, "key_object": True, "flag_only": True}, ["key-object"]),
        ({"presentation_state": True, "attention_region": True, "flag_only": True}, []),
    ],
)
def test_optional_objects_go_with_the_report_where_they_are_wanted(settings: dict[str, Any], kinds: list[str]) -> None:
    made = companions(builder(**settings), study(radiograph(SEEN), lateral(LATERAL)))
    assert [each.kind for each in made] == kinds
    assert companions(builder(**settings), study(radiograph(NEGATIVE), lateral(LATERAL))) == []


def test_an_attention_region_needs_the_map_to_be_kept() -> None:
    outlined: dict[str, Any] = {"overlay": "none", "presentation_state": True, "attention_region": True}
    assert wants_attention(ReportSettings(**outlined), POSITIVE)
    assert not wants_attention(ReportSettings(**outlined), NEGATIVE)
    assert not wants_attention(ReportSettings(**outlined, flag_only=True), POSITIVE)
    hot = replace(POSITIVE, attention=np.ones((14, 14), "<f4").tobytes())
    made = companions(builder(**outlined), study(radiograph(hot)))
    assert [each.kind for each in made] == ["presentation-state"]


def test_a_report_that_only_flags_has_no_location() -> None:
    flagged, full = (dcmread(BytesIO(builder(flag_only=flag)(study(radiograph(SEEN))).file)) for flag in (True, False))
    assert found(full, codes.IMAGE_REGION)
    assert not found(flagged, codes.IMAGE_REGION)


def test_pictures_carry_the_version_of_their_report() -> None:
    previous = PreviousReport(
        sop_instance_uid="2.25.1", series_instance_uid="2.25.2", sop_class_uid=SOP_CLASSES[0], version=4
    )
    [picture] = companions(builder(), study(radiograph(SEEN), previous=previous))
    assert dcmread(BytesIO(picture.file)).InstanceNumber == 5001


def test_nothing_is_drawn_to_go_with_a_report_that_the_study_has_left_behind() -> None:
    films = Films()
    stored = builder(films)(study(radiograph(SEEN)))
    now = study(radiograph(SEEN), lateral(LATERAL))
    assert builder(films).companions(now, at=AT, content_digest=stored.content_digest) == []
    assert films.asked == []


@pytest.mark.parametrize(
    ("settings", "outcome", "wanted"),
    [
        ({}, SEEN, True),
        ({}, NEGATIVE, False),
        ({"overlay": "none"}, SEEN, False),
        ({"text_sr": True}, NEGATIVE, True),
    ],
)
def test_work_is_opened_only_where_something_may_go_with_a_report(
    settings: dict[str, Any], outcome: Finding, *, wanted: bool
) -> None:
    assert builder(**settings).wants_companions(study(radiograph(outcome))) is wanted


@pytest.mark.parametrize(
    ("outcome", "answer", "text"),
    [
        (SEEN, NotAnalysed(reason=Reason.UNREADABLE_HEADER), "no overlay"),
        (replace(SEEN, attention=b""), None, "no activation map"),
        (SEEN, RuntimeError("decoder"), "not made kind=overlay"),
    ],
)
def test_a_picture_that_cannot_be_made_holds_up_nothing_else(
    caplog: pytest.LogCaptureFixture, outcome: Finding, answer: NotAnalysed | Exception | None, text: str
) -> None:
    assert companions(builder(Films(answer)), study(radiograph(outcome))) == []
    assert text in caplog.text
