"""The projections follow the events: in any order of steps they say what a rebuild from nothing says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import event as listening
from sqlalchemy import select, text

from scp_node.domain import Actor, Finding, NotAnalysed, Outcome, Reason
from scp_node.ledger import (
    DailyQuery,
    DayCounts,
    FilmOutcome,
    StudyPending,
    StudySnapshot,
    StudyState,
    WorklistQuery,
    WorklistRow,
    seconds_within,
)
from scp_node.ledger.daily import bin_of_seconds
from scp_node.ledger.database.schema import daily, film, projection, worklist
from scp_node.ledger.projector import LEASE, LostLeaseError, Phase, Projector, changes_a_row
from scp_node.ledger.trail.events import record_event
from scp_node.report.source.description import describe
from tests.scp_node.ledger.projecting import follow, followed, header, projector
from tests.scp_node.ledger.test_companions import OVERLAY, claimed
from tests.scp_node.ledger_node import MODEL, Node, built_report, ledger_engine

WHENEVER: Final = DailyQuery(first=date(2000, 1, 1), last=date(2100, 1, 1))
STATS: Final = {"mean": 0.4, "std": 0.25, "contrast": 0.9, "sharpness": 0.031, "unlikeness": 0.6, "polarity": -0.2}


def contents(node: Node) -> dict[str, list[Any]]:
    """Return all rows of the projections."""
    with node.engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in (worklist, film, daily)
        }


class Steps:
    """Steps that a node takes, chosen at random."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node, self.chance, self.number = node, random.Random(seed), 0

    def take(self) -> None:
        often = (self.receive, self.analyse, self.report, self.deliver)
        seldom = (self.refuse, self.retry, self.requeue, self.discard, self.again, self.choose, self.wait)
        step = self.chance.choice([*often, *often, *often, *seldom])
        step()
        self.node.clock.advance(seconds=self.chance.choice([0, 1, 6]))

    def receive(self) -> None:
        self.number += 1
        study = f"1.{self.chance.randrange(4)}"
        uid = f"1.2.3.{self.number}" if self.chance.random() < 0.8 else f"1.2.3.{self.chance.randint(1, self.number)}"
        uid = OVERLAY.sop_instance_uid if self.chance.random() < 0.1 else uid
        patient = "P2" if self.chance.random() < 0.15 else "P1"
        self.node.receive(
            str(self.number),
            study=study,
            sop_instance_uid=uid,
            patient_id=patient,
            patient_key=patient,
            calling_ae=f"CR{self.number % 2}",
            header=header(f"Doe^{patient}", ViewPosition=self.chance.choice(["PA", "AP", "LL"])),
        )

    def analyse(self) -> None:
        outcomes: list[Outcome] = [
            Finding(probability=self.chance.random(), logit=0.0, threshold=0.5, grey_zone=0.1, input_stats=STATS),
            NotAnalysed(reason=Reason.VIEW),
            NotAnalysed(reason=Reason.INFERENCE),
        ]
        self.node.analyse(self.chance.choice(outcomes))

    def report(self) -> None:
        """Report a study, or find that its report says all this already."""
        node, reports = self.node, self.node.ledger.reports
        node.clock.advance(seconds=11)
        node.ledger.upkeep.sweep(MODEL)
        if (task := reports.claim(owner="w")) is None:
            return
        if self.chance.random() < 0.1:
            reports.fail(task, "no such font")
            return
        match reports.snapshot(task, MODEL):
            case StudySnapshot() as snapshot:
                names = self.chance.sample(["pacs", "archive"], self.chance.randint(0, 2))
                built = replace(built_report(task.study_uid, snapshot), sop_instance_uid=f"2.25.{self.chance.random()}")
                if snapshot.previous_content_digest == built.content_digest:
                    reports.complete_unchanged(task, snapshot, MODEL, names)
                else:
                    reports.save(task, snapshot, built, MODEL, names)
            case StudyPending():
                reports.postpone(task, timedelta(seconds=0.2))
            case _:
                reports.close(task, MODEL)

    def deliver(self) -> None:
        name = self.chance.choice(["pacs", "archive"])
        if task := self.node.ledger.deliveries.claim(name, owner="w"):
            later = timedelta(0) if self.chance.random() < 0.5 else None
            self.node.ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2", check_after=later)
        self.node.ledger.upkeep.sweep()
        for asked in self.node.ledger.commitments.claim(name, owner="w"):
            self.node.ledger.commitments.looked_for(asked, found=self.chance.random() < 0.5)

    def refuse(self) -> None:
        if task := self.node.ledger.deliveries.claim("archive", owner="w"):
            self.node.ledger.deliveries.bury(task, status=0xA900, detail="refused")

    def retry(self) -> None:
        if task := self.node.ledger.deliveries.claim("pacs", owner="w"):
            self.node.ledger.deliveries.retry(task, status=None, detail="down", pause=timedelta(0))

    def requeue(self) -> None:
        self.node.ledger.upkeep.requeue()

    def discard(self) -> None:
        self.node.ledger.upkeep.discard(f"1.{self.chance.randrange(4)}")

    def again(self) -> None:
        self.node.ledger.reanalysis.request(
            self.node.ledger.reanalysis.ended(study_uid=f"1.{self.chance.randrange(4)}")
        )

    def choose(self) -> None:
        uids = self.node.rows("SELECT sop_instance_uid FROM instance WHERE \"use\" = 'conflict'")
        if uids:
            self.node.ledger.resolution.choose(
                uids[0][0], self.chance.randint(1, 2), actor=Actor(name="admin", address="")
            )

    def wait(self) -> None:
        self.node.clock.advance(seconds=20)
        self.node.ledger.upkeep.sweep()


