"""What each stage does for one film, counted: calls, system calls and statements, which no other process can slow down.

A count above its row is work that was added; one far below it is a row that no longer guards what was gained. Where a
count changes for a good reason, its row is changed with it.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from sqlalchemy import Connection, event

from scp_node.analysis.analyse import analyse_file
from scp_node.analysis.answers import Prepared
from scp_node.domain import Priority, ReceivedInstance, RejectedInstance, TransferEnded
from scp_node.listener import Listener
from scp_node.report.objects.sr import build_report, warm_up
from scp_node.settings import AnalysisSettings, Settings
from scp_node.spool import Spool
from tests.node import radiograph as phantom
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.listener.datasets import radiograph
from tests.scp_node.listener.peer import Peer
from tests.scp_node.report.reports import radiograph as reported
from tests.scp_node.report.reports import version_of

FILMS: Final = 20

# the most that one film may cost; measured, and a tenth or so above it
RECEIVED: Final = {"calls": 1_950, "posix": 23, "fsync": 2}
ASSOCIATED: Final = {"calls": 6_000, "posix": 24}
READ: Final = {"calls": 7_800}
REPORTED: Final = {"calls": 8_000}
RECORDED: Final = {"statements": 79, "commits": 12}

COMPREHENSIVE_SR: Final = "1.2.840.10008.5.1.4.1.1.88.34"
_GROWING: Final = (
    "study",
    "study_patient",
    "instance",
    "result",
    "report",
    "report_result",
    "delivery",
    "work",
    "event",
)
_WHOLE: Final = re.compile(  # but for an index that has the rows of one passing state alone
    rf"SCAN ({'|'.join(_GROWING)})\b(?! USING (COVERING )?INDEX ix_work_(leased|delayed|ready)\b)"
)
_LOOSE: Final = 0.7  # of a row: a count below that needs a new row


@dataclass
class Counts:
    """What threads did since `counting` began."""

    done: Counter[str] = field(default_factory=Counter)

    def each(self, number: int) -> dict[str, float]:
        """Return the counts, shared among `number` films."""
        return {name: count / number for name, count in self.done.items()}


@contextmanager
def counting(*, own: bool = True) -> Iterator[Counts]:
    """Count the calls of threads that begin within, and of this one if `own`; `posix` are those of the system."""
    counts = Counts()
    done = counts.done

    def note(_frame: FrameType, what: str, called: Any) -> None:
        if what == "call":
            done["calls"] += 1
        elif what == "c_call":
            done["calls"] += 1
            if called.__module__ == "posix":
                done["posix"] += 1
                done[called.__name__] += 1

    threading.setprofile(note)
    sys.setprofile(note if own else None)
    try:
        yield counts
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def compare(counted: Mapping[str, float], rows: dict[str, int]) -> None:
    """Fail where a count is above its row, or so far below that the row guards nothing."""
    for name, most in rows.items():
        assert _LOOSE * most <= counted.get(name, 0) <= most, f"{name}: {counted.get(name, 0):.1f}, the row says {most}"


def stored(folder: Path, images: int, associations: int = 1) -> Counter[str]:
    """Return the counts of a listener that takes `images` over each of so many associations."""
    received: list[ReceivedInstance] = []
    rejected: list[RejectedInstance] = []
    ended: list[TransferEnded] = []
    folder.mkdir()
    with counting(own=False) as counts:
        listener = Listener(
            Settings(listen={"port": 0}),
            Spool(folder, low_water_bytes=0),
            on_received=received.append,
            on_rejected=rejected.append,
            on_ended=ended.append,
        )
        listener.start()
        for number in range(associations):
            with Peer(listener.address) as peer:
                peer.associate()
                for image in range(images):
                    uid = f"1.2.{number + 1}.{image + 1}"
                    assert peer.store(radiograph(SOPInstanceUID=uid), sop_instance=uid).status == 0
                peer.release()
        listener.stop(10)
    assert (len(received), len(rejected), len(ended)) == (images * associations, 0, associations)
    return counts.done


def of_one_more(most: Counter[str], one: Counter[str]) -> dict[str, float]:
    """Return what each of `FILMS` more costs."""
    return {name: (most[name] - one[name]) / FILMS for name in most}


def test_a_film_on_an_open_association(tmp_path: Path) -> None:
    most = stored(tmp_path / "most", FILMS + 1)
    compare(of_one_more(most, stored(tmp_path / "one", 1)), RECEIVED)


def test_an_association_with_one_film(tmp_path: Path) -> None:
    most = stored(tmp_path / "most", 1, FILMS + 1)
    compare(of_one_more(most, stored(tmp_path / "one", 1)), ASSOCIATED)


def test_a_film_that_is_read(tmp_path: Path) -> None:
    files = []
    for seed in range(3):
        files.append(tmp_path / f"{seed}.dcm")
        phantom(seed).save_as(files[-1], enforce_file_format=True)
    rules = AnalysisSettings()
    assert isinstance(analyse_file(files[0], rules), Prepared)  # the first loads what it needs
    with counting() as counts:
        for file in files:
            analyse_file(file, rules)
    compare(counts.each(len(files)), READ)


def test_a_report_that_is_built() -> None:
    warm_up()
    version = version_of(reported())
    build_report(version)
    with counting() as counts:
        build_report(version)
    compare(counts.done, REPORTED)


def take_its_way(node: Node, name: str) -> None:
    """Take a film from its arrival to the delivery of its report."""
    node.receive(name, study=f"1.2.{name}", priority=Priority.STAT)
    assert node.analyse() == 1
    assert node.report("pacs")
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task
    assert node.ledger.deliveries.delivered(task, status=0, sop_class_uid=COMPREHENSIVE_SR)


def test_a_film_in_the_ledger(tmp_path: Path) -> None:
    done: Counter[str] = Counter()
    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        node = Node(engine)
        take_its_way(node, "1")
        event.listen(engine, "before_cursor_execute", lambda *_: done.update(["statements"]))
        event.listen(engine, "commit", lambda *_: done.update(["commits"]))
        for number in range(FILMS):
            take_its_way(node, str(number + 2))
    compare({name: count / FILMS for name, count in done.items()}, RECORDED)


def test_no_statement_on_the_way_of_a_film_reads_a_table_that_grows(tmp_path: Path) -> None:
    plans: dict[str, str] = {}

    def explain(connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            plan = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans[statement] = "; ".join(row[-1] for row in plan)

    with ledger_engine(tmp_path / "ledger.sqlite3") as engine:
        event.listen(engine, "before_cursor_execute", explain)
        take_its_way(Node(engine), "1")
    assert len(plans) > 20
    read_whole = {statement: plan for statement, plan in plans.items() if _WHOLE.search(plan)}
    assert read_whole == {}
