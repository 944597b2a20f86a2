"""Destinations that are bad in eight ways: none holds its sender for long, and none another destination."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import pytest

from scp_node.loops.deliver import Sender
from scp_node.settings import DeliverySettings
from tests.chaos.conftest import Chaos
from tests.chaos.kit.destinations import Destination, Kind, dicom_report, open_node, open_scu, open_sender
from tests.node import Node as WholeNode
from tests.node import destination, radiograph
from tests.scp_node.ledger_node import Node
from tests.waiting import wait_until

FREE_AGAIN: Final = 30.0  # seconds that one try may hold the sender by the defaults
QUICK: Final = DeliverySettings(send_seconds=1.0, connect_seconds=0.5)
QUICK_FREE_AGAIN: Final = 1.0 + 5  # seconds, with room for a busy machine
LARGE: Final = 4_000_000  # bytes: more than a line's buffers, and 400 s at 10 kB/s
TRIES: Final = 5  # three pause it, then it is probed and tried again


def _tries(node: Node, sender: Sender, number: int) -> list[float]:
    """Have the sender try `number` times, probes included; return for how many seconds each held it."""
    held: list[float] = []
    while len(held) < number:
        began = time.monotonic()
        sender.step()
        held.append(time.monotonic() - began)
        node.clock.advance(seconds=61)
    return held


def _drained(node: Node, sender: Sender) -> list[str]:
    """Go on until nothing is left to do; return the states of the deliveries."""
    for _ in range(100):
        if not sender.step():
            node.clock.advance(seconds=61)
        states = [row["deliveries"][0]["state"] for row in node.audit()]
        if set(states) <= {"delivered", "dead"}:
            return states
    return states


def _dead_letters(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [line for line in caplog.records if line.getMessage().startswith("report not delivered, given up")]


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_a_sender_is_free_again_in_time_and_what_waited_arrives_once_the_destination_is_mended(
    chaos: Chaos, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    settings, bound = (DeliverySettings(), FREE_AGAIN) if chaos.long else (QUICK, QUICK_FREE_AGAIN)
    with open_node({}, tmp_path) as node, Destination(kind).serving() as bad:
        for study in ("1.1", "1.2", "1.3"):
            node.receive(study, study=study)
            node.analyse()
            assert node.report("pacs", build=partial(dicom_report, size=LARGE))
        scu = open_scu(bad.proxy.port, settings)
        sender = open_sender(node, scu, settings)
        held = _tries(node, sender, TRIES if kind is not Kind.WRONG else 3 * settings.permanent_attempts)
        assert max(held) <= bound
        assert not bad.pacs.took
        dead = _dead_letters(caplog)
        assert [line.levelno for line in dead] == [logging.ERROR] * (3 if kind is Kind.WRONG else 0), "an alarm each"
        pauses = [line.levelno for line in caplog.records if line.getMessage().startswith("destination paused")]
        assert pauses == [logging.ERROR] * (kind is not Kind.WRONG), "or one for all: the destination is to blame"
        bad.mend()
        assert node.ledger.upkeep.requeue() == len(dead)
        assert _drained(node, sender) == ["delivered"] * 3
        arrivals = Counter(bad.pacs.took)
        scu.close()
    assert sorted(study for study, _ in arrivals) == ["1.1", "1.2", "1.3"], "the same bytes, however often"
    if kind is not Kind.SILENT:  # it took what it never answered: the same instance came again
        assert set(arrivals.values()) == {1}
    again = sum(arrivals.values()) - 3
    chaos.figure(
        f"sender free again after {max(held):.2f} s at most, {len(dead)} dead letters requeued, "
        f"3 of 3 delivered after the repair, {again} sent twice"
    )


class Hospital:
    """A node with a good destination and one that is bad in each way."""

    def __init__(self, folder: Path, changes: dict[str, Any], stack: ExitStack) -> None:
        self.good = stack.enter_context(Destination(None).serving())
        self.bad = {kind: stack.enter_context(Destination(kind).serving()) for kind in Kind}
        ports = {"good": self.good.proxy.port} | {kind.name.lower(): each.proxy.port for kind, each in self.bad.items()}
        changes["destinations"] = [destination(port, name=name) for name, port in ports.items()]
        self.node = WholeNode(folder, changes)
        stack.callback(self.node.end)
        self.node.start()
        self.seeds = itertools.count(1)

    def report(self) -> tuple[str, float]:
        """Send an image; return its study and the seconds from the response to the report at the good destination."""
        image = radiograph(next(self.seeds))
        assert self.node.send(image) == [0x0000]
        began = time.monotonic()
        wait_until(lambda: image.StudyInstanceUID in self.good.pacs.studies, 120, what="the good one has it")
        return str(image.StudyInstanceUID), time.monotonic() - began

    def states(self, name: str) -> Counter[str]:
        return Counter(
            each["state"] for row in self.node.audit() for each in row["deliveries"] if each["destination"] == name
        )

    def alarms(self, phrase: str, name: str) -> int:
        return sum(
            "ERROR" in line and phrase in line and f"destination={name} " in line for line in self.node.log.splitlines()
        )


@pytest.fixture
def open_hospital(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Hospital]]:
    with ExitStack() as stack:
        yield lambda changes: Hospital(tmp_path, changes, stack)


def test_eight_bad_destinations_disturb_no_other_and_get_all_reports_once_they_are_mended(
    chaos: Chaos, open_hospital: Callable[[dict[str, Any]], Hospital]
) -> None:
    quick = {"send_seconds": 3.0, "connect_seconds": 1.0, "breaker_failures": 2}
    settings = DeliverySettings().model_dump() if chaos.long else quick
    hospital = open_hospital({"delivery": settings})
    number = chaos.amount(short=3, long=100)
    studies, seconds = zip(*[hospital.report() for _ in range(number)], strict=True)
    silenced = [kind.name.lower() for kind in Kind if kind not in (Kind.SLOW, Kind.WRONG)]
    wait_until(lambda: all(hospital.alarms("destination paused", name) for name in silenced), 240)
    wait_until(lambda: hospital.states("wrong")["dead"] == number, 240)
    assert hospital.alarms("given up", "wrong") == number
    assert all(hospital.states(name) == {"waiting": number} for name in silenced)
    paused = {name: hospital.alarms("destination paused", name) for name in silenced}
    for bad in hospital.bad.values():
        bad.mend()
    assert hospital.node.ledger.upkeep.requeue() == number
    mended = time.monotonic()
    hospital.node.run_until_idle(number, timeout=600)
    took = time.monotonic() - mended
    assert all(hospital.states(kind.name.lower()) == {"delivered": number} for kind in Kind)
    doubled = Counter[str]()
    for kind, bad in hospital.bad.items():
        arrivals = Counter(bad.pacs.took)
        assert sorted(study for study, _ in arrivals) == sorted(studies), "the same bytes, however often"
        doubled[kind.name] = sum(arrivals.values()) - number
    assert sum(doubled.values()) == doubled[Kind.SILENT.name], doubled
    assert hospital.good.pacs.studies == list(studies), "in order, once"
    assert set(paused.values()) == {1}, "one alarm for each that was down"
    chaos.figure(
        f"{number} studies, 8 bad destinations: the good one had a report {median(seconds):.2f} s after the response "
        f"to its image (median); after the repair all 8 had all {number} within {took:.0f} s, {number} dead letters "
        f"requeued, {doubled[Kind.SILENT.name]} sent twice to the one that took and never answered"
    )
