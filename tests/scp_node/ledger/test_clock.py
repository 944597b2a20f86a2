"""The wall clock is set while work waits: nothing of it comes early or late, on SQLite and on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError

from scp_node.domain import Priority
from scp_node.ledger import DeliveryTask, Ledger, Policy, create_ledger_engine, queue, upgrade
from scp_node.ledger.clock import JUMP_LOCK, TOLERANCE, Look, WallClock
from scp_node.ledger.queue_kinds import REPORT
from scp_node.ledger.transactions import Transactions
from scp_node.ledger.watch import Watch
from tests.scp_node.ledger_node import LEASE, MODEL, POLICY, QUIET, FakeClock, Node, ledger_engine
from tests.waiting import let_pass, wait_until

HOUR: Final = 3_600
DAY: Final = 86_400
DECADES: Final = 26 * 365 * 86_400
SETTINGS: Final = pytest.mark.parametrize("seconds", [HOUR, -HOUR, DAY, -DAY], ids=["+1h", "-1h", "+1d", "-1d"])
BOTH_WAYS: Final = pytest.mark.parametrize("seconds", [DAY, -HOUR], ids=["+1d", "-1h"])
PAUSE: Final = timedelta(seconds=10)


@dataclass
class Host(FakeClock):
    """The clocks of one machine: time passes for both of them, and the wall clock can be set."""

    seconds: float = 1_000.0  # monotonic

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, **by: float) -> None:
        super().advance(**by)
        self.seconds += timedelta(**by).total_seconds()

    def set_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Process(Node):
    """One process of a node that has just started on `clock`'s machine."""

    clock: Host = field(default_factory=Host)

    def __post_init__(self) -> None:
        self.wall_clock = WallClock(wall=self.clock, monotonic=self.clock.monotonic)
        self.ledger = Ledger(self.engine, POLICY, wall_clock=self.wall_clock)

    def waiting(self) -> DeliveryTask:
        """Make a report that a destination refused for now, and return its delivery."""
        self.receive("1", priority=Priority.STAT)
        self.analyse()
        self.report("pacs")
        task = self.deliver()
        assert task is not None
        self.ledger.deliveries.retry(task, status=0xA700, detail="out of resources", pause=PAUSE)
        return task

    def deliver(self) -> DeliveryTask | None:
        self.ledger.upkeep.sweep()
        return self.ledger.deliveries.claim("pacs", owner="s")

    def watch(self, seconds: float) -> None:
        """Let time pass as a role does that has nothing to do: it looks every quarter of a second."""
        for _ in range(int(4 * seconds)):
            self.ledger.upkeep.sweep(MODEL)
            self.clock.advance(seconds=0.25)
        self.ledger.upkeep.sweep(MODEL)

    def jumps(self) -> list[float]:
        """Return the seconds of the jumps that the audit tells of."""
        return [
            float(str(told.detail["seconds"])) for told in self.ledger.audit.events("") if told.kind == "clock-jumped"
        ]


@pytest.fixture
def process(engine: Engine) -> Process:
    return Process(engine)


def states(process: Process, name: str) -> dict[str, int]:
    return process.ledger.upkeep.counts()[name]


@SETTINGS
def test_a_retry_comes_after_its_pause_whatever_the_clock_is_set_to(process: Process, seconds: float) -> None:
    process.waiting()
    process.clock.advance(seconds=4)
    process.clock.set_by(seconds)
    assert process.deliver() is None
    process.clock.advance(seconds=5)
    assert process.deliver() is None, "early"
    process.clock.advance(seconds=2)
    assert process.deliver() is not None, "late"
    assert process.jumps() == [seconds]


@SETTINGS
def test_a_lease_lasts_as_long_as_it_should_whatever_the_clock_is_set_to(process: Process, seconds: float) -> None:
    process.receive("1")
    process.ledger.analyses.claim(owner="w", limit=1)
    process.watch(12)
    process.clock.set_by(seconds)
    process.watch(2)
    assert states(process, "analyse") == {"leased": 1}, "lost too early"
    process.watch(2)
    assert states(process, "analyse") == {"ready": 1}, "held too long"


@BOTH_WAYS
def test_a_paused_destination_is_probed_after_its_pause_whatever_the_clock_is_set_to(
    process: Process, seconds: float
) -> None:
    process.ledger.deliveries.destination_failed("pacs", pause=lambda _: PAUSE, enough=1, detail="down")
    process.clock.advance(seconds=4)
    process.clock.set_by(seconds)
    process.clock.advance(seconds=5)
    assert not process.ledger.deliveries.destination("pacs").probe_due
    process.clock.advance(seconds=2)
    assert process.ledger.deliveries.destination("pacs").probe_due