@pytest.mark.parametrize("seed", range(4))
def test_what_follows_the_events_is_what_a_rebuild_makes(tmp_path: Path, seed: int) -> None:
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        node = Node(engine)
        steps, following = Steps(node, seed), projector(node)
        for number in range(60):
            steps.take()
            if number % 3 == 0:
                follow(following)
        follow(following)
        before = contents(node)
        assert len(before["worklist"]) >= 2
        following.rebuild()
        assert contents(node) == before
        totals = [counts.received for counts in node.ledger.daily.counts(WHENEVER)]
        assert (
            sum(totals) == len(before["film"]) == sum(row.images for row in node.ledger.worklist.rows(WorklistQuery()))
        )


def test_both_databases_make_the_same_rows_and_a_rebuild_repairs_what_was_damaged(node: Node) -> None:
    steps = Steps(node, 7)
    for _ in range(40):
        steps.take()
    followed(node)
    before = contents(node)
    node.ledger.daily.counts(WHENEVER)
    with node.engine.begin() as connection:
        connection.execute(text("DELETE FROM film WHERE id % 2 = 0"))
        connection.execute(text("UPDATE worklist SET state = 'delivered', search = 'nonsense'"))
        connection.execute(text("DELETE FROM daily"))
    assert projector(node).rebuild() == len(before["worklist"])
    assert contents(node) == before
    assert node.ledger.verifier.verify().problems == ()


def the_day(node: Node) -> DayCounts:
    followed(node)
    [counts] = node.ledger.daily.counts(WHENEVER)
    return counts


def test_a_day_counts_what_came_and_how_long_it_took(node: Node) -> None:
    for number, probability in enumerate([0.9, 0.2, 0.2]):
        node.receive(str(number), study=f"1.{number}", header=header())
        node.analyse(Finding(probability=probability, logit=0.0, threshold=0.5, input_stats=STATS))
    counts = the_day(node)
    assert (counts.day, counts.calling_ae, counts.view, counts.bundle) == (
        date(2026, 1, 2),
        "CR1",
        "PA",
        "test-model-1.0",
    )
    assert (counts.received, counts.findings) == (3, 3)
    assert counts.outcomes == {FilmOutcome.PRESENT: 1, FilmOutcome.NOT_DETECTED: 2}
    assert (counts.probability_sum, counts.probabilities) == (1.3, {900: 1, 200: 2})
    mean = counts.inputs["mean"]
    assert (mean.films, mean.bins) == (3, {40: 3})
    assert mean.mean == pytest.approx(0.4)
    assert mean.spread == pytest.approx(0, abs=1e-3)
    assert set(counts.inputs) == {"mean", "std", "contrast", "sharpness", "unlikeness"}
    node.clock.advance(seconds=11)
    assert node.report("pacs") is not None
    node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
    counts = the_day(node)
    assert counts.seconds == {bin_of_seconds(11): 1}
    assert 11 <= (seconds_within(counts.seconds, 0.95) or 0) <= 11 * 1.13
    [(study, sent)] = node.rows(
        "SELECT report.study_uid, delivery.id FROM delivery JOIN report ON report_id = report.id"
    )
    node.clock.advance(hours=1)
    node.ledger.resending.send_again(study, sent, known=["pacs"], actor=Actor(name="admin", address=""))
    assert the_day(node).seconds == counts.seconds, "it has been there since"
    node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
    assert the_day(node).seconds == counts.seconds, "the first time is what it took"


