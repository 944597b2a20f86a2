"""The codes of our reports are the standard's, by pydicom's copy of its tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import Collection

from scp_node.domain import Completion, Verdict
from scp_node.report import codes
from scp_node.report.codes import Concept

# Not in any context group of the standard, which is all that pydicom knows: from a template, or from the coding scheme.
ELSEWHERE: Final = {codes.PNEUMONIA, codes.QUALITATIVE_EVALUATIONS, codes.ENGLISH, codes.PIXELS}


def _all_concepts() -> list[Concept]:
    tables: list[Mapping[Any, Concept]] = [
        codes.VERDICTS,
        codes.COMPLETIONS,
        codes.QUALIFIERS,
        codes.MODALITIES,
        codes.VIEWS,
    ]
    single = [value for value in vars(codes).values() if isinstance(value, Concept)]
    return [*single, *(concept for table in tables for concept in table.values())]


def _group(number: int) -> set[tuple[str, str]]:
    group = Collection(f"CID{number}")
    members = (getattr(group, keyword) for keyword in group.dir())
    return {(member.value, member.scheme_designator) for member in members}


def _names(concept: Concept) -> list[str]:
    """Return the code meanings that pydicom has for this code value."""
    dictionary: dict[str, dict[str, Any]] = concepts
    by_keyword = dictionary.get(concept.scheme, {}).values()
    return [meanings[concept.value][0] for meanings in by_keyword if concept.value in meanings]


@pytest.mark.parametrize("concept", sorted(set(_all_concepts()) - ELSEWHERE), ids=lambda concept: concept.meaning)
def test_a_code_is_known_to_the_standard(concept: Concept) -> None:
    assert _names(concept)


@pytest.mark.parametrize(
    "concept", sorted({c for c in _all_concepts() if c.scheme == "DCM"}), ids=lambda concept: concept.meaning
)
def test_a_code_of_dicom_itself_has_its_meaning(concept: Concept) -> None:
    assert _names(concept) == [concept.meaning]


def test_a_wrong_meaning_would_be_noticed() -> None:
    assert _names(Concept("111225", "DCM", "Failed")) != ["Failed"]


@pytest.mark.parametrize(
    ("group", "used"),
    [
        (29, codes.MODALITIES.values()),
        (42, codes.QUALIFIERS.values()),
        (100, [codes.IMAGING_PROCEDURE]),
        (240, codes.VERDICTS.values()),
        (270, [codes.DEVICE]),
        (4010, codes.VIEWS.values()),
        (6042, [*codes.COMPLETIONS.values(), codes.PARTIALLY_SUCCEEDED]),
        (7005, [codes.ACQUISITION_EQUIPMENT]),
        (7021, [codes.IMAGING_MEASUREMENT_REPORT]),
    ],
)
def test_a_code_is_from_the_context_group_that_belongs_there(group: int, used: Iterable[Concept]) -> None:
    assert {concept[:2] for concept in used} <= _group(group)


def test_each_code_has_one_meaning() -> None:
    meanings = {concept[:2]: concept.meaning for concept in _all_concepts()}
    assert all(meanings[concept[:2]] == concept.meaning for concept in _all_concepts())


def test_every_state_of_a_result_has_a_code() -> None:
    assert set(codes.VERDICTS) == set(Verdict)
    assert set(codes.COMPLETIONS) == set(Completion)
    assert set(codes.QUALIFIERS) == set(Completion) - {Completion.SUCCEEDED}


def test_postero_anterior_and_antero_posterior_are_not_exchanged() -> None:
    assert codes.VIEWS["PA"] == ("272479007", "SCT", "postero-anterior")
    assert codes.VIEWS["AP"] == ("399348003", "SCT", "antero-posterior")
