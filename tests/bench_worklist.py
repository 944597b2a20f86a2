"""`python -m tests.bench_worklist`: the list of studies with a million rows, on SQLite and on PostgreSQL.

`make bench` runs it with fewer. Each figure is the 95th percentile over the runs of one query as the page asks it, with
the transaction around it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, insert, text, update

from scp_node.domain import Reason, Verdict
from scp_node.ledger import DailyQuery, Key, Ledger, StudyState, WorklistQuery
from scp_node.ledger.database.schema import daily, projection, worklist
from scp_node.ledger.search import search_text
from scp_node.report.source.description import describe
from tests import servers
from tests.scp_node.ledger.projecting import header
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.tools import find

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
APART: Final = timedelta(seconds=60)
BLOCK: Final = 10_000
STUDY: Final = "1.2.826.0.1.3680043.9."
SYLLABLES: Final = (
    "ka",
    "mi",
    "ra",
    "to",
    "no",
    "shi",
    "be",
    "lo",
    "ven",
    "der",
    "mar",
    "son",
    "el",
    "ur",
    "qui",
    "zy",
)
FAMILIES: Final = ("山田", "佐藤", "Иванов", "Петрова", "Müller", "Smith", "Nguyễn", "García")
SENDERS: Final = ("CR_ROOM1", "CR_ROOM2", "DX_ER", "BEDSIDE", "CHILDREN")
PROJECTED: Final = 1_000  # studies that the projector makes

LONGEST: Final = 10.0  # seconds for the runs of one query

Figures = dict[str, tuple[float, float]]
Queries = dict[str, Callable[[], object]]


def _row(chance: random.Random, number: int) -> dict[str, Any]:
    at = START + number * APART
    family = chance.choice(FAMILIES) if chance.random() < 0.3 else "".join(chance.choices(SYLLABLES, k=3))
    given = "".join(chance.choices(SYLLABLES, k=2))
    probability = chance.random() ** 3
    has_verdict = chance.random() < 0.9
    verdict = Verdict.PRESENT if probability > 0.4 else Verdict.NOT_DETECTED
    state = StudyState.DELIVERED if has_verdict else StudyState.NOT_ANALYSED
    if chance.random() < 0.0003:
        state = StudyState.GIVEN_UP
    identity, accession = f"P{chance.randrange(10**7):07}", f"A{number:08}"
    return {
        "id": number + 1,
        "study_uid": f"{STUDY}{number}",
        "patient_key": f"{number:064}",
        "patient_id": identity,
        "patient_name": f"{family}, {given}",
        "accession": accession,
        "sex": chance.choice("MF"),
        "age": f"{chance.randrange(18, 95):03}Y",
        "views": chance.choice(("PA", "AP")),
        "calling_ae": chance.choice(SENDERS),
        "images": 1,
        "interrupted": False,
        "newest_at": at,
        "received_at": at,
        "state": state.value,
        "reason": None if has_verdict else Reason.VIEW.value,
        "detail": "",
        "verdict": verdict.value if has_verdict else None,
        "probability": probability if has_verdict else None,
        "threshold": 0.4,
        "grey_zone": None,
        "bundle": f"model-1.{number * 3 // 1_000_000}",
        "bundle_digest": "sha256:" + "a" * 64,
        "report_version": 1,
        "delivery_state": "delivered",
        "waiting_since": None,
        "reported_at": at,
        "delivered_at": at,
        "committed_at": None,
        "feedback": "agree" if chance.random() < 0.01 else None,
        "search": search_text((family, given, identity, accession)),
    }


def days(number: int) -> list[dict[str, Any]]:
    """Return the counts of `number` days up to the end of 2025."""
    chance = random.Random(2)
    table = []
    for day in range(number):
        for sender in SENDERS:
            for view in ("PA", "AP", "LL"):
                counts = {
                    "outcome": {"present": 12, "not-detected": 60},
                    "probability": {str(chance.randrange(1000)): 1 for _ in range(60)},
                    "input mean": {str(chance.randrange(100)): 2 for _ in range(40)},
                    "films": {"mean": 72},
                    "sum": {"mean": 30_000_000, "probability": 30_000_000},
                    "squares": {"mean": 14_000_000},
                    "seconds": {str(chance.randrange(20, 50)): 2 for _ in range(20)},
                }
                key = {"day": date(2025, 12, 31) - timedelta(days=day), "calling_ae": sender, "view": view}
                table.append({**key, "bundle": "model-1.2", "counts": counts})
    return table


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


def fill(engine: Engine, number: int) -> None:
    """Write the list and the days: a block of rows, and then copies of it that are later, with numbers of their own."""
    chance, block = random.Random(1), min(number, BLOCK)
    with engine.begin() as connection:
        connection.execute(insert(worklist), [_row(chance, each) for each in range(block)])
        connection.execute(insert(daily), days(2 * 365))
        connection.execute(update(projection).values(phase="follow"))
    for start in range(block, number, block):
        with engine.begin() as connection:
            connection.execute(text(_copies(engine.dialect.name)), {"start": start, "block": block})
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))  # as autovacuum does


def _copies(dialect: str) -> str:
    """Return the statement that copies the first block."""
    number = "(id - 1 + :start)"
    if dialect == "sqlite":
        digits = f"printf('%08d', {number})"
        seconds = "(60 * :start) || ' seconds'"
        later = "strftime('%Y-%m-%d %H:%M:%f000', {}, '+' || " + seconds + ")"
    else:
        digits = f"lpad({number}::text, 8, '0')"
        later = "{} + 60 * :start * interval '1 second'"
    other = {
        "id": "id + :start",
        "study_uid": f"'{STUDY}' || {number}",
        "accession": f"'A' || {digits}",
        "search": f"replace(search, lower(accession), 'a' || {digits})",
        "bundle": f"'model-1.' || ({number} * 3 / 1000000)",
        **{name: later.format(name) for name in ("newest_at", "received_at", "reported_at", "delivered_at")},
    }
    names = [column.name for column in worklist.c]
    values = ", ".join(other.get(name, f'"{name}"') for name in names)
    columns = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO worklist ({columns}) SELECT {values} FROM worklist WHERE id <= :block"  # noqa: S608 - ours


def p95(seconds: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return sorted(seconds)[min(len(seconds) - 1, round(0.95 * len(seconds)))]


def measured(engine: Engine, number: int, runs: int) -> Figures:
    """Return the milliseconds of each query: p95 by the clock, and the median of this process's processor time."""
    node = Node(engine)
    node.clock.now = datetime.now(UTC)
    figures = {}
    for name, ask in queries(node.ledger, number).items():
        seconds, processor = [], []
        ask()
        for _ in range(runs):
            began, used = time.perf_counter(), time.process_time()
            ask()
            seconds.append(time.perf_counter() - began)
            processor.append(time.process_time() - used)
            if sum(seconds) > LONGEST:
                break
        figures[name] = (1000 * p95(seconds), 1000 * statistics.median(processor))
    return figures


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
    with tempfile.TemporaryDirectory(prefix="scp-node-bench-") as folder:
        if only != "postgresql":
            with ledger_engine(Path(folder) / "list.sqlite3") as engine:
                yield "sqlite", _figures(engine, number, runs)
            with ledger_engine(Path(folder) / "few.sqlite3") as engine:
                yield "sqlite", projected(engine)
    if only != "sqlite" and find("postgres"):
        with servers.open_folder() as place, servers.Postgres(place) as server:
            with server.database() as url, ledger_engine(url) as engine:
                yield "postgresql", _figures(engine, number, runs)
            with server.database() as url, ledger_engine(url) as engine:
                yield "postgresql", projected(engine)


def _figures(engine: Engine, number: int, runs: int) -> Figures:
    began = time.perf_counter()
    fill(engine, number)
    filled = time.perf_counter() - began
    return {"(filled, ms)": (1000 * filled, 0), **measured(engine, number, runs)}


if __name__ == "__main__":
    main()
