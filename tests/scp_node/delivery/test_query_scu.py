"""C-FIND for what was sent: what counts as seen, and what does not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from scp_node.delivery import FindResult, QueryScu, Wanted
from scp_node.delivery.query import STUDY_ROOT_FIND
from scp_node.demo.pacs import serving_ae
from scp_node.settings import DeliverySettings, DestinationSettings
from tests.scp_node.delivery.scp import EXPLICIT, IMPLICIT, VERIFICATION
from tests.waiting import wait_until

Answer = tuple[int, Dataset | None]
FIRST: Final = Wanted(study_uid="1.2.1", series_instance_uid="1.2.1.1", sop_instance_uid="1.2.1.1.1")
SECOND: Final = Wanted(study_uid="1.2.1", series_instance_uid="1.2.1.1", sop_instance_uid="1.2.1.1.2")


def match(uid: str) -> Answer:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.SOPInstanceUID = uid
    return 0xFF00, identifier


@contextlib.contextmanager
def archive(
    answers: Callable[[Dataset], list[Answer]], *, sop_class: str = STUDY_ROOT_FIND, syntax: str = EXPLICIT
) -> Iterator[tuple[int, list[Dataset]]]:
    """Give the port of a Query SCP, and the queries that it receives."""
    queries: list[Dataset] = []

    def find(event: Any) -> Iterator[Answer]:
        queries.append(event.identifier)
        yield from answers(event.identifier)

    ae = AE("PACS")
    ae.supported_contexts = [build_context(sop_class, [syntax])]
    with serving_ae(ae, [(evt.EVT_C_FIND, find)]) as port:
        try:
            yield port, queries
        finally:
            wait_until(lambda: not ae.active_associations)  # the SCU leaves none open


def find(port: int) -> FindResult:
    destination = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)
    settings = DeliverySettings(connect_seconds=2, send_seconds=5)
    return QueryScu(destination, calling_ae="PNEUMONIA", settings=settings).find([FIRST, SECOND])


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_one_is_there_and_one_is_not(syntax: str) -> None:
    shown = {FIRST.sop_instance_uid: [match(FIRST.sop_instance_uid)]}
    with archive(lambda query: shown.get(query.SOPInstanceUID, []), syntax=syntax) as (port, queries):
        result = find(port)
    assert result == FindResult(is_offered=True, found=frozenset({FIRST}), missing=frozenset({SECOND}))
    assert [
        (query.QueryRetrieveLevel, query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID)
        for query in queries
    ] == [("IMAGE", "1.2.1", "1.2.1.1", f"1.2.1.1.{number}") for number in (1, 2)]


def test_an_archive_that_does_not_look_at_the_uid_has_not_shown_it() -> None:
    with archive(lambda _: [match("1.2.9"), match("1.2.8")]) as (port, _):
        assert find(port).missing == {FIRST, SECOND}


def test_a_match_without_a_uid_shows_nothing_and_is_no_answer() -> None:
    with archive(lambda _: [(0xFF00, Dataset())]) as (port, _):
        result = find(port)
    assert (result.found, result.missing) == (frozenset(), frozenset())
    assert result.detail


def test_an_archive_that_fails_has_said_nothing_about_the_rest() -> None:
    def answers(query: Dataset) -> list[Answer]:
        return [match(FIRST.sop_instance_uid)] if query.SOPInstanceUID == FIRST.sop_instance_uid else [(0xA700, None)]

    with archive(answers) as (port, _):
        result = find(port)
    assert result == FindResult(is_offered=True, found=frozenset({FIRST}), detail="C-FIND failed with status 0xA700")


def test_an_archive_that_never_stops_is_left() -> None:
    with archive(lambda _: [match("1.2.9")] * 500) as (port, _):
        assert find(port) == FindResult(is_offered=True, detail="more matches than there can be")


def test_an_archive_without_c_find_is_a_value() -> None:
    with archive(lambda _: [], sop_class=VERIFICATION) as (port, _):
        assert not find(port).is_offered


def test_an_archive_that_is_down_has_said_nothing(free_port: int) -> None:
    assert find(free_port) == FindResult(is_offered=True, detail="no connection: Connection refused")
