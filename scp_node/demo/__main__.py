"""Start a node and a PACS, send a folder of X-rays, and show what comes back and how fast."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scp_node.cli.sending import dicom_files
from scp_node.delivery import send_files
from scp_node.delivery.echo import answers_echo
from scp_node.demo.pacs import AE_TITLE, Pacs, PacsTls, free_port, open_pacs
from scp_node.demo.phantom import phantom_image
from scp_node.domain import Actor, utc_now
from scp_node.ledger import PersonRole
from scp_node.opening import open_ledger, upgrade_database
from scp_node.private_files import make_private_folder, write_private
from scp_node.settings import DestinationTlsSettings, Settings
from scp_node.settings_file import as_toml
from scp_node.tls.contexts import ClientTls

QUIET_SECONDS: Final = 1.0
PERSON: Final = "demo"  # who looks at the web page
LINK_LIFETIME: Final = timedelta(hours=1)
_LOOPBACK: Final = "127.0.0.1"
_WARM_UP: Final = "PHANTOM-099"
_INTERRUPTED: Final = 130  # exit status, as a shell has it after Ctrl-C
_START_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 90.0  # without a new report
# PS3.16 Annex D
_PROBABILITY: Final = "122157"
_COMMENT: Final = "121106"

console = Console()
if not console.is_terminal:
    console = Console(width=140)  # a log has no width: show UIDs whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One study that was sent."""

    patient: str
    view: str
    at: float  # monotonic time in seconds of its last C-STORE response


