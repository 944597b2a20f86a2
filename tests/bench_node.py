"""`python -m tests.bench_node`: a whole node, films in by DCMTK's storescu and reports out to its storescp.

Films a second, the processor time of each role for one film, and how long one film takes where nothing else waits; by
the number of associations and of cores. `--set inference.device=cuda` and the like try other settings; `--films` takes
films of a folder in place of phantoms, for which the gate of pixels is off.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
from pydicom import dcmread
from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table

from tests.bench import machine
from tests.node import Node, destination, radiograph
from tests.servers import StoreScp
from tests.tools import require
from tests.waiting import let_pass, wait_until

PATIENCE: Final = 600.0  # seconds for all reports
SETTLED: Final = 1.0  # seconds without a new object: all of them are there
EARLY: Final = {"TCP_NODELAY": "1"}  # DCMTK waits 40 ms for an acknowledgement without it


def main() -> None:
    """Run every combination and print one table."""
    os.environ.update(EARLY)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--associations", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--cores", type=int, nargs="*", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--films", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", dest="changes")
    arguments = parser.parse_args()
    changes = _changes(arguments.changes, is_phantom=arguments.films is None)
    table = Table("what", "films/s", "processor time of one film, ms", title=f"{arguments.runs} runs, {machine()}")
    with tempfile.TemporaryDirectory(prefix="scp-node-bench-") as name:
        place = Path(name)
        for pictures in ("none", "all"):
            for cores in arguments.cores:
                report = {**changes.get("report", {}), "overlay": pictures}
                each = {**changes, "report": report}
                runs = [_through(place, arguments, each, 8, cores) for _ in range(arguments.runs)]
                table.add_row(f"8 associations, pictures: {pictures}, {cores} cores", *_told(runs))
        for number in arguments.associations:
            each = {**changes, "report": {**changes.get("report", {}), "overlay": "none"}}
            runs = [_through(place, arguments, each, number, os.cpu_count() or 1) for _ in range(arguments.runs)]
            table.add_row(f"{number} associations, no pictures", *_told(runs))
        alone = _alone(place, arguments, changes)
        table.add_row("from the last C-STORE response to the report, one film at a time", *alone)
    Console(width=160).print(table)


Run = tuple[float, dict[str, float]]  # films a second, and milliseconds of one film by role


def _changes(given: Sequence[str], *, is_phantom: bool) -> dict[str, Any]:
    changes: dict[str, Any] = {"log": {"level": "WARNING"}, "analysis": {"decoder_processes": os.cpu_count() or 1}}
    if not is_phantom:
        changes["analysis"]["pixel_gate"] = "refuse"
    for each in given:
        name, value = each.split("=", 1)
        section, key = name.split(".", 1)
        changes.setdefault(section, {})[key] = int(value) if value.isdigit() else value
    return changes


def _told(runs: Sequence[Run]) -> tuple[str, str]:
    rates = [rate for rate, _ in runs]
    roles = sorted({role for _, costs in runs for role in costs})
    costs = {role: statistics.median(each.get(role, 0.0) for _, each in runs) for role in roles}
    told = ", ".join(f"{role} {cost:.1f}" for role, cost in costs.items())
    rate = f"{statistics.median(rates):.1f} ({min(rates):.1f} - {max(rates):.1f})"
    return rate, f"{sum(costs.values()):.0f}: {told}"


def _films(folder: Path, number: int, source: Path | None) -> list[Path]:
    """Write films of studies of their own."""
    folder.mkdir()
    found = sorted(source.glob("**/*.dcm")) if source else []
    files = []
    for index in range(number):
        film = dcmread(found[index % len(found)]) if found else radiograph(index % 16, opacity=bool(index % 2))
        film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID = (generate_uid() for _ in range(3))
        film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
        files.append(folder / f"{index:05d}.dcm")
        film.save_as(files[-1])
    return files


@contextmanager
def _node(folder: Path, changes: dict[str, Any], cores: int) -> Iterator[tuple[Node, StoreScp]]:
    """Run a node on so many cores that reports to a storescp."""
    (folder / "pacs").mkdir(parents=True)
    with StoreScp(folder / "pacs", "--fork") as pacs:
        node = Node(folder, {**changes, "destinations": [destination(pacs.port, ae_title=pacs.ae_title)]})
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, set(sorted(everywhere)[:cores]))  # the node's processes inherit it
        try:
            node.start()
        finally:
            os.sched_setaffinity(0, everywhere)
        try:
            yield node, pacs
            assert not [line for line in node.log.splitlines() if " ERROR " in line], node.log
        finally:
            node.end()


def _through(place: Path, arguments: argparse.Namespace, changes: dict[str, Any], associations: int, cores: int) -> Run:
    """Send all films over so many associations, and wait for their reports."""
    folder = Path(tempfile.mkdtemp(dir=place))
    files = _films(folder / "films", arguments.images, arguments.films)
    with _node(folder, changes, cores) as (node, pacs):
        _send(node, _films(folder / "first", 2, arguments.films))
        wait_until(lambda: _reports(pacs) == 2, PATIENCE)
        let_pass(SETTLED)
        before, began = _processor_ms(node), time.monotonic()
        senders = [_sender(node, files[number::associations]) for number in range(associations)]
        assert not any(sender.wait() for sender in senders)
        wait_until(lambda: _reports(pacs) == len(files) + 2, PATIENCE)
        seconds = time.monotonic() - began
        _settle(pacs)
        after = _processor_ms(node)
    return len(files) / seconds, {role: (after[role] - before.get(role, 0)) / len(files) for role in after}


def _alone(place: Path, arguments: argparse.Namespace, changes: dict[str, Any]) -> tuple[str, str]:
    """Send one film at a time, each when the one before is reported."""
    folder = Path(tempfile.mkdtemp(dir=place))
    times = []
    with _node(folder, changes, os.cpu_count() or 1) as (node, pacs):
        for number, file in enumerate(_films(folder / "films", 10 * arguments.runs + 2, arguments.films)):
            _send(node, [file])
            answered = time.monotonic()
            wait_until(lambda wanted=number + 1: _reports(pacs) == wanted, PATIENCE)  # type: ignore[misc]
            times.append(1000 * (time.monotonic() - answered))
            _settle(pacs)
    times = sorted(times[2:])
    return f"p50 {statistics.median(times):.0f} ms", f"p95 {times[int(0.95 * (len(times) - 1))]:.0f} ms"


def _sender(node: Node, files: Sequence[Path]) -> subprocess.Popen[bytes]:
    listen, called = node.settings.listen, node.settings.node.ae_title
    options = ["-R", "-xy", "-aec", called, listen.host, str(listen.port)]
    return subprocess.Popen([require("storescu"), *options, *map(str, files)], stderr=subprocess.DEVNULL)


def _send(node: Node, files: Sequence[Path]) -> None:
    assert _sender(node, files).wait() == 0


def _reports(pacs: StoreScp) -> int:
    return len(list(pacs.received.glob("SR*")))


def _settle(pacs: StoreScp) -> None:
    """Wait until no object has come for a while: pictures follow the reports."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < SETTLED:
        now = len(list(pacs.received.iterdir()))
        if now != count:
            count, since = now, time.monotonic()
        time.sleep(0.05)


def _processor_ms(node: Node) -> dict[str, float]:
    """Return the processor time of each role so far, milliseconds; decoders are a role of their own here."""
    assert node.process
    parent = psutil.Process(node.process.pid)
    spent: dict[str, float] = {}
    for process in (parent, *parent.children(recursive=True)):
        command = process.cmdline()
        role = command[command.index("--role") + 1] if "--role" in command else "decoder"
        role = "supervisor" if process == parent else role
        times = process.cpu_times()
        spent[role] = spent.get(role, 0.0) + 1000 * (times.user + times.system)
    return spent


if __name__ == "__main__":
    main()
