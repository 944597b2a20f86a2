"""The ledger against a model of ten lines, through any order of steps that roles, crashes and operators take."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from hypothesis.strategies import booleans, integers, sampled_from
from sqlalchemy import Engine, func, select

from scp_node.domain import Finding, NotAnalysed, Outcome, Reason
from scp_node.ledger import (
    Analysed,
    AnalysisTask,
    DeliveryTask,
    NothingToReport,
    ReportTask,
    ShadowOutcome,
    ShadowTask,
    StudyPending,
    StudySnapshot,
    WorkState,
)
from scp_node.ledger.database.schema import instance, metadata, result, work
from tests.chaos.conftest import Chaos
from tests.scp_node.ledger_node import LEASE, MODEL, POLICY, SHADOW, Node, built_report

DESTINATIONS: Final = ("near", "far")
FOUND: Final = Finding(probability=0.9, logit=2.0, threshold=0.5)
STUDIES: Final = 3
ROUNDS: Final = 200  # of draining: far more than any history needs


class Image:
    """The model: all that an image may be, and what each step makes of it; `trial` is the same for a shadow bundle."""

    state, tries, results, end = "waiting", 0, 0, ""
    lease_until: datetime
    trial: Image | None = None  # from its first finding

    def claim(self, now: datetime) -> None:
        self.state, self.tries, self.lease_until = "held", self.tries + 1, now + LEASE

    def open_trial(self) -> None:
        self.trial = self.trial or Image()

    def finish(self, end: str) -> None:  # "found"; "failed" in the hands of its worker; "dead" when that was lost
        self.state, self.end, self.results = "ended", end, self.results + 1

    def lose(self, end: str) -> None:
        self.finish(end) if self.tries >= POLICY.max_attempts else self.wait(self.tries)

    def wait(self, tries: int = 0) -> None:
        self.state, self.tries = "waiting", tries

    def give_up_or_wait(self) -> None:  # of a trial: giving it up makes no result
        self.state, self.end = ("ended", "dead") if self.tries >= POLICY.max_attempts else ("waiting", "")

    def reopen(self) -> None:
        self.state, self.tries, self.end = "waiting", 0, ""


class LedgerMachine(RuleBasedStateMachine):
    """Workers, reporters, senders and an operator on one ledger; `model` says what must be."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.node = Node(engine)
        self.model: dict[str, Image] = {}
        self.held: dict[str, AnalysisTask] = {}  # by workers that are alive
        self.trials: dict[str, ShadowTask] = {}  # likewise
        self.lost: list[AnalysisTask] = []  # claims whose worker crashed, was too slow, or has finished
        self.reports: list[tuple[ReportTask, StudySnapshot | StudyPending | NothingToReport]] = []  # being built
        self.deliveries: list[DeliveryTask] = []  # claims of senders that crashed

    # -- intake

    @rule(again=booleans())
    def receive(self, again: bool) -> None:
        name = str(len(self.model) if again and self.model else len(self.model) + 1)
        self.node.receive(name, study=f"1.2.4.{int(name) % STUDIES}")
        self.model.setdefault(name, Image())

    # -- analysis

    @rule(limit=integers(1, 4))
    def claim(self, limit: int) -> None:
        self._sweep()
        tasks = self.node.ledger.analyses.claim(owner="w", limit=limit)
        assert len(tasks) <= limit
        for task in tasks:
            name = _name(task)
            assert self.model[name].state == "waiting", "only what waits is claimed"
            self.model[name].claim(self.node.clock())
            assert task.claim.attempt == self.model[name].tries
            self.held[name] = task

    @precondition(lambda self: self.held)
    @rule(pick=integers(0, 99), good=booleans())
    def complete(self, pick: int, good: bool) -> None:
        name, task = self._take(pick)
        assert self._record(task, FOUND if good else NotAnalysed(reason=Reason.UNREADABLE_PIXELS)) == 1
        self.model[name].finish("found" if good else "failed")
        if good:
            self.model[name].open_trial()

    @precondition(lambda self: self.held)
    @rule(pick=integers(0, 99))
    def fail(self, pick: int) -> None:
        name, task = self._take(pick)
        self.node.ledger.analyses.retry([task], MODEL, pause=timedelta(0), error="out of memory")
        self.model[name].lose("failed")

    @precondition(lambda self: self.held)
    @rule(pick=integers(0, 99))
    def crash(self, pick: int) -> None:
        self._take(pick)

    @precondition(lambda self: self.lost)
    @rule(pick=integers(0, 99))
    def write_late(self, pick: int) -> None:
        task = self.lost[pick % len(self.lost)]
        if self._is_current(task):
            return  # a crashed worker's lease is still its own: nobody can tell that it is gone
        assert self._record(task, FOUND) == 0, "whoever lost its claim writes nothing"

    @precondition(lambda self: self.model)
    @rule()
    def expire(self) -> None:
        self.node.clock.advance(seconds=LEASE.total_seconds() + 1)
        self._sweep()

    @precondition(lambda self: self.held)
    @rule()
    def renew(self) -> None:
        self.node.clock.advance(seconds=10)
        claims = [task.claim for task in self.held.values()] + [task.claim for task in self.trials.values()]
        assert self.node.ledger.upkeep.renew(claims) == len(claims)
        for name in self.held:
            self.model[name].lease_until = self.node.clock() + LEASE
        for name in self.trials:
            self._trial(name).lease_until = self.node.clock() + LEASE
        self._sweep()

    @precondition(lambda self: self.model)
    @rule(pick=integers(0, 99))
    def requeue(self, pick: int) -> None:
        failed = [name for name, image in self.model.items() if image.state == "ended" and image.end != "found"]
        names = failed or list(self.model)
        name = names[pick % len(names)]
        image, wanted = self.model[name], name in failed
        trial_is_dead = image.trial is not None and image.trial.end == "dead"
        assert self.node.ledger.upkeep.requeue(f"1.2.3.{name}") == wanted + trial_is_dead
        if wanted:
            image.wait()
        if image.trial and trial_is_dead:
            image.trial.reopen()

    # -- the bundle on trial

    @rule(limit=integers(1, 3))
    def try_out(self, limit: int) -> None:
        self._sweep()
        analysis_waits = self.node.rows("SELECT id FROM work WHERE queue = 'analyse' AND state = 'ready'")
        tasks = self.node.ledger.shadow_queue.claim(owner="t", limit=limit)
        assert not (tasks and analysis_waits), "it comes after all analyses"
        for task in tasks:
            trial = self._trial(name := task.sop_instance_uid.removeprefix("1.2.3."))
            assert trial.state == "waiting"
            trial.claim(self.node.clock())
            self.trials[name] = task

    @precondition(lambda self: self.trials)
    @rule(pick=integers(0, 99), ends=sampled_from(["seen", "failed", "crash"]))
    def end_a_trial(self, pick: int, ends: str) -> None:
        name = list(self.trials)[pick % len(self.trials)]
        task, trial = self.trials.pop(name), self._trial(name)
        if ends == "seen":
            assert self._record_trial(task) == 1
            trial.finish("found")
        elif ends == "failed":
            self.node.ledger.shadow_queue.retry([task], pause=timedelta(0), error="out of memory")
            trial.give_up_or_wait()

    # -- reports and deliveries

    @rule()
    def look_at_a_study(self) -> None:
        self._sweep()
        if task := self.node.ledger.reports.claim(owner="r"):
            self.reports.append((task, self.node.ledger.reports.snapshot(task, MODEL)))

    @precondition(lambda self: self.reports)
    @rule(pick=integers(0, 99))
    def report_it(self, pick: int) -> None:
        task, seen = self.reports.pop(pick % len(self.reports))
        current = self._newest_results(task.study_uid)
        if self._report(task, seen):
            assert isinstance(seen, StudySnapshot)
            assert list(seen.result_ids) == current, "a report says what is newest when it is saved"

    @rule(name=sampled_from(DESTINATIONS), ends=sampled_from(["delivered", "retry", "dead", "crash"]))
    def deliver(self, name: str, ends: str) -> None:
        self._sweep()
        if task := self.node.ledger.deliveries.claim(name, owner="s"):
            self._conclude(task, ends)

    @precondition(lambda self: self.deliveries)
    @rule(pick=integers(0, 99))
    def deliver_late(self, pick: int) -> None:
        self._conclude(self.deliveries.pop(pick % len(self.deliveries)), "delivered")

    @rule()
    def requeue_the_dead(self) -> None:
        self.node.ledger.upkeep.requeue()
        for image in self.model.values():
            if image.state == "ended" and image.end == "dead":
                image.wait()
            if image.trial and image.trial.end == "dead":
                image.trial.reopen()

    # -- what must hold after every step

    @invariant()
    def the_ledger_agrees_with_the_model(self) -> None:
        rows = self.node.rows(
            "SELECT i.sop_instance_uid, w.state, w.attempt, (SELECT count(*) FROM result r WHERE r.instance_id = i.id) "
            "FROM instance i JOIN work w ON w.ref_id = i.id AND w.queue = 'analyse'"
        )
        meanings = {"ready": "waiting", "delayed": "waiting", "leased": "held", "done": "ended", "dead": "ended"}
        told = {uid.removeprefix("1.2.3."): (meanings[state], results) for uid, state, _, results in rows}
        assert told == {name: (image.state, image.results) for name, image in self.model.items()}
        assert len(rows) == len(told), "each image has one row of work"

    @invariant()
    def a_trial_is_opened_by_each_finding_and_its_result_is_written_once(self) -> None:
        rows = self.node.rows(
            "SELECT i.sop_instance_uid, w.state,"
            " (SELECT count(*) FROM shadow_result r WHERE r.instance_id = i.id)"
            " FROM instance i JOIN work w ON w.ref_id = i.id AND w.queue = 'shadow'"
        )
        meanings = {"ready": "waiting", "delayed": "waiting", "leased": "held", "done": "ended", "dead": "ended"}
        told = {uid.removeprefix("1.2.3."): (meanings[state], results) for uid, state, results in rows}
        model = {name: image.trial for name, image in self.model.items() if image.trial}
        assert told == {name: (trial.state, trial.results) for name, trial in model.items()}

    @invariant()
    def versions_of_a_study_form_one_line(self) -> None:
        rows = self.node.rows("SELECT study_uid, version, id, supersedes FROM report ORDER BY study_uid, version")
        newest: dict[str, tuple[int, int | None]] = {}
        for study, version, identifier, supersedes in rows:
            before, last = newest.get(study, (0, None))
            assert (version, supersedes) == (before + 1, last)
            newest[study] = (version, identifier)

    @invariant()
    def a_report_goes_to_each_destination_once(self) -> None:
        rows = self.node.rows(
            "SELECT report_id, count(*), count(DISTINCT destination) FROM delivery GROUP BY report_id"
        )
        assert all(count == distinct == len(DESTINATIONS) for _, count, distinct in rows)

    def teardown(self) -> None:
        """Let everything that is open end: nothing is stuck, and each study has a report of its newest results."""
        for _ in range(ROUNDS):
            self.node.clock.advance(seconds=1_000)
            self.node.ledger.upkeep.sweep(MODEL)
            self.node.analyse()
            self.node.try_out()
            while task := self.node.ledger.reports.claim(owner="r"):
                self._report(task, self.node.ledger.reports.snapshot(task, MODEL))
            for name in DESTINATIONS:
                while sent := self.node.ledger.deliveries.claim(name, owner="s"):
                    self._conclude(sent, "delivered")
            if not self.node.rows("SELECT id FROM work WHERE state IN ('ready', 'leased', 'delayed')"):
                break
        else:
            raise AssertionError("work is stuck")
        assert self._unreported() == [] or self.node.rows(
            "SELECT id FROM work WHERE queue = 'report' AND state = 'dead'"
        )

    # -- steps

    def _sweep(self) -> None:
        self.node.ledger.upkeep.sweep(MODEL)
        for name, image in self.model.items():
            if image.state == "held" and image.lease_until < self.node.clock():
                if name in self.held:
                    self.lost.append(self.held.pop(name))
                image.lose("dead")
            if image.trial and image.trial.state == "held" and image.trial.lease_until < self.node.clock():
                self.trials.pop(name, None)
                image.trial.give_up_or_wait()

    def _trial(self, name: str) -> Image:
        trial = self.model[name].trial
        assert trial is not None, "only what has a finding is on trial"
        return trial

    def _record_trial(self, task: ShadowTask) -> int:
        return self.node.ledger.shadow_queue.record([ShadowOutcome(task=task, outcome=FOUND)], SHADOW)

    def _take(self, pick: int) -> tuple[str, AnalysisTask]:
        name = list(self.held)[pick % len(self.held)]
        task = self.held.pop(name)
        self.lost.append(task)
        return name, task

    def _record(self, task: AnalysisTask, outcome: Outcome) -> int:
        return self.node.ledger.analyses.record(
            [Analysed(task=task, outcome=outcome, started_at=self.node.clock())], MODEL, SHADOW
        )

    def _is_current(self, task: AnalysisTask) -> bool:
        held = select(work.c.lease_token).where(work.c.id == task.claim.id, work.c.state == WorkState.LEASED)
        with self.node.engine.begin() as connection:
            return connection.scalar(held) == task.claim.token

    def _report(self, task: ReportTask, seen: StudySnapshot | StudyPending | NothingToReport) -> bool:
        """Return whether a report was saved."""
        reports = self.node.ledger.reports
        assert not isinstance(seen, NothingToReport), "no image of these is our own"
        if isinstance(seen, StudyPending):
            reports.postpone(task, timedelta(0))
            return False
        built = built_report(task.study_uid, seen)
        if built.content_digest == seen.previous_content_digest:
            reports.complete_unchanged(task, seen, MODEL, DESTINATIONS)
            return False
        return reports.save(task, seen, built, MODEL, DESTINATIONS)

    def _newest_results(self, study_uid: str) -> list[int]:
        newest = (
            select(func.max(result.c.id))
            .join(instance, instance.c.id == result.c.instance_id)
            .where(instance.c.study_uid == study_uid)
            .group_by(result.c.instance_id)
            .order_by(result.c.instance_id)
        )
        with self.node.engine.begin() as connection:
            return list(connection.scalars(newest))

    def _conclude(self, task: DeliveryTask, ends: str) -> None:
        deliveries = self.node.ledger.deliveries
        if ends == "delivered":
            deliveries.delivered(task, status=0, sop_class_uid="1.2")
        elif ends == "retry":
            deliveries.retry(task, status=0xA700, detail="out of resources", pause=timedelta(seconds=5))
        elif ends == "dead":
            deliveries.bury(task, status=0xC000, detail="cannot understand")
        else:
            self.deliveries.append(task)

    def _unreported(self) -> list[Any]:
        """Return the newest results that no newest report names."""
        return self.node.rows(
            "SELECT max(r.id) FROM result r JOIN instance i ON i.id = r.instance_id GROUP BY r.instance_id "
            "EXCEPT SELECT l.result_id FROM report_result l JOIN report p ON p.id = l.report_id "
            "WHERE p.version = (SELECT max(version) FROM report q WHERE q.study_uid = p.study_uid)"
        )


def _name(task: AnalysisTask) -> str:
    return task.sop_instance_uid.removeprefix("1.2.3.")


def test_whatever_the_order_of_steps_the_ledger_does_what_the_model_says(engine: Engine, chaos: Chaos) -> None:
    with engine.connect() as connection:
        beginning = [(table, connection.execute(table.select()).mappings().all()) for table in metadata.sorted_tables]

    def machine() -> LedgerMachine:
        with engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
            for table, rows in beginning:
                if rows:
                    connection.execute(table.insert(), [dict(row) for row in rows])
        return LedgerMachine(engine)

    histories, steps = chaos.amount(short=20, long=1_000), 50
    run_state_machine_as_test(
        seed(chaos.seed)(machine),  # type: ignore[arg-type]  # it calls a class, or what makes its instance
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    chaos.figure(f"{histories} histories of up to {steps} steps: no difference from the model, no work stuck")
