"""A bundle on trial: run after all else, kept apart from results, compared by pairs, and never in a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import text

from scp_node.cli.tables import print_audit
from scp_node.domain import Finding, NotAnalysed, Priority, Reason, Verdict
from scp_node.ledger import (
    AuditQuery,
    PairKey,
    Promotion,
    ShadowOutcome,
    ShadowQuery,
    ShadowTask,
    ShadowWaiting,
    StudySnapshot,
    VerdictCount,
    create_ledger_engine,
    upgrade,
)
from tests.scp_node.ledger_node import LEASE, MODEL, SHADOW, Node, ledger_engine, migrate

OLD: Final = timedelta(days=30)
OTHER: Final = replace(MODEL, version="2.0", digest="sha256:" + "b" * 64)
BY_TRIAL: Final = ShadowQuery(bundle_digest=SHADOW.digest)
PRESENT: Final = Verdict.PRESENT
ABSENT: Final = Verdict.NOT_DETECTED


def work(node: Node) -> list[tuple[str, int]]:
    """Return state and number of tries of each piece of work of the queue."""
    return node.rows("SELECT state, attempt FROM work WHERE queue = 'shadow' ORDER BY id")


def claim(node: Node, limit: int = 100) -> list[ShadowTask]:
    return node.ledger.shadow_queue.claim(owner="s", limit=limit)


def tried(node: Node, *names: str, probability: float = 0.5, study: str = "1.2.3") -> None:
    """Receive images and have them analysed, and run the bundle on trial on them."""
    node.receive(*names, study=study)
    node.analyse(shadow=SHADOW)
    assert node.try_out(*[probability] * len(names)) == len(names)


# -- its work


def test_a_finding_opens_its_work_after_all_else_and_an_image_without_a_score_opens_none(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse(shadow=SHADOW)
    node.receive("2")
    node.analyse(NotAnalysed(reason=Reason.VIEW), shadow=SHADOW)
    node.receive("3")
    node.analyse()  # by a process that serves no bundle on trial
    assert node.rows("SELECT dedup, state FROM work WHERE queue = 'shadow'") == [("1", "ready")]
    [(priority,)] = node.rows("SELECT priority FROM work WHERE queue = 'shadow'")
    assert priority > Priority.ROUTINE


def test_it_is_claimed_only_while_no_image_waits_for_its_analysis(node: Node) -> None:
    node.receive("1")
    node.analyse(shadow=SHADOW)
    node.receive("2")
    assert claim(node) == []
    node.analyse(shadow=SHADOW)
    assert [task.sop_instance_uid for task in claim(node)] == ["1.2.3.1", "1.2.3.2"]


def test_a_claim_that_was_lost_writes_nothing_and_work_that_lost_its_worker_comes_back_alone(node: Node) -> None:
    node.receive("1", "2")
    node.analyse(shadow=SHADOW)
    lost = claim(node)
    node.clock.advance(seconds=LEASE.total_seconds() + 1)
    node.ledger.upkeep.sweep(MODEL)
    again = claim(node)
    assert len(again) == 1, "it may be what stopped the worker"
    outcome = Finding(probability=0.5, logit=0.0, threshold=0.4)
    assert node.ledger.shadow_queue.record([ShadowOutcome(task=task, outcome=outcome) for task in lost], SHADOW) == 0
    assert node.rows("SELECT count(*) FROM shadow_result") == [(0,)]
    assert node.ledger.shadow_queue.record([ShadowOutcome(task=again[0], outcome=outcome)], SHADOW) == 1


def test_work_that_keeps_losing_its_worker_is_given_up_and_makes_no_result_and_no_report(node: Node) -> None:
    node.receive("1")
    node.analyse(shadow=SHADOW)
    results = node.rows("SELECT count(*) FROM result")
    for _ in range(3):
        assert claim(node)
        node.clock.advance(seconds=3 * LEASE.total_seconds())
        node.ledger.upkeep.sweep()  # also by a process without a model
        node.clock.advance(seconds=3 * LEASE.total_seconds())
        node.ledger.upkeep.sweep()
    assert work(node) == [("dead", 3)]
    assert node.rows("SELECT count(*) FROM result") == results
    assert node.ledger.shadow.waiting() == ShadowWaiting(open=0, given_up=1)
    assert node.report("pacs")
    assert node.ledger.upkeep.requeue("1.2.3.1") == 1, "a person may bring it back"
    assert node.try_out() == 1


def test_a_step_that_fails_is_tried_again_and_given_up_with_its_error(node: Node) -> None:
    node.receive("1")
    node.analyse(shadow=SHADOW)
    for _ in range(3):
        node.ledger.shadow_queue.retry(claim(node), pause=timedelta(seconds=5), error="RuntimeError")
        assert claim(node) == []
        node.clock.advance(seconds=6)
        node.ledger.upkeep.sweep(MODEL)
    assert node.rows("SELECT state, error FROM work WHERE queue = 'shadow'") == [("dead", "RuntimeError")]
    assert node.ledger.upkeep.discard("1.2.3.1") == 1
    assert work(node) == [("cancelled", 3)]


def test_a_fault_of_the_machine_costs_no_try(node: Node) -> None:
    node.receive("1")
    node.analyse(shadow=SHADOW)
    node.ledger.shadow_queue.put_back(claim(node), pause=timedelta(seconds=5), error="no decoder")
    assert work(node) == [("delayed", 0)]


def test_an_image_is_seen_once_by_a_bundle_however_often_it_is_analysed(node: Node) -> None:
    tried(node, "1")
    assert node.ledger.reanalysis.request(node.ledger.reanalysis.ended(study_uid="1.2.3")) == 1
    node.analyse(shadow=SHADOW)
    assert claim(node) == []
    node.ledger.reanalysis.request(node.ledger.reanalysis.ended(study_uid="1.2.3"))
    second = replace(SHADOW, digest="sha256:" + "6" * 64)
    node.analyse(shadow=second)
    assert node.try_out(model=second) == 1
    assert node.rows("SELECT bundle_digest, result_id FROM shadow_result ORDER BY id") == [
        (SHADOW.digest, 1),
        (second.digest, 3),
    ]


def test_work_of_a_bundle_that_reports_meanwhile_ends_without_a_pair(node: Node) -> None:
    node.receive("1")
    node.analyse(model=SHADOW, shadow=OTHER)  # then the settings are changed: it is on trial beside nothing
    assert node.try_out(model=SHADOW) == 1
    assert node.rows("SELECT count(*) FROM shadow_result") == [(0,)]
    assert work(node) == [("done", 1)]


# -- retention


def deliver_and_age(node: Node) -> None:
    assert node.report("pacs")
    while task := node.ledger.deliveries.claim("pacs", owner="s"):
        node.ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2")
    node.clock.advance(days=31)


def delayed(node: Node) -> None:
    node.ledger.shadow_queue.retry(claim(node), pause=timedelta(seconds=5), error="RuntimeError")


def dead(node: Node) -> None:
    for _ in range(3):
        delayed(node)
        node.clock.advance(seconds=6)
        node.ledger.upkeep.sweep(MODEL)


def ready(_node: Node) -> None:
    pass


@pytest.mark.parametrize("state", [ready, delayed, dead], ids=lambda state: state.__name__)
def test_an_original_that_is_removed_ends_the_work_and_is_held_back_by_none(
    node: Node, state: Callable[[Node], None]
) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse(shadow=SHADOW)
    state(node)
    deliver_and_age(node)
    assert node.ledger.retention.held_back(OLD).analysis == 0
    assert len(node.ledger.retention.mark(OLD)) == 1
    assert node.rows("SELECT state, error FROM work WHERE queue = 'shadow'") == [
        ("cancelled", "its original was removed")
    ]
    node.ledger.upkeep.requeue()
    assert claim(node) == []
    assert node.ledger.shadow.waiting() == ShadowWaiting(open=0, given_up=0)


def test_a_worker_at_work_on_an_original_that_is_removed_writes_nothing(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse(shadow=SHADOW)
    deliver_and_age(node)
    [task] = claim(node)
    node.ledger.retention.mark(OLD)
    outcome = Finding(probability=0.5, logit=0.0, threshold=0.4)
    assert node.ledger.shadow_queue.record([ShadowOutcome(task=task, outcome=outcome)], SHADOW) == 0
    assert node.rows("SELECT count(*) FROM shadow_result") == [(0,)]
    node.ledger.seal()
    assert node.ledger.verifier.verify().problems == ()


def test_work_that_a_person_brought_back_just_before_the_removal_is_closed_by_its_claim(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse(shadow=SHADOW)
    deliver_and_age(node)
    node.ledger.retention.mark(OLD)
    with node.engine.begin() as connection:
        connection.execute(text("UPDATE work SET state = 'ready' WHERE queue = 'shadow'"))
    assert claim(node) == []
    assert work(node) == [("cancelled", 1)]


# -- reports and audit see nothing of it


def newest(node: Node, model: Any = MODEL) -> StudySnapshot:
    node.clock.advance(seconds=11)
    node.ledger.upkeep.sweep(model)
    task = node.ledger.reports.claim(owner="r")
    assert task is not None
    snapshot = node.ledger.reports.snapshot(task, model)
    assert isinstance(snapshot, StudySnapshot)
    return snapshot


def test_a_report_and_its_next_version_hold_what_the_reporting_bundle_said(node: Node) -> None:
    tried(node, "1", probability=0.01)
    snapshot = newest(node)
    assert [image.outcome for image in snapshot.images] == [Finding(probability=0.9, logit=2.0, threshold=0.5)]
    assert snapshot.result_ids == (1,)


def test_nothing_of_it_waits_for_a_report_nor_a_report_for_it(node: Node) -> None:
    node.receive("1")
    node.analyse(shadow=SHADOW)
    node.clock.advance(seconds=11)
    assert node.report("pacs") is not None
    assert node.try_out() == 1
    node.clock.advance(days=1)
    assert node.report("pacs") is None, "what it said opens no report"


def test_the_audit_prints_the_same_with_and_without_it(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.receive("1", "2")
    node.analyse(shadow=SHADOW)

    def printed() -> str:
        for style in ("json", "csv"):
            print_audit(node.ledger.audit.instances(AuditQuery()), style, None)  # type: ignore[arg-type]
        return capsys.readouterr().out

    before = printed()
    assert node.try_out(0.01, 0.99) == 2
    assert printed() == before
    assert not node.ledger.audit.knows_model(SHADOW.digest)
    assert [image.instance_id for image in node.ledger.reanalysis.ended(model=MODEL.digest)] == [1, 2]
    assert node.ledger.reanalysis.ended(model=SHADOW.digest) == []


# -- the trail


def test_each_row_has_its_event_and_an_edited_or_removed_row_is_found(node: Node) -> None:
    tried(node, "1", probability=0.3)
    [event] = [event for event in node.ledger.audit.events("1.2.3") if event.kind == "shadow-analysed"]
    assert (event.sop_instance_uid, event.detail["probability"]) == ("1.2.3.1", 0.3)
    assert (event.detail["bundle_digest"], event.detail["reporting_digest"]) == (SHADOW.digest, MODEL.digest)
    assert event.detail["input_sha256"] == [f"{1:0>64}"]
    assert node.ledger.verifier.verify().problems == ()
    for column, value in (
        ("probability", "0.31"),
        ("verdict", "'present'"),
        ("agrees", "NOT agrees"),
        ("study_uid", "'1.2.99'"),
        ("reported_verdict", "'not-detected'"),
        ("bundle_digest", f"'{OTHER.digest}'"),
    ):
        before = node.rows(f"SELECT {column} FROM shadow_result")[0][0]  # noqa: S608 - ours
        with node.engine.begin() as connection:
            connection.execute(text(f"UPDATE shadow_result SET {column} = {value}"))  # noqa: S608 - ours
        assert node.ledger.verifier.verify().problems, column
        with node.engine.begin() as connection:
            statement = text(f"UPDATE shadow_result SET {column} = :value")  # noqa: S608 - ours
            connection.execute(statement, {"value": before})
    assert node.ledger.verifier.verify().problems == ()
    with node.engine.begin() as connection:
        connection.execute(text("DELETE FROM shadow_result"))
    assert any("shadow_result has 0 rows" in problem for problem in node.ledger.verifier.verify().problems)


def test_an_image_of_which_it_says_nothing_is_counted_and_has_its_event(node: Node) -> None:
    node.receive("1")
    node.analyse(shadow=SHADOW)
    [task] = claim(node)
    outcome = NotAnalysed(reason=Reason.UNREADABLE_PIXELS, detail="decoder stopped: memory")
    assert node.ledger.shadow_queue.record([ShadowOutcome(task=task, outcome=outcome)], SHADOW) == 1
    assert node.ledger.shadow.counts(BY_TRIAL).failed == 1
    assert node.ledger.shadow.pairs(BY_TRIAL).pairs == ()
    assert node.ledger.verifier.verify().problems == ()


def test_a_promotion_is_recorded_with_its_person_and_undone_where_it_cannot_be_carried_out(node: Node) -> None:
    promotion = Promotion(
        bundle=SHADOW.bundle,
        bundle_digest=SHADOW.digest,
        former_bundle=MODEL.bundle,
        former_digest=MODEL.digest,
        by="Ana",
    )

    def fails() -> None:
        raise OSError("read-only")

    with pytest.raises(OSError, match="read-only"):
        node.ledger.shadow.promote(promotion, fails)
    assert node.rows("SELECT count(*) FROM event") == [(0,)]
    node.ledger.shadow.promote(promotion, lambda: None)
    [(kind, detail)] = node.rows("SELECT kind, detail FROM event")
    detail = json.loads(detail) if isinstance(detail, str) else detail
    assert (kind, detail["by"], detail["bundle_digest"], detail["former_digest"]) == (
        "model-promoted",
        "Ana",
        SHADOW.digest,
        MODEL.digest,
    )
    assert node.ledger.verifier.verify().problems == ()


# -- reading


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Four films of three studies, one a minute, for the tests that only read; every finding is present at 0.9."""
    with ExitStack() as stack:
        url: str | Path = tmp_path_factory.mktemp("filled") / "ledger.sqlite3"
        if request.param == "postgresql":
            server, template = (request.getfixturevalue(name) for name in ("postgres_server", "ledger_template"))
            url = stack.enter_context(server.database(template))
        yield fill(Node(stack.enter_context(ledger_engine(url))))


