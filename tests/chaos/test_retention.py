"""Originals are removed while the node is killed at each step of it."""

from __future__ import annotations

import secrets
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from scp_node.demo.pacs import StoragePacs
from tests.chaos.conftest import Chaos
from tests.chaos.kit.clock import rows
from tests.chaos.kit.purging import Step
from tests.node import Node, destination, radiograph
from tests.servers import free_port
from tests.waiting import wait_until

PATIENCE: Final = 120.0  # seconds, on a busy machine
SOON: Final = "days = 1e-06"  # a tenth of a second


@dataclass
class Site:
    """A node that keeps its originals until it is told not to, and its PACS."""

    node: Node
    port: int  # of the PACS
    pacs: StoragePacs | None = None  # while it runs

    def open_pacs(self) -> StoragePacs:
        self.pacs = StoragePacs(self.node.folder / f"pacs-{secrets.token_hex(4)}", self.port)
        return self.pacs

    def close_pacs(self) -> None:
        if self.pacs is not None:
            self.pacs.close()
            self.pacs = None

    def files(self) -> set[str]:
        spool = self.node.settings.node.data_dir / "spool"
        return {str(file.relative_to(spool)) for file in spool.glob("????-??-??/*.dcm")}

    def purge_until(self, step: Step) -> None:
        """Begin to remove originals in a process of its own, and kill that at `step`."""
        command = [sys.executable, "-m", "tests.chaos.kit.purging", str(self.node.config), step]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            came, _, _ = select.select([process.stdout], [], [], PATIENCE)
            here = process.stdout.readline() if came else b""
            process.kill()
        assert here == b"here\n", step

    def check_no_row_dangles(self) -> Counter[str]:
        """See that a file is gone only where its row says so, and return how many rows say what."""
        files, states = self.files(), Counter[str]()
        for row in rows(self.node, "SELECT spool_path, purging_at, purged_at FROM instance"):
            state = "purged" if row.purged_at else "marked" if row.purging_at else "kept"
            states[state] += 1
            assert (row.spool_path in files) or state != "kept", "a row without its file"
            assert (row.spool_path not in files) or state != "purged", "a file that was said to be gone"
            files.discard(row.spool_path)
        assert not files, "files without a row"
        return states


@pytest.fixture
def site(database: dict[str, Any], tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        port = free_port()
        changes: dict[str, Any] = {
            "destinations": [destination(port)],
            "report": {"overlay": "none"},
            "retention": {"days": 0.0},
            "study": {"quiet_seconds": 1},
            "database": database,
        }
        node = Node(tmp_path, changes)
        stack.callback(node.end)
        site = Site(node.start(), port)
        stack.callback(site.close_pacs)
        yield site


def test_a_purge_that_is_killed_at_every_step_leaves_no_dangling_row_and_ends(chaos: Chaos, site: Site) -> None:
    done = study(chaos, chaos.amount(short=6, long=250))
    waiting = study(chaos, 2)
    site.open_pacs()
    assert site.node.send(*done) == [0x0000] * len(done)
    told = {row["sop_instance_uid"]: row for row in site.node.run_until_idle(len(done), PATIENCE + 2 * len(done))}
    report = site.node.ledger.reports.files(done[0].StudyInstanceUID)
    site.close_pacs()
    assert site.node.send(*waiting) == [0x0000] * len(waiting)
    undelivered = "SELECT id FROM delivery WHERE state = 'waiting'"
    wait_until(lambda: rows(site.node, undelivered), PATIENCE, what="a report waits for the PACS")
    assert site.node.stop() == 0
    site.node.config.write_text(site.node.config.read_text().replace("days = 0.0", SOON))

    seen = []
    for step in Step:
        site.purge_until(step)
        seen.append((step, site.check_no_row_dangles(), len(site.files())))
    batch = seen[0][1]["marked"]
    assert 0 < batch <= len(done)
    assert seen[-1][2] == len(done) - batch + len(waiting), "what waits for its delivery is not touched"

    site.node.start()
    wait_until(lambda: len(site.files()) == len(waiting), PATIENCE, what="the node goes on where the kill left it")
    wait_until(lambda: site.check_no_row_dangles()["purged"] == len(done), PATIENCE, what="rows are closed")
    pacs = site.open_pacs()
    wait_until(lambda: not site.files(), PATIENCE, what="the last are removed once they are delivered")
    wait_until(lambda: site.check_no_row_dangles()["purged"] == len(done) + len(waiting), PATIENCE)
    assert [each.StudyInstanceUID for _, each in pacs.new_reports()] == [waiting[0].StudyInstanceUID]
    assert site.node.send(done[0]) == [0x0000], "a PACS may send it again"
    again = "SELECT id FROM event WHERE kind = 'duplicate'"
    wait_until(lambda: rows(site.node, again) and not site.files(), PATIENCE, what="it is known, and not kept")
    after = site.node.run_until_idle(len(done) + len(waiting), PATIENCE + 2 * len(done))
    purged = Counter(row.sop_instance_uid for row in rows(site.node, _PURGED))
    assert purged == Counter(image.SOPInstanceUID for image in [*done, *waiting]), "each is told of once"
    for row in after:
        before = told.get(row["sop_instance_uid"], row)
        assert {**before, "purged_at": row["purged_at"]} == row, "results and reports stay as they were"
    assert site.node.ledger.reports.files(done[0].StudyInstanceUID) == report
    figures = "; ".join(f"killed with {step}: {_told(states)}, {files} files" for step, states, files in seen)
    chaos.figure(
        f"{len(done) + len(waiting)} originals, {figures}; restarted: all {len(purged)} purged once, 0 dangling"
    )


_PURGED: Final = "SELECT sop_instance_uid FROM event WHERE kind = 'purged'"


def study(chaos: Chaos, images: int) -> list[Dataset]:
    uid = generate_uid()
    first = chaos.random.randrange(10**6)
    return [radiograph(first + number, StudyInstanceUID=uid, SOPInstanceUID=generate_uid()) for number in range(images)]


def _told(states: Counter[str]) -> str:
    return ", ".join(f"{number} rows {state}" for state, number in sorted(states.items()))
