"""A signal ends a process also when it comes while the last one is being noted: Ctrl-C reaches every process twice."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

SIGNAL_WHILE_THE_LOCK_IS_HELD: Final = """
import os, signal
from scp_node.runtime.signals import set_on

stop = set_on(signal.SIGTERM, signal.SIGINT)
with stop._cond:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
assert stop.wait(10)
"""


def test_a_signal_that_comes_while_another_one_is_noted_ends_the_process() -> None:
    subprocess.run([sys.executable, "-c", SIGNAL_WHILE_THE_LOCK_IS_HELD], check=True, timeout=60)


BEFORE_THE_SUPERVISOR: Final = """
import os, signal, sys
from scp_node.runtime.signals import signals_wait
from scp_node.runtime.supervision import Plan, become_supervisor

role = [sys.executable, "-c", "import signal; signal.pause()"]
with signals_wait():
    os.kill(os.getpid(), signal.SIGTERM)
    become_supervisor(Plan(commands={"a": role}, silent_seconds=30.0, longest_pause=1.0, log={"level": "INFO"}))
"""


def test_a_signal_that_comes_while_the_node_is_checked_ends_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_THE_SUPERVISOR], capture_output=True, text=True, check=True, timeout=60
    )
    assert "node stopped" in done.stderr
