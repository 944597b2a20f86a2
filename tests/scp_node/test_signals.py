"""A signal ends a process also when it comes while the last one is being noted: Ctrl-C reaches every process twice."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

SIGNAL_WHILE_THE_LOCK_IS_HELD: Final = """
import os, signal
from scp_node.app import _set_on

stop = _set_on(signal.SIGTERM, signal.SIGINT)
with stop._cond:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
assert stop.wait(10)
"""


def test_a_signal_that_comes_while_another_one_is_noted_ends_the_process() -> None:
    subprocess.run([sys.executable, "-c", SIGNAL_WHILE_THE_LOCK_IS_HELD], check=True, timeout=60)
