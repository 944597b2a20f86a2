"""What the ledger promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial

from scp_node.domain import Finding, NotAnalysed, Priority, Reason, RejectedInstance
from scp_node.ledger import Analysed, DestinationState, Ledger, StudyPending, StudySnapshot
from tests.scp_node.ledger_node import LEASE, MODEL, POLICY, QUIET, Node, built_report


def test_an_image_goes_from_received_to_delivered_and_the_audit_tells_all_of_it(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    node.report("pacs")
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    assert node.ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2")
    [row] = node.audit()
    assert row["state"] == "analysed"
    assert (row["verdict"], row["probability"], row["threshold"]) == ("present", 0.9, 0.5)
    assert row["bundle_digest"] == MODEL.digest
    assert row["report_version"] == 1
    assert [(sent["destination"], sent["state"], sent["status"]) for sent in row["deliveries"]] == [
        ("pacs", "delivered", "0x0000")
    ]
    kinds = [event.kind for event in node.ledger.audit.events("1.2.3")]
    assert kinds == ["received", "analysed", "reported", "delivered"]


def test_the_same_file_registered_twice_is_one_instance(node: Node) -> None:
    first = node.ledger.intake.register([node.instance("1")])
    again = node.ledger.intake.register([node.instance("1")])
    assert (first.new, again.new, again.duplicates) == (1, 0, ())
    assert node.ledger.intake.unregistered(["1.dcm", "2.dcm"]) == ["2.dcm"]


def test_the_same_bytes_in_another_file_are_a_duplicate_and_that_file_may_go(node: Node) -> None:
    node.receive("1")
    again = node.ledger.intake.register([replace(node.instance("1"), spool_path="other.dcm")])
    assert [each.spool_path for each in again.duplicates] == ["other.dcm"]
    assert node.analyse() == 1


def test_the_same_uid_with_other_bytes_is_kept_as_a_conflict_and_not_analysed(node: Node) -> None:
    node.receive("1")
    other = replace(node.instance("1"), sha256="f" * 64, spool_path="other.dcm", study_uid="1.2.99")
    assert node.ledger.intake.register([other]).conflicts == ("1.2.3.1",)
    assert node.analyse() == 1
    assert [row["state"] for row in node.audit()] == ["analysed", "conflict"]


def test_a_null_character_in_a_header_does_not_stop_registration(node: Node) -> None:
    node.receive("1", patient_id="P\x001")
    assert [row["patient_id"] for row in node.audit()] == ["P1"]


def test_urgent_images_are_claimed_first_and_an_oldest_first_claim_takes_the_routine_one(node: Node) -> None:
    node.receive("1", "2")
    node.receive("3", priority=Priority.STAT)
    [oldest] = node.ledger.analyses.claim(owner="w", limit=1, oldest_first=True)
    rest = node.ledger.analyses.claim(owner="w", limit=2)
    assert oldest.sop_instance_uid == "1.2.3.1"
    assert [task.sop_instance_uid for task in rest] == ["1.2.3.3", "1.2.3.2"]


def test_two_workers_never_hold_the_same_image(node: Node) -> None:
    node.receive(*(str(number) for number in range(60)))
    with ThreadPoolExecutor(4) as pool:
        claims = pool.map(lambda number: node.ledger.analyses.claim(owner=f"w{number}", limit=7), range(12))
    ids = [task.instance_id for tasks in claims for task in tasks]
    assert len(ids) == len(set(ids)) == 60


def test_a_worker_that_lost_its_lease_cannot_write_its_result(node: Node) -> None:
    node.receive("1")
    [slow] = node.ledger.analyses.claim(owner="slow", limit=1)
    node.clock.advance(seconds=LEASE.total_seconds() + 1)
    node.ledger.upkeep.sweep(MODEL)
    [fast] = node.ledger.analyses.claim(owner="fast", limit=1)
    low = Finding(probability=0.1, logit=-2.0, threshold=0.5)
    high = Finding(probability=0.9, logit=2.0, threshold=0.5)
    started = node.clock()
    assert node.ledger.analyses.record([Analysed(task=fast, outcome=low, started_at=started)], MODEL) == 1
    assert node.ledger.analyses.record([Analysed(task=slow, outcome=high, started_at=started)], MODEL) == 0
    assert [row["probability"] for row in node.audit()] == [0.1]


def test_a_renewed_lease_is_kept(node: Node) -> None:
    node.receive("1")
    [task] = node.ledger.analyses.claim(owner="w", limit=1)
    for _ in range(5):
        node.clock.advance(seconds=10)
        assert node.ledger.upkeep.renew([task.claim]) == 1
        node.ledger.upkeep.sweep(MODEL)
    assert node.ledger.analyses.claim(owner="other", limit=1) == []


def test_an_image_that_stops_its_worker_three_times_ends_as_abandoned_and_is_reported(node: Node) -> None:
    node.receive("1")
    for _ in range(3):
        assert len(node.ledger.analyses.claim(owner="w", limit=1)) == 1
        for _ in range(3):  # the lease, and the pause of two leases after the second time
            node.clock.advance(seconds=16)
            node.ledger.upkeep.sweep(MODEL)
    assert node.ledger.analyses.claim(owner="w", limit=1) == []
    [row] = node.audit()
    assert (row["state"], row["reason"]) == ("failed", "abandoned")
    assert row["detail"] == "the worker stopped 3 times"
    snapshot = node.report()
    assert snapshot is not None
    assert isinstance(snapshot.images[0].outcome, NotAnalysed)


def test_a_sender_does_not_bury_analyses_since_it_has_no_model_to_name(node: Node) -> None:
    node.receive("1")
    for _ in range(3):
        assert len(node.ledger.analyses.claim(owner="w", limit=1)) == 1
        for _ in range(3):  # the lease, and the pause of two leases after the second time
            node.clock.advance(seconds=16)
            node.ledger.upkeep.sweep()
    assert node.ledger.upkeep.counts()["analyse"] == {"leased": 1}
    assert [row["reason"] for row in node.audit()] == [None]
    node.ledger.upkeep.sweep(MODEL)
    assert [row["reason"] for row in node.audit()] == ["abandoned"]


def test_a_sender_brings_back_what_lost_its_worker_while_each_new_worker_is_too_young_to(node: Node) -> None:
    node.receive("1")
    node.ledger.analyses.claim(owner="w", limit=1)
    node.clock.advance(seconds=16)
    node.ledger.upkeep.sweep()
    assert len(node.ledger.analyses.claim(owner="w", limit=1)) == 1


def test_a_step_that_fails_as_a_whole_is_tried_three_times_then_every_image_says_so(node: Node) -> None:
    node.receive("1", "2")
    for _ in range(3):
        tasks = [task for _ in range(2) for task in node.ledger.analyses.claim(owner="w", limit=10)]
        assert len(tasks) == 2
        node.ledger.analyses.retry(tasks, MODEL, pause=timedelta(seconds=1), error="out of memory")
        node.clock.advance(seconds=2)
        node.ledger.upkeep.sweep(MODEL)
    assert [(row["state"], row["reason"]) for row in node.audit()] == [("failed", "inference")] * 2


def test_a_study_is_not_reported_before_it_is_quiet(node: Node) -> None:
    node.receive("1")
    node.analyse()
    assert node.report() is None
    node.clock.advance(seconds=QUIET.total_seconds() - 1)
    node.receive("2")
    node.analyse()
    node.clock.advance(seconds=2)
    assert node.report() is None, "the second image starts the wait anew"
    node.clock.advance(seconds=QUIET.total_seconds())
    snapshot = node.report()
    assert snapshot is not None
    assert len(snapshot.images) == 2


def test_an_urgent_study_does_not_wait(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    assert node.report() is not None


def test_a_study_with_an_image_that_is_not_analysed_yet_is_not_reported(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.receive("2")
    node.clock.advance(seconds=11)
    assert node.report() is None
    node.analyse()
    node.clock.advance(seconds=1)
    snapshot = node.report()
    assert snapshot is not None
    assert len(snapshot.images) == 2


def test_a_late_image_makes_a_second_version_that_names_the_first(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    assert node.report() is not None
    node.receive("2")
    node.analyse()
    node.clock.advance(seconds=11)
    second = node.report()
    assert second is not None
    assert second.previous is not None
    assert second.previous.version == 1
    assert [row["report_version"] for row in node.audit()] == [2, 2]


def test_an_image_that_arrives_while_the_report_is_built_is_not_left_out(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    node.ledger.upkeep.sweep(MODEL)
    task = node.ledger.reports.claim(owner="w")
    assert task is not None
    snapshot = node.ledger.reports.snapshot(task, MODEL)
    assert isinstance(snapshot, StudySnapshot)
    node.receive("2")
    node.analyse()
    built = built_report(task.study_uid, snapshot)
    assert node.ledger.reports.save(task, snapshot, built, MODEL, ["pacs"]) is False
    assert node.rows("SELECT count(*) FROM report") == [(0,)]
    node.clock.advance(seconds=11)
    whole = node.report()
    assert whole is not None
    assert len(whole.images) == 2


def test_a_reporter_that_lost_its_lease_cannot_save_a_second_report(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    slow = node.ledger.reports.claim(owner="slow")
    assert slow is not None
    snapshot = node.ledger.reports.snapshot(slow, MODEL)
    assert isinstance(snapshot, StudySnapshot)
    node.clock.advance(seconds=16)
    assert node.report("pacs") is not None
    built = built_report(slow.study_uid, snapshot)
    assert node.ledger.reports.save(slow, snapshot, built, MODEL, ["pacs"]) is False
    assert node.rows("SELECT count(*) FROM report") == [(1,)]


def test_a_report_speaks_for_one_model_so_a_new_model_reads_the_older_images_again(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    node.report()
    newer = replace(MODEL, version="2.0", digest="sha256:" + "b" * 64)
    node.receive("2", priority=Priority.STAT)
    node.analyse(model=newer)
    task = node.ledger.reports.claim(owner="w")
    assert task is not None
    assert isinstance(node.ledger.reports.snapshot(task, newer), StudyPending)
    node.ledger.reports.postpone(task, timedelta(0))
    assert node.analyse(model=newer) == 1
    snapshot = node.report(model=newer)
    assert snapshot is not None
    assert len(snapshot.images) == 2


def test_a_delayed_report_waits_its_pause_and_a_dead_one_comes_back_on_command(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    node.report("pacs")
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    node.ledger.deliveries.retry(task, status=0xA700, detail="out of resources", pause=timedelta(seconds=10))
    assert node.ledger.deliveries.claim("pacs", owner="s") is None
    node.clock.advance(seconds=11)
    node.ledger.upkeep.sweep()
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    assert task.claim.attempt == 2
    node.ledger.deliveries.bury(task, status=0xA900, detail="does not match")
    assert node.audit()[0]["deliveries"][0]["state"] == "dead"
    assert node.ledger.upkeep.requeue() == 1
    assert node.audit()[0]["deliveries"][0]["state"] == "waiting"
    assert node.ledger.deliveries.claim("pacs", owner="s") is not None


def test_a_dead_letter_can_be_discarded_and_then_requeue_leaves_it(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    node.report("pacs")
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    node.ledger.deliveries.bury(task, status=0xA900, detail="does not match")
    assert node.ledger.upkeep.discard("1.2.3") == 1
    assert node.ledger.upkeep.requeue() == 0
    assert node.audit()[0]["deliveries"][0]["state"] == "discarded"


def test_a_failed_image_is_analysed_again_when_an_operator_names_it(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse(NotAnalysed(reason=Reason.UNREADABLE_PIXELS))
    node.report()
    assert node.ledger.upkeep.requeue("1.2.3.1") == 1
    node.analyse()
    snapshot = node.report()
    assert snapshot is not None
    assert snapshot.previous is not None
    assert node.audit()[0]["state"] == "analysed"
    assert node.rows("SELECT run, outcome FROM result ORDER BY run") == [(1, "failed"), (2, "finding")]


def test_an_image_out_of_scope_is_not_analysed_again_by_naming_it(node: Node) -> None:
    node.receive("1")
    node.analyse(NotAnalysed(reason=Reason.VIEW))
    assert node.ledger.upkeep.requeue("1.2.3.1") == 0


def test_a_paused_destination_is_due_for_a_probe_after_its_pause_and_recovers(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    node.report("pacs")
    failed = partial(
        node.ledger.deliveries.destination_failed,
        "pacs",
        detail="refused",
        enough=2,
        pause=lambda number: timedelta(seconds=15 * number),
    )
    assert [failed(), failed(), failed()] == [False, True, False], "one alarm"
    state = node.ledger.deliveries.destination("pacs")
    assert (state.failures, state.paused, state.probe_due) == (3, True, False)
    node.clock.advance(seconds=31)
    assert node.ledger.deliveries.destination("pacs").probe_due
    node.ledger.deliveries.destination_on_trial("pacs")
    state = node.ledger.deliveries.destination("pacs")
    assert (state.paused, state.failures, state.detail) == (False, 3, "refused")
    assert [node.ledger.deliveries.destination_answered("pacs", enough=2) for _ in range(2)] == [True, False]
    assert node.ledger.deliveries.destination("pacs") == DestinationState()


def test_one_destination_that_is_down_holds_up_no_other(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse()
    node.report("down", "up")
    down = node.ledger.deliveries.claim("down", owner="s")
    assert down is not None
    node.ledger.deliveries.retry(down, status=None, detail="refused", pause=timedelta(hours=1))
    assert node.ledger.deliveries.claim("up", owner="s") is not None


def test_a_refused_store_is_in_the_audit(node: Node) -> None:
    node.ledger.intake.record_rejected(
        RejectedInstance(
            sop_instance_uid="1.2.9",
            calling_ae="CR1",
            peer="127.0.0.1",
            status=0xA900,
            reason="mismatch",
            at=node.clock(),
        )
    )
    [row] = node.audit()
    assert (row["state"], row["reason"], row["detail"]) == ("rejected", "mismatch", "0xA900")


def test_a_claim_stays_quick_behind_many_delayed_and_done_rows(node: Node) -> None:
    with node.engine.begin() as connection:
        plan = "EXPLAIN QUERY PLAN" if node.engine.dialect.name == "sqlite" else "EXPLAIN"
        if plan == "EXPLAIN":
            connection.exec_driver_sql("SET enable_seqscan = off")
        statement = "SELECT id FROM work WHERE queue = 'analyse' AND state = 'ready' ORDER BY priority, id LIMIT 1"
        told = " ".join(str(row) for row in connection.exec_driver_sql(f"{plan} {statement}"))
    assert "ix_work_ready" in told
    assert "SORT" not in told.upper().replace("SORT KEY", "SORT")


def test_an_undetermined_result_keeps_the_grey_zone_that_made_it_so(node: Node) -> None:
    node.receive("1", priority=Priority.STAT)
    node.analyse(Finding(probability=0.52, logit=0.1, threshold=0.5, grey_zone=0.05))
    snapshot = node.report("pacs")
    assert snapshot is not None
    assert snapshot.images[0].outcome == Finding(probability=0.52, logit=0.1, threshold=0.5, grey_zone=0.05)
    [row] = node.audit()
    assert (row["verdict"], row["threshold"], row["grey_zone"]) == ("undetermined", 0.5, 0.05)


def test_a_process_whose_loops_all_sweep_looks_at_the_queues_once_in_a_while(node: Node) -> None:
    node.ledger = Ledger(node.engine, POLICY, node.clock, sweep_rest_seconds=3_600.0)
    node.ledger.upkeep.sweep(MODEL)
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    node.ledger.upkeep.sweep(MODEL)
    assert node.ledger.upkeep.counts()["report"] == {"delayed": 1}
    Ledger(node.engine, POLICY, node.clock).upkeep.sweep(MODEL)
    assert node.ledger.upkeep.counts()["report"] == {"ready": 1}
