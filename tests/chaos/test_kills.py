"""kill -9 of any process at any moment: nothing acknowledged is lost, reported twice, or held up."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import scp_node.ledger
from scp_node.opening import SPOOL_FOLDER
from tests.chaos.conftest import Chaos
from tests.chaos.kit import storm
from tests.chaos.kit.archive import Archive, StudyReports, evidence
from tests.chaos.kit.faults import AFTER, BEFORE, Faults, Point
from tests.chaos.kit.modality import URGENT, Modalities
from tests.chaos.kit.work_watch import WorkWatch
from tests.node import Node, destination, radiograph
from tests.waiting import wait_until

LEASE: Final = 3.0  # seconds
PATIENCE: Final = 300.0  # seconds to start or to get idle, at most: on a machine that has much else to do
SETTINGS: Final[dict[str, Any]] = {
    "node": {"restart_cap_seconds": 0.5},  # 200 kills in a few minutes are no bad program
    "study": {"quiet_seconds": 0.5},
    "routing": {"stat_calling_ae": [URGENT]},
    "work": {"lease_seconds": LEASE, "max_attempts": 20},  # of one image: here its worker is hit again and again
}


@dataclasses.dataclass
class Scene:
    """A node with fault points, and the PACS that it reports to."""

    node: Node
    faults: Faults
    archive: Archive


@pytest.fixture
def scene(tmp_path: Path, chaos: Chaos, database: dict[str, Any]) -> Iterator[Scene]:
    archive = Archive(tmp_path / "pacs", chaos.random, refuses=0.05)
    faults = Faults(tmp_path / "faults")
    changes = {**SETTINGS, "database": database, "destinations": [destination(archive.port)]}
    node = Node(tmp_path, _with_data_folder(changes, tmp_path), environment=faults.environment)
    with contextlib.ExitStack() as stack:
        stack.callback(archive.close)
        stack.callback(node.end)
        _start(node)
        yield Scene(node, faults, archive)


def _with_data_folder(changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {**changes, "node": {"data_dir": str(folder / "var"), **changes["node"]}}


def _start(node: Node, role: str = "all") -> None:
    node.start(role, wait=False)
    wait_until(node.is_listening, PATIENCE, what="node listens")


@pytest.mark.needs("storescu")
def test_no_kill_loses_doubles_or_holds_up_a_result(scene: Scene, chaos: Chaos) -> None:
    node, faults, archive = scene.node, scene.faults, scene.archive
    per_phase, outside = chaos.amount(short=1, long=40), chaos.amount(short=1, long=40)
    modalities = Modalities(
        node.folder / "modalities",
        node.settings.listen.port,
        chaos.random,
        is_behind=lambda sent: len(sent) - len(archive.studies()) >= 6,
    )
    began = time.monotonic()
    kills = storm.Storm(node, faults, chaos.random)
    with WorkWatch(node.settings.database_url, is_served=kills.is_served) as watch:
        modalities.start(3)
        try:
            kills.run(per_phase, outside)
        finally:
            faults.disarm()
            modalities.finish(PATIENCE)
        acknowledged = modalities.acknowledged
        images = {uid for uids in acknowledged.values() for uid in uids}
        rows = node.run_until_idle(len(images), timeout=PATIENCE)
    seconds = time.monotonic() - began

    by_phase = storm.hits(faults)
    studies = archive.studies()
    unreported = [uid for uid in acknowledged if uid not in studies]
    several = [uid for uid, held in studies.items() if len(held.current) != 1 or len(held.first) != 1]
    lost = [uid for study, uids in acknowledged.items() for uid in uids - _current_evidence(studies, study)]
    chaos.figure(
        f"{_killed(by_phase, kills.kills)} in {seconds:.0f} s: {len(images)} images of {len(acknowledged)} studies "
        f"acknowledged in {sum(modalities.attempts.values())} sends, {len(lost)} of them lost, {len(unreported)} "
        f"studies without a report, {len(several)} with two current reports; the PACS holds "
        f"{sum(len(held.reports) for held in studies.values())} reports, of {len(archive.stores)} objects "
        f"{sum(archive.stores.values()) - len(archive.stores)} were sent again, {len(archive.differing())} with other "
        f"bytes; longest time a row stood still {watch.longest:.1f} s ({watch.what}), lease {LEASE:g} s"
    )
    assert (unreported, several, lost, archive.differing()) == ([], [], [], [])
    assert watch.longest <= LEASE + 10
    assert all(by_phase[phase] >= per_phase for phase in storm.PHASES)
    if chaos.long:
        assert not list(storm.missed(faults))
    assert {row["sop_instance_uid"]: row["state"] for row in rows if row["state"] != "rejected"} == dict.fromkeys(
        images, "analysed"
    )
    _check_spool(node, images)


def _killed(by_phase: Counter[str], from_outside: Counter[str]) -> str:
    total = sum(by_phase.values()) + sum(from_outside.values())
    inside = ", ".join(f"{by_phase[phase]} in {phase}" for phase in storm.PHASES)
    outside = ", ".join(f"{count} {role}" for role, count in sorted(from_outside.items()))
    return f"{total} kills ({inside}; from outside: {outside})"


def _current_evidence(studies: dict[str, StudyReports], study: str) -> set[str]:
    """Return the images that the current report of a study is about; none if there is no report."""
    return {uid for report in studies[study].current for uid in evidence(report)} if study in studies else set()


def _check_spool(node: Node, images: set[str]) -> None:
    """One file for each image, and nothing unfinished once the node has started again."""
    node.stop()
    _start(node, "listener")
    spool = node.settings.node.data_dir / SPOOL_FOLDER
    wait_until(lambda: not list((spool / "tmp").iterdir()), what="tmp is empty")
    wait_until(lambda: len(list(spool.glob("2*/*.dcm"))) == len(images), what="one file for each image")


def test_each_commit_that_is_named_is_one_of_the_ledger() -> None:
    steps = [*itertools.chain.from_iterable(storm.STEPS.values()), *storm.OCCASIONAL]
    named = [step.removeprefix("commit ") for step in steps if step.startswith("commit ")]
    in_code = {
        f"{owner.name}.{method.name}"
        for path in Path(scp_node.ledger.__path__[0]).glob("*.py")
        for owner in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(owner, ast.ClassDef)
        for method in owner.body
        if isinstance(method, ast.FunctionDef)
    }
    assert len(named) > 10
    assert set(named) <= in_code


def test_every_step_of_an_image_is_one_at_which_a_process_is_killed(scene: Scene) -> None:
    node, archive = scene.node, scene.archive
    assert node.send(radiograph(1)) == [0x0000]
    node.run_until_idle(1)
    assert archive.studies()
    planned = {point for phase in storm.PHASES for point in storm.points(phase)}

    def passed_by() -> set[Point]:
        return {point for point in scene.faults.passed() if point.phase in storm.PHASES}

    # the row of the last step is there a moment before the process has passed the point behind it
    wait_until(lambda: planned <= passed_by(), what="every planned point was passed")
    passed = passed_by()
    assert {point.step for point in passed - planned} <= storm.OCCASIONAL
    assert {point.when for point in passed} == {BEFORE, AFTER}
