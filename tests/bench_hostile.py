"""`make bench-hostile`: every attack of `scp-node torture` on this node and on others, and many changed conversations.

All servers listen on loopback. The tables of docs/hostile.md are what this prints: nobody writes them by hand.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from scp_node.torture.attacks import ATTACKS, Titles
from scp_node.torture.rows import NOTHING, Row, Verdict, attacks_named, number_of, rows_of, target_of
from scp_node.torture.swarm import Bounds, Endings, Swarm
from tests.chaos.kit.process_tree import Process, is_running, processes
from tests.node import Node
from tests.servers import Orthanc, Server, StoreScp, echoes
from tests.tools import PACKAGES, find

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "hostile.md"
CALLING: Final = "TORTURE"
KNOWN: Final = ("127.0.0.1", *(f"127.0.{number_of(attack)}.2" for attack in ATTACKS))
PEERS: Final = [{"ae_title": CALLING, "address": address} for address in KNOWN]
RECOVERY_SECONDS: Final = 15.0  # an SCP that needs longer is started again for the next attack
WARM_UP: Final = 500  # conversations before the base is measured
PATIENCE_SECONDS: Final = 15.0  # for a conversation whose line stays open; the time-outs of that node are 1 to 2 s

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_MIB: Final = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scp:
    """An SCP that serves."""

    port: int
    pid: int
    called: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An SCP that can be started, in a folder of its own."""

    name: str
    tool: str  # that it needs; empty: nothing
    start: Callable[[Path], AbstractContextManager[Scp]]


@dataclass(slots=True)
class Found:
    """What came of one SCP."""

    name: str
    rows: list[Row] = field(default_factory=list)
    cores: dict[str, float] = field(default_factory=dict)  # of a processor, by attack


class PynetdicomStoreScp(Server):
    """pynetdicom's own application storescp."""

    ae_title = "STORESCP"

    def command(self) -> Sequence[str | Path]:
        kept = self.folder / "received"
        options = ["-aet", self.ae_title, "-ba", self.host, "-od", str(kept), "-q"]
        return [sys.executable, "-m", "pynetdicom", "storescp", str(self.port), *options]

    def is_ready(self) -> bool:
        return echoes(self.port, self.ae_title)


@contextmanager
def this_node(folder: Path, **listen: float) -> Iterator[Scp]:
    """Run the role listener, which knows the first attacker of each attack and not the second."""
    node = Node(folder, {"peers": PEERS, "listen": listen, "log": {"level": "WARNING"}}).start("listener")
    try:
        yield Scp(port=node.settings.listen.port, pid=_listener(node).pid, called=node.settings.node.ae_title)
    finally:
        node.end()


@contextmanager
def another(make: Callable[[Path], StoreScp | Orthanc | PynetdicomStoreScp], folder: Path) -> Iterator[Scp]:
    """Run a server of the tests."""
    server = make(folder)
    server.start()
    try:
        yield Scp(port=server.port, pid=server.pid, called=server.ae_title)
    finally:
        server.kill()


SUBJECTS: Final = (
    Subject(name="this node", tool="", start=this_node),
    Subject(name="pynetdicom storescp", tool="echoscu", start=partial(another, PynetdicomStoreScp)),
    Subject(name="Orthanc", tool="Orthanc", start=partial(another, Orthanc)),
    Subject(name="DCMTK storescp --fork", tool="storescp", start=partial(another, lambda f: StoreScp(f, "--fork"))),
)


def main() -> None:
    """Run every part, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each attack")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=10_000, help="changed conversations with this node")
    parser.add_argument("--only", action="append", default=[], help="an attack by its name")
    arguments = parser.parse_args()
    bounds = Bounds(seconds=arguments.seconds, most=1_000_000, seed=arguments.seed, recovery_seconds=RECOVERY_SECONDS)
    parts = [f"Seed {bounds.seed}, {bounds.seconds:g} s for each attack, {os.cpu_count()} shared cores."]
    with tempfile.TemporaryDirectory(prefix="scp-node-hostile-", ignore_cleanup_errors=True) as name:
        present = [each for each in SUBJECTS if not each.tool or find(each.tool)]
        found = [_attacked(each, Path(name), bounds, arguments.only) for each in present]
        parts += [f"{each.name}: {_absence(each)}." for each in SUBJECTS if each not in present]
        parts += [_compared(found), "What this node did:", _in_detail(found[0])]
        parts += ["Changed conversations with this node:", *_fuzzed(Path(name), arguments.conversations, bounds.seed)]
    _write(parts)


def _absence(subject: Subject) -> str:
    return f"left out, {subject.tool} is not installed (Debian package {PACKAGES[subject.tool]})"


def _attacked(subject: Subject, folder: Path, bounds: Bounds, only: Sequence[str]) -> Found:
    """Attack an SCP; one that is down is started again for what is left."""
    found, left = Found(subject.name), attacks_named(only)
    for start in range(len(ATTACKS)):
        place = folder / f"{subject.name.split()[0]}-{subject.name.split()[-1]}-{start}"
        place.mkdir()
        with subject.start(place) as scp:
            cpu, at = _cpu_seconds(scp.pid), time.monotonic()
            for row in rows_of(target_of("127.0.0.1", scp.port, Titles(CALLING, scp.called)), bounds, left):
                spent, now = _cpu_seconds(scp.pid), time.monotonic()
                if row.attack != NOTHING or start == 0:
                    found.rows.append(row)
                    found.cores[row.attack] = (spent - cpu) / (now - at)
                    print(subject.name, row, f"{found.cores[row.attack]:.2f} cores", flush=True)  # noqa: T201
                cpu, at = spent, now
        tried = {row.attack for row in found.rows}
        left = [each for each in left if each.name not in tried]
        if not left:
            break
    return found


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended; 0 for one that is gone."""
    if not is_running(pid):
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _compared(found: Sequence[Found]) -> str:
    lines = ["| attack | each connection sends | at once |" + "".join(f" {each.name} |" for each in found)]
    lines.append("|---|---|---|" + "---|" * len(found))
    for row in found[0].rows:
        cells = [next((_cell(other) for other in each.rows if other.attack == row.attack), "") for each in found]
        lines.append(f"| `{row.attack}` | {row.asked} | {row.at_once} |" + "".join(f" {cell} |" for cell in cells))
    return "\n".join(lines)


