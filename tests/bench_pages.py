"""`python -m tests.bench_pages`: the web page before a ledger with a million studies, on SQLite and on PostgreSQL.

`make bench` runs it with fewer. Each figure is the 95th percentile over the runs: of a query as the page asks it, with
the transaction around it, and of a whole page, from the request to its HTML without a socket. Each run asks for the
page of another study.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from scp_node.domain import Verdict
from scp_node.ledger import DailyQuery, Key, Ledger, PersonRole, StudyState, WorklistQuery
from scp_node.report.source.description import describe
from scp_node.web.filters import key_text
from tests import servers
from tests.full_ledger import APART, READABLE, START, STUDY, SYLLABLES, fill
from tests.scp_node.ledger.projecting import header
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.web.site import page_before
from tests.tools import find

PROJECTED: Final = 1_000  # studies that the projector makes
LONGEST: Final = 10.0  # seconds for the runs of one query

Figures = dict[str, tuple[float, float]]
Queries = dict[str, Callable[[], object]]


def queries(ledger: Ledger, number: int) -> Queries:
    """Return what the pages ask."""
    listed = ledger.worklist
    every, middle = WorklistQuery(), Key(newest_at=START + number // 2 * APART, id=number // 2)
    newest = listed.page(every).rows[3].key
    day = START + number * 9 // 10 * APART
    positive = WorklistQuery(verdict=Verdict.PRESENT)
    of_day = WorklistQuery(verdict=Verdict.PRESENT, calling_ae="DX_ER", since=day, until=day + timedelta(days=1))
    given_up = WorklistQuery(state=StudyState.GIVEN_UP)
    two = WorklistQuery(state=StudyState.GIVEN_UP, calling_ae="DX_ER", verdict=Verdict.PRESENT)
    never = WorklistQuery(state=StudyState.CONFLICT, verdict=Verdict.PRESENT)
    apart = WorklistQuery(bundle="model-1.0", verdict=Verdict.PRESENT, calling_ae="DX_ER")  # the oldest third

    def sought(words: str) -> WorklistQuery:
        return WorklistQuery(search=words)

    return {
        "first page": lambda: listed.page(every),
        "page deep inside, by key": lambda: listed.page(every, older_than=middle),
        "the page before it": lambda: listed.page(every, newer_than=middle),
        "verdict": lambda: listed.page(positive),
        "verdict, sender, one day": lambda: listed.page(of_day),
        "given up": lambda: listed.page(given_up),
        "given up, sender, verdict": lambda: listed.page(two),
        "state that nobody has, verdict": lambda: listed.page(never),
        "former model, verdict, sender": lambda: listed.page(apart),
        "search a name and a number": lambda: listed.page(sought(f"katomi a{number // 7:08}")),
        "search an accession number": lambda: listed.page(sought(f"A{number // 3:08}")),
        "search 山田": lambda: listed.page(sought("山田")),
        "search 3 common letters": lambda: listed.page(sought("son")),
        "search 1 letter": lambda: listed.page(sought("k")),
        "search what nobody has": lambda: listed.page(sought("xyzzy")),
        "search a common name, given up": lambda: listed.page(WorklistQuery(search="smith", state=StudyState.GIVEN_UP)),
        "search a study UID": lambda: listed.page(sought(f"{STUDY}{number // 2}")),
        "count of all, capped": lambda: listed.count(every),
        "count of a verdict, capped": lambda: listed.count(positive),
        "count of a rare search": lambda: listed.count(sought(f"a{number // 5:08}")),
        "count of a common search": lambda: listed.count(sought("smith")),
        "3 new": lambda: listed.newer(every, newest),
        "new of a filter": lambda: listed.newer(two, newest),
        "menus": listed.menus,
        "one study": lambda: listed.study(f"{STUDY}{number // 2}"),
        "90 days": lambda: ledger.daily.counts(DailyQuery(first=date(2025, 10, 3), last=date(2025, 12, 31))),
    }


def p95(seconds: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return sorted(seconds)[min(len(seconds) - 1, round(0.95 * len(seconds)))]


def measured(engine: Engine, number: int, runs: int, folder: Path) -> Figures:
    """Return the milliseconds of each query and page: p95 by the clock, and the median of this process's own time."""
    node = Node(engine)
    node.clock.now = datetime.now(UTC)
    figures = {name: _times(ask, runs) for name, ask in queries(node.ledger, number).items()}
    chance = random.Random(3)
    with page_before(node, folder) as page:
        page.log_in(PersonRole.ADMIN)
        gc.collect()
        gc.freeze()  # as the role does
        for name, path in pages(number, chance).items():

            def ask(path: Callable[[], str] = path) -> None:
                answer = page.get(path())
                assert answer.status_code in {HTTPStatus.OK, HTTPStatus.NO_CONTENT}, answer.text

            figures[f"page: {name}"] = _times(ask, runs)
    return figures


