"""The heartbeat: a role says that it lives only as long as all its loops go on."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Final

import pytest
from sqlalchemy.exc import OperationalError

from scp_node.runtime.heartbeat import STARTING, WORKING, Heartbeat, Progress
from scp_node.runtime.patience import waiting
from scp_node.runtime.polling import UnfitProcessError, poll
from tests.waiting import wait_until

LONG: Final = 60.0
SHORT: Final = 0.05


class Line:
    """The supervisor's end of the line."""

    def __init__(self) -> None:
        self.ours, self.its = os.pipe()
        os.set_blocking(self.ours, False)
        self.heard = b""

    def listen(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            self.heard += os.read(self.ours, 1000)
        return self.heard

    def is_silent(self, beats: int = 3) -> bool:
        """Return whether nothing comes in the time of some beats."""
        self.listen()
        before, until = self.heard, threading.Event()
        until.wait(beats * 0.5)
        return self.listen() == before


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    os.close(line.ours)
    os.close(line.its)


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_role_that_starts_says_so_and_then_that_it_works(line: Line, stop: threading.Event) -> None:
    heart = Heartbeat()
    heart.loop("analyse", LONG)
    heart.start(stop, line.its)
    wait_until(lambda: line.listen() == STARTING)
    heart.working()
    assert line.listen().endswith(WORKING), "at once: a role that hangs a moment later is known to have started"


def test_a_role_with_a_loop_that_hangs_is_silent_and_logs_where_it_hangs(
    line: Line, stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    heart = Heartbeat()
    heart.loop("report", LONG)
    hung = heart.loop("analyse", SHORT)
    heart.working()
    wait_until(lambda: hung.is_late)
    heart.start(stop, line.its)
    assert line.is_silent()
    assert line.heard == b""
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("loop hangs loop=analyse place=")
    assert "is_silent" in record.getMessage()


def test_a_loop_that_goes_on_after_all_is_heard_again(line: Line, stop: threading.Event) -> None:
    heart = Heartbeat()
    loop = heart.loop("analyse", SHORT)
    heart.working()
    wait_until(lambda: loop.is_late)
    heart.start(stop, line.its)
    assert line.is_silent()
    with loop.stage(LONG):
        wait_until(line.listen)


def test_a_role_that_ends_is_silent(line: Line, stop: threading.Event) -> None:
    heart = Heartbeat()
    heart.start(stop, line.its)
    wait_until(line.listen)
    stop.set()
    assert line.is_silent()


def test_a_loop_that_was_made_long_before_the_role_works_is_not_late_when_it_begins() -> None:
    heart = Heartbeat()
    loop = heart.loop("analyse", SHORT)
    wait_until(lambda: loop.is_late)
    assert heart.late() == []
    heart.working()
    assert heart.late() == []
    wait_until(lambda: heart.late() == [loop])


def test_a_stage_has_a_time_of_its_own_and_the_loop_goes_on_with_its_usual_one() -> None:
    loop = Progress("analyse", LONG)
    with loop.stage(0):
        assert loop.is_late
    assert not loop.is_late


def test_a_loop_renews_its_promise_before_each_step() -> None:
    stop = threading.Event()
    renewed: list[bool] = []
    steps: list[int] = []

    def step() -> bool:
        steps.append(len(renewed))
        if len(steps) == 3:
            stop.set()
        if len(steps) == 2:
            raise RuntimeError("a step that fails")
        return True

    assert poll(waiting(step, stop, name="test", renew=lambda: renewed.append(True)), stop, name="test")
    assert steps == [1, 2, 3]


def test_a_loop_that_waits_for_a_database_that_is_away_is_not_late() -> None:
    stop = threading.Event()
    progress = Progress("analyse", LONG)
    seen: list[bool] = []

    def step() -> bool:
        seen.append(progress.is_late)
        if len(seen) < 3:
            progress.renew(0)  # so long did the database not answer
            raise OperationalError("SELECT 1", {}, Exception("connection refused"))
        return False

    assert not waiting(step, stop, name="analyse", renew=progress.renew)()
    assert seen == [False, False, False]


def test_a_role_that_waits_for_its_database_is_heard_however_long_that_takes(line: Line, stop: threading.Event) -> None:
    heart = Heartbeat()
    heart.still_starting(0)
    heart.start(stop, line.its)
    assert line.is_silent()
    heart.still_starting(LONG)
    wait_until(line.listen)


def test_a_process_that_is_unfit_stops_all_its_loops(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()

    def step() -> bool:
        raise UnfitProcessError("machine fault: RuntimeError")

    assert not poll(step, stop, name="analyse")
    assert stop.is_set()
    assert "process is unfit, ends step=analyse reason='machine fault: RuntimeError'" in caplog.text


def test_what_is_to_be_done_once_a_role_works_is_done_once() -> None:
    done: list[str] = []
    heart = Heartbeat(at_work=lambda: done.append("settled"))
    heart.still_starting(LONG)
    assert done == []
    heart.working()
    assert done == ["settled"]
