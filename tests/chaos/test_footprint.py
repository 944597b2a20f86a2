"""What waits, and what came and went, costs neither memory nor time: a node runs for years."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, event

from scp_node.delivery.association import VERIFICATION, RequestedAssociation
from scp_node.domain import utc_now
from scp_node.ledger.database.schema import delivery, instance, report, work
from scp_node.ledger.queue import WorkState
from scp_node.ledger.queue_kinds import ANALYSE, Queue, deliver_queue
from scp_node.opening import SPOOL_FOLDER
from tests.chaos.conftest import Chaos
from tests.chaos.kit.process_tree import Process, processes
from tests.node import Node, destination, radiograph
from tests.scp_node.ledger_node import Node as LedgerNode
from tests.scp_node.ledger_node import ledger_engine
from tests.scp_node.listener.peer import ASSOCIATE_AC, Peer
from tests.servers import Postgres
from tests.waiting import wait_until

FLAT: Final = 1.10  # "within 10 %"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
_PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") // 1024
_CHUNK: Final = 5_000
_PART: Final = 1 << 16  # bytes of a dataset in one PDU
_TURNS: Final = 60
_NOT_THE_NODES: Final = 1_000_000  # ids that the node itself does not come to


@pytest.fixture
def other_engine(engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A second empty ledger database of the same kind, on the same disk or server."""
    if engine.dialect.name == "sqlite":
        with ledger_engine(tmp_path / "other.sqlite3") as other:
            yield other
    else:
        server: Postgres = request.getfixturevalue("running_postgres")
        with server.database(request.getfixturevalue("ledger_template")) as url, ledger_engine(url) as other:
            yield other


def test_a_claim_does_the_same_work_however_many_rows_wait(engine: Engine, other_engine: Engine, chaos: Chaos) -> None:
    """Counted in the database's own units; the time is only told, and taken in turns."""
    few, many = LedgerNode(engine), LedgerNode(other_engine)
    rows = chaos.amount(short=10_000, long=100_000)
    _add_analyses(few.engine, range(1_000))
    _add_analyses(many.engine, range(rows), state=WorkState.DONE)
    _add_analyses(many.engine, range(rows, 2 * rows))
    turns = [(_milliseconds_of_a_claim(few), _milliseconds_of_a_claim(many)) for _ in range(_TURNS)]
    few_cost, many_cost = _cost_of_two_claims(few), _cost_of_two_claims(many)
    few_ms, many_ms = (statistics.median(each) for each in zip(*turns, strict=True))
    ratio = statistics.median(longer / shorter for shorter, longer in turns)
    chaos.figure(
        f"claim of 16 with 1,000 rows waiting, and with {rows:,} behind as many that are done, {_TURNS} times in "
        f"turns: {few_ms:.2f} and {many_ms:.2f} ms, ratio {ratio:.2f} (medians); work done by the database for one by "
        f"priority and one by age, in its own units: {few_cost} and {many_cost}, ratio {many_cost / few_cost:.2f}"
    )
    deeper = 2 * 2 * 16 if engine.dialect.name == "postgresql" else 0  # an index of more rows may have one level more
    assert many_cost <= few_cost * FLAT + deeper


def test_rows_that_wait_take_no_memory_of_the_node(chaos: Chaos, database: dict[str, Any], tmp_path: Path) -> None:
    many = chaos.amount(short=10_000, long=100_000)
    sizes = []
    for name, rows in (("few", 0), ("many", many)):
        (tmp_path / name).mkdir()
        url = {"database": {"url": f"sqlite:///{tmp_path / name / 'ledger.sqlite3'}", **database}}
        node = Node(tmp_path / name, {"destinations": [destination(1, "away")], **url})  # nobody listens there
        try:
            with ledger_engine(node.settings.database_url) as engine:
                _add_deliveries(engine, rows)
            before = _ended(node)  # PostgreSQL's database is the same for both
            node.start()
            node.send(*[radiograph(seed) for seed in range(before, before + 5)])
            wait_until(partial(_has_ended, node, before + 5), 120, what="five images are analysed")
            sizes.append({process.role: _resident_mib(process) for process in _roles(node)})
        finally:
            node.end()
    few, more = sizes
    told = ", ".join(f"{role} {few[role]:.0f} and {more[role]:.0f}" for role in sorted(few))
    chaos.figure(f"MiB resident with nothing and with {many:,} deliveries waiting: {told}")
    assert all(more[role] <= few[role] * FLAT for role in few), told


