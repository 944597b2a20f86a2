"""`make bench`: how long each stage takes, and the whole way. Medians of several runs; ratios within one run."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import NDArray
from pneumonia_model.bundle import load_bundle
from pneumonia_model.opening import open_backend
from pydicom import dcmread
from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table

from scp_node.analysis.analyse import analyse_file
from scp_node.analysis.answers import Prepared
from scp_node.delivery import send_files
from scp_node.demo.pacs import StoragePacs
from scp_node.domain import Finding, ReportedImage, utc_now
from scp_node.inference.served_model import ServedModel
from scp_node.ledger import Analysed, Ledger, Policy, create_ledger_engine, upgrade
from scp_node.opening import upgrade_database
from scp_node.report.content.attention import activation_map
from scp_node.report.objects.drawing import draw, heading
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.objects.sr import build_report, warm_up
from scp_node.report.site import Site
from scp_node.report.version import ReportVersion
from scp_node.settings import AnalysisSettings, DestinationTlsSettings, InferenceSettings
from scp_node.spool import Spool
from scp_node.tls.contexts import ClientTls
from tests.browser.place import VIEWER, open_place
from tests.certificates import Certificates, make_certificates
from tests.chromium import chromium
from tests.highdicom_report import plain_picture, plain_report
from tests.node import BUNDLE, Node, destination, radiograph
from tests.scp_node.ledger_node import MODEL
from tests.scp_node.ledger_node import Node as LedgerNode
from tests.scp_node.spooled import spooled
from tests.servers import StoreScp, free_port
from tests.tools import find
from tests.waiting import wait_until

SETTLE_SECONDS: Final = 1.0  # in which the rows of the last images are written

console = Console()

_SPINNING_SECONDS: Final = 0.1  # in which threads that have nothing to do may still look for work


def main() -> None:
    """Run every part and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    table = Table("stage", "median", "range of the runs", title=f"{arguments.runs} runs, {machine()}")
    with tempfile.TemporaryDirectory(prefix="scp-node-bench-") as name:
        folder = Path(name)
        files = _films(folder, arguments.images)
        for part in (_receive, _analyse, _large, _report, _ledger, _whole_way, _on_screen):
            for stage, unit, values in part(folder, files, arguments.runs):
                low, high = min(values), max(values)
                table.add_row(stage, f"{statistics.median(values):.4g} {unit}", f"{low:.4g} - {high:.4g}")
    console.print(table)


Rows = Iterator[tuple[str, str, list[float]]]


def machine() -> str:
    """Return the processor and the number of its cores."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{len(model)} x {model[0].split(':')[1].strip()}" if model else "unknown processor"


def _films(folder: Path, number: int) -> list[Path]:
    files = []
    for seed in range(number):
        file = folder / f"film-{seed:04d}.dcm"
        radiograph(seed, opacity=bool(seed % 2)).save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def _listener(folder: Path, tls: dict[str, Any] | None = None) -> Iterator[Node]:
    """Run the listener role alone."""
    node = Node(folder, {"log": {"level": "ERROR"}, "listen": {"tls": tls or {}}})
    node.settings.node.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    upgrade_database(node.settings)
    command = [sys.executable, "-m", "scp_node", "serve", "--role", "listener", "--config", str(node.config)]
    node.process = subprocess.Popen(command)
    try:
        wait_until(node.is_listening, 30)
        yield node
    finally:
        node.stop()


def _receive(folder: Path, files: list[Path], runs: int) -> Rows:
    """Images a second over one association, durable, beside DCMTK's storescp, which does not fsync."""
    ours: list[float] = []
    encrypted: list[float] = []
    theirs: list[float] = []
    made = make_certificates(folder / "certificates")
    for run in range(runs):
        base = folder / f"receive-{run}"
        plain, by_tls = base / "plain", base / "tls"
        for place in (plain, by_tls):
            place.mkdir(parents=True)
        ours.append(len(files) / _seconds_to_receive(files, plain, None))
        encrypted.append(len(files) / _seconds_to_receive(files, by_tls, made))
        if find("storescp"):
            (base / "peer").mkdir()
            with StoreScp(base / "peer") as peer:
                theirs.append(len(files) / _seconds(lambda peer=peer: _send(files, peer.port, peer.ae_title)))  # type: ignore[misc]
    yield "receive 512 kB films, fsynced, one association", "images/s", ours
    yield "  the same by TLS 1.3", "images/s", encrypted
    yield "  ratio TLS / in the clear", "", [a / b for a, b in zip(encrypted, ours, strict=True)]
    yield (
        "  the listener's CPU for it",
        "ms/image",
        [_listener_cpu(files, folder / f"long-{run}") for run in range(runs)],
    )
    each = [_listener_cpu(files, folder / f"each-{run}", one_each=True) for run in range(runs)]
    yield "  the same, an association for each image", "ms/image", each
    if theirs:
        yield "  the same to DCMTK storescp, not fsynced", "images/s", theirs
        yield "  ratio ours / storescp", "", [a / b for a, b in zip(ours, theirs, strict=True)]


