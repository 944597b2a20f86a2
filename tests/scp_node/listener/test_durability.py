"""The order in which the kernel is asked: file written, synced, renamed, folder synced, and only then Success."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import REPOSITORY

STORE_ONE: Final = """
import sys
from pathlib import Path
from scp_node.listener import Listener
from scp_node.settings import Settings
from scp_node.spool import Spool
from tests.scp_node.listener.datasets import radiograph
from tests.scp_node.listener.peer import Peer

spool = Spool(Path(sys.argv[1]), low_water_bytes=0)
listener = Listener(Settings(listen={"port": 0}), spool, on_received=print, on_rejected=print)
listener.start()
with Peer(listener.address) as peer:
    peer.associate()
    assert peer.store(radiograph()).status == 0
listener.stop(1)
"""
C_STORE_RSP: Final = "\0\0\0\1\2\0\0\0\1\x80"  # Command Field (0000,0100)
SUCCESS: Final = "\0\0\0\x09\2\0\0\0\0\0"  # Status (0000,0900)


@pytest.mark.needs("strace")
def test_success_is_sent_after_file_and_folder_are_synced(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    calls = "trace=write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,sendto"
    traced = ["strace", "-f", "-y", "-xx", "-s", "300", "-e", calls, "-o", str(trace)]
    command = [*traced, sys.executable, "-c", STORE_ONE, str(tmp_path / "spool")]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    steps = [step for line in trace.read_text().splitlines() if (step := what(line, tmp_path))]
    start = steps.index("write the file")
    order = [step for step, _ in groupby(steps[start:])]  # it takes several calls to write it
    assert order == ["write the file", "sync the file", "rename it", "sync its folder", "say Success"]
    assert "sync the spool" in steps[:start]


def what(line: str, tmp_path: Path) -> str:
    """Return what a traced system call does, in words; empty for those of no interest."""
    plain = re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), line)
    if "sendto(" in line:
        return "say Success" if C_STORE_RSP in plain and SUCCESS in plain else ""
    if "rename" in line:
        return "rename it" if str(tmp_path / "spool" / "tmp") in plain else ""
    is_file = re.search(r"(?:write|writev|pwrite64|sync)\(\d+<[^>]*/spool/tmp/[^/>]+\.dcm>", plain)
    if "sync(" not in line:
        return "write the file" if is_file else ""
    if is_file:
        return "sync the file"
    if re.search(r"/spool/\d{4}-\d\d-\d\d>", plain):
        return "sync its folder"
    return "sync the spool" if "/spool>" in plain else ""
