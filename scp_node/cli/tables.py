"""Prints the tables of the commands."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scp_node.cli.console import UsageError
from scp_node.delivery import Disposition, classify, remark, send_files
from scp_node.ledger import AuditDelivery, AuditRow, DeliveryState


def print_audit(rows: Iterable[AuditRow], style: str, console: Console) -> None:
    """Print audit rows as a table, as CSV, or as JSON with one object a line."""
    if style == "json":
        for row in rows:
            sys.stdout.write(json.dumps(row.document(), ensure_ascii=False) + "\n")
    elif style == "csv":
        _print_csv(rows)
    else:
        _print_table(rows, console)


def _print_csv(rows: Iterable[AuditRow]) -> None:
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        document = row.document()
        if writer is None:
            writer = csv.DictWriter(sys.stdout, fieldnames=list(document))
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in document.items()})


def _cell(value: object) -> object:
    """Return a value as one cell that no spreadsheet runs as a formula: a peer may have written it."""
    text = json.dumps(value) if isinstance(value, list | dict) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in {"=", "+", "@", "\t", "\r"} else text


def _print_table(rows: Iterable[AuditRow], console: Console) -> None:
    table = Table()
    for name in ("received (UTC)", "accession", "SOP Instance UID", "outcome", "model", "report", "deliveries"):
        table.add_column(name, overflow="fold")
    for row in rows:
        sent = [
            f"{each.destination} {each.kind}: {each.state} {each.status or ''} {_remark(each)}"
            for each in row.deliveries
        ]
        table.add_row(
            f"{row.received_at:%Y-%m-%d %H:%M:%S}" if row.received_at else "",
            escape(row.accession or ""),
            escape(row.sop_instance_uid or ""),
            escape(_outcome(row)),
            row.bundle or "",
            f"version {row.report_version}" if row.report_version else "",
            "\n".join(line.strip() for line in sent),
        )
    console.print(table, highlight=False)


def _remark(sent: AuditDelivery) -> str:
    """Return what the destination said of an object that it took."""
    taken = sent.state in {DeliveryState.DELIVERED, DeliveryState.COMMITTED, DeliveryState.FOUND}
    return f"({sent.detail})" if taken and sent.detail else ""


def _outcome(row: AuditRow) -> str:
    """Return an outcome as one phrase: "present, 0.632 at threshold 0.131", "not-analysed: view"."""
    if row.probability is not None:
        regions = f", regions: {len(row.regions)}" if row.regions else ""
        return f"{row.verdict}, {row.probability:.3f} at threshold {row.threshold:.3g}{regions}"
    return f"{row.state}: {row.reason}" if row.reason else str(row.state)


def dicom_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and all files below the folders, sorted by name.

    Raises:
        UsageError: a path does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        found += sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return found


def send_with_progress(paths: Sequence[Path], to: str, called: str, calling: str, console: Console) -> int:
    """Send the files with a progress bar; return 0 if the peer took all of them.

    Raises:
        UsageError: `to` is not HOST:PORT, or a path does not exist.
    """
    host, _, port = to.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError("--to: give HOST:PORT, such as 127.0.0.1:11112")
    files = dicom_files(paths)
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("send", total=len(files))
        results = send_files(
            files,
            host=host,
            port=int(port),
            called_ae=called,
            calling_ae=calling,
            on_progress=lambda *_: progress.advance(task),
        )
    refused = []
    for path, status in results:
        if status is None or classify(status) is not Disposition.DELIVERED:
            refused.append(path)
            console.print(f"{path}: {'not sent' if status is None else f'status 0x{status:04X}'}", highlight=False)
        elif note := remark(status):
            console.print(f"{path}: sent, {note}", highlight=False)
    console.print(f"{len(results) - len(refused)} of {len(files)} sent to {called} at {to}", highlight=False)
    return 1 if refused else 0