@pytest.fixture
def compared(node: Node) -> Node:
    """The same for a test that writes."""
    return fill(node)


def fill(node: Node) -> Node:
    for name, study, probability, calling in (
        ("1", "1.2.31", 0.8, "CR1"),
        ("2", "1.2.31", 0.1, "CR1"),
        ("3", "1.2.32", 0.2, "CR2"),
        ("4", "1.2.33", 0.7, "CR1"),
    ):
        node.clock.advance(seconds=60)
        node.receive(name, study=study, calling_ae=calling)
        node.analyse(shadow=SHADOW)
        node.try_out(probability)
    return node


def test_pairs_are_read_newest_first_page_by_page(filled: Node) -> None:
    shadow = filled.ledger.shadow
    first = shadow.pairs(BY_TRIAL, most=3)
    assert [pair.sop_instance_uid for pair in first.pairs] == ["1.2.3.4", "1.2.3.3", "1.2.3.2"]
    assert first.next_key is not None
    rest = shadow.pairs(BY_TRIAL, after=first.next_key, most=3)
    assert [pair.sop_instance_uid for pair in rest.pairs] == ["1.2.3.1"]
    assert rest.next_key is None
    pair = first.pairs[0]
    assert (pair.study_uid, pair.calling_ae) == ("1.2.33", "CR1")
    assert (pair.reporting.probability, pair.reporting.threshold, pair.reporting.verdict) == (0.9, 0.5, PRESENT)
    assert (pair.shadow.probability, pair.shadow.threshold, pair.shadow.verdict) == (0.7, 0.4, PRESENT)
    assert (pair.reporting.bundle, pair.shadow.bundle) == (MODEL.bundle, SHADOW.bundle)
    assert pair.agrees
    assert not first.pairs[1].agrees


