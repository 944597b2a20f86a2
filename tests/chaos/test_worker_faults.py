"""Images that end, stop, starve or numb their worker, and a device that is lost: nobody else's result suffers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import Dataset

from scp_node.demo.pacs import StoragePacs
from tests.chaos.conftest import Chaos
from tests.chaos.kit.clock import rows as database_rows
from tests.chaos.kit.workers import MODULE, DecoderDeed, Deed, Poison
from tests.node import Node, destination, radiograph
from tests.waiting import wait_until

MOST_TRIES: Final = 3
HANGS: Final = [Deed.STOPS, Deed.SEIZES, Deed.WAITS]
DETAILS: Final[dict[Deed | DecoderDeed, str]] = {
    **dict.fromkeys((Deed.KILLS, *HANGS), "the worker stopped 3 times"),
    Deed.FILLS: "MemoryError, tried 3 times",
    Deed.BREAKS: "machine fault: RuntimeError, tried 3 times",
    Deed.NUMBS: "NotFiniteError, tried 3 times",
    DecoderDeed.HANGS: "decoder stopped: deadline",
    DecoderDeed.FILLS: "decoder stopped: memory",
}


class Site:
    """A node with a network that can be poisoned, and its PACS."""

    def __init__(self, folder: Path, stack: ExitStack, database: dict[str, Any]) -> None:
        self.poison = Poison(folder / "poison")
        self.pacs = StoragePacs(folder / "pacs")
        stack.callback(self.pacs.close)
        changes: dict[str, Any] = {
            "destinations": [destination(self.pacs.port)],
            "node": {"silent_seconds": 5},
            "work": {"lease_seconds": 2},
            "inference": {"batch_seconds": 10},
            "analysis": {"decode_seconds": 3, "decoder_processes": 2},
            "report": {"overlay": "none"},
            "database": database,
        }
        self._reports: dict[str, Dataset] = {}
        self.node = Node(folder, changes, self.poison.environment, program=MODULE)
        stack.callback(self.node.end)

    def reports(self) -> Counter[str]:
        """Return how many different reports the PACS holds, by Study Instance UID; none holds a number that is none."""
        for _, report in self.pacs.new_reports():
            _check_numbers(report)
            self._reports[report.SOPInstanceUID] = report
        return Counter(str(report.StudyInstanceUID) for report in self._reports.values())

    def ended(self, role: str) -> int:
        """Return how often a process of the role ended."""
        return self.node.log.count(f"role ended, will be restarted role={role}")


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """One on SQLite, or as the test's parameter says: what the ledger does is tested on both elsewhere."""
    with ExitStack() as stack:
        on_postgres = getattr(request, "param", "") == "postgresql"
        yield Site(tmp_path, stack, {"url": request.getfixturevalue("postgres")} if on_postgres else {})


def _check_numbers(report: Dataset) -> None:
    """See that every number of the report is one."""
    for element in report.iterall():
        if element.VR in {"DS", "FD", "FL"} and not element.is_empty:
            values = element.value if element.VM > 1 else [element.value]
            assert all(math.isfinite(value) for value in values), element
        assert "nan" not in str(element.value).casefold().split(), element


def test_poison_ends_as_failed_after_three_tries_and_stops_nobody_else(chaos: Chaos, site: Site) -> None:
    deeds: list[Deed | DecoderDeed] = [*Deed, *DecoderDeed]
    if not chaos.long:
        one_of = ([Deed.KILLS, Deed.FILLS], [Deed.STOPS, Deed.SEIZES], [*DecoderDeed])
        deeds = [Deed.NUMBS, *(chaos.random.choice(kind) for kind in one_of)]
    images = [radiograph(seed) for seed in range(len(deeds) + chaos.amount(short=4, long=40))]
    chaos.random.shuffle(images)
    bad = dict(zip(deeds, images, strict=False))
    for deed, image in bad.items():
        if isinstance(deed, Deed):
            site.poison.add(image, deed)
        else:
            image.ImageComments = deed
    chaos.random.shuffle(images)
    site.node.start()
    assert site.node.send(*images) == [0x0000] * len(images)
    rows = {row["sop_instance_uid"]: row for row in site.node.run_until_idle(len(images), timeout=600)}
    for deed, image in bad.items():
        row = rows.pop(image.SOPInstanceUID)
        assert row["probability"] is None
        assert DETAILS[deed] in row["detail"], deed
        if isinstance(deed, Deed):
            assert row["state"] == "failed"
            given = site.poison.tries(deed)  # to the network, in batches of so many
            assert 1 <= len(given) <= MOST_TRIES
    assert {row["state"] for row in rows.values()} == {"analysed"}, "the others"
    claimed = [row.attempt for row in database_rows(site.node, "SELECT attempt FROM work WHERE queue = 'analyse'")]
    assert max(claimed) == MOST_TRIES
    wait_until(lambda: len(site.reports()) == len(images), 30, what="one report for each study")
    assert set(site.reports().values()) == {1}
    assert site.ended("listener") == 0
    tries = [site.poison.tries(deed) for deed in deeds]
    batches = [size for sizes in tries for size in sizes]
    assert max(batches) > 1, "poison was met in a batch"
    chaos.figure(
        f"{len(images)} images, {len(bad)} of them poison ({', '.join(deeds)}): {len(rows)} of {len(rows)} others "
        f"analysed; poison claimed {max(claimed)} times and given to the network {max(map(len, tries))} times at most, "
        f"at first in batches of up to {max(batches)}; worker ended {site.ended('worker')} times, one report for each "
        f"study"
    )


@pytest.mark.parametrize("site", ["postgresql"], indirect=True)
def test_a_device_that_is_lost_for_a_while_fails_no_image(chaos: Chaos, site: Site) -> None:
    restarts = chaos.amount(short=2, long=5)
    images = [radiograph(seed) for seed in range(chaos.amount(short=6, long=60))]
    site.node.start()
    wait_until(lambda: "analysing bundle" in site.node.log, 60, what="the worker works")
    site.poison.lose_device(lost=True)
    assert site.node.send(*images) == [0x0000] * len(images)
    wait_until(lambda: site.ended("worker") >= restarts, 60, what="the worker is started again")
    assert {row["state"] for row in site.node.audit()} == {"received"}
    site.poison.lose_device(lost=False)
    rows = site.node.run_until_idle(len(images), timeout=120)
    assert [row["state"] for row in rows] == ["analysed"] * len(images)
    wait_until(lambda: len(site.reports()) == len(images), 30, what="one report for each study")
    assert set(site.reports().values()) == {1}
    chaos.figure(
        f"device lost with {len(images)} images in the queue, worker ended {site.ended('worker')} times meanwhile: "
        f"all analysed once it was back, none failed"
    )
