"""Kills of the node's processes, in every part of its work, while modalities send."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from scp_node.ledger.queue_kinds import Queue, QueueKind
from tests.chaos.kit.faults import AFTER, BEFORE, Fault, Faults, Point
from tests.chaos.kit.process_tree import SUPERVISOR, is_running, processes
from tests.node import Node

PHASES: Final = ("receive", "register", "analyse", "report", "send")
LATEST: Final = 300  # milliseconds after a point at which a kill at a random moment may come
LONGEST_PAUSE: Final = 2.0  # seconds that a new process may work before its kill is armed
REACH_SECONDS: Final = 240.0  # within which some process must come to an armed point

# What one image causes on its way: every fsync, rename and commit of the node's code.
STEPS: Final = {
    "receive": ("fsync file", "rename", "fsync folder of the day", "fsync folder spool"),
    "register": ("commit Intake.register",),
    "analyse": ("commit Analyses.claim", "commit Analyses.record"),
    "report": ("commit Reports.claim", "commit Reports.snapshot", "commit Reports.save"),
    "send": ("commit Deliveries.claim", "commit Deliveries.delivered"),
}
ONCE: Final = {"fsync folder spool"}  # at the first store of a process: to be armed before that
# What happens now and then, whichever thread is the first to see that it is needed.
OCCASIONAL: Final = {
    "commit Deliveries.destination_answered",
    "commit Deliveries.destination_failed",
    "commit Deliveries.destination_on_trial",
    "commit Deliveries.retry",
    "commit Intake.record_rejected",
    "commit Reports.claim_companions",
    "commit Reports.complete_unchanged",
    "commit Reports.postpone",
    "commit Reports.retry_companions",
    "commit Reports.save_companions",
    "commit Upkeep.renew",
    "commit Upkeep.sweep",
    "commit Watch.prove",
}
_ROLES: Final = {
    "listener": ("receive", "register"),
    "worker": ("analyse",),
    "reporter": ("report",),
    "sender": ("send",),
}
_SERVED_BY: Final = {
    QueueKind.ANALYSE: "worker",
    QueueKind.SHADOW: "worker",
    QueueKind.REPORT: "reporter",
    QueueKind.COMPANIONS: "reporter",
    QueueKind.DELIVER: "sender",
    QueueKind.COMMIT: "sender",
}


def points(phase: str) -> list[Point]:
    """Return both sides of every step of a phase."""
    return [Point(phase=phase, step=step, when=when) for step in STEPS[phase] for when in (BEFORE, AFTER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where and when a process is to die."""

    at: Point
    milliseconds: int = 0  # after the point


def plans(phases: Sequence[str], number: int, random: Random) -> list[Plan]:
    """Return `number` kills for each phase: at each of its points if there is room, then at random moments.

    What a process does only once comes last: it can be armed when the process before has just died.
    """
    chosen = []
    for phase in phases:
        exact = random.sample(points(phase), k=min(number - number // 3, len(points(phase))))
        chosen += [Plan(at=at) for at in exact]
        for _ in range(number - len(exact)):
            chosen.append(Plan(at=Point(phase=phase), milliseconds=random.randint(1, LATEST)))
    random.shuffle(chosen)
    return sorted(chosen, key=lambda plan: plan.at.step in ONCE)


@dataclass
class Lane:
    """The kills of one role's process, one after the other; between two it may work for a while."""

    phases: Sequence[str]
    faults: Faults
    random: Random
    waiting: list[Plan] = field(default_factory=list)
    armed: Fault | None = None
    armed_at: float = 0.0
    killed_at: float = 0.0  # Unix time; 0: a process is at work
    next_at: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether all its kills have happened."""
        return self.armed is None and not self.waiting and not self.killed_at

    def look(self) -> None:
        """Arm the next kill, or see whether the last one has happened."""
        now = time.monotonic()
        if self.killed_at:
            if self.faults.is_working(self.phases, self.killed_at):
                self.killed_at, self.next_at = 0.0, now + self.random.uniform(0.0, LONGEST_PAUSE)
                self.armed_at = now
        elif self.armed is None:
            if self.waiting and now >= self.next_at:
                self._arm()
        elif (fired := self.faults.fired().get(self.armed.number)) and not is_running(fired.pid):
            self.armed, self.killed_at = None, time.time()
            if self.waiting and self.waiting[0].at.step in ONCE:
                self._arm()
        elif now - self.armed_at > REACH_SECONDS:
            raise AssertionError(f"no process came to {self.armed.at} within {REACH_SECONDS:g} s")

    def _arm(self) -> None:
        plan = self.waiting.pop(0)
        self.armed, self.armed_at = self.faults.arm(plan.at, plan.milliseconds), time.monotonic()


@dataclass
class Storm:
    """All kills of one run."""

    node: Node
    faults: Faults
    random: Random
    kills: Counter[str] = field(default_factory=Counter)  # from outside, by role
    _lanes: dict[str, Lane] = field(init=False)  # by role

    def __post_init__(self) -> None:
        self._lanes = {role: Lane(phases, self.faults, self.random) for role, phases in _ROLES.items()}

    def is_served(self, queue: str) -> bool:
        """Return whether a process runs that works on this queue, as far as one can see."""
        return not self._lanes[_SERVED_BY[Queue.named(queue).kind]].killed_at

    def run(self, per_phase: int, outside: int) -> None:
        """Kill `per_phase` times in each phase, and any process at all `outside` times; return when all happened."""
        for lane in self._lanes.values():
            lane.waiting = plans(lane.phases, per_phase, self.random)
        left, next_at = outside, time.monotonic() + 2.0
        while left or not all(lane.is_done for lane in self._lanes.values()):
            for lane in self._lanes.values():
                lane.look()
            if left and time.monotonic() >= next_at:
                self._kill_one()
                left, next_at = left - 1, time.monotonic() + self.random.uniform(1.0, 4.0)
            self._start_again()
            time.sleep(0.01)

    def _kill_one(self) -> None:
        """Kill a process of the node, whatever it is doing, or all of them at once."""
        assert self.node.process is not None
        if self.random.random() < 0.2:
            self.node.kill()
            role = "all at once"
        else:
            process = self.random.choice(processes(self.node.process.pid))
            process.kill()
            role = process.role
        self.kills[role] += 1
        for name, lane in self._lanes.items():
            if role in {name, SUPERVISOR, "all at once"}:
                lane.killed_at = time.time()

    def _start_again(self) -> None:
        """Start the node again when its supervisor is gone, as the system's service manager does."""
        assert self.node.process is not None
        status = self.node.process.poll()
        if status is None:
            return
        assert status < 0, f"the node ended by itself with {status}; log:\n{self.node.log[-3000:]}"
        self.node.start(wait=False)


def hits(faults: Faults) -> Counter[str]:
    """Return how many kills there were in each phase."""
    return Counter(fired.at.phase for fired in faults.fired().values())


def missed(faults: Faults) -> Iterator[Point]:
    """Yield the points at which no process was killed."""
    exact = {fired.at for fired in faults.fired().values() if fired.fault.milliseconds == 0}
    for phase in PHASES:
        yield from (point for point in points(phase) if point not in exact)
