"""The web page's process, as its supervisor sees it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scp_node.opening import upgrade_database
from scp_node.roles.web import run_web
from scp_node.runtime import heartbeat
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.settings import Settings
from scp_node.web import server
from tests.servers import free_port
from tests.waiting import wait_until


class Clock:
    """The monotonic clock, with hours that the test lets pass."""

    ahead = 0.0  # seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every heartbeat."""
    clock = Clock()
    monkeypatch.setattr(heartbeat, "time", clock)
    return clock


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings.model_validate({"node": {"data_dir": str(tmp_path)}, "web": {"port": free_port()}})
    upgrade_database(made)
    return made


@contextmanager
def role(settings: Settings) -> Iterator[Heartbeat]:
    """Run the role in a thread, and give its heartbeat."""
    stop, heart = threading.Event(), Heartbeat()
    thread = threading.Thread(target=run_web, args=(settings, stop, heart), kwargs={"renew": threading.Event()})
    thread.start()
    try:
        yield heart
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_it_lives_as_long_as_its_loops(settings: Settings, clock: Clock) -> None:
    with role(settings) as heart:
        wait_until(lambda: heart._working, 60, what="the page is served")
        clock.ahead = 3_600
        assert {each.name for each in heart.late()} >= {"web"}
        wait_until(lambda: not heart.late(), 20, what="each loop has said that it lives")


def test_a_port_that_is_taken_for_hours_does_not_end_it(
    settings: Settings, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PAUSE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", settings.web.port)), role(settings) as heart:
        wait_until((tmp_path / "web-admin-password").exists, 60)
        clock.ahead = 3_600
        wait_until(lambda: not heart.late(), 20, what="a further try")
        assert not heart._working
