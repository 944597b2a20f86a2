"""Several associations to one destination: what is sent at a time, what never is, and when there is one again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from queue import SimpleQueue
from typing import Final

import pytest

from scp_node.delivery import SendResult
from scp_node.domain import Priority
from scp_node.loops.associations import Associations
from scp_node.loops.deliver import FurtherSender, Sender
from scp_node.runtime.leases import LeaseKeeper
from scp_node.settings import DeliverySettings
from tests.scp_node.ledger_node import LEASE, Node
from tests.scp_node.loops.test_deliver import (
    BUSY,
    DELIVERED,
    REFUSED,
    SILENT,
    Scu,
    reported,
    reported_with_pictures,
    states,
)

SECONDS: Final = 30.0  # the longest wait for what comes at once


class SlowPacs:
    """A PACS that holds each object until the test lets it go, and notes what came and how many at once."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.at_once = 0
        self.arrived: SimpleQueue[threading.Event] = SimpleQueue()  # each lets one object go
        self._lock = threading.Lock()
        self._held = 0

    def take(self, file: bytes) -> None:
        with self._lock:
            self.came.append(file)
            self._held += 1
            self.at_once = max(self.at_once, self._held)
        go = threading.Event()
        self.arrived.put(go)
        assert go.wait(SECONDS)
        with self._lock:
            self._held -= 1


class SlowScu(Scu):
    """An association to a slow PACS."""

    def __init__(self, pacs: SlowPacs, *answers: SendResult, closed: str = "") -> None:
        super().__init__(*answers)
        self._pacs = pacs
        self._closed = closed
        self.openings = 0

    def open(self, *, seconds: float) -> str:
        assert seconds < 10, "a PACS that takes one association at a time is not waited for"
        self.openings += 1
        return self._closed

    def send(self, file: bytes) -> SendResult:
        self._pacs.take(file)
        return super().send(file)


