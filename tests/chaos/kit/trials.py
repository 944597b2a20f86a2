"""A trial that takes minutes: run it by hand, `python -m tests.chaos.kit.trials latency FOLDER`.

What is counted is counted from outside: what the sender was told, and what the PACS holds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydicom import Dataset

from tests.node import Node, destination
from tests.servers import Orthanc, run_tool
from tests.waiting import wait_until


def main() -> int:
    """Run the named trial; return 0 when its promise held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=["latency"])
    parser.add_argument("folder", type=Path, help="of DICOM files")
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scp-node-trial-") as folder, ExitStack() as stack:
        return latency(Path(folder), stack, sorted(arguments.folder.rglob("*.dcm"))[: arguments.images])


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _node(folder: Path, stack: ExitStack, changes: dict[str, Any]) -> Node:
    node = Node(folder, changes)
    stack.callback(node.end)
    return node.start()


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