@BOTH_WAYS
def test_a_delivery_is_as_old_as_it_is_whatever_the_clock_is_set_to_while_it_is_sent(
    process: Process, seconds: float
) -> None:
    process.waiting()
    process.clock.advance(seconds=11)
    task = process.deliver()
    assert task is not None
    process.clock.set_by(seconds)
    process.clock.advance(seconds=9)
    assert process.ledger.deliveries.waited(task) == timedelta(seconds=20)


@BOTH_WAYS
def test_a_study_is_reported_within_its_quiet_time_whatever_the_clock_is_set_to(
    process: Process, seconds: float
) -> None:
    process.receive("1")
    process.clock.set_by(seconds)
    process.analyse()
    process.clock.advance(seconds=QUIET.total_seconds())
    assert process.report() is not None


@BOTH_WAYS
def test_a_study_that_waits_for_more_images_waits_on_when_the_clock_is_set(process: Process, seconds: float) -> None:
    process.receive("1")
    process.analyse()
    process.clock.set_by(seconds)
    process.clock.advance(seconds=QUIET.total_seconds() - 1)
    assert process.report() is None
    process.clock.advance(seconds=1)
    assert process.report() is not None


@pytest.mark.usefixtures("zone_restored")
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_a_change_of_the_time_zone_is_no_change_of_time(
    process: Process, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.waiting()
    process.clock.advance(seconds=9)
    for variable in ("TZ", "PGTZ"):  # ours, and that of new connections to PostgreSQL
        monkeypatch.setenv(variable, zone)
    time.tzset()
    process.engine.dispose()
    assert process.deliver() is None
    process.clock.advance(seconds=2)
    assert process.deliver() is not None
    assert process.jumps() == []


@pytest.fixture
def zone_restored() -> Iterator[None]:
    yield
    time.tzset()


def test_everyone_finds_the_same_jump_and_one_makes_it_good(engine: Engine) -> None:
    host = Host()
    processes = [Process(engine, host) for _ in range(4)]
    processes[0].waiting()
    for each in processes:
        each.deliver()
    host.set_by(DAY)
    steps: list[Callable[[Process], object]] = [
        Process.deliver,
        lambda each: each.ledger.deliveries.destination("pacs"),
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: steps[n % 2](processes[n % 4]), range(32)))
    assert processes[0].jumps() == [DAY]
    assert processes[0].rows("SELECT jumps, jumped_seconds FROM clock") == [(1, DAY)]
    host.advance(seconds=11)
    assert processes[3].deliver() is not None
    assert processes[0].jumps() == [DAY]


def test_who_slept_through_two_jumps_believes_those_who_did_not(engine: Engine) -> None:
    host = Host()
    awake, asleep = Process(engine, host), Process(engine, host)
    asleep.deliver()
    awake.waiting()
    for seconds in (HOUR, -DAY):
        host.set_by(seconds)
        awake.deliver()
    assert asleep.deliver() is None
    assert awake.jumps() == [HOUR, -DAY]
    host.set_by(DAY)
    host.advance(seconds=11)
    assert asleep.deliver() is not None, "one that nobody else has seen is found all the same"
    assert awake.jumps() == [HOUR, -DAY, DAY]


def test_a_process_that_was_stopped_for_long_sees_no_jump(process: Process) -> None:
    process.waiting()
    process.clock.advance(days=3)
    assert process.deliver() is not None
    assert process.jumps() == []


def test_a_clock_that_is_slewed_does_not_jump(process: Process) -> None:
    process.deliver()
    for _ in range(10):
        process.clock.set_by(0.9 * TOLERANCE)
        process.deliver()
    assert process.jumps() == []


def test_a_slow_answer_is_no_jump_and_hides_none() -> None:
    clock, began = WallClock(), Host().now

    def look(*, at: float, before: float, after: float) -> Look:
        return Look(wall=began + timedelta(seconds=at), jumped=0.0, before=before, after=after)

    assert clock.jump(look(at=0, before=0, after=0)) == 0
    assert clock.jump(look(at=1, before=1, after=40)) == 0
    assert clock.jump(look(at=79, before=41, after=80)) == 0
    assert clock.jump(look(at=85, before=81, after=81)) == pytest.approx(4)