def main() -> int:
    """Run the demonstration; return 0 if every study got its report."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("images", nargs="?", type=Path, help="folder of DICOM files; default: synthetic phantoms")
    parser.add_argument(
        "--keep", action="store_true", help="leave all of it running until Enter or Ctrl-C; so it is in a terminal"
    )
    parser.add_argument("--tls", action="store_true", help="let films and reports travel by TLS alone")
    arguments = parser.parse_args()
    keep = arguments.keep or (sys.stdin.isatty() and console.is_terminal)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="scp-node-demo-") as folder:
            return _demonstrate(Path(folder), arguments.images, keep=keep, by_tls=arguments.tls)
    except KeyboardInterrupt:
        console.print("stopped")
        return _INTERRUPTED


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _demonstrate(folder: Path, images: Path | None, *, keep: bool, by_tls: bool) -> int:
    files = _images(images) if images else _phantoms(folder / "phantoms")
    tls = make_tls(folder / "certificates") if by_tls else None
    pacs = open_pacs(folder / "pacs", tls.pacs if tls else None)
    settings = demo_settings(folder, pacs.port, drawn=images is None, tls=tls)
    add_person(settings)
    config = folder / "scp_node.toml"
    write_private(config, as_toml(settings.model_dump(mode="json", exclude_unset=True)).encode())
    command = [sys.executable, "-m", "scp_node", "serve", "--config", str(config)]
    # In a session of its own: Ctrl-C ends this program, which stops the node first, and then its PACS.
    node = subprocess.Popen(command, env=_environment(), start_new_session=True)  # noqa: S603 - ours
    try:
        _wait_for_node(node, settings)
        to = _to(settings)
        by = ", all by TLS" if tls else ""
        console.print(f"node {to.called_ae} on port {to.port}, PACS: {pacs.name}{by}", highlight=False)
        _warm_up(folder, to, pacs)
        sent, refused = _send(files, to)
        reports = _collect(pacs, sent)
        _show(sent, reports, refused, pacs)
        if keep:
            _wait_for_page(settings)
            console.print(f"See them in the web page, logged in: the link is good once, for {LINK_LIFETIME}")
            _say(page_link(settings))
            _say(f"Another link: scp-node user link {PERSON} --config {config}")
            _say(f"All of it lies in {folder} and is removed at the end; {_WARM_UP} in the list was the warm-up.")
            _wait_for_a_person()
        else:
            console.print("See them in the web page: make demo KEEP=1")
    finally:
        node.terminate()
        node.wait()
        pacs.close()
    return 0 if sent and set(sent) <= set(reports) else 1


def _images(folder: Path) -> list[Path]:
    files = [file for file in dicom_files([folder]) if _is_dicom(file)]
    console.print(f"{len(files)} DICOM files of {folder}", highlight=False)
    return files


def _is_dicom(file: Path) -> bool:
    try:
        return "SOPInstanceUID" in dcmread(file, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
    except (InvalidDicomError, OSError):
        return False


def _phantoms(folder: Path) -> list[Path]:
    folder.mkdir()
    files = []
    for number in range(6):
        view = "LL" if number == 5 else ("AP" if number % 2 else "PA")
        image = phantom_image(number, opacity=number % 2 == 1, view=view)
        file = folder / f"synthetic-phantom-{number}.dcm"
        image.save_as(file, enforce_file_format=True)
        files.append(file)
    console.print(
        f"{len(files)} SYNTHETIC phantoms, no patients: their scores mean nothing. "
        "Your own films: make demo IMAGES=folder"
    )
    return files


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTls:
    """The files by which the node and the PACS speak TLS."""

    files: dict[str, str]  # the node's, as its settings name them
    pacs: PacsTls


def make_tls(folder: Path) -> DemoTls:
    """Make an authority, and certificates for the node and the PACS."""
    from scp_node.tls.authority import open_authority  # noqa: PLC0415 - for who asks for it

    now = utc_now()
    authority = open_authority(folder, at=now)
    node, pacs = (authority.sign(name, [_LOOPBACK], at=now) for name in ("node", "pacs"))
    files = {"certificate": str(node.certificate), "key": str(node.key), "ca_file": str(authority.file)}
    return DemoTls(
        files=files,
        pacs=PacsTls(certificate=pacs.certificate, key=pacs.key, ca_file=authority.file),
    )


def demo_settings(folder: Path, pacs_port: int, *, drawn: bool, tls: DemoTls | None = None) -> Settings:
    """Return the settings of a node that keeps everything in `folder` and reports to the PACS.

    The gate of a model that has one would refuse every `drawn` film, for good reason: there it only notes.
    """
    destination = {"name": "pacs", "ae_title": AE_TITLE, "host": _LOOPBACK, "port": pacs_port, "commitment": False}
    listen: dict[str, object] = {"port": free_port()}
    if tls:
        destination["tls"] = {"enabled": True, **tls.files}
        listen["tls"] = {"port": free_port(), **tls.files}
    return Settings.model_validate(
        {
            "node": {"data_dir": str(folder / "node")},
            "listen": listen,
            "destinations": [destination],
            "study": {"quiet_seconds": QUIET_SECONDS},
            "analysis": {"pixel_gate": "note" if drawn else "refuse"},
            "web": {"port": free_port()},
            "log": {"level": "WARNING"},
        }
    )


def add_person(settings: Settings) -> None:
    """Begin the ledger with a person who may do everything on the web page, by a link: there is no password."""
    make_private_folder(settings.node.data_dir)
    upgrade_database(settings)
    with contextlib.closing(open_ledger(settings)) as ledger:
        ledger.people.add(PERSON, PersonRole.ADMIN, actor=Actor(name="make demo", address=""))


def page_link(settings: Settings) -> str:
    """Return the address that logs the person in: once, and within `LINK_LIFETIME`."""
    with contextlib.closing(open_ledger(settings)) as ledger:
        token = ledger.people.make_link(PERSON, lifetime=LINK_LIFETIME)
    return f"http://{settings.web.host}:{settings.web.port}/login/link#{token}"


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _wait_for_a_person() -> None:
    """Wait until Enter is pressed; without a terminal, until this process is ended."""
    with contextlib.suppress(EOFError):
        console.input("Node, web page and PACS are running. Press Enter to stop. ")
        return
    _say("There is no terminal: end this process to stop.")
    signal.pause()


def _environment() -> dict[str, str]:
    """Return the environment without settings: those of the demonstration are in its file."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SCP_NODE_")}


def _wait_for_node(node: subprocess.Popen[bytes], settings: Settings) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers_echo(settings):
        if node.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the node does not start")
        time.sleep(0.1)