def pages(number: int, chance: random.Random) -> dict[str, Callable[[], str]]:
    """Return the addresses of pages, each made anew when it is asked for."""
    return {
        "list": lambda: "/studies",
        "list, deep inside": lambda: f"/studies?older={key_text(_key(chance.randrange(number)))}",
        "list, filtered": lambda: "/studies?verdict=present&ae=DX_ER&since=2025-03-01&until=2025-03-02",
        "list, search": lambda: f"/studies?q={''.join(chance.choices(SYLLABLES, k=3))}",
        "list, is there anything new": lambda: f"/studies.new?newer={key_text(_key(number - 1))}",
        "study": lambda: f"/studies/{STUDY}{chance.randrange(number // READABLE) * READABLE}",
        "model, 28 days": lambda: "/model?first=2025-12-04&last=2025-12-31&bundle=model-1.2",
        "model, 90 days": lambda: "/model?first=2025-10-03&last=2025-12-31&bundle=model-1.2",
        "quality": lambda: "/quality",
        "system": lambda: "/system",
    }


def _key(number: int) -> Key:
    return Key(newest_at=START + number * APART, id=number + 1)


def _times(ask: Callable[[], object], runs: int) -> tuple[float, float]:
    seconds, processor = [], []
    ask()
    for _ in range(runs):
        began, used = time.perf_counter(), time.process_time()
        ask()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
        if sum(seconds) > LONGEST:
            break
    return 1000 * p95(seconds), 1000 * statistics.median(processor)


def projected(engine: Engine) -> Figures:
    """Return how many studies a second the projector makes, and the milliseconds until a new one is in the list."""
    node = Node(engine)
    for start in range(0, PROJECTED, 500):
        names = [str(number) for number in range(start, start + 500)]
        received = [node.instance(name, study=f"1.{name}", header=header("Doe^Jane")) for name in names]
        node.ledger.intake.register(received)
    following = node.ledger.projector(describe, owner="bench")
    began, used = time.perf_counter(), time.process_time()
    while following.step():
        pass
    rate = (PROJECTED / (time.perf_counter() - began), PROJECTED / (time.process_time() - used))
    waits, processor = [], []
    for number in range(50):
        node.receive(f"new{number}", study=f"2.{number}", header=header("Roe^Jim"))
        began, used = time.perf_counter(), time.process_time()
        while following.step():
            pass
        waits.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    one = (1000 * p95(waits), 1000 * statistics.median(processor))
    return {"projector, studies a second": rate, "projector, one new study": one}


def main() -> None:
    """Fill a list on each database and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    arguments = parser.parse_args()
    table = Table("query", "database", "p95 ms", "processor, median ms", title=f"{arguments.studies:,} studies")
    for name, figures in _databases(arguments.studies, arguments.runs, arguments.only):
        for query, value in figures.items():
            table.add_row(query, name, *(f"{each:,.1f}" for each in value))
    Console().print(table)


def _databases(number: int, runs: int, only: str | None) -> Iterator[tuple[str, Figures]]:
    with tempfile.TemporaryDirectory(prefix="scp-node-bench-") as name:
        folder = Path(name)
        if only != "postgresql":
            with ledger_engine(folder / "list.sqlite3") as engine:
                yield "sqlite", _figures(engine, number, runs, folder / "sqlite")
            (folder / "list.sqlite3").unlink()
            with ledger_engine(folder / "few.sqlite3") as engine:
                yield "sqlite", projected(engine)
        if only != "sqlite" and find("postgres"):
            with servers.open_folder() as place, servers.Postgres(place) as server:
                with server.database() as url, ledger_engine(url) as engine:
                    yield "postgresql", _figures(engine, number, runs, folder / "postgresql")
                with server.database() as url, ledger_engine(url) as engine:
                    yield "postgresql", projected(engine)


def _figures(engine: Engine, number: int, runs: int, folder: Path) -> Figures:
    began = time.perf_counter()
    fill(engine, number, folder)
    filled = time.perf_counter() - began
    return {"(filled, ms)": (1000 * filled, 0), **measured(engine, number, runs, folder)}


if __name__ == "__main__":
    main()
