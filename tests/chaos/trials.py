"""Trials that take minutes: run them by hand, `python -m tests.chaos.trials outage` or `latency FOLDER`.

What is counted is counted from outside: what the sender was told, and what the PACS holds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydicom import Dataset

from scp_node.demo.pacs import StoragePacs
from scp_node.settings import DeliverySettings
from tests.node import Node, destination, radiograph
from tests.servers import Orthanc, free_port, run_tool
from tests.waiting import wait_until


def main() -> int:
    """Run the named trial; return 0 when its promise held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=["outage", "latency"])
    parser.add_argument("folder", nargs="?", type=Path, help="of DICOM files, for latency")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120, help="length of the outage")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scp-node-trial-") as folder, ExitStack() as stack:
        if arguments.trial == "outage":
            return outage(Path(folder), stack, arguments.images, arguments.seconds)
        return latency(Path(folder), stack, sorted(arguments.folder.rglob("*.dcm"))[: arguments.images])


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _node(folder: Path, stack: ExitStack, changes: dict[str, Any]) -> Node:
    node = Node(folder, changes)
    stack.callback(node.end)
    return node.start()


def outage(folder: Path, stack: ExitStack, images: int, seconds: float) -> int:
    """Take the PACS away while images are sent: all reports arrive once it is back."""
    port = free_port()
    defaults = DeliverySettings().model_dump()  # the tests' own are quicker
    node = _node(folder, stack, {"destinations": [destination(port)], "delivery": defaults})
    began = time.monotonic()
    for seed in range(images):
        if node.send(radiograph(seed)) != [0x0000]:
            say(f"image {seed} was not acknowledged")
            return 1
    left = seconds - (time.monotonic() - began)
    say(f"{images} images acknowledged with the PACS down; waiting {max(0.0, left):.0f} s more")
    time.sleep(max(0.0, left))
    back = time.monotonic()
    pacs = StoragePacs(folder / "pacs", port=port)
    stack.callback(pacs.close)
    node.run_until_idle(images, timeout=1_200)
    arrivals = pacs.new_reports()
    studies = Counter(report.StudyInstanceUID for _, report in arrivals)
    first, last = (min(at for at, _ in arrivals) - back, max(at for at, _ in arrivals) - back)
    say(
        f"PACS down for {back - began:.0f} s: {len(studies)} of {images} studies delivered, "
        f"{sum(studies.values()) - len(studies)} sent twice, first after {first:.1f} s, last after {last:.1f} s"
    )
    return 0 if len(studies) == images == sum(studies.values()) else 1


def latency(folder: Path, stack: ExitStack, films: list[Path]) -> int:
    """Send films one by one with storescu -R -xy to a node whose PACS is a real Orthanc; check what arrives there."""
    (folder / "pacs").mkdir()
    with Orthanc(folder / "pacs") as pacs:
        node = _node(folder, stack, {"destinations": [destination(pacs.port, ae_title=pacs.ae_title)]})
        milliseconds = []
        for number, film in enumerate(films):
            sent = run_tool(
                "storescu", "-R", "-xy", "-aec", "PNEUMONIA", "127.0.0.1", node.settings.listen.port, film, timeout=60
            )
            answered = time.monotonic()
            if sent.returncode:
                say(f"{film.name} was refused: {sent.stdout}")
            wait_until(lambda number=number: _reported(pacs) > number, 60)  # type: ignore[misc]
            milliseconds.append(1000 * (time.monotonic() - answered))
        rows = node.run_until_idle(len(films))  # pictures come after
        reports = pacs.reports()
        errors = sum(_dciodvfy_errors(folder / f"{n}.dcm", report) for n, report in enumerate(reports))
    steady = sorted(milliseconds[1:])  # the first waits for the model to be loaded
    delivered = [row for row in rows if {sent["state"] for sent in row["deliveries"]} == {"delivered"}]
    pictures = sum(len(row["deliveries"]) - 1 for row in rows)
    say(
        f"{len(films)} films, {len(reports)} reports in Orthanc, {errors} dciodvfy errors, {len(rows)} audit rows, "
        f"{len(delivered)} delivered, {pictures} pictures; ms from the C-STORE response to the report in Orthanc: "
        f"p50 {steady[len(steady) // 2]:.0f}, p95 {steady[int(0.95 * len(steady))]:.0f}"
    )
    return 0 if len(films) == len(reports) == len(delivered) and not errors else 1


def _reported(pacs: Orthanc) -> int:
    """Return how many studies have a report: each is a series."""
    return sum(series["MainDicomTags"]["Modality"] == "SR" for series in pacs.get("/series?expand"))


def _dciodvfy_errors(file: Path, report: Dataset) -> int:
    report.save_as(file, enforce_file_format=True)
    done = run_tool("dciodvfy", file)
    return done.stdout.count("Error")


if __name__ == "__main__":
    sys.exit(main())
