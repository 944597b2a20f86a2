"""`python -m tests.bench_idle`: what a node that has nothing to do takes: seconds to start, memory, processor.

The node runs as `scp-node serve` does on the defaults, but for its ports and its folder. Memory is the proportional set
size (PSS): a page that several processes share counts as its part in each, so that the sum is the node's.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from scp_node.settings import Settings
from scp_node.settings_file import as_toml
from tests.node import BUNDLE
from tests.servers import free_port
from tests.waiting import let_pass, wait_until

READY: Final = ("analysing", "web page listens")  # what the log says once the slow roles have started
SETTLED: Final = 30.0  # seconds from the start until the memory is read
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One process at one time."""

    role: str
    pss: float  # MiB
    cpu: float  # seconds since it began
    wakes: int  # times that one of its threads has waited for something


def role_of(command: list[str]) -> str:
    """Return what a process of the node is, by its command line."""
    if "--role" in command:
        return command[command.index("--role") + 1]
    return "decoder" if any("decoders.program" in word for word in command) else "supervisor"


def processes_below(pid: int) -> list[int]:
    """Return a process and all below it, parents first."""
    below = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return [pid, *(deeper for child in below for deeper in processes_below(child))]


def read(pid: int) -> Reading:
    """Return what the kernel says of a process."""
    folder = Path(f"/proc/{pid}")
    command = (folder / "cmdline").read_text().split("\0")
    [pss] = [line for line in (folder / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:")]
    times = (folder / "stat").read_text().rpartition(")")[2].split()  # from the third field on: proc_pid_stat(5)
    waits = [
        int(line.split()[1])
        for thread in (folder / "task").iterdir()
        for line in (thread / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    ]
    return Reading(
        role=role_of(command),
        pss=int(pss.split()[1]) / 1024,
        cpu=(int(times[11]) + int(times[12])) / TICKS,
        wakes=sum(waits),
    )


@contextmanager
def idle_node(folder: Path) -> Iterator[int]:
    """Start a node in `folder`, and yield the number of its process once its slow roles have started."""
    changes = {
        "node": {"data_dir": str(folder / "var")},
        "listen": {"port": free_port(), "low_water_mib": 0},
        "inference": {"bundle": str(BUNDLE)},
        "web": {"port": free_port()},
    }
    Settings.model_validate(changes)
    config, log = folder / "scp_node.toml", folder / "node.log"
    config.write_text(as_toml(changes))
    command = [sys.executable, "-m", "scp_node", "serve", "--config", str(config)]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stderr=written, start_new_session=True)
    try:
        wait_until(lambda: all(phrase in log.read_text() for phrase in READY), 120, what="node is ready")
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def read_twice(pid: int, seconds: float) -> list[tuple[Reading, Reading]]:
    """Return the processes of a node before and after `seconds`."""
    before = {each: read(each) for each in processes_below(pid)}
    let_pass(seconds)
    return [(before[each], read(each)) for each in before]


def measure(folder: Path, seconds: float) -> tuple[float, list[tuple[Reading, Reading]]]:
    """Start a node in `folder`; return the seconds until it is ready, and its processes before and after `seconds`."""
    began = time.monotonic()
    with idle_node(folder) as pid:
        ready = time.monotonic() - began
        let_pass(max(0.0, SETTLED - ready))
        return ready, read_twice(pid, seconds)


def main() -> None:
    """Measure several starts and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    starts, rows = [], []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory(prefix="scp-node-bench-") as name:
            ready, processes = measure(Path(name), arguments.seconds)
        starts.append(ready)
        rows.append(processes)
    table = Table(
        "process", "PSS, MiB", "processor, % of a core", "waits a second", title=f"{arguments.runs} runs, idle"
    )
    roles = [before.role for before, _ in rows[0]]
    for place, role in enumerate([*roles, "all"]):
        picked = [run if role == "all" else run[place : place + 1] for run in rows]
        pss = statistics.median(sum(after.pss for _, after in run) for run in picked)
        cpu = statistics.median(sum(after.cpu - before.cpu for before, after in run) for run in picked)
        wakes = statistics.median(sum(after.wakes - before.wakes for before, after in run) for run in picked)
        table.add_row(role, f"{pss:.0f}", f"{100 * cpu / arguments.seconds:.2f}", f"{wakes / arguments.seconds:.1f}")
    console = Console()
    console.print(table)
    low, middle, high = min(starts), statistics.median(starts), max(starts)
    console.print(f"from the start until it analyses and shows its page: {middle:.1f} s ({low:.1f} - {high:.1f})")


if __name__ == "__main__":
    main()
