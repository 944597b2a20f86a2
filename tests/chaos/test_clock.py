"""The wall clock is set by an hour and by a day, forth and back, while the node is at work.

On SQLite it is the clock of the node's machine, on PostgreSQL that of the database's host: the ledger's clock.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests import servers
from tests.chaos.conftest import Chaos
from tests.chaos.kit.clock import Modality, Pacs, PostgresWithClock, SetClock, decoders_stopped, rows
from tests.node import Node, destination, radiograph
from tests.waiting import wait_until

HOUR: Final = 3_600.0
DAY: Final = 86_400.0
# seconds; the pause before the first retry is between half and all of it
LEASE: Final = 3.0
PAUSE: Final = 3.0
LATE: Final = 4.0  # seconds that a retry may come later, for polling and a busy machine
OPEN: Final = "SELECT count(*) FROM work WHERE state IN ('ready', 'leased', 'delayed')"


@dataclass
class Site:
    """A modality, a node and two PACS; one of them may be busy, the other slow."""

    node: Node
    clock: SetClock
    pacs: Pacs
    slow: Pacs
    seeds: Iterator[int] = field(default_factory=itertools.count)
    busy: list[str] = field(default_factory=list)  # studies whose report was refused at first
    other: list[str] = field(default_factory=list)
    jumps: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.modality = Modality(self.node, radiograph().SOPClassUID)

    def jump_at_work(self, seconds: float) -> None:
        """Set the clock while a retry waits, a report is on its way, and an image is being read."""
        self.pacs.statuses = [0xA700]  # Refused: Out of Resources, PS3.4 Table B.2-1
        with self.slow.silent():
            waiting = self._store(self.busy)
            wait_until(lambda: self.pacs.tries(waiting) and self.slow.tries(waiting), 30, what="both were sent to")
            with decoders_stopped(self.node):
                self._store(self.other)
                wait_until(self._is_reading, 30, what="an image is being read")
                self.clock.jump(seconds)
                self.jumps.append(seconds)
                jumped = time.monotonic()
                self._store(self.other)
                wait_until(lambda: len(self.pacs.tries(waiting)) > 1, PAUSE + 30, what="the retry")
                wait_until(lambda: time.monotonic() > jumped + 1.2 * LEASE, what="leases are over if not renewed")
        first, second = self.pacs.tries(waiting)
        self.pauses.append(second - first)
        wait_until(lambda: rows(self.node, OPEN)[0][0] == 0, 60, what=f"all is done; log:\n{self.node.log[-3_000:]}")

    def _store(self, studies: list[str]) -> str:
        study = self.modality.store(radiograph(next(self.seeds)))
        studies.append(study)
        return study

    def _is_reading(self) -> bool:
        return bool(rows(self.node, "SELECT id FROM work WHERE queue = 'analyse' AND state = 'leased'"))


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        folder = stack.enter_context(servers.open_folder())
        clock, pacs, slow = SetClock(folder), Pacs(), Pacs()
        for each in (pacs, slow):
            stack.enter_context(each.serving())
        destinations = [destination(pacs.port), destination(slow.port, name="slow")]
        changes: dict[str, Any] = {
            "destinations": [{**each, "commitment": False} for each in destinations],
            "routing": {"reply_to": "all"},
            "work": {"lease_seconds": LEASE},
            "delivery": {"retry_first_seconds": PAUSE, "retry_cap_seconds": PAUSE},
            "report": {"overlay": "none"},
        }
        environment = {"TZ": "Pacific/Kiritimati"}  # UTC+14: a local time that is taken for UTC would show
        if request.param == "postgresql":
            server = stack.enter_context(PostgresWithClock(folder, clock))
            changes["database"] = {"url": stack.enter_context(server.database())}
        else:
            environment |= clock.environment
        node = Node(tmp_path, changes, environment)
        stack.callback(node.end)
        node.start()
        site = Site(node, clock, pacs, slow)
        yield site
        site.modality.release()


def test_no_jump_of_the_clock_aborts_an_association_shifts_a_retry_or_loses_a_lease(chaos: Chaos, site: Site) -> None:
    every = [HOUR, -HOUR, DAY, -DAY]
    is_local = not site.node.settings.database.url
    jumps = every if is_local else chaos.random.sample([HOUR, -DAY], 2)
    for _ in range(chaos.amount(short=0, long=5)):
        jumps += chaos.random.sample(every, 4)
    for seconds in jumps:
        site.jump_at_work(seconds)
    studies = [*site.busy, *site.other]
    assert site.modality.statuses == [0x0000] * len(studies), "one association, never aborted"
    assert all(PAUSE / 2 - 0.1 <= pause <= PAUSE + LATE for pause in site.pauses), site.pauses
    assert Counter(study for study, _ in site.pacs.asked) == Counter([*studies, *site.busy]), "sent again once"
    assert Counter(study for study, _ in site.slow.asked) == Counter(studies), "sent once"
    assert {row.attempt for row in rows(site.node, _WORKED)} == {1}, "no lease was lost"
    assert [row.run for row in rows(site.node, "SELECT run FROM result")] == [1] * len(studies)
    _check_audit(site)
    chaos.figure(
        f"{len(jumps)} jumps of an hour or a day, {len(studies)} images over one association, 0 aborts; "
        f"{len(site.pauses)} retries due after {PAUSE / 2:g} to {PAUSE:g} s came after {min(site.pauses):.1f} to "
        f"{max(site.pauses):.1f} s; {len(site.slow.asked)} reports sent while slow, each once; no lease lost"
    )


_WORKED: Final = "SELECT attempt FROM work WHERE queue IN ('analyse', 'report', 'deliver:slow')"


def _check_audit(site: Site) -> None:
    """See that the events lie in the order in which things happened, whatever their times say."""
    events = rows(site.node, "SELECT kind, study_uid, detail FROM event ORDER BY id")
    told = [(event.kind, event.study_uid, "slow" in str(event.detail)) for event in events]
    for study in site.busy + site.other:
        retried = ["delivery-delayed"] * (study in site.busy)
        kinds = ["received", "analysed", "reported", *retried, "delivered"]
        assert [kind for kind, uid, to_slow in told if uid == study and not (to_slow and kind != "reported")] == kinds
    kinds_of = [kind for kind, _, _ in told]
    jumped = [n for n, kind in enumerate(kinds_of) if kind == "clock-jumped"]
    delayed = [n for n, kind in enumerate(kinds_of) if kind == "delivery-delayed"]
    retried_at = [max(n for n, each in enumerate(told) if each == ("delivered", study, False)) for study in site.busy]
    assert all(before < at < after for before, at, after in zip(delayed, jumped, retried_at, strict=True))
    found = rows(site.node, "SELECT jumps, jumped_seconds FROM clock")[0]
    assert found.jumps == len(site.jumps)
    assert found.jumped_seconds == pytest.approx(sum(site.jumps), abs=1.0)