def _listener_cpu(files: list[Path], folder: Path, *, one_each: bool = False) -> float:
    """Return the processor's milliseconds that the listener takes for an image, until its row is written."""
    folder.mkdir(parents=True)
    with _listener(folder) as node:
        port = node.settings.listen.port
        _send(files[:1], port, "PNEUMONIA")
        time.sleep(SETTLE_SECONDS)
        began, sent = _children_cpu(), files[1:]
        for part in [[file] for file in sent] if one_each else [sent]:
            _send(part, port, "PNEUMONIA")
        time.sleep(SETTLE_SECONDS)
        return 1000 * (_children_cpu() - began) / len(sent)


def _children_cpu() -> float:
    """Return the processor's seconds of the processes below this one that are alive."""
    stats = [stat for pid in _below(os.getpid()) if (stat := _stat(pid))]
    return sum(int(ticks) for stat in stats for ticks in stat[11:13]) / os.sysconf("SC_CLK_TCK")


def _below(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from _below(int(child))


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _seconds_to_receive(files: list[Path], folder: Path, made: Certificates | None) -> float:
    """Return how long a listener takes for the files: by TLS with certificates, else in the clear."""
    with _listener(folder, made.listen(port=free_port()) if made else None) as node:
        listen = node.settings.listen
        port = listen.tls.port if made else listen.port
        tls = ClientTls(DestinationTlsSettings.model_validate(made.destination()), "bench") if made else None
        return _seconds(lambda: _send(files, port, "PNEUMONIA", tls))


def _send(files: list[Path], port: int, called: str, tls: ClientTls | None = None) -> None:
    results = send_files(
        files, host="127.0.0.1", port=port, called_ae=called, calling_ae="BENCH", on_progress=lambda *_: None, tls=tls
    )
    assert all(status == 0 for _, status in results), results


def _analyse(_folder: Path, files: list[Path], runs: int) -> Rows:
    """Milliseconds an image: header rules, decode and resize; then the forward pass."""
    rules = AnalysisSettings()
    prepared = [item for file in files[:16] if isinstance(item := analyse_file(file, rules), Prepared)]
    yield (
        "read, rules, decode, resize (512 x 512)",
        "ms",
        [1000 * _seconds(lambda: [analyse_file(file, rules) for file in files[:16]]) / 16 for _ in range(runs)],
    )
    yield (
        "read, rules, decode, resize (512 x 512), CPU time",
        "ms",
        [1000 * _cpu_seconds(lambda: [analyse_file(file, rules) for file in files[:16]]) / 16 for _ in range(runs)],
    )
    bundle = load_bundle(BUNDLE)
    inputs = np.stack([item.inputs for item in prepared])
    yield from _serve(inputs, runs)
    for name in ("onnxruntime", "torch"):
        backend = open_backend(bundle, name, "cpu")
        backend.logits(inputs[:1])
        for size in (1, 16):
            times = [1000 * _seconds(lambda n=size, b=backend: b.logits(inputs[:n])) / size for _ in range(runs)]  # type: ignore[misc]
            yield f"forward pass, {name} on the CPU, batch of {size}", "ms/image", times


def _large(folder: Path, _files: list[Path], runs: int) -> Rows:
    """Processor time and memory of the listener for a film of 15 MB, and what it takes from its file to the input."""
    place = folder / "large"
    place.mkdir()
    files = [_enlarged(place / f"{number}.dcm") for number in range(runs)]
    with _listener(place) as node:
        assert node.process
        [role] = psutil.Process(node.process.pid).children()  # of the supervisor
        spent, most = [], []
        for file in files:
            before = role.cpu_times()
            _send([file], node.settings.listen.port, "PNEUMONIA")
            after = role.cpu_times()
            spent.append(1000 * (after.user + after.system - before.user - before.system))
            most.append(role.memory_full_info().pss / 2**20)
    yield "receive a film of 15 MB, processor time of the listener", "ms", spent
    yield "  memory of the listener after it (PSS)", "MiB", most
    rules = AnalysisSettings()
    read = [1000 * _cpu_seconds(partial(analyse_file, file, rules)) for file in (files[0], *files)]
    yield "  from its file to the network's input, processor time", "ms", read[1:]


def _enlarged(file: Path) -> Path:
    """Write a phantom of 16 bits, 2,800 x 2,700 pixels."""
    film = radiograph()
    pixels = film.pixel_array
    film.Rows, film.Columns = 2_800, 2_700
    rows, columns = (np.arange(size) * pixels.shape[axis] // size for axis, size in enumerate((2_800, 2_700)))
    film.PixelData = pixels[np.ix_(rows, columns)].astype("<u2").tobytes()
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    film.save_as(file, enforce_file_format=True)
    return file


def _serve(inputs: NDArray[np.float32], runs: int) -> Rows:
    """CPU milliseconds of scores and gate as the worker asks for them, those of threads that find nothing to do too."""
    model = ServedModel.open(InferenceSettings(bundle=BUNDLE, backend="onnxruntime", device="cpu"))
    for size in (1, 8, 16):
        films = inputs[:size]
        times = [1000 * _cpu_seconds(lambda f=films: _scores(model, f)) / size for _ in range(runs)]  # type: ignore[misc]
        yield f"scores and gate, onnxruntime on the CPU, batch of {size}, CPU time", "ms/image", times


def _scores(model: ServedModel, films: NDArray[np.float32]) -> None:
    model.scores(films)
    time.sleep(_SPINNING_SECONDS)


def _report(folder: Path, files: list[Path], runs: int) -> Rows:
    """CPU milliseconds for one report and one picture, built and serialised; highdicom's way in turn with ours."""
    warm_up()
    film = dcmread(files[0])
    received = spooled(Spool(folder / "report", low_water_bytes=0), film)
    finding = Finding(
        probability=0.9, logit=2.2, threshold=0.5, attention=np.linspace(-3, 3, 196, dtype="<f4").tobytes()
    )
    reported = ReportedImage(
        sop_instance_uid=received.sop_instance_uid,
        header=received.header,
        transfer_syntax=received.transfer_syntax,
        outcome=finding,
    )
    site = Site(
        installation="bench",
        ae_title="A",
        manufacturer="M",
        model_name="N",
        software_version="1",
        series_number=1,
        series_description="S",
    )
    display = np.zeros((2048, 2500), np.uint8)
    film.PatientOrientation = []

    version = ReportVersion(images=[reported], model=MODEL, site=site, at=utc_now())

    def drawn() -> NDArray[np.uint8]:
        return draw(display, activation_map(finding.attention), (), above=[heading("AI")], below=[])

    ways = {
        "ours": lambda: build_report(version),
        "theirs": lambda: plain_report(film, 0.9),
        "picture": lambda: build_overlay(version, image=reported, number=1, display=display),
        "their picture": lambda: plain_picture(film, drawn()),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3 * runs + 1):
        for name, way in ways.items():
            times[name].append(1000 * _cpu_seconds(way))
    timed = {name: values[1:] for name, values in times.items()}  # the first of each loads what it needs
    yield "build and serialise one report, CPU time", "ms", timed["ours"]
    yield "  the same by highdicom, the plain way", "ms", timed["theirs"]
    yield "  ratio ours / highdicom", "", [a / b for a, b in zip(timed["ours"], timed["theirs"], strict=True)]
    yield "draw and serialise one picture of a 2500 x 2048 film, CPU time", "ms", timed["picture"]
    yield "  the same pixels, serialised by highdicom", "ms", timed["their picture"]
    yield "  ratio ours / highdicom", "", [a / b for a, b in zip(timed["picture"], timed["their picture"], strict=True)]


def _cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _ledger(folder: Path, _files: list[Path], runs: int) -> Rows:
    """Images a second through claim and result, in batches of 16, on SQLite."""
    rates = []
    for run in range(runs):
        engine = create_ledger_engine(f"sqlite:///{folder / f'bench-{run}.sqlite3'}")
        upgrade(engine)
        ledger = Ledger(engine, Policy(quiet=timedelta(0), lease=timedelta(seconds=15), max_attempts=3))
        template = LedgerNode(engine)
        ledger.intake.register([template.instance(str(number), study=f"1.2.{number}") for number in range(512)])

        def drain(ledger: Ledger = ledger) -> None:
            while tasks := ledger.analyses.claim(owner="bench", limit=16):
                finding = Finding(probability=0.9, logit=2.0, threshold=0.5)
                ledger.analyses.record(
                    [Analysed(task=task, outcome=finding, started_at=utc_now()) for task in tasks], MODEL
                )

        rates.append(512 / _seconds(drain))
        engine.dispose()
    yield "ledger: claim, result and report opened, SQLite", "images/s", rates


def _whole_way(folder: Path, files: list[Path], runs: int) -> Rows:
    """Milliseconds from the C-STORE response to the report in the PACS, quiet_seconds = 0, one study at a time."""
    base = folder / "whole"
    base.mkdir()
    pacs = StoragePacs(base / "pacs")
    node = Node(base, {"destinations": [destination(pacs.port)], "log": {"level": "ERROR"}}).start()
    times = []
    try:
        for file in files[: 4 * runs]:
            _send([file], node.settings.listen.port, "PNEUMONIA")
            answered = time.monotonic()
            [(arrived, _)] = wait_until(pacs.new_reports, 60)
            times.append(1000 * (arrived - answered))
    finally:
        node.stop()
        pacs.close()
    yield "last C-STORE response to report in the PACS: p50", "ms", times[1:]
    yield "  p95", "ms", [float(np.percentile(times[1:], 95))]


def _on_screen(folder: Path, files: list[Path], runs: int) -> Rows:
    """Milliseconds from the C-STORE response to the film's row in a Chromium that shows the newest studies."""
    if not find("chromium"):
        return
    base = folder / "screen"
    base.mkdir()
    films = {dcmread(file, specific_tags=["PatientID"]).PatientID: file for file in files[: 4 * runs + 1]}
    reloaded: list[float] = []
    announced: list[float] = []
    with (
        chromium() as browser,
        open_place(base, browser, {}, has_archive=False) as place,
        place.visit(VIEWER) as screen,
    ):
        for patient, file in films.items():
            screen.open("/studies")
            place.node.send_files([file])
            answered = time.monotonic()
            row = screen.page.get_by_role("row").filter(has_text=patient)
            if len(reloaded) <= 2 * runs:  # by a person who reloads the page
                while not row.count():
                    screen.page.reload()
                reloaded.append(1000 * (time.monotonic() - answered))
            else:  # by the page, which asks each second
                screen.page.get_by_role("link", name=re.compile(r"^\d+ new$")).click()
                row.wait_for()
                announced.append(1000 * (time.monotonic() - answered))
    for way, times in (("reloaded", reloaded[1:]), ("announced by the page, and clicked", announced)):
        yield f"C-STORE response to the row on the screen, {way}: p50", "ms", times
        yield "  p95", "ms", [float(np.percentile(times, 95))]


if __name__ == "__main__":
    main()