def test_images_of_one_instant_are_each_on_one_page(node: Node) -> None:
    tried(node, *map(str, range(1, 8)))
    seen, key = [], None
    while True:
        page = node.ledger.shadow.pairs(BY_TRIAL, after=key, most=2)
        seen += [pair.key.id for pair in page.pairs]
        if (key := page.next_key) is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"disagreeing": True}, ["3", "2"]),
        ({"calling_ae": "CR2"}, ["3"]),
        ({"study_uid": "1.2.31"}, ["2", "1"]),
        ({"reporting_digest": MODEL.digest}, ["4", "3", "2", "1"]),
        ({"reporting_digest": OTHER.digest}, []),
        ({"bundle_digest": OTHER.digest}, []),
    ],
    ids=str,
)
def test_each_condition_selects(filled: Node, changes: dict[str, Any], names: list[str]) -> None:
    query = replace(BY_TRIAL, **changes)
    page = filled.ledger.shadow.pairs(query)
    assert [pair.sop_instance_uid for pair in page.pairs] == [f"1.2.3.{name}" for name in names]
    assert filled.ledger.shadow.counts(query).images == len(names)


def test_the_time_is_that_at_which_the_bundle_on_trial_was_run(filled: Node) -> None:
    now = filled.clock()
    last_two = replace(BY_TRIAL, since=now - timedelta(seconds=60))
    assert filled.ledger.shadow.counts(last_two).images == 2
    before = replace(BY_TRIAL, until=now - timedelta(seconds=60))
    assert [pair.sop_instance_uid for pair in filled.ledger.shadow.pairs(before).pairs] == ["1.2.3.2", "1.2.3.1"]