def _wait_for_page(settings: Settings) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection((settings.web.host, settings.web.port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit("the web page does not answer: see the log above") from None
            time.sleep(0.1)
        else:
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class _To:
    """The node, as a sender of films calls it."""

    host: str
    port: int
    called_ae: str
    tls: ClientTls | None

    def send(
        self, files: Sequence[Path], on_progress: Callable[[Path, int | None], None]
    ) -> list[tuple[Path, int | None]]:
        """Send the files; return each with the status of its response."""
        return send_files(
            files,
            host=self.host,
            port=self.port,
            called_ae=self.called_ae,
            calling_ae="DEMO",
            on_progress=on_progress,
            tls=self.tls,
        )


def _to(settings: Settings) -> _To:
    """Return how films reach the node: by TLS where its settings have it. They show its own certificate."""
    listen = settings.listen
    tls = listen.tls
    spoken = DestinationTlsSettings(enabled=True, certificate=tls.certificate, key=tls.key, ca_file=tls.ca_file)
    by_tls = tls.certificate is not None
    return _To(
        host=listen.tls_host if by_tls else listen.host,
        port=tls.port if by_tls else listen.port,
        called_ae=settings.node.ae_title,
        tls=ClientTls(spoken, "listen.tls") if by_tls else None,
    )


def _warm_up(folder: Path, to: _To, pacs: Pacs) -> None:
    """Send one phantom first: its report shows that the worker has loaded the model, whose time is not measured."""
    file = folder / "synthetic-phantom-warm-up.dcm"
    phantom_image(99, opacity=False).save_as(file, enforce_file_format=True)
    with console.status("the worker loads the model"):
        to.send([file], lambda *_: None)
        deadline = time.monotonic() + _START_SECONDS
        while not pacs.new_reports():
            if time.monotonic() > deadline:
                raise SystemExit("no report came back: see the log above")
            time.sleep(0.05)


def _send(files: Sequence[Path], to: _To) -> tuple[dict[str, Sent], list[tuple[Path, int | None]]]:
    sent: dict[str, Sent] = {}

    def note(path: Path, status: int | None) -> None:
        progress.advance(task)
        if status == 0:
            image = dcmread(path, stop_before_pixels=True)
            patient, view = str(image.get("PatientID", "")), str(image.get("ViewPosition", "")) or "-"
            sent[image.StudyInstanceUID] = Sent(patient=patient, view=view, at=time.monotonic())

    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("send", total=len(files))
        results = to.send(files, note)
    return sent, [(path, status) for path, status in results if status != 0]


def _collect(pacs: Pacs, sent: Mapping[str, Sent]) -> dict[str, tuple[float, Dataset]]:
    reports: dict[str, tuple[float, Dataset]] = {}
    last = time.monotonic()
    columns = (TextColumn("reports in the PACS"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("reports", total=len(sent))
        while set(reports) < set(sent) and time.monotonic() - last < _PATIENCE_SECONDS:
            for arrived, report in pacs.new_reports():
                reports[report.StudyInstanceUID] = (arrived, report)
                last = arrived
            progress.update(task, completed=len(reports))
            time.sleep(0.01)
    return reports


def _show(
    sent: Mapping[str, Sent],
    reports: Mapping[str, tuple[float, Dataset]],
    refused: Sequence[tuple[Path, int | None]],
    pacs: Pacs,
) -> None:
    table = Table("patient", "view", "verdict", "probability")
    table.add_column("SOP Instance UID of the report", no_wrap=True)
    table.add_column("ms to PACS", justify="right")
    for study, study_sent in sent.items():
        arrived, report = reports.get(study, (None, None))
        if report is None or arrived is None:
            table.add_row(study_sent.patient, study_sent.view, "no report", "", "", "")
            continue
        verdict, probability = _texts(report, _COMMENT), _texts(report, _PROBABILITY)
        milliseconds = f"{1000 * (arrived - study_sent.at):.0f}"
        table.add_row(
            study_sent.patient,
            study_sent.view,
            verdict[0] if verdict else "",
            ", ".join(probability),
            report.SOPInstanceUID,
            milliseconds,
        )
    console.print(table)
    for path, status in refused:
        console.print(f"refused: {path.name} {'not sent' if status is None else f'0x{status:04X}'}", highlight=False)
    console.print(
        f"ms to PACS: from the last C-STORE response, with {QUIET_SECONDS:g} s in which the study stays quiet"
    )
    console.print(f"See the reports: {pacs.look}", highlight=False)
    console.print("AI results of a research node, not verified by a physician. Not a medical device.")


def _texts(item: Dataset, code: str) -> list[str]:
    """Return text and numbers of all content items with this concept, in order."""
    found = []
    for child in item.get("ContentSequence", []):
        name = child.get("ConceptNameCodeSequence")
        if name and name[0].get("CodeValue") == code:
            measured = child.get("MeasuredValueSequence")
            value = f"{measured[0].NumericValue} %" if measured else child.get("TextValue", "")
            found += [value] if value else []
        found += _texts(child, code)
    return found


if __name__ == "__main__":
    sys.exit(main())