def test_a_film_without_a_result_has_no_bundle_and_moves_when_it_gets_one(node: Node) -> None:
    node.receive("1", header=header())
    counts = the_day(node)
    assert (counts.bundle, counts.outcomes) == ("", {FilmOutcome.WAITING: 1})
    node.analyse(NotAnalysed(reason=Reason.VIEW))
    counts = the_day(node)
    assert (counts.bundle, counts.outcomes, counts.reasons) == (
        "test-model-1.0",
        {FilmOutcome.NOT_ANALYSED: 1},
        {"view": 1},
    )


def test_days_are_selected_by_sender_view_and_model(node: Node) -> None:
    node.receive("1", header=header(ViewPosition="AP"), calling_ae="DX")
    node.receive("2", header=header())
    followed(node)
    day = date(2026, 1, 2)
    counted = node.ledger.daily.counts
    assert [each.view for each in counted(DailyQuery(first=day, last=day, calling_ae="DX"))] == ["AP"]
    assert [each.calling_ae for each in counted(DailyQuery(first=day, last=day, view="PA", bundle=""))] == ["CR1"]
    assert counted(DailyQuery(first=day + timedelta(days=1), last=day + timedelta(days=2))) == []


def test_totals_are_the_counts_without_what_takes_most_of_the_time(node: Node) -> None:
    node.receive("1", header=header())
    node.analyse(Finding(probability=0.9, logit=0.0, threshold=0.5, input_stats=STATS))
    node.receive("2", header=header())
    node.analyse(NotAnalysed(reason=Reason.VIEW))
    node.receive("3", header=header())
    node.clock.advance(seconds=11)
    assert node.report("pacs") is None
    node.analyse()
    node.clock.advance(seconds=11)
    assert node.report("pacs") is not None
    node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
    followed(node)
    counts, totals = node.ledger.daily.counts(WHENEVER), node.ledger.daily.totals(WHENEVER)
    assert len(counts) == len(totals) == 1
    for name in ("day", "calling_ae", "view", "bundle", "outcomes", "reasons", "seconds", "received", "findings"):
        assert getattr(counts[0], name) == getattr(totals[0], name), name
    assert (totals[0].received, totals[0].findings, totals[0].reasons) == (3, 2, {"view": 1})
    assert sum(totals[0].seconds.values()) == 3


def test_the_beginning_is_whole_days_with_so_many_findings(node: Node) -> None:
    for number in range(4):
        node.receive(f"{number}a", f"{number}b", study=f"1.{number}", header=header())
        node.analyse()
        node.clock.advance(days=1)
    followed(node)
    first = DailyQuery(first=date(2026, 1, 1), last=date(2026, 12, 31))
    days = [each.day.day for each in node.ledger.daily.beginning(first, findings=3)]
    assert days == [2, 3]
    assert len(node.ledger.daily.beginning(first, findings=100)) == 4
    assert node.ledger.daily.beginning(replace(first, bundle="other"), findings=3) == []


@pytest.mark.parametrize(
    ("seconds", "share", "least", "most"), [([1] * 9 + [100], 0.5, 1, 1.13), ([1] * 9 + [100], 0.95, 100, 113)]
)
def test_percentiles_of_time_are_read_from_the_bins(
    seconds: list[float], share: float, least: float, most: float
) -> None:
    bins: dict[int, int] = {}
    for each in seconds:
        bins[bin_of_seconds(each)] = bins.get(bin_of_seconds(each), 0) + 1
    assert least <= (seconds_within(bins, share) or 0) <= most


def test_no_time_is_known_where_nothing_was_delivered_and_a_clock_that_went_back_is_bin_0() -> None:
    assert seconds_within({}, 0.5) is None
    assert bin_of_seconds(-3) == bin_of_seconds(0) == 0


def test_one_process_follows_and_another_takes_over_when_it_is_silent(node: Node) -> None:
    first, second = projector(node, "first"), projector(node, "second")
    follow(first)
    node.receive("1")
    node.ledger.seal()
    assert not second.step()
    assert list(node.ledger.worklist.rows(WorklistQuery())) == []
    node.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert second.step()
    assert len(list(node.ledger.worklist.rows(WorklistQuery()))) == 1
    assert not first.step()
    second.close()
    node.receive("2", study="1.9")
    node.ledger.seal()
    assert first.step()


