"""A whole node in its own processes, on real sockets, with a PACS to report to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset

from scp_node.delivery import send_files
from scp_node.delivery.echo import answers_echo
from scp_node.demo.phantom import phantom_image
from scp_node.ledger import AuditQuery, Ledger
from scp_node.opening import open_ledger
from scp_node.settings import InferenceSettings, Settings
from scp_node.settings_file import as_toml
from tests.command import run_here
from tests.servers import free_port
from tests.waiting import wait_until

BUNDLE: Final = Path(__file__).resolve().parent.parent / InferenceSettings().bundle
OPEN: Final = {"ready", "leased", "delayed"}


@dataclass
class Node:
    """One node: its settings, its processes, and what an administrator does with it."""

    folder: Path
    changes: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)  # on top of the test's own
    program: str = "scp_node"  # the module that is run
    process: subprocess.Popen[bytes] | None = None
    sent: int = 0
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        base: dict[str, Any] = {
            "node": {"data_dir": str(self.folder / "var")},
            "listen": {"port": free_port(), "low_water_mib": 0},
            "study": {"quiet_seconds": 0, "version_seconds": 0},
            # a process takes half a second to start; phantoms are unlike all films that the model knows
            "analysis": {"decoder_processes": 1, "pixel_gate": "off"},
            "work": {"lease_seconds": 3},
            "inference": {"bundle": str(BUNDLE)},
            "delivery": {"retry_first_seconds": 0.2, "retry_cap_seconds": 0.5, "probe_seconds": 0.5},
            "web": {"enabled": False},  # a process more to start
            "log": {"level": "INFO"},
        }
        self.settings = Settings.model_validate(_merged(base, self.changes))
        self.config = self.folder / "scp_node.toml"
        self.config.write_text(as_toml(_merged(base, self.changes)))

    def start(self, role: str = "all", *, wait: bool = True) -> Node:
        with (self.folder / "node.log").open("ab") as log:
            command = [sys.executable, "-m", self.program, "serve", "--config", str(self.config), "--role", role]
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(command, stderr=log, start_new_session=True, env=environment)
        process = self.process
        if not wait:
            return self
        try:
            wait_until(lambda: self.is_listening() or process.poll() is not None, 60, what="node listens")
        except BaseException:  # Ctrl-C too: no node outlives its test
            self.end()
            raise
        assert process.poll() is None, self.log
        return self

    def is_listening(self) -> bool:
        return answers_echo(self.settings)

    @property
    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def kill(self) -> None:
        """End every process of the node by SIGKILL, as a power cut does."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def end(self) -> None:
        """Kill it if it still runs, and close what looked into its database."""
        if ledger := self.__dict__.pop("ledger", None):
            ledger.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def send(self, *images: Dataset, calling: str = "MODALITY1") -> list[int | None]:
        """Send images over one association and return the statuses."""
        files = []
        for image in images:
            self.sent += 1
            file = self.folder / f"sent-{self.sent}.dcm"
            image.save_as(file, enforce_file_format=True)
            files.append(file)
        return self.send_files(files, calling=calling)

    def send_files(self, files: Sequence[Path], *, calling: str = "MODALITY1") -> list[int | None]:
        results = send_files(
            files,
            host="127.0.0.1",
            port=self.settings.listen.port,
            called_ae=self.settings.node.ae_title,
            calling_ae=calling,
            on_progress=lambda *_: None,
        )
        return [status for _, status in results]

    def command(self, *arguments: str, status: int = 0) -> str:
        """Run a command with the settings of this node; return what it wrote, if it ends with this status."""
        done = run_here(*arguments, "--config", self.config)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    @cached_property
    def ledger(self) -> Ledger:
        return open_ledger(self.settings)

    def audit(self, studies: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return what `scp-node audit --format json` prints, as objects: of some studies, or of all."""
        rows = [row.document() for row in self.ledger.audit.instances(AuditQuery())]
        return [row for row in rows if not studies or row["study_uid"] in studies]

    def run_until_idle(self, images: int, timeout: float = 60, studies: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Wait until that many images of the studies are known and no work is left; return the audit of them."""
        ledger = self.ledger

        def works() -> bool:
            return any(state in OPEN for states in ledger.upkeep.counts().values() for state in states)

        def idle() -> bool:
            if works():  # asked first, for it costs little
                return False
            return len(self.audit(studies)) >= images and not works()

        wait_until(idle, timeout, what=f"idle; log:\n{self.log[-3000:]}")
        return self.audit(studies)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in changes.items():
        merged[name] = {**base.get(name, {}), **value} if isinstance(value, dict) else value
    return merged


def destination(port: int, name: str = "pacs", ae_title: str = "PACS", **changes: Any) -> dict[str, Any]:
    """Return a destination that is asked for nothing after a delivery, unless `changes` say so."""
    return {"name": name, "ae_title": ae_title, "host": "127.0.0.1", "port": port, "commitment": False, **changes}


def radiograph(seed: int = 1, *, opacity: bool = False, **changes: str | None) -> Dataset:
    """Return a phantom with some attributes changed; None removes one. Films that share a study share a patient."""
    image = phantom_image(seed, opacity=opacity)
    if "StudyInstanceUID" in changes:
        image.PatientID = "PHANTOM-OF-STUDY"
    for keyword, value in changes.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    return image
