"""Sends files with a progress bar, and says of each that was not taken why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scp_node.cli.console import UsageError
from scp_node.cli.contact import Call, status_words, why
from scp_node.delivery import Disposition, Unsent, classify, remark, send_files
from scp_node.settings import DestinationTlsSettings
from scp_node.tls.contexts import ClientTls


def dicom_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and all files below the folders, sorted by name.

    Raises:
        UsageError: a path does not exist, or is neither a file nor a folder with a file in it.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        if not (path.is_dir() or path.is_file()):
            raise UsageError(f"{path}: neither a file nor a folder")
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path}: no file is in this folder, or it may not be read")
        found += files
    return found


def tls_options(
    command: str, *, on: bool, ca_file: Path | None, certificate: Path | None, key: Path | None, peer_certificate: str
) -> DestinationTlsSettings | None:
    """Return the TLS that these options of a command ask for; None where they ask for none.

    Raises:
        UsageError: they do not fit together.
    """
    if not on:
        if ca_file or certificate or key or peer_certificate:
            raise UsageError(f"{command}: --ca-file, --certificate, --key and --peer-certificate need --tls")
        return None
    try:
        return DestinationTlsSettings(
            enabled=True, ca_file=ca_file, certificate=certificate, key=key, peer_certificate=peer_certificate
        )
    except ValidationError as error:
        raise UsageError(f"{command}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def send_with_progress(
    paths: Sequence[Path], call: Call, console: Console, *, tls: DestinationTlsSettings | None = None
) -> int:
    """Send the files with a progress bar; return 0 if the peer took all of them, else 1.

    Raises:
        UsageError: see `dicom_files`.
        SettingsError: a file of `tls` cannot be used.
    """
    files = dicom_files(paths)
    unsent: dict[Path, Unsent] = {}
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("send", total=len(files))
        results = send_files(
            files,
            host=call.host,
            port=call.port,
            called_ae=call.called,
            calling_ae=call.calling,
            on_progress=lambda *_: progress.advance(task),
            on_unsent=unsent.__setitem__,
            tls=ClientTls(tls, "send") if tls else None,
        )
    taken = 0
    for path, status in results:
        taken += status is not None and classify(status) is Disposition.DELIVERED
        if status != 0:
            told = _why_unsent(unsent[path], call) if status is None else _answered(status)
            console.print(f"{path}: {told}", highlight=False, markup=False)
    console.print(f"{taken} of {len(files)} sent to {call.where}", highlight=False, markup=False)
    return 0 if taken == len(files) else 1


def _answered(status: int) -> str:
    note = remark(status)
    return f"sent, {note}" if note else status_words(status)


def _why_unsent(unsent: Unsent, call: Call) -> str:
    return f"not sent: {why(unsent.error, call) if unsent.error else unsent.file_fault}"
