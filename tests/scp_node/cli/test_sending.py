"""What the commands print about files that were sent."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from scp_node.cli.contact import Call
from scp_node.cli.sending import send_with_progress
from tests.scp_node.delivery.scp import EXPLICIT, IMPLICIT, Scp
from tests.scp_node.delivery.test_send_files import CR, write_file


def sent(folder: Path, *statuses: int) -> tuple[int, list[str]]:
    """Send a file for each status that the peer answers; return the exit status and what is said of each file."""
    for number, _ in enumerate(statuses):
        write_file(folder / f"{number}.dcm", uid=f"1.2.{number}")
    printed = StringIO()
    with Scp(sop_classes=(CR,), syntaxes=(EXPLICIT, IMPLICIT)).serving() as scp:
        scp.statuses = list(statuses)
        call = Call(
            host="127.0.0.1",
            port=scp.port,
            called="PACS",
            calling="TESTER",
            called_set_by="--called",
            calling_set_by="--calling",
            address_set_by="--to",
        )
        status = send_with_progress([folder], call, Console(file=printed, width=400))
    lines = [line.rstrip() for line in printed.getvalue().splitlines() if "sending" not in line]
    return status, [line.replace(f"{folder}/", "") for line in lines if line]


def test_a_warning_is_a_file_that_was_sent_with_a_remark(tmp_path: Path) -> None:
    status, [remark, total] = sent(tmp_path, 0x0000, 0xB007)
    assert status == 0
    assert remark == "1.dcm: sent, warning 0xB007: data set does not match SOP class"
    assert total.startswith("2 of 2 sent to PACS")


def test_a_failure_is_a_file_that_was_not_sent(tmp_path: Path) -> None:
    status, [refusal, total] = sent(tmp_path, 0xA700, 0x0000)
    assert status == 1
    assert refusal == "0.dcm: status 0xA700: out of resources, such as disk space: a later try may succeed"
    assert total.startswith("1 of 2 sent to PACS")
