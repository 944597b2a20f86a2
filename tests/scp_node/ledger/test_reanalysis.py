"""Images are analysed once more on request: results beside the old ones, new versions of reports where they differ."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from scp_node.domain import Finding, NotAnalysed, Reason
from scp_node.ledger.reanalysis import PastAnalysis
from tests.scp_node.ledger_node import MODEL, Node

NEW_MODEL: Final = replace(MODEL, version="2.0", digest="sha256:" + "b" * 64)
OTHER: Final = Finding(probability=0.2, logit=-2.0, threshold=0.5)


@pytest.fixture
def reported(node: Node) -> Node:
    """Two studies, one of them with two images, analysed and reported by one model."""
    node.receive("1", "2", study="1.2.3")
    node.clock.advance(seconds=60)
    node.receive("3", study="4.5.6")
    node.analyse()
    node.clock.advance(seconds=60)
    assert node.report("pacs")
    assert node.report("pacs")
    return node


def names(images: list[PastAnalysis]) -> list[str]:
    return [image.spool_path.removesuffix(".dcm") for image in images]


def test_what_ended_is_found_by_study_by_time_and_by_model(reported: Node) -> None:
    ended = reported.ledger.reanalysis.ended
    assert names(ended(study_uid="1.2.3")) == ["1", "2"]
    assert names(ended(since=reported.clock() - timedelta(seconds=70))) == ["3"]
    assert names(ended(model="test-model-1.0")) == names(ended(model=MODEL.digest)) == ["1", "2", "3"]
    assert ended(model="test-model-2.0") == ended(study_uid="7.8.9") == []
    assert names(ended(study_uid="4.5.6", model=MODEL.digest)) == ["3"]
    assert ended(study_uid="4.5.6", since=reported.clock()) == []


def test_the_model_is_that_of_the_newest_result(reported: Node) -> None:
    again = reported.ledger.reanalysis
    again.request(again.ended(study_uid="4.5.6"))
    reported.analyse(OTHER, NEW_MODEL)
    assert names(again.ended(model=MODEL.digest)) == ["1", "2"]
    assert names(again.ended(model=NEW_MODEL.digest)) == ["3"]


def test_an_image_is_found_only_once_its_analysis_has_ended(reported: Node) -> None:
    again = reported.ledger.reanalysis
    assert again.request(again.ended(study_uid="1.2.3")) == 2
    assert again.ended(study_uid="1.2.3") == []
    assert reported.analyse() == 2
    assert names(again.ended(study_uid="1.2.3")) == ["1", "2"]


def test_asked_twice_it_is_done_once(reported: Node) -> None:
    again = reported.ledger.reanalysis
    images = again.ended(study_uid="1.2.3")
    assert [again.request(images), again.request(images)] == [2, 0]
    assert reported.analyse() == 2


def test_another_result_makes_a_new_version_that_replaces_the_old_one_and_both_stay(reported: Node) -> None:
    again = reported.ledger.reanalysis
    again.request(again.ended(study_uid="4.5.6"))
    assert reported.analyse(OTHER, NEW_MODEL) == 1
    snapshot = reported.report("pacs", model=NEW_MODEL)
    assert snapshot is not None
    assert snapshot.previous is not None
    assert snapshot.previous.version == 1
    assert reported.rows("SELECT version FROM report WHERE study_uid = '4.5.6' ORDER BY version") == [(1,), (2,)]
    assert reported.rows("SELECT probability FROM result WHERE instance_id = 3 ORDER BY id") == [(0.9,), (0.2,)]


def test_new_images_go_first(reported: Node) -> None:
    again = reported.ledger.reanalysis
    again.request(again.ended(study_uid="1.2.3"))
    reported.receive("9", study="7.8.9")
    tasks = reported.ledger.analyses.claim(owner="w", limit=10)
    assert [task.sop_instance_uid for task in tasks] == ["1.2.3.9", "1.2.3.1", "1.2.3.2"]


def test_the_trail_of_the_study_says_that_it_was_asked_for(reported: Node) -> None:
    again = reported.ledger.reanalysis
    again.request(again.ended(study_uid="1.2.3"))
    told = reported.ledger.audit.events("1.2.3")[-1]
    assert (told.kind, told.detail["images"]) == ("reanalysis-requested", 2)


def test_our_own_pictures_are_not_analysed_again(node: Node) -> None:
    node.receive("own")
    node.analyse(NotAnalysed(reason=Reason.OWN_OBJECT))
    assert node.ledger.reanalysis.ended(study_uid="1.2.3") == []