def test_associations_that_came_and_went_leave_nothing_behind(chaos: Chaos, start_node: Callable[..., Node]) -> None:
    number = chaos.amount(short=500, long=10_000)
    node = start_node()
    [listener] = [process for process in _roles(node) if process.role == "listener"]
    _echoes(node, 200)  # what is allocated once
    before = _settled(listener)
    began = time.monotonic()
    _echoes(node, number)
    rate = number / (time.monotonic() - began)
    threads, descriptors, mib = _settled(listener)
    chaos.figure(
        f"{number:,} associations opened and released ({rate:.0f}/s): threads {before[0]} -> {threads}, descriptors "
        f"{before[1]} -> {descriptors}, MiB resident {before[2]:.1f} -> {mib:.1f}"
    )
    assert (threads, descriptors) == before[:2]
    assert mib <= before[2] * FLAT


def test_datasets_that_are_on_their_way_take_no_memory(chaos: Chaos, start_node: Callable[..., Node]) -> None:
    number = chaos.amount(short=16, long=64)
    size = chaos.amount(short=24, long=256) << 20
    node = start_node(listen={"max_instance_mib": 512})
    [listener] = [process for process in _roles(node) if process.role == "listener"]
    spool = node.settings.node.data_dir / SPOOL_FOLDER / "tmp"
    _echoes(node, 200)  # what is allocated once
    threads, descriptors, before = _settled(listener)
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(("127.0.0.1", node.settings.listen.port))) for _ in range(number)]
        for peer in peers:
            assert peer.associate(calling="CR1", called=node.settings.node.ae_title)[0] == ASSOCIATE_AC
            peer.send_store_command()
        for _ in range(size // _PART):
            for peer in peers:
                peer.send_pdv(1, bytes(_PART), is_last=False)
        wait_until(lambda: sum(file.stat().st_size for file in spool.iterdir()) >= number * size, 60)
        during = _resident_mib(listener)
    wait_until(lambda: not list(spool.iterdir()), 15, what="nothing is left of what was cut off")
    after = _settled(listener)
    chaos.figure(
        f"{number} datasets of {size >> 20} MiB on their way at the same time: listener {before:.0f} MiB before, "
        f"{during:.0f} then, {after[2]:.0f} when they were cut off"
    )
    assert during <= before + 8 * number
    assert after[:2] == (threads, descriptors)
    assert after[2] <= before + 16 + number / 2


def _milliseconds_of_a_claim(node: LedgerNode) -> float:
    began = time.perf_counter()
    assert len(node.ledger.analyses.claim(owner="w", limit=16)) == 16
    return 1000 * (time.perf_counter() - began)


def _cost_of_two_claims(node: LedgerNode) -> int:
    """Return the work of two claims of 16 images, by priority and by age (SQLite: steps; PostgreSQL: pages)."""
    return _steps(node) if node.engine.dialect.name == "sqlite" else _pages(node)


def _claim_both_ways(node: LedgerNode) -> None:
    for oldest_first in (False, True):
        assert len(node.ledger.analyses.claim(owner="w", limit=16, oldest_first=oldest_first)) == 16


def _steps(node: LedgerNode) -> int:
    """Return how many instructions of SQLite's virtual machine the claims take."""
    engine, steps = node.engine, 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def watch(connection: Any, _record: object, _proxy: object) -> None:
        connection.set_progress_handler(step, 1)

    event.listen(engine, "checkout", watch)
    _claim_both_ways(node)
    event.remove(engine, "checkout", watch)
    with engine.connect() as connection:
        connection.connection.driver_connection.set_progress_handler(None, 1)  # type: ignore[union-attr]
    return steps


def _pages(node: LedgerNode) -> int:
    """Return how many pages PostgreSQL looks at for the statements of the claims."""
    engine = node.engine
    with engine.begin() as connection:  # as after a while of autovacuum
        connection.exec_driver_sql("ANALYZE work")
    claim, pages = [], 0

    def keep(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        claim.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", keep)
    _claim_both_ways(node)
    event.remove(engine, "before_cursor_execute", keep)
    with engine.begin() as connection:
        for statement, parameters in claim:
            if "FROM work" in statement or "UPDATE work" in statement:
                plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters).scalars().all()
                pages += sum(int(hit) for hit in re.findall(r"^[^\n]*Buffers: shared hit=(\d+)", str(plan[1]), re.M))
                pages += sum(int(hit) for hit in re.findall(r"Buffers: shared hit=(\d+)", plan[0]))
        connection.rollback()
    return max(1, pages)


def _add_analyses(engine: Engine, numbers: range, state: WorkState = WorkState.READY) -> None:
    node = LedgerNode(engine)
    columns = {column.name for column in instance.c}
    for start in range(numbers.start, numbers.stop, _CHUNK):
        chunk = range(start + 1, min(start + _CHUNK, numbers.stop) + 1)
        images = [node.instance(str(number), study=f"1.2.9.{number}") for number in chunk]
        rows = [{name: getattr(image, name) for name in image.__slots__ if name in columns} for image in images]
        with engine.begin() as connection:
            connection.execute(
                instance.insert(), [{**row, "conflict": False, "registered_at": node.clock()} for row in rows]
            )
            connection.execute(work.insert(), [_work(ANALYSE, number, node.clock(), state) for number in chunk])


def _add_deliveries(engine: Engine, rows: int) -> None:
    """Add reports that wait, some ready and most delayed, for a destination that is not there."""
    now = utc_now()
    for start in range(0, rows, _CHUNK):
        chunk = range(_NOT_THE_NODES + start, _NOT_THE_NODES + min(start + _CHUNK, rows))
        made = [_report(number, now) for number in chunk]
        sent = [
            {
                "id": number,
                "report_id": number,
                "destination": "away",
                "state": "waiting",
                "attempts": 0,
                "detail": "",
                "created_at": now,
            }
            for number in chunk
        ]
        with engine.begin() as connection:
            connection.execute(report.insert(), made)
            connection.execute(delivery.insert(), sent)
            connection.execute(work.insert(), [_delayed(number, now) for number in chunk])


def _report(number: int, now: Any) -> dict[str, Any]:
    same = dict.fromkeys(("bundle_digest", "content_digest", "sha256"), f"{number:064d}")
    uids = dict.fromkeys(("sop_class_uid", "series_instance_uid"), "1.2.3")
    return {
        **same,
        **uids,
        "id": number,
        "study_uid": f"1.2.7.{number}",
        "version": 1,
        "sop_instance_uid": f"1.2.8.{number}",
        "file": b"report" * 100,
        "at": now,
    }


def _work(queue: Queue, number: int, now: Any, state: WorkState) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "dedup": str(number),
        "ref_id": number,
        "state": state,
        "priority": 10,
        "attempt": 0,
        "max_attempts": 3,
        "lease_token": 0,
        "error": "",
        "created_at": now,
    }


