"""`python -m tests.bench_growth`: what the ledger takes for one film behind many that wait, and beside many results.

The median over the runs of each step, in milliseconds, and the statements of one film: on SQLite in processor time, and
where it is installed on PostgreSQL, by the clock. Claims and look-ups must not grow with either number.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, event

from scp_node.domain import Finding, Priority
from scp_node.ledger import Analysed, AuditQuery, AuditRow
from tests import servers
from tests.bench import machine
from tests.full_ledger import START, STUDY, fill
from tests.scp_node.ledger_node import MODEL, Node, ledger_engine
from tests.tools import find

BLOCK: Final = 1_000  # instances that are registered at once
FILM: Final = "2.25."
SR: Final = "1.2.840.10008.5.1.4.1.1.88.34"

T = TypeVar("T")


class Steps:
    """How long each run of each step took, in milliseconds, and the statements of one film on its way."""

    def __init__(self, engine: Engine) -> None:
        """Measure what is done by `engine`."""
        self.times: dict[str, list[float]] = {}
        self.statements = 0
        self.of_a_film = 0.0  # statements
        # of SQLite, which works in this process, whatever else the machine does
        self._clock = time.process_time if engine.dialect.name == "sqlite" else time.perf_counter
        event.listen(engine, "before_cursor_execute", self._count)

    def timed(self, step: str, work: Callable[[], T]) -> T:
        """Do the work of a step, and return what it returns."""
        began = self._clock()
        result = work()
        self.times.setdefault(step, []).append(1000 * (self._clock() - began))
        return result

    def told(self) -> Iterator[tuple[str, str]]:
        """Yield each step with what it took."""
        for step, times in self.times.items():
            yield step, f"{statistics.median(times):.1f}"
        yield "statements of one film", f"{self.of_a_film:.0f}"

    def _count(self, *_: object) -> None:
        self.statements += 1


def main() -> None:
    """Print one table for each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, nargs="*", default=[1, 100, 10_000, 100_000])
    parser.add_argument("--results", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=30)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scp-node-bench-")))
        place = stack.enter_context(servers.open_folder())
        postgres = stack.enter_context(servers.Postgres(place)) if find("postgres") else None
        for name in ("sqlite", *(["postgresql"] if postgres else [])):
            table = Table("step", title=f"ms of one film on {name}, {arguments.runs} runs, {machine()}")
            rows: dict[str, list[str]] = {}
            for what, numbers, prepare in (
                ("wait", arguments.waiting, _wait),
                ("results", arguments.results, _results),
            ):
                for number in numbers:
                    with ExitStack() as each:
                        place = Path(each.enter_context(tempfile.TemporaryDirectory(dir=folder)))
                        url = each.enter_context(postgres.database()) if postgres and name != "sqlite" else None
                        engine = each.enter_context(ledger_engine(url or place / "ledger.sqlite3"))
                        steps = prepare(engine, number, place, arguments.runs)
                    earlier = [""] * (len(table.columns) - 1)
                    table.add_column(f"{number:,} {what}", justify="right")
                    for step, told in steps.told():
                        rows.setdefault(step, list(earlier)).append(told)
            for step, cells in rows.items():
                table.add_row(step, *cells)
            Console(width=200).print(table)


def _wait(engine: Engine, number: int, _folder: Path, runs: int) -> Steps:
    """Take one film from its arrival to its delivery, an urgent one, while `number` others wait to be analysed."""
    node = Node(engine)
    for first in range(0, number, BLOCK):
        many = range(first, min(first + BLOCK, number))
        node.ledger.intake.register([node.instance(f"w{each}", study=f"1.2.{each}") for each in many])
    return _way(node, runs)


def _results(engine: Engine, number: int, folder: Path, runs: int) -> Steps:
    """Take one film from its arrival to its delivery, and look studies up, beside the results of `number` studies."""
    fill(engine, number, folder)
    node = Node(engine)
    node.clock.now = START
    steps = _way(node, runs)
    for run in range(runs):
        query = AuditQuery(study_uid=f"{STUDY}{run * number // runs}")
        steps.timed("audit of one study", partial(_read, node, query))
    return steps


def _read(node: Node, query: AuditQuery) -> list[AuditRow]:
    return list(node.ledger.audit.instances(query))


def _way(node: Node, runs: int) -> Steps:
    steps, ledger = Steps(node.engine), node.ledger
    finding = Finding(probability=0.9, logit=2.0, threshold=0.5)
    for run in range(runs):
        film = node.instance(f"urgent{run}", study=f"{FILM}{run}", priority=Priority.STAT)
        steps.timed("register", partial(ledger.intake.register, [film]))
        [task] = steps.timed("claim the analysis", partial(ledger.analyses.claim, owner="w", limit=1))
        assert task.study_uid == film.study_uid
        done = [Analysed(task=task, outcome=finding, started_at=node.clock())]
        steps.timed("record the result", partial(ledger.analyses.record, done, MODEL))
        assert steps.timed("sweep, claim and save the report", partial(node.report, "bench"))
        sent = steps.timed("claim the delivery", partial(ledger.deliveries.claim, "bench", owner="s"))
        assert sent
        delivered = partial(ledger.deliveries.delivered, sent, status=0, sop_class_uid=SR)
        steps.timed("conclude the delivery", partial(delivered, check_after=None))
    steps.of_a_film = steps.statements / runs
    return steps


if __name__ == "__main__":
    main()