def test_after_the_last_event_it_rests_and_then_makes_a_row_once_for_all_that_came(node: Node) -> None:
    def listed() -> Sequence[WorklistRow]:
        return node.ledger.worklist.page(WorklistQuery()).rows

    resting = node.ledger.projector(describe, owner="resting", rest_seconds=3_600)
    follow(resting)
    node.receive("1", header=header())
    node.ledger.seal()
    assert resting.step()
    node.analyse()
    node.ledger.seal()
    assert not resting.step()
    assert [row.state for row in listed()] == [StudyState.RECEIVED]
    resting._look_again_at = -math.inf
    assert resting.step()
    assert [row.state for row in listed()] == [StudyState.ANALYSED]


def test_a_process_that_lost_its_lease_while_it_read_writes_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = projector(node, "slow"), projector(node, "quick")
    follow(slow)
    node.receive("1")
    node.ledger.seal()
    put_aside: list[Any] = []
    write = Projector._write

    def late(self: Projector, *arguments: Any, **standing: Any) -> None:
        if self is slow and not put_aside:
            put_aside.append(None)
            node.clock.advance(seconds=LEASE.total_seconds() + 1)
            follow(quick)
            node.analyse()
            follow(quick)
        write(self, *arguments, **standing)

    monkeypatch.setattr(Projector, "_write", late)
    assert not slow.step()
    [row] = node.ledger.worklist.rows(WorklistQuery())
    assert row.state == "analysed"


def test_a_rebuild_that_is_asked_for_while_the_last_one_ends_is_not_lost(node: Node) -> None:
    following = projector(node)
    follow(following)
    with node.engine.begin() as connection:
        connection.execute(projection.update().values(phase=Phase.CLEAR))
    with pytest.raises(LostLeaseError):
        following._fill(0)
    with node.engine.connect() as connection:
        assert connection.scalar(select(projection.c.phase)) == Phase.CLEAR


def test_a_rebuild_goes_on_where_it_was_interrupted_and_new_studies_are_followed_meanwhile(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(25):
        node.receive(str(number), study=f"1.{number}")
    node.ledger.seal()
    monkeypatch.setattr("scp_node.ledger.projector._STUDIES", 10)
    following = projector(node, "first")
    for _ in range(2):  # clear, and the first ten
        following.step()
    assert [len(contents(node)["worklist"]), node.ledger.worklist.standing().is_complete] == [10, False]
    node.receive("new", study="1.new")
    node.ledger.seal()
    following.close()
    helper = projector(node, "second")
    helper.step()
    newest = node.ledger.worklist.page(WorklistQuery(), most=1).rows[0]
    assert (newest.study_uid, len(contents(node)["worklist"])) == ("1.new", 21)
    follow(helper)
    assert len(contents(node)["worklist"]) == 26
    assert sum(each.received for each in node.ledger.daily.counts(WHENEVER)) == 26


def test_events_of_the_web_page_move_the_position_and_read_no_study(node: Node) -> None:
    node.receive("1")
    followed(node)
    following = projector(node)
    following.step()
    for _ in range(5):
        with node.ledger.intake._transactions.writing() as (connection, now):
            record_event(connection, now, "web-viewed", study_uid="1.2.3", detail={"user": "a"})
    node.ledger.seal()
    statements: list[str] = []
    listening.listen(node.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert following.step()
    assert not [each for each in statements if "FROM instance" in each or "INTO worklist" in each]
    assert node.ledger.worklist.standing().behind_seconds == 0
    changing = [kind for kind in ("web-viewed", "web-resent", "web-feedback", "purged", "new") if changes_a_row(kind)]
    assert changing == ["web-resent", "web-feedback", "new"]


def test_a_person_who_chooses_between_films_of_two_studies_changes_both_rows(node: Node) -> None:
    node.receive("1", study="1.1")
    node.receive("2", study="1.2", sop_instance_uid="1.2.3.1")
    node.analyse()
    followed(node)
    node.ledger.resolution.choose("1.2.3.1", 2, actor=Actor(name="admin", address=""))
    assert {row.study_uid: (row.state, row.reason) for row in followed(node)} == {
        "1.1": ("analysed", "set-aside"),
        "1.2": ("received", None),
    }


def test_what_waits_is_read_again_after_the_clock_has_jumped(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    node.report("pacs")
    [row] = followed(node)
    node.rows("UPDATE delivery SET created_at = '2026-01-02 02:00:00.000000' RETURNING id")
    with node.ledger.intake._transactions.writing() as (connection, now):
        record_event(connection, now, "clock-jumped", detail={"seconds": -3600})
    [after] = followed(node)
    assert row.waiting_since is not None
    assert after.waiting_since is not None
    assert row.waiting_since - after.waiting_since > timedelta(hours=1)
