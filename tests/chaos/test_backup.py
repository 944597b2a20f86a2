"""A backup is taken while images arrive, the machine is lost, and the backup is put in place on another one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import Dataset
from sqlalchemy import make_url

from scp_node.demo.pacs import StoragePacs
from scp_node.opening import INSTALLATION_ID, SPOOL_FOLDER
from tests import servers
from tests.chaos.conftest import Chaos
from tests.node import Node, destination, radiograph
from tests.waiting import wait_until

ENDED: Final = {"analysed", "not-analysed", "failed"}


@dataclass
class Modality:
    """Sends one image after the other, each of a study of its own, and keeps what was acknowledged."""

    node: Node
    acknowledged: list[Dataset] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            image = radiograph(len(self.acknowledged))
            if self.node.send(image) == [0x0000]:
                self.acknowledged.append(image)

    def wait_for(self, more: int) -> None:
        """Wait until so many more images were acknowledged."""
        goal = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= goal, 300, what=f"{goal} images are acknowledged")


@dataclass
class Pacs:
    """What arrived in the archive, before the loss and after it."""

    storage: StoragePacs
    reports: dict[str, list[Dataset]] = field(default_factory=dict)  # SOP Instance UID -> each time that it came

    def look(self) -> None:
        for _at, report in self.storage.new_reports():
            self.reports.setdefault(report.SOPInstanceUID, []).append(report)

    def of_studies(self) -> Counter[str]:
        """Return how many different reports each study has."""
        return Counter(copies[0].StudyInstanceUID for copies in self.reports.values())


@pytest.fixture
def build(tmp_path: Path, pacs: StoragePacs) -> Iterator[Callable[..., Node]]:
    """Prepare a node in a folder of its own, on a database of its own, that reports to the one PACS."""
    with ExitStack() as stack:

        def prepare(name: str, database: dict[str, Any]) -> Node:
            (tmp_path / name).mkdir()
            node = Node(tmp_path / name, {"destinations": [destination(pacs.port)], "database": database})
            stack.callback(node.end)
            return node

        yield prepare


def test_a_backup_of_an_embedded_site_brings_back_every_image_and_one_report_of_each(
    chaos: Chaos, build: Callable[..., Node], pacs: StoragePacs, tmp_path: Path
) -> None:
    site = build("site", {})
    file = tmp_path / "backup.sqlite3"
    with lost_while_receiving(chaos, site, lambda: command(site, "db", "backup", str(file)), tmp_path) as promised:
        other = build("other", {})
        shutil.copy(file, prepared(other, tmp_path) / "ledger.sqlite3")
        check(chaos, site, other, promised, Pacs(pacs))


@pytest.mark.needs("pg_dump", "pg_restore")
def test_a_dump_of_postgresql_brings_back_every_image_and_one_report_of_each(
    chaos: Chaos, build: Callable[..., Node], pacs: StoragePacs, tmp_path: Path, postgres_server: servers.Postgres
) -> None:
    with postgres_server.database() as old, postgres_server.database() as new:
        site = build("site", {"url": old})
        file = tmp_path / "backup.dump"

        def dump() -> None:
            run("pg_dump", "--format=custom", *where(old), f"--file={file}", make_url(old).database)

        with lost_while_receiving(chaos, site, dump, tmp_path) as promised:
            other = build("other", {"url": new})
            prepared(other, tmp_path)
            run("pg_restore", "--exit-on-error", *where(new), f"--dbname={make_url(new).database}", file)
            check(chaos, site, other, promised, Pacs(pacs))
            other.end()  # before its database goes


class lost_while_receiving:  # noqa: N801 - reads as the context that it is
    """Run a site that receives and reports; back it up as docs/backup.md says; then lose it at once.

    Gives what was acknowledged before the images were copied: that is what the backup has to bring back.
    """

    def __init__(self, chaos: Chaos, site: Node, backup: Callable[[], object], folder: Path) -> None:
        self.chaos, self.site, self.backup, self.folder = chaos, site, backup, folder

    def __enter__(self) -> list[Dataset]:
        modality = Modality(self.site.start())
        sending = threading.Thread(target=modality.run)
        sending.start()
        try:
            modality.wait_for(self.chaos.amount(short=5, long=60))
            before, began = len(modality.acknowledged), time.monotonic()
            self.backup()
            meanwhile, seconds = len(modality.acknowledged) - before, time.monotonic() - began
            modality.wait_for(self.chaos.amount(short=3, long=20))  # these have no row in the backup
            promised = list(modality.acknowledged)
            data = self.site.settings.node.data_dir
            shutil.copytree(data / SPOOL_FOLDER, self.folder / "images", ignore=shutil.ignore_patterns("tmp"))
            shutil.copy(data / INSTALLATION_ID, self.folder / INSTALLATION_ID)
            modality.wait_for(self.chaos.amount(short=2, long=20))
        finally:
            modality.stop.set()
            sending.join()
            self.site.kill()
        told = f"{len(promised)} images acknowledged before their files were copied, {meanwhile} of them while the "
        self.chaos.figure(f"{told}database was backed up in {seconds:.1f} s")
        return promised

    def __exit__(self, *_exception: object) -> None:
        """Nothing is left to stop."""


def prepared(node: Node, backup: Path) -> Path:
    """Put images and identity into the new data folder, and return it."""
    data = node.settings.node.data_dir
    shutil.copytree(backup / "images", data / SPOOL_FOLDER)
    shutil.copy(backup / INSTALLATION_ID, data / INSTALLATION_ID)
    return data


def check(chaos: Chaos, site: Node, node: Node, promised: list[Dataset], pacs: Pacs) -> None:
    """Start the node on what was restored: nothing is lost, doubled or misstated."""
    assert "the ledger says what was recorded" in command(node, "audit", "verify")
    rows = len(node.audit())
    assert rows < len(promised), "all images are in the database's backup: nothing is left to be found"
    pacs.look()
    before = {uid: len(copies) for uid, copies in pacs.reports.items()}
    node.start()
    audit = node.run_until_idle(len(promised), timeout=300)
    wait_until(lambda: not missing(promised, pacs), 60, what="every study is reported")

    states = {row["sop_instance_uid"]: row["state"] for row in audit}
    assert len(states) == len(audit), "an image has two rows"
    assert {image.SOPInstanceUID for image in promised} <= set(states)
    assert set(states.values()) <= ENDED
    assert all(row["deliveries"][0]["state"] in {"delivered", "committed", "found"} for row in audit)
    assert [study for study, number in pacs.of_studies().items() if number != 1] == []
    assert "the ledger says what was recorded" in command(node, "audit", "verify")

    again = [copies for uid, copies in pacs.reports.items() if 0 < before.get(uid, 0) < len(copies)]
    same = sum(copies[-1] == copies[0] for copies in again)
    chaos.figure(
        f"restored: {rows} images from the database, {len(audit) - rows} from their files alone; {len(promised)} of "
        f"{len(promised)} ended in one outcome, 0 studies with two reports; {len(again)} reports sent again with the "
        f"same UID, {same} of them the same byte for byte"
    )
    assert site.log.count("Traceback") == 0


def missing(promised: list[Dataset], pacs: Pacs) -> list[str]:
    """Return the studies that have no report by now."""
    pacs.look()
    reported = pacs.of_studies()
    return [image.StudyInstanceUID for image in promised if not reported[image.StudyInstanceUID]]


def command(node: Node, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "scp_node", *arguments, "--config", str(node.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(program: str, *arguments: Any) -> None:
    done = servers.run_tool(program, *arguments)
    assert done.returncode == 0, done.stdout


def where(url: str) -> list[str]:
    at = make_url(url)
    return [f"--host={at.host}", f"--port={at.port}", f"--username={at.username}"]