def test_a_jump_is_made_good_although_the_step_that_found_it_fails(process: Process) -> None:
    process.waiting()
    process.clock.set_by(HOUR)
    transactions = Transactions(process.engine, wall_clock=process.wall_clock)

    def fail() -> None:
        with transactions.writing():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    process.clock.advance(seconds=9)
    assert process.deliver() is None
    assert process.jumps() == [HOUR]


def test_what_is_written_with_the_time_before_a_jump_is_moved_too(engine: Engine) -> None:
    host = Host()
    slow, quick = Process(engine, host), Process(engine, host)
    slow.receive("1", priority=Priority.STAT)
    slow.analyse()
    quick.deliver()
    transactions = Transactions(engine, wall_clock=slow.wall_clock)
    with ThreadPoolExecutor(1) as pool:
        with transactions.writing() as (connection, before):
            host.set_by(DAY)
            finding = pool.submit(quick.deliver)
            queue.reschedule_waiting(connection, queue=REPORT, dedup="1", due=before + PAUSE, at=before)
            assert not finding.done(), "it waits for this transaction"
        finding.result(20)
    due = _instant(slow.rows("SELECT due_at FROM work WHERE queue = 'report'")[0][0])
    assert due == before + PAUSE + timedelta(seconds=DAY)


def test_who_waits_for_a_jump_to_be_made_good_gets_the_time_after_it(postgres: str) -> None:
    engine = create_ledger_engine(postgres)
    upgrade(engine)
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")

    def now() -> datetime:
        with Transactions(engine).reading() as (_connection, instant):
            return instant

    with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_lock({JUMP_LOCK})"))
        answer = pool.submit(now)
        wait_until(lambda: connection.execute(waiting).scalar_one())
        released: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        connection.execute(text(f"SELECT pg_advisory_unlock({JUMP_LOCK})"))
        assert answer.result(20) > released
    engine.dispose()


def test_a_machine_that_starts_in_the_year_2000_does_not_move_what_waited_before(engine: Engine) -> None:
    host = Host()
    Process(engine, host).waiting()
    host.set_by(-DECADES)  # its battery is empty
    started = Process(engine, host)
    assert started.deliver() is None
    host.advance(seconds=5)
    host.set_by(DECADES)  # it has heard of the time
    assert started.deliver() is None
    host.advance(seconds=6)
    assert started.deliver() is not None


def test_what_a_clock_that_was_ahead_put_off_by_years_is_not_stuck(engine: Engine) -> None:
    host = Host()
    host.set_by(DECADES)
    ahead = Process(engine, host)
    ahead.waiting()
    ahead.receive("2")
    ahead.ledger.analyses.claim(owner="w", limit=1)
    ahead.ledger.deliveries.destination_failed("pacs", pause=lambda _: PAUSE, enough=1, detail="down")
    host.set_by(-DECADES)  # while the node is down
    started = Process(engine, host)
    assert started.ledger.deliveries.destination("pacs").probe_due
    started.watch(LEASE.total_seconds())
    assert (states(started, "analyse")["ready"], states(started, "deliver:pacs")) == (1, {"ready": 1})


def _instant(value: Any) -> datetime:
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant.replace(tzinfo=Host().now.tzinfo) if instant.tzinfo is None else instant


def test_after_a_kill_of_the_whole_node_lost_work_is_back_when_its_lease_ends(engine: Engine) -> None:
    host = Host()
    killed = Process(engine, host)
    killed.receive("1")
    killed.ledger.analyses.claim(owner="w", limit=1)
    host.advance(seconds=4)  # until the new one has started
    started = Process(engine, host)
    started.watch(LEASE.total_seconds() - 4)
    assert states(started, "analyse") == {"leased": 1}
    started.watch(0.25)
    assert states(started, "analyse") == {"ready": 1}


def test_processes_of_which_none_lives_for_long_bring_lost_work_back_when_its_lease_ends(engine: Engine) -> None:
    host = Host()
    killed = Process(engine, host)
    killed.receive("1")
    killed.ledger.analyses.claim(owner="w", limit=1)
    for _ in range(15):
        assert states(killed, "analyse") == {"leased": 1}
        Process(engine, host).watch(1)
    Process(engine, host).watch(0.25)
    assert states(killed, "analyse") == {"ready": 1}


def test_what_processes_saw_before_and_after_a_long_pause_does_not_add_up(engine: Engine) -> None:
    host = Host()
    holder = Process(engine, host)
    holder.receive("1")
    [task] = holder.ledger.analyses.claim(owner="w", limit=1)
    Process(engine, host).watch(9)
    host.advance(seconds=8)
    for _ in range(9):
        Process(engine, host).watch(1)
    assert holder.ledger.upkeep.renew([task.claim]) == 1


