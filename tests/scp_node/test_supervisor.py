"""The supervisor: a role that dies is started again, one that refuses stops the node, and none outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from scp_node.supervisor import REFUSED, Supervisor
from tests.waiting import wait_until

ROLE = """
import os, sys, threading
from pathlib import Path
from scp_node.supervisor import stop_when_orphaned
stop = threading.Event()
stop_when_orphaned(stop)
Path(sys.argv[1], str(os.getpid())).touch()
stop.wait()
Path(sys.argv[1], f"{os.getpid()}.stopped").touch()
"""


def role(folder: Path) -> list[str]:
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


def test_a_role_that_refuses_to_start_stops_the_node_and_the_other_roles(tmp_path: Path) -> None:
    refusing = [sys.executable, "-c", f"raise SystemExit({REFUSED})"]
    assert Supervisor({"a": role(tmp_path), "b": refusing}).run(threading.Event()) == REFUSED


def test_roles_end_when_their_node_is_killed(tmp_path: Path) -> None:
    program = (
        "import threading\nfrom scp_node.supervisor import Supervisor\n"
        f"Supervisor({{'a': {role(tmp_path)!r}}}).run(threading.Event())"
    )
    node = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: pids(tmp_path))
    node.kill()
    node.wait(10)
    wait_until(lambda: list(tmp_path.glob("*.stopped")))