def test_the_counts_are_a_table_of_both_verdicts(filled: Node) -> None:
    counts = filled.ledger.shadow.counts(BY_TRIAL)
    assert counts.pairs == (
        VerdictCount(reporting=PRESENT, shadow=ABSENT, images=2),
        VerdictCount(reporting=PRESENT, shadow=PRESENT, images=2),
    )
    assert (counts.images, counts.disagreeing, counts.failed) == (4, 2, 0)


def test_a_study_is_compared_by_its_highest_probability(compared: Node) -> None:
    compared.receive("5", study="1.2.31")
    compared.analyse(shadow=SHADOW)  # which the bundle on trial has not seen yet
    page = compared.ledger.shadow.studies(BY_TRIAL, most=2)
    assert [study.study_uid for study in page.studies] == ["1.2.33", "1.2.32"]
    assert page.next_key == page.studies[-1].key
    [study] = compared.ledger.shadow.studies(BY_TRIAL, after=page.next_key, most=2).studies
    assert (study.study_uid, study.images, study.unpaired) == ("1.2.31", 2, 1)
    assert (study.reporting.probability, study.shadow.probability) == (0.9, 0.8)
    assert study.shadow.verdict is PRESENT
    disagreeing = compared.ledger.shadow.studies(replace(BY_TRIAL, disagreeing=True)).studies
    assert [study.study_uid for study in disagreeing] == ["1.2.32", "1.2.31"]
    of_one = compared.ledger.shadow.studies(replace(BY_TRIAL, study_uid="1.2.32", calling_ae="CR2"))
    assert [study.study_uid for study in of_one.studies] == ["1.2.32"]