def _cell(row: Row) -> str:
    verdict = str(row.verdict) if row.verdict is Verdict.HELD else f"**{row.verdict}**"
    echoes = row.echoes
    return f"{verdict}, {echoes.answered}/{echoes.asked}, {echoes.p50_ms:.0f}, {echoes.p99_ms:.0f}"


def _in_detail(found: Found) -> str:
    lines = ["| attack | what it did | longest, s | processor, cores |", "|---|---|---|---|"]
    lines += [
        f"| `{row.attack}` | {row.did} | {row.longest_seconds:.1f} | {found.cores[row.attack]:.2f} |"
        for row in found.rows
    ]
    return "\n".join(lines)


def _fuzzed(folder: Path, number: int, seed: int) -> Iterator[str]:
    """Yield what changed conversations leave behind: with our side closed, and with the line left open."""
    [closed, opened] = attacks_named(["mutated", "mutated-open"])
    short = {"acse_timeout_seconds": 1, "dimse_timeout_seconds": 2, "network_timeout_seconds": 2}
    for attack, count, shortened in ((closed, number, {}), (opened, number // 10, short)):
        listen = {**shortened, "failed_connections_per_minute": 0}  # all of them are to be heard
        place = folder / attack.name
        place.mkdir()
        node = Node(place, {"peers": PEERS, "listen": listen, "log": {"level": "WARNING"}}).start("listener")
        try:
            patient = replace(attack, seconds=PATIENCE_SECONDS, pause=0.0)
            titles = Titles(CALLING, node.settings.node.ae_title)
            target = target_of("127.0.0.1", node.settings.listen.port, titles).of_attack(number_of(attack))
            listener = _listener(node)
            Swarm(patient, target, Bounds(seconds=600, most=WARM_UP, seed=seed + 1)).run()
            before = _settled(listener)
            ended = Swarm(patient, target, Bounds(seconds=3_600, most=count, seed=seed)).run()
            lines = (_told(attack.name, ended), _state_of(node, listener), _change(before, _settled(listener)))
            yield "; ".join(lines)
        finally:
            node.end()


def _told(name: str, ended: Endings) -> str:
    told = ", ".join(f"{number:,} {ending}" for ending, number in ended.number.items())
    return f"* `{name}`, {ended.opened:,}: {told}; the longest took {ended.longest:.1f} s"


def _state_of(node: Node, listener: Process) -> str:
    lives = "lives" if is_running(listener.pid) and node.is_listening() else "IS GONE"
    return f"the process {lives}; {node.log.count('Traceback')} tracebacks in its log"


def _change(before: Sequence[float], after: Sequence[float]) -> str:
    names = ("threads", "descriptors", "MiB resident")
    return ", ".join(f"{what} {old:g} -> {new:g}" for what, old, new in zip(names, before, after, strict=True))


def _listener(node: Node) -> Process:
    assert node.process is not None
    [listener] = [each for each in processes(node.process.pid) if each.role == "listener"]
    return listener


def _settled(process: Process) -> tuple[float, ...]:
    """Return threads, descriptors and MiB after a while in which associations that are over are collected."""
    time.sleep(5)
    threads = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    return threads, len(process.descriptors()), round(pages * _PAGE_MIB)


def _write(parts: Sequence[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    made = "\n\n".join(parts)
    begin, end = "<!-- made by make bench-hostile -->\n", "\n<!-- end -->"
    written = re.sub(f"(?s)({re.escape(begin)}).*({re.escape(end)})", lambda at: f"{at[1]}\n{made}\n{at[2]}", page)
    PAGE.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
