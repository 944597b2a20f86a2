"""Prints the tables of the commands."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import fields

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scp_node.cells import harmless_cell
from scp_node.ledger import AuditDelivery, AuditRow, DeliveryState


def print_audit(rows: Iterable[AuditRow], style: str, console: Console) -> None:
    """Print audit rows as a table in local time, or in UTC as CSV, or as JSON with one object a line."""
    if style == "json":
        for row in rows:
            sys.stdout.write(json.dumps(row.document(), ensure_ascii=False) + "\n")
    elif style == "csv":
        _print_csv(rows)
    else:
        _print_table(rows, console)


def _print_csv(rows: Iterable[AuditRow]) -> None:
    writer = csv.DictWriter(sys.stdout, fieldnames=[each.name for each in fields(AuditRow)])
    writer.writeheader()
    for row in rows:
        writer.writerow({name: harmless_cell(value) for name, value in row.document().items()})


def _print_table(rows: Iterable[AuditRow], console: Console) -> None:
    table = Table()
    for name in ("received", "accession", "SOP Instance UID", "outcome", "model", "report", "deliveries"):
        table.add_column(name, overflow="fold")
    for row in rows:
        sent = [
            f"{each.destination} {each.kind}: {each.state} {each.status or ''} {_remark(each)}"
            for each in row.deliveries
        ]
        table.add_row(
            row.received_at.astimezone().isoformat(timespec="seconds") if row.received_at else "",
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
