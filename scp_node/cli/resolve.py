"""`scp-node resolve`: a person chooses between images with one SOP Instance UID."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Annotated

import typer
from rich.table import Table

from scp_node.cli.console import ConfigOption, UsageError, operator, out, settings_of
from scp_node.ledger import Candidate
from scp_node.opening import open_ledger


def resolve(
    sop_instance_uid: Annotated[str, typer.Argument(metavar="UID", help="SOP Instance UID.")],
    config: ConfigOption = None,
    use: Annotated[
        int | None, typer.Option(metavar="N", help="Read this image, by its number, in place of the others.")
    ] = None,
) -> None:
    """Show the images that came with one SOP Instance UID, or choose the one that is read.

    The chosen image is analysed, the others are set aside, and each study that names one of them gets a new version of
    its report. The decision stands in the audit with your name.
    """
    with closing(open_ledger(settings_of(config))) as ledger:
        candidates = ledger.resolution.candidates(sop_instance_uid)
        if not candidates:
            raise UsageError(f"resolve: no image has the SOP Instance UID {sop_instance_uid}")
        if use is None:
            _show(candidates)
            return
        ledger.resolution.choose(sop_instance_uid, use, actor=operator())
    out.print(f"image {use} of {len(candidates)} is read; its study is reported anew")


def _show(candidates: Sequence[Candidate]) -> None:
    table = Table("N", "use", "received", "from", "Patient ID", "accession", "study", "sha256")
    for each in candidates:
        table.add_row(
            str(each.number),
            str(each.use) if each.kept else f"{each.use}, original removed",
            each.received_at.astimezone().isoformat(sep=" ", timespec="seconds"),
            each.calling_ae,
            each.patient_id,
            each.accession,
            each.study_uid,
            each.sha256[:12],
        )
    out.print(table, highlight=False)
