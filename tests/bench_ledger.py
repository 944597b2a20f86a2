"""`make bench`: commits a second, one event each, by 1, 8 and 32 clients, and how fast events are sealed behind them.

On PostgreSQL by itself and with a synchronous standby. The clients are threads of a few processes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from scp_node.ledger import create_ledger_engine, upgrade
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.trail.sealer import Sealer, seal_all
from scp_node.ledger.transactions import Transactions
from scp_node.runtime.polling import poll
from tests.servers import Postgres, open_folder
from tests.tools import require

CLIENTS: Final = (1, 8, 32)
PROCESSES: Final = 4
START_SECONDS: Final = 60.0  # most until every client is there
SEALED: Final = 20_000  # events
_meeting: list[Barrier] = []  # of a process: where its clients wait for all others
DETAIL: Final = {"input_sha256": ["0" * 64], "bundle_digest": "sha256:" + "0" * 64, "status": "0x0000"}


def main() -> None:
    """Measure each database and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    arguments = parser.parse_args()
    table = Table("ledger", "clients", "commits/s: median", "range of the runs", "sealed events/s")
    for name, url in _databases():
        rate = _sealing(url)
        for clients in CLIENTS:
            rates = [_commits(url, clients, arguments.seconds) for _ in range(arguments.runs)]
            middle, low, high = statistics.median(rates), min(rates), max(rates)
            table.add_row(name, str(clients), f"{middle:,.0f}", f"{low:,.0f} - {high:,.0f}", f"{rate:,.0f}")
    Console(width=140).print(table)


def _databases() -> Iterator[tuple[str, str]]:
    with open_folder() as own, open_folder() as other, _many_connections(own) as server:
        with server.database() as url:
            yield "PostgreSQL", _upgraded(url)
        with _synchronous_standby(server, other), server.database() as url:
            yield "PostgreSQL with a synchronous standby", _upgraded(url)


def _upgraded(url: str) -> str:
    engine = create_ledger_engine(url)
    upgrade(engine)
    engine.dispose()
    return url


def _many_connections(folder: Path) -> Postgres:
    server = Postgres(folder)
    with (folder / "data" / "postgresql.conf").open("a") as settings:
        settings.write("max_connections = 200\n")
    return server


class _Standby(Postgres):
    """A copy of a running server that follows it."""

    def __init__(self, primary: Postgres, folder: Path) -> None:
        super().__init__(folder)  # makes an empty cluster, which the copy replaces
        shutil.rmtree(folder / "data")
        backup = Path(require("postgres")).resolve().with_name("pg_basebackup")
        at = f"host={primary.host} port={primary.port} user=postgres"
        subprocess.run([backup, "-D", folder / "data", "-R", "-d", at], check=True, cwd=folder, **self.run_as())


@contextmanager
def _synchronous_standby(primary: Postgres, folder: Path) -> Iterator[None]:
    """Have `primary` wait for the disk of a standby at each commit."""
    with _Standby(primary, folder):
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            primary.execute("ALTER SYSTEM RESET synchronous_standby_names")
            primary.execute("SELECT pg_reload_conf()")


def _commits(url: str, clients: int, seconds: float) -> float:
    """Return the commits of all clients in a second, while a sealer works beside them."""
    processes = min(clients, PROCESSES)
    spawning = get_context("spawn")
    all_there = spawning.Barrier(clients)
    over = threading.Event()
    sealing = threading.Thread(target=_seal_until, args=(url, over))
    with ProcessPoolExecutor(processes, spawning, initializer=_meet_at, initargs=(all_there,)) as pool:
        sealing.start()
        client = partial(_clients, url, clients // processes, seconds)
        number = sum(each.result() for each in [pool.submit(client) for _ in range(processes)])
    over.set()
    sealing.join()
    return number / seconds


def _seal_until(url: str, over: threading.Event) -> None:
    engine = create_ledger_engine(url)
    poll(Sealer(Transactions(engine), owner="bench").step, over, name="seal")
    engine.dispose()


def _meet_at(barrier: Barrier) -> None:
    _meeting.append(barrier)


def _clients(url: str, number: int, seconds: float) -> int:
    """Commit one event after the other in so many threads; return how many."""
    with ThreadPoolExecutor(number) as threads:
        return sum(threads.map(lambda _: _client(url, seconds), range(number)))


def _client(url: str, seconds: float) -> int:
    engine = create_ledger_engine(url, patience=60)
    transactions = Transactions(engine)
    with transactions.reading():
        pass  # the connection is open before it begins
    done = 0
    _meeting[0].wait(START_SECONDS)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        _commit(transactions, 1)
        done += 1
    engine.dispose()
    return done


def _commit(transactions: Transactions, events: int) -> None:
    with transactions.writing() as (connection, now):
        for _ in range(events):
            record_event(connection, now, "delivered", study_uid="1.2.3", sop_instance_uid="1.2.3.4", detail=DETAIL)


def _sealing(url: str) -> float:
    """Return how many events are sealed in a second where many wait."""
    engine = create_ledger_engine(url)
    transactions = Transactions(engine)
    for _ in range(SEALED // 1_000):
        _commit(transactions, 1_000)
    began = time.perf_counter()
    seal_all(transactions)
    took = time.perf_counter() - began
    engine.dispose()
    return SEALED / took


if __name__ == "__main__":
    main()