def test_a_film_that_a_person_set_aside_does_not_speak_for_its_study(compared: Node) -> None:
    with compared.engine.begin() as connection:
        connection.execute(text("UPDATE instance SET use = 'set-aside' WHERE sop_instance_uid = '1.2.3.1'"))
    [study] = compared.ledger.shadow.studies(replace(BY_TRIAL, study_uid="1.2.31")).studies
    assert (study.images, study.shadow.probability) == (1, 0.1)


def test_the_bundles_that_were_on_trial_are_listed(compared: Node) -> None:
    second = replace(SHADOW, version="9", digest="sha256:" + "6" * 64)
    compared.receive("9")
    compared.analyse(shadow=second)
    compared.try_out(model=second)
    bundles = compared.ledger.shadow.bundles()
    assert [(each.bundle, each.bundle_digest) for each in bundles] == [
        (SHADOW.bundle, SHADOW.digest),
        (second.bundle, second.digest),
    ]
    assert bundles[0].last_at - bundles[0].first_at == timedelta(minutes=3)


def test_an_empty_ledger_has_nothing_to_compare(node: Node) -> None:
    shadow = node.ledger.shadow
    assert shadow.bundles() == []
    assert shadow.pairs(BY_TRIAL, after=PairKey(at=node.clock(), id=1)).pairs == ()
    assert shadow.studies(BY_TRIAL).studies == ()
    assert shadow.counts(BY_TRIAL).images == 0


def test_the_indexes_answer(filled: Node) -> None:
    """Where the planner has a choice, the question is whether the index can be used at all."""
    plans = {
        "ix_shadow_result_pairs": "SELECT reported_verdict, verdict, count(*) FROM shadow_result"
        " WHERE bundle_digest = 'x' GROUP BY reported_verdict, verdict",
        "ix_shadow_result_disagreeing": "SELECT id FROM shadow_result WHERE bundle_digest = 'x' AND {disagrees}"
        " ORDER BY at DESC, id DESC LIMIT 50",
    }
    is_postgresql = filled.engine.dialect.name == "postgresql"
    for index, statement in plans.items():
        question = statement.format(disagrees="NOT agrees" if is_postgresql else "agrees = 0")
        with filled.engine.begin() as connection:
            if is_postgresql:
                connection.execute(text("SET LOCAL enable_seqscan = off"))
                connection.execute(text("SET LOCAL enable_bitmapscan = off"))
            explain = "EXPLAIN " if is_postgresql else "EXPLAIN QUERY PLAN "
            plan = str(connection.execute(text(explain + question)).all())
        assert index in plan, plan


# -- the schema


def test_a_ledger_of_before_gets_the_table_and_keeps_its_results(tmp_path: Path) -> None:
    (tmp_path / "old.sqlite3").touch()
    old = create_ledger_engine(f"sqlite:///{tmp_path / 'old.sqlite3'}")
    migrate(old, "0007")
    with old.begin() as connection:
        tables = set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
    assert "shadow_result" not in tables
    upgrade(old)
    before = Node(old)
    tried(before, "1")
    assert before.ledger.verifier.verify().problems == ()
    old.dispose()