def test_what_was_proven_a_while_ago_says_nothing_of_now(process: Process) -> None:
    process.receive("1")
    process.ledger.analyses.claim(owner="w", limit=1)
    process.watch(LEASE.total_seconds() - 1)
    transactions, watch = Transactions(process.engine, process.clock), Watch(LEASE)
    with transactions.reading() as (connection, now):
        assert watch.look(connection, now).is_proven
        assert not watch.look(connection, now + LEASE / 2 + timedelta(seconds=1)).is_proven


def test_what_waited_for_a_lock_on_the_work_proves_nothing(postgres: str) -> None:
    """Somebody works on the table: who only reads it, or writes elsewhere, is not kept from that."""
    lease = timedelta(seconds=1.2)
    with ledger_engine(postgres) as engine:
        node = Node(engine)
        node.receive("1")
        ledger = Ledger(engine, Policy(quiet=QUIET, lease=lease, max_attempts=3))
        ledger.analyses.claim(owner="w", limit=1)
        sweeping = []
        with ThreadPoolExecutor(3) as pool:
            with engine.begin() as connection:
                connection.execute(text("LOCK TABLE work IN EXCLUSIVE MODE"))
                for _ in range(3):
                    sweeping.append(pool.submit(ledger.upkeep.sweep))
                    let_pass(0.1)
                let_pass(0.2)
                unlocked = datetime.now(UTC)
            for each in sweeping:
                each.result(20)

        def since() -> Any:
            ledger.upkeep.sweep()
            return node.rows("SELECT writable_since FROM clock")[0][0]

        assert wait_until(since) > unlocked - lease / 6


def test_while_the_database_was_away_nobody_could_renew_so_no_lease_is_lost(engine: Engine) -> None:
    host = Host()
    holder, other = Process(engine, host), Process(engine, host)
    other.watch(LEASE.total_seconds())
    holder.receive("1")
    [task] = holder.ledger.analyses.claim(owner="w", limit=1)
    host.advance(seconds=60)
    other.watch(LEASE.total_seconds() / 3)
    assert holder.ledger.upkeep.renew([task.claim]) == 1
    other.watch(LEASE.total_seconds())
    assert states(other, "analyse") == {"leased": 1}
    other.watch(0.25)
    assert states(other, "analyse") == {"ready": 1}, "its holder is gone"


def test_while_the_database_answered_readers_only_nobody_could_renew_so_no_lease_is_lost(engine: Engine) -> None:
    host = Host()
    holder, other = Process(engine, host), Process(engine, host)
    holder.receive("1", "2")
    held, lost = holder.ledger.analyses.claim(owner="w", limit=2)
    other.watch(LEASE.total_seconds() * 0.9)
    for _ in range(240):
        with suppress(OperationalError), read_only(engine):
            other.ledger.upkeep.sweep(MODEL)
        host.advance(seconds=0.25)
    other.watch(LEASE.total_seconds() / 3)
    assert holder.ledger.upkeep.renew([held.claim]) == 1, "the first to come is not the one that sweeps"
    other.watch(LEASE.total_seconds() / 2)
    assert states(other, "analyse") == {"leased": 1, "ready": 1}, "one holder is gone"
    assert holder.ledger.upkeep.renew([lost.claim]) == 0


def test_a_node_without_leases_writes_nothing(engine: Engine) -> None:
    process = Process(engine)
    process.waiting()
    with read_only(engine):
        process.watch(3)


@contextmanager
def read_only(engine: Engine) -> Iterator[None]:
    """Let no statement through that would change a row."""

    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE"):
            raise OperationalError(statement, None, RuntimeError("read-only"))

    event.listen(engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", refuse)


def test_a_process_that_did_not_look_for_a_while_takes_no_lease_for_lost(engine: Engine) -> None:
    host = Host()
    slow, holder = Process(engine, host), Process(engine, host)
    holder.receive("1")
    holder.ledger.analyses.claim(owner="w", limit=1)
    slow.watch(LEASE.total_seconds() - 1)
    host.advance(seconds=LEASE.total_seconds())
    slow.ledger.upkeep.sweep(MODEL)
    assert states(slow, "analyse") == {"leased": 1}


def test_what_is_due_does_not_wait_for_that(engine: Engine) -> None:
    host = Host()
    Process(engine, host).waiting()
    host.advance(seconds=60)
    assert Process(engine, host).deliver() is not None
