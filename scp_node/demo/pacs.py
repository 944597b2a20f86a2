"""The PACS of the demonstration: Orthanc if it is installed, otherwise a small Storage SCP."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Protocol, cast

from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, SecondaryCaptureImageStorage, Verification  # type: ignore[attr-defined]

AE_TITLE: Final = "PACS"
_LOOPBACK: Final = "127.0.0.1"
_START_SECONDS: Final = 20.0


class Pacs(Protocol):
    """Receives the reports."""

    name: str
    port: int
    look: str  # where a person can see the arrivals

    def new_reports(self) -> list[tuple[float, Dataset]]:
        """Return the reports since the last call, each with the monotonic time of its arrival in seconds."""

    def close(self) -> None:
        """Stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacsTls:
    """The files of a PACS that speaks TLS alone."""

    certificate: Path
    key: Path
    ca_file: Path  # of the node's certificate

    def context(self) -> ssl.SSLContext:
        """Return what it speaks; the node has to show a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        context.load_verify_locations(self.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def open_pacs(folder: Path, tls: PacsTls | None = None) -> Pacs:
    """Start a PACS that keeps its data below `folder`."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    return OrthancPacs(Path(program), folder, tls) if program else StoragePacs(folder, tls=tls)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server((_LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
    return port


class OrthancPacs:
    """Orthanc, watched through its REST API."""

    name = "Orthanc"

    def __init__(self, program: Path, folder: Path, tls: PacsTls | None = None) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it does not start; its log says why.
        """
        self.port, self._http = free_port(), free_port()
        self.look = f"http://{_LOOPBACK}:{self._http}/app/explorer.html"
        self._seen = 0
        self._tls = tls
        folder.mkdir(parents=True)
        config = folder / "orthanc.json"
        config.write_text(json.dumps(self._settings(folder), indent=2), encoding="utf-8")
        self._log = (folder / "orthanc.log").open("wb")
        self._process = subprocess.Popen(  # noqa: S603 - found above
            [program, config], stdout=self._log, stderr=self._log, start_new_session=True
        )
        self._wait()

    def _settings(self, folder: Path) -> dict[str, Any]:
        return {
            "Name": "Demonstration PACS",
            "DicomAet": AE_TITLE,
            "DicomPort": self.port,
            "DicomAlwaysAllowStore": True,
            "HttpPort": self._http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [],
            **self._spoken(),
        }

    def _spoken(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(self._tls.certificate),
            "DicomTlsPrivateKey": str(self._tls.key),
            "DicomTlsTrustedCertificates": str(self._tls.ca_file),
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self._get("/system")
            except OSError:
                time.sleep(0.1)
            else:
                return
        self.close()
        raise RuntimeError(f"Orthanc does not start, see {self._log.name}")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{_LOOPBACK}:{self._http}{path}", timeout=10) as answer:
            body: bytes = answer.read()
        return body

    def new_reports(self) -> list[tuple[float, Dataset]]:
        """Return the reports since the last call, each with the monotonic time of its arrival in seconds."""
        changes = json.loads(self._get(f"/changes?since={self._seen}&limit=1000"))
        arrived = time.monotonic()
        self._seen = changes["Last"]
        ids = [change["ID"] for change in changes["Changes"] if change["ChangeType"] == "NewInstance"]
        found = [dcmread(BytesIO(self._get(f"/instances/{identifier}/file"))) for identifier in ids]
        return [(arrived, dataset) for dataset in found if dataset.Modality == "SR"]

    def close(self) -> None:
        """Stop."""
        self._process.kill()
        self._process.wait()
        self._log.close()


class StoragePacs:
    """A Storage SCP that keeps reports and their pictures as files."""

    name = "a small Storage SCP (Orthanc is not installed)"

    def __init__(self, folder: Path, port: int = 0, *, tls: PacsTls | None = None) -> None:
        """Start it on `port`, or on a free one."""
        folder.mkdir(parents=True)
        self._folder = folder
        self._arrived: queue.SimpleQueue[tuple[float, Dataset]] = queue.SimpleQueue()
        self._numbers = itertools.count()
        ae = AE(ae_title=AE_TITLE)
        ae.add_supported_context(Verification)
        for sop_class in (Comprehensive3DSRStorage, SecondaryCaptureImageStorage):
            ae.add_supported_context(sop_class)
        self._open = contextlib.ExitStack()
        handlers = [(evt.EVT_C_STORE, self._on_c_store)]
        self.port = self._open.enter_context(serving_ae(ae, handlers, port, tls=tls.context() if tls else None))
        self.look = f"dsrdump {folder}/*.dcm"

    def _on_c_store(self, event: Any) -> int:
        file = self._folder / f"{next(self._numbers):04d}.dcm"
        file.write_bytes(event.encoded_dataset())
        if (dataset := dcmread(file)).Modality == "SR":
            self._arrived.put((time.monotonic(), dataset))
        return 0x0000

    def new_reports(self) -> list[tuple[float, Dataset]]:
        """Return the reports since the last call, each with the monotonic time of its arrival in seconds."""
        return [self._arrived.get() for _ in range(self._arrived.qsize())]

    def close(self) -> None:
        """Stop, and abort open associations: a peer that keeps one would go on storing."""
        self._open.close()


@contextlib.contextmanager
def serving_ae(ae: AE, handlers: list[Any], port: int = 0, *, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve an AE of pynetdicom on `port` or a free one, and yield the port; at the end abort open associations."""
    with contextlib.ExitStack() as stack:  # closes the sockets that pynetdicom leaves open after an abort
        closing = evt.EVT_CONN_OPEN, lambda event: stack.callback(event.assoc.dul.socket.socket.close)
        served = ae.start_server((_LOOPBACK, port), block=False, evt_handlers=[*handlers, closing], ssl_context=tls)
        server = cast("Any", served)
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            for association in ae.active_associations:
                association.abort()