def _delayed(number: int, now: Any) -> dict[str, Any]:
    waiting = {"due_at": now + timedelta(hours=1), "max_attempts": None}
    return {**_work(deliver_queue("away"), number, now, WorkState.DELAYED), **waiting}


def _roles(node: Node) -> list[Process]:
    assert node.process is not None
    return [each for each in processes(node.process.pid) if each.role in {"listener", "worker", "reporter", "sender"}]


def _ended(node: Node) -> int:
    return node.ledger.upkeep.counts().get(ANALYSE.name, {}).get(WorkState.DONE, 0)


def _has_ended(node: Node, images: int) -> bool:
    return _ended(node) == images


def _resident_mib(process: Process) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * _PAGE_KIB / 1024


def _held(process: Process) -> tuple[int, int, float]:
    """Return threads, descriptors and MiB resident."""
    return *process.held(), _resident_mib(process)


def _settled(process: Process) -> tuple[int, int, float]:
    """Return what is held once threads and descriptors have been the same for five seconds."""
    since, last = time.monotonic(), _held(process)[:2]

    def is_steady() -> bool:
        nonlocal since, last
        if (held := _held(process)[:2]) != last:
            since, last = time.monotonic(), held
        return time.monotonic() > since + 5

    wait_until(is_steady, 60, what="threads and descriptors are steady")
    return _held(process)


def _echoes(node: Node, number: int) -> None:
    for _ in range(number):
        association = RequestedAssociation.request(
            "127.0.0.1",
            node.settings.listen.port,
            calling_ae="MODALITY1",
            called_ae=node.settings.node.ae_title,
            contexts=[(VERIFICATION, [EXPLICIT_VR_LITTLE_ENDIAN])],
            seconds=20,
        )
        assert association.echo(seconds=20) == 0
        association.release()