class Clock:
    """Seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Pair:
    """The two senders of one destination."""

    def __init__(
        self, node: Node, pacs: SlowPacs, *answers: SendResult, second: tuple[SendResult, ...] = (), closed: str = ""
    ) -> None:
        self.clock = Clock()
        associations = Associations("pacs", pause=60, now=self.clock)
        leases = LeaseKeeper(node.ledger, LEASE)
        self.scu = SlowScu(pacs, *answers)
        self.further_scu = SlowScu(pacs, *second, closed=closed)
        settings = DeliverySettings(breaker_failures=2)

        def opened(kind: type[Sender], scu: SlowScu, owner: str) -> Sender:
            return kind(
                name="pacs",
                scu=scu,
                ledger=node.ledger,
                leases=leases,
                settings=settings,
                owner=owner,
                associations=associations,
            )

        self.first = opened(Sender, self.scu, "first")
        self.further = opened(FurtherSender, self.further_scu, "further")


@contextmanager
def sending(pacs: SlowPacs, step: Callable[[], bool]) -> Iterator[None]:
    """Have the PACS hold what this step sends until the block ends."""
    thread = threading.Thread(target=step)
    thread.start()
    go = pacs.arrived.get(timeout=SECONDS)
    try:
        yield
    finally:
        go.set()
        thread.join(SECONDS)
        assert not thread.is_alive()


def new_version(node: Node, study: str, image: str) -> None:
    node.receive(image, study=study, priority=Priority.STAT)
    node.analyse()
    assert node.report("pacs") is not None


def test_while_one_report_is_sent_another_study_goes_by_a_second_association(node: Node) -> None:
    reported(node, "1.1", "1.2")
    pacs = SlowPacs()
    pair = Pair(node, pacs)
    with sending(pacs, pair.first.step), sending(pacs, pair.further.step):
        pass
    assert pacs.at_once == 2
    assert states(node) == ["delivered", "delivered"]


def test_an_open_second_association_goes_on_while_more_waits(node: Node) -> None:
    reported(node, "1.1", "1.2", "1.3")
    pacs = SlowPacs()
    pair = Pair(node, pacs)
    with sending(pacs, pair.first.step), sending(pacs, pair.further.step):
        pass
    with sending(pacs, pair.further.step):
        pass
    assert states(node) == ["delivered"] * 3
    assert not pair.further.step()


def test_a_second_association_is_not_opened_while_the_first_is_idle(node: Node) -> None:
    reported(node, "1.1")
    pair = Pair(node, SlowPacs())
    assert not pair.further.step()
    assert pair.further_scu.openings == 0


def test_no_version_of_a_study_overtakes_the_one_before(node: Node) -> None:
    reported(node, "1.1")
    new_version(node, "1.1", "second")
    new_version(node, "1.1", "third")
    stored = [bytes(file) for (file,) in node.rows("SELECT file FROM report ORDER BY version")]
    pacs = SlowPacs()
    pair = Pair(node, pacs)
    for _ in range(3):
        with sending(pacs, pair.first.step):
            assert not pair.further.step(), "the study has an object in flight"
    assert pacs.came == stored
    assert pacs.at_once == 1
    assert len(stored) == 3


def test_no_picture_overtakes_its_report_and_another_study_goes_meanwhile(node: Node) -> None:
    reported_with_pictures(node, "1.1")
    pacs = SlowPacs()
    pair = Pair(node, pacs)
    with sending(pacs, pair.first.step):
        assert not pair.further.step()
        reported(node, "1.2")
        with sending(pacs, pair.further.step):
            pass
    assert not [file for file in pacs.came if file.startswith(b"picture")]


def test_a_destination_that_takes_no_second_association_goes_on_with_one_and_the_log_says_so_once(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    reported(node, "1.1", "1.2", "1.3")
    pacs = SlowPacs()
    pair = Pair(node, pacs, closed="association rejected 2/3/2: local limit exceeded")
    with caplog.at_level(logging.INFO):
        for seconds in (0, 1, 60):
            pair.clock.now += seconds
            with sending(pacs, pair.first.step):
                assert not pair.further.step()
    assert pair.further_scu.openings == 2, "again after its pause, not before"
    assert states(node) == ["delivered"] * 3
    assert node.ledger.deliveries.destination("pacs").failures == 0
    assert sum("goes on with one" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("answer", [BUSY, SILENT, REFUSED])
def test_what_is_not_taken_beside_another_object_counts_for_nobody_and_is_sent_by_the_first(
    node: Node, answer: SendResult
) -> None:
    reported(node, "1.1", "1.2")
    pacs = SlowPacs()
    pair = Pair(node, pacs, second=(answer,))
    with sending(pacs, pair.first.step), sending(pacs, pair.further.step):
        pass
    assert node.ledger.deliveries.destination("pacs").failures == 0
    with sending(pacs, pair.first.step):
        assert not pair.further.step(), "one association for a while"
    assert states(node) == ["delivered", "delivered"]
    assert node.rows("SELECT attempt FROM work WHERE queue = 'deliver:pacs' ORDER BY id") == [(1,), (1,)]


def test_an_object_is_not_blamed_for_what_another_association_may_have_caused(node: Node) -> None:
    reported(node, "1.1", "1.2", "1.3")
    pacs = SlowPacs()
    pair = Pair(node, pacs, SILENT, DELIVERED, SILENT)
    with sending(pacs, pair.first.step), sending(pacs, pair.further.step):
        pass
    assert node.rows("SELECT attempt FROM work WHERE queue = 'deliver:pacs' ORDER BY id") == [(0,), (1,), (0,)]
    for _ in range(2):  # the third report is taken, then the first is tried again, alone
        node.clock.advance(minutes=1)
        with sending(pacs, pair.first.step):
            node.clock.advance(seconds=1)
    assert node.rows("SELECT attempt FROM work WHERE queue = 'deliver:pacs' ORDER BY id")[0] == (1,)


def test_a_destination_on_trial_gets_one_object_at_a_time(node: Node) -> None:
    reported(node, "1.1", "1.2")
    node.ledger.deliveries.destination_failed("pacs", detail="x", enough=3, pause=lambda _: timedelta(seconds=1))
    pacs = SlowPacs()
    pair = Pair(node, pacs)
    with sending(pacs, pair.first.step):
        assert not pair.further.step()
    assert pair.further_scu.openings == 0


def test_two_claims_at_the_same_time_never_get_one_study(node: Node) -> None:
    ledger = node.ledger.deliveries
    for study in range(6):
        reported(node, f"1.{study}")
        new_version(node, f"1.{study}", f"late{study}")
    start = threading.Barrier(2)
    got: list[str] = []

    def claim(owner: str) -> None:
        start.wait(SECONDS)
        for _ in range(6):
            task = ledger.claim("pacs", owner=owner)
            got.extend([task.study_uid] if task else [])

    threads = [threading.Thread(target=claim, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(got) == [f"1.{study}" for study in range(6)]
