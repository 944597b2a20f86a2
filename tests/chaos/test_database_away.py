"""The database goes away under load, in every way that it can: stores are answered, and nothing is lost or doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from pynetdicom import evt
from sqlalchemy import select
from sqlalchemy.engine import make_url

from scp_node.ledger import create_ledger_engine
from scp_node.ledger.database.schema import instance
from tests import servers
from tests.chaos.conftest import Chaos
from tests.chaos.kit.clock import rows
from tests.chaos.kit.databases import Failure, Outage, moved_away, of_postgres, of_sqlite
from tests.chaos.kit.disk import mounted
from tests.chaos.kit.load import Load, percentile
from tests.chaos.kit.process_tree import processes
from tests.node import Node, destination, radiograph
from tests.scp_node.delivery.scp import Scp
from tests.waiting import let_pass, wait_until

DISK_MIB: Final = 48
MOST_DESCRIPTORS: Final = (
    64  # of a process: its connections to the database have few, however often they were opened anew
)


@dataclass
class Site:
    """A node, the PACS that it reports to, and what may happen to its database."""

    node: Node
    pacs: Scp
    outages: dict[str, Outage]
    reports: list[tuple[str, str]] = field(default_factory=list)  # Study and SOP Instance UID of each C-STORE

    def __post_init__(self) -> None:
        self.pacs.on_store = self._note

    def column(self, statement: str) -> list[Any]:
        """Return the first column of what the database has."""
        return [row[0] for row in rows(self.node, statement)]

    def registered(self) -> int:
        """Return how many instances have a row."""
        [number] = self.column("SELECT count(*) FROM instance")
        return int(number)

    def waited(self) -> list[float]:
        """Return after how many seconds each instance got its row."""
        engine = create_ledger_engine(self.node.settings.database_url)
        with engine.connect() as connection:
            found = connection.execute(select(instance.c.registered_at, instance.c.received_at)).all()
        engine.dispose()
        return [(registered_at - received_at).total_seconds() for registered_at, received_at in found]

    def _note(self, event: evt.Event) -> None:
        self.reports.append((str(event.dataset.StudyInstanceUID), str(event.dataset.SOPInstanceUID)))


def _changes(pacs: Scp, url: str) -> dict[str, Any]:
    return {
        "destinations": [destination(pacs.port)],
        "database": {"url": url},
        "routing": {"reply_to": "all"},
        "report": {"overlay": "none"},
    }


@contextmanager
def _sqlite_site(folder: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        pacs = stack.enter_context(Scp().serving())
        disk = stack.enter_context(mounted(DISK_MIB))
        failure = Failure(disk.folder, folder)
        file = disk.folder / "ledger.sqlite3"
        node = Node(folder, _changes(pacs, f"sqlite:///{file}"), failure.environment)
        stack.callback(node.end)
        yield Site(node, pacs, of_sqlite(file, disk, failure))


@contextmanager
def _postgres_site(folder: Path, server: servers.Postgres) -> Iterator[Site]:
    with server.database() as url, ExitStack() as stack:
        pacs = stack.enter_context(Scp().serving())
        node = Node(folder, _changes(pacs, url))
        stack.callback(node.end)
        yield Site(node, pacs, of_postgres(server, str(make_url(url).database)))


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "sqlite":
        with _sqlite_site(tmp_path) as site:
            yield site
    else:
        with _postgres_site(tmp_path, request.getfixturevalue("own_postgres")) as site:
            yield site


def test_while_the_database_is_away_stores_are_answered_and_afterwards_all_is_reported_once(
    chaos: Chaos, site: Site, tmp_path: Path
) -> None:
    seconds = chaos.amount(short=3, long=60)
    site.node.start()
    first = radiograph(1)
    assert site.node.send(first) == [0x0000]
    wait_until(lambda: site.reports, 180, what="the first report")
    told: dict[str, int] = {}
    with Load(tmp_path, site.node.settings.listen.port, pause=2.0) as load:
        wait_until(lambda: load.stores, 60, what="the load has begun")
        for name, outage in site.outages.items():
            stored = len(load.stores)
            with outage():
                let_pass(seconds)
                _await_answer(load, stored, what=f"an answer while {name}")
                told[name] = len(load.stores) - stored
            _await_rows(site, stored + told[name], what=f"rows after {name}")
    assert load.refused() == []
    answered = load.seconds()
    slow = [each for each in answered if each > 1.0]
    assert len(slow) <= max(1, len(answered) // 100), slow  # of fewer than a hundred one is no percentile
    studies = {*load.studies, first.StudyInstanceUID}
    wait_until(lambda: studies <= {study for study, _ in site.reports}, 60 + 5 * len(studies), what="all reports")
    assert Counter(study for study, _ in site.reports) == Counter(studies), "each is reported once"
    assert Counter(site.column("SELECT study_uid FROM instance")) == Counter(studies)
    assert Counter(site.column("SELECT study_uid FROM report")) == Counter(studies)
    late = site.waited()
    assert site.node.process is not None
    assert max(late) > seconds / 2, "the database was never away"
    assert site.node.ledger.verifier.verify().problems == ()
    assert all(len(process.descriptors()) < MOST_DESCRIPTORS for process in processes(site.node.process.pid))
    chaos.figure(
        f"{seconds} s each: {', '.join(site.outages)}; {len(answered)} answers timed, all 0x0000, p50 "
        f"{percentile(answered, 0.5) * 1000:.0f} ms, p99 {percentile(answered, 0.99) * 1000:.0f} ms, longest "
        f"{answered[-1] * 1000:.0f} ms; {len(studies)} acknowledged ({told} while away), {len(studies)} registered, "
        f"{len(site.reports)} reports at the PACS, none twice; latest registration after {max(late):.1f} s"
    )


def test_a_node_that_starts_while_its_server_is_away_receives_and_registers_when_it_comes(
    tmp_path: Path, own_postgres: servers.Postgres
) -> None:
    with _postgres_site(tmp_path, own_postgres) as site:
        with site.outages["stopped"]():
            site.node.start()
            assert site.node.send(radiograph(1), radiograph(2)) == [0x0000, 0x0000]
            _wait_until_all_roles_wait(site.node)
        wait_until(lambda: len(site.reports) == 2, 180, what="both reports")
        assert site.registered() == 2
        assert site.node.stop() == 0


def test_a_file_that_is_gone_at_the_start_is_waited_for_and_no_empty_one_is_made(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pacs = stack.enter_context(Scp().serving())
        file = tmp_path / "database" / "ledger.sqlite3"
        site = Site(Node(tmp_path, _changes(pacs, f"sqlite:///{file}")), pacs, {})
        stack.callback(site.node.end)
        site.node.start()
        assert site.node.send(radiograph(1)) == [0x0000]
        wait_until(lambda: len(site.reports) == 1, 180)
        assert site.node.stop() == 0
        with moved_away(file):
            site.node.start()
            assert site.node.send(radiograph(2)) == [0x0000]
            _wait_until_all_roles_wait(site.node)
        wait_until(lambda: len(site.reports) == 2, 180, what="both reports")
        assert site.registered() == 2


def _await_answer(load: Load, known: int, *, what: str) -> None:
    wait_until(lambda: len(load.stores) > known, 60, what=what)


def _await_rows(site: Site, most: int, *, what: str) -> None:
    wait_until(lambda: site.registered() >= most, 180, what=what)


def _wait_until_all_roles_wait(node: Node) -> None:
    """Each of the three roles says so once as an error, and then as warnings."""
    told = "ERROR   database cannot be used, waiting for it step=start"
    wait_until(lambda: node.log.count(told) >= 3, 60, what=f"all roles wait; log:\n{node.log[-3_000:]}")
