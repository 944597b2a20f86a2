"""The supervisor: a role that dies or hangs is started again, one that refuses stops the node, none outlives it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from scp_node.runtime.supervisor import REFUSED, Supervisor
from tests.waiting import let_pass, wait_until

ROLE: Final = """
import os, sys, threading
from pathlib import Path
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.runtime.supervisor import stop_when_orphaned
stop = threading.Event()
stop_when_orphaned(stop)
heart = Heartbeat()
heart.start(stop)
heart.working()
Path(sys.argv[1], str(os.getpid())).touch()
stop.wait()
Path(sys.argv[1], f"{os.getpid()}.stopped").touch()
"""


def role(folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    return [sys.executable, "-c", ROLE, str(folder)]


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


def test_a_role_that_is_killed_is_started_again(tmp_path: Path) -> None:
    stop = threading.Event()
    node = threading.Thread(target=Supervisor({"a": role(tmp_path)}).run, args=(stop,))
    node.start()
    [first] = wait_until(lambda: pids(tmp_path))
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(pids(tmp_path)) == 2)
    stop.set()
    node.join(10)
    assert not node.is_alive()


def test_the_end_of_a_role_and_of_the_node_wait_for_no_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp_node.runtime.supervisor._LOOK", 3_600.0)
    with supervised({"a": role(tmp_path)}):
        [first] = wait_until(lambda: pids(tmp_path))
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(pids(tmp_path)) == 2)


HUNG_UP: Final = "import os, sys, time\nos.close(0)\nopen(f'{sys.argv[1]}/{os.getpid()}', 'w').close()\ntime.sleep(60)"


def test_a_role_that_has_hung_up_is_looked_at_and_not_waited_for_in_a_circle(tmp_path: Path) -> None:
    with supervised({"a": [sys.executable, "-c", HUNG_UP, str(tmp_path)]}):
        [first] = wait_until(lambda: pids(tmp_path))
        began = time.process_time()
        let_pass(1)
        assert time.process_time() - began < 0.5
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(pids(tmp_path)) == 2)


@contextmanager
def supervised(commands: dict[str, list[str]], *, silent_seconds: float = 1.5) -> Iterator[None]:
    stop = threading.Event()
    node = threading.Thread(target=Supervisor(commands, silent_seconds=silent_seconds).run, args=(stop,))
    node.start()
    try:
        yield
    finally:
        stop.set()
        node.join(40)
    assert not node.is_alive()


def test_a_role_that_is_stopped_is_killed_and_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with supervised({"a": role(tmp_path), "b": role(tmp_path / "b")}):
        [first] = wait_until(lambda: pids(tmp_path))
        os.kill(first, signal.SIGSTOP)
        wait_until(lambda: len(pids(tmp_path)) == 2)
    assert len(pids(tmp_path / "b")) == 1, "a role that is well is left alone"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors[0].startswith("role hangs, killed role=a silent_seconds=1.")
    assert errors[1].startswith("role ended, will be restarted role=a status=-9")
    assert len(errors) == 2


HANGING: Final = ROLE.replace("stop.wait()", "import ctypes\nctypes.PyDLL(None).sleep(1000)")


def test_a_role_whose_library_keeps_the_interpreter_to_itself_is_killed(tmp_path: Path) -> None:
    with supervised({"a": [sys.executable, "-c", HANGING, str(tmp_path)]}):
        wait_until(lambda: len(pids(tmp_path)) == 2, 20)


SILENT: Final = ROLE.replace("heart.start(stop)", "")


def test_a_role_that_takes_long_to_start_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with supervised(
        {"a": [sys.executable, "-c", SILENT, str(tmp_path)], "b": role(tmp_path / "b")}, silent_seconds=0.5
    ):
        wait_until(lambda: pids(tmp_path) and pids(tmp_path / "b"))
        os.kill(pids(tmp_path / "b")[0], signal.SIGSTOP)
        wait_until(lambda: len(pids(tmp_path / "b")) == 2)  # this long it was silent, too
    assert len(pids(tmp_path)) == 1
    assert "role=a" not in caplog.text


def test_no_role_is_killed_because_the_supervisor_itself_was_stopped(tmp_path: Path) -> None:
    program = (
        "import logging, sys, threading\nfrom scp_node.runtime.supervisor import Supervisor\nlogging.basicConfig()\n"
        f"Supervisor({{'a': {role(tmp_path)!r}}}, silent_seconds=2).run(threading.Event())"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as node:
        [first] = wait_until(lambda: pids(tmp_path))
        for process in (node.pid, first):
            os.kill(process, signal.SIGSTOP)
        threading.Event().wait(4)  # the whole machine was suspended
        os.kill(node.pid, signal.SIGCONT)
        threading.Event().wait(0.5)  # the node wakes up first
        os.kill(first, signal.SIGCONT)
        threading.Event().wait(1)
        assert pids(tmp_path) == [first]
        node.kill()
        assert node.stderr is not None
        assert node.stderr.read() == b""


REFUSING_LATER: Final = ROLE.replace("stop.wait()", f"import time; time.sleep(1.2); raise SystemExit({REFUSED})")


def test_a_role_that_has_worked_and_then_finds_its_machine_broken_does_not_stop_the_node(tmp_path: Path) -> None:
    with supervised({"a": [sys.executable, "-c", REFUSING_LATER, str(tmp_path)]}):
        wait_until(lambda: len(pids(tmp_path)) == 2, 20)


def test_a_role_that_dies_again_and_again_waits_no_longer_than_it_is_told(tmp_path: Path) -> None:
    stop = threading.Event()
    dying = ["sh", "-c", f"touch {tmp_path}/$$; exit 1"]
    node = threading.Thread(target=Supervisor({"a": dying}, longest_pause=0.05).run, args=(stop,))
    node.start()
    try:
        wait_until(lambda: len(pids(tmp_path)) >= 9, 20)  # pauses that go on doubling would take 51 s
    finally:
        stop.set()
        node.join(10)


def test_a_role_that_refuses_to_start_stops_the_node_and_the_other_roles(tmp_path: Path) -> None:
    refusing = [sys.executable, "-c", f"raise SystemExit({REFUSED})"]
    assert Supervisor({"a": role(tmp_path), "b": refusing}).run(threading.Event()) == REFUSED


@pytest.mark.parametrize("unheard_seconds", [0, 1])
def test_roles_end_when_their_node_is_killed(tmp_path: Path, unheard_seconds: float) -> None:
    program = (
        "import threading\nfrom scp_node.runtime.supervisor import Supervisor\n"
        f"Supervisor({{'a': {role(tmp_path)!r}}}).run(threading.Event())"
    )
    node = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: pids(tmp_path))
    if unheard_seconds:  # the node dies with heartbeats that it has not read
        node.send_signal(signal.SIGSTOP)
        threading.Event().wait(unheard_seconds)
    node.kill()
    node.wait(10)
    wait_until(lambda: list(tmp_path.glob("*.stopped")))
