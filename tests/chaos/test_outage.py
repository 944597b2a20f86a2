"""A PACS is away for a day, in short for three hours, by a clock that the test moves; connections are real."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any, Final

import pytest

from scp_node.delivery import SendResult, StorageScu
from scp_node.domain import Priority
from scp_node.loops.deliver import Sender
from scp_node.settings import DeliverySettings
from tests.chaos.conftest import Chaos
from tests.chaos.kit.destinations import Destination, Kind, dicom_report, open_node, open_scu, open_sender
from tests.scp_node.ledger_node import FakeClock, Node

SETTINGS: Final = DeliverySettings()


class Watched:
    """A destination, and when it was tried by the test's clock."""

    def __init__(self, scu: StorageScu, clock: FakeClock) -> None:
        self._scu = scu
        self._clock = clock
        self.tried: list[datetime] = []

    def send(self, file: bytes) -> SendResult:
        self.tried.append(self._clock())
        return self._scu.send(file)

    def open(self, *, seconds: float) -> str:
        return self._scu.open(seconds=seconds)

    def echo(self) -> bool:
        self.tried.append(self._clock())
        return self._scu.echo()

    def close_if_idle(self) -> None:
        self._scu.close_if_idle()

    def close(self) -> None:
        self._scu.close()


def _arrive(node: Node, study: str, priority: Priority, *destinations: str) -> None:
    node.receive(study, study=study, priority=priority)
    assert node.analyse() == 1, "analysed at once"
    assert node.report(*destinations, build=dicom_report), "reported at once"


def _drain(sender: Sender) -> int:
    return sum(1 for _ in iter(sender.step, False))


def _tick(node: Node, until: datetime) -> None:
    """Move the clock to the next probe, or to `until`; by a second where nothing is paused."""
    pause = node.paused_for("pacs") or 1.0
    node.clock.now = min(until, node.clock() + timedelta(seconds=pause))


def test_a_pacs_that_was_away_for_a_day_gets_each_report_once_urgent_ones_first_then_the_oldest(
    chaos: Chaos, database: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    number, away_for = chaos.amount(short=40, long=2_000), timedelta(hours=chaos.amount(short=3, long=24))
    with (
        open_node(database, tmp_path) as node,
        Destination(Kind.REFUSED).serving() as away,
        Destination(None).serving() as other,
    ):
        watched = Watched(open_scu(away.proxy.port, SETTINGS), node.clock)
        nearby = open_scu(other.proxy.port, SETTINGS)
        sender = open_sender(node, watched, SETTINGS, randomness=chaos.random)
        neighbour = open_sender(node, nearby, SETTINGS, name="other")
        left_at, back_at = node.clock(), node.clock() + away_for
        arrivals: list[tuple[Priority, int, str]] = []
        for index, at in enumerate(sorted(chaos.random.uniform(0, away_for.total_seconds()) for _ in range(number))):
            while node.clock() < left_at + timedelta(seconds=at):
                sender.step()
                _tick(node, left_at + timedelta(seconds=at))
            study, priority = f"1.2.{index}", chaos.random.choices([Priority.ROUTINE, Priority.STAT], [9, 1])[0]
            _arrive(node, study, priority, "pacs", "other")
            arrivals.append((priority, index, study))
            assert _drain(neighbour) == 1, "the other destination has it at once"
        while node.clock() < back_at:
            sender.step()
            _tick(node, back_at)

        assert not away.pacs.took
        assert [study for _, _, study in arrivals] == other.pacs.studies
        assert node.rows("SELECT max(attempt) FROM work WHERE queue = 'analyse'") == [(1,)]
        pauses = [
            (later - sooner).total_seconds() for sooner, later in zip(watched.tried, watched.tried[1:], strict=False)
        ]
        steady = pauses[10:]
        assert max(pauses) <= SETTINGS.probe_seconds
        assert min(steady) >= SETTINGS.probe_seconds / 2
        assert len({round(pause) for pause in steady}) > 20, "spread over their range"

        away.mend()
        while not away.pacs.took:
            sender.step()
            _tick(node, back_at + away_for)
        first = (node.clock() - back_at).total_seconds()
        _drain(sender)
        assert away.pacs.studies == [study for _, _, study in sorted(arrivals)], "each once, in this order"
        assert first <= SETTINGS.probe_seconds
        assert {each["state"] for row in node.audit() for each in row["deliveries"]} == {"delivered"}
        watched.close()
        nearby.close()
    kinds = Counter(record.levelname for record in caplog.records if record.getMessage().startswith("destination"))
    assert kinds == {"ERROR": 1, "WARNING": 1}, "one alarm, and one line that it is over"
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR and "given up" in r.getMessage()]
    urgent = sum(priority is Priority.STAT for priority, _, _ in arrivals)
    hours, tries = away_for.total_seconds() / 3600, len(watched.tried) - number
    chaos.figure(
        f"{hours:.0f} h away, {number} studies ({urgent} urgent): {len(away.pacs.took)} delivered once each, urgent "
        f"first, then the oldest, from {first:.0f} s after its return; {tries} tries and probes meanwhile, "
        f"{min(steady):.0f} to {max(steady):.0f} s apart (mean {mean(steady):.0f} s); the other destination had each "
        "at once"
    )
