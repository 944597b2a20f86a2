"""Real servers on loopback ports, each in a folder of its own and ended by its own process handle."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Self

import psycopg
from pydicom import Dataset, dcmread

from tests.tools import require
from tests.waiting import wait_until

LOOPBACK: Final = "127.0.0.1"
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0

# Without it DCMTK and Orthanc keep Nagle's algorithm on and stall 40 ms in every DIMSE message.
_ENVIRONMENT: Final = {**os.environ, "TCP_NODELAY": "1"}

# Below Linux's range for outgoing connections: one of those could take the port before its server does.
_PORTS: Final = range(20_000, 32_000)
_given_out: set[int] = set()


def free_port() -> int:
    """Return a loopback TCP port that nothing listens on and that was not returned before."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            if port not in _given_out and probe.connect_ex((LOOPBACK, port)) != 0:
                _given_out.add(port)
                return port


class Server(ABC):
    """A program that listens on `port` of the loopback interface; a context manager that starts and stops it."""

    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.host = LOOPBACK
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether it serves."""

    def run_as(self) -> Mapping[str, Any]:
        """Return further arguments of Popen."""
        return {"env": _ENVIRONMENT}

    @property
    def log(self) -> str:
        """Return all that it wrote to standard output and error."""
        path = self._log_file
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """Return the id of the running process."""
        assert self._process is not None, f"{type(self).__name__} is not running"
        return self._process.pid

    def ended_by_itself(self) -> str | None:
        """Return its status and the end of its log if it was started and is gone; it can be started again then."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self._process = None
        return f"{type(self).__name__} ended with {status}:\n{self.log[-4000:]}"

    def start(self) -> Self:
        """Start it and return when it serves."""
        assert self._process is None, f"{type(self).__name__} is already running"
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                **self.run_as(),
            )
        try:
            wait_until(self._is_ready_or_gone, START_SECONDS, what=f"{type(self).__name__} serves on port {self.port}")
        except BaseException:  # Ctrl-C too: no server outlives its test
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it at once, as a power failure would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: connections are still accepted by the kernel, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def _log_file(self) -> Path:
        return self.folder / "server.log"

    def _is_ready_or_gone(self) -> bool:
        assert self._process is not None
        if told := self.ended_by_itself():
            raise RuntimeError(told)
        return self.is_ready()

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        process.send_signal(signal.SIGCONT)  # a paused one would not end
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def run_tool(program: str, *arguments: str | Path | int, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run an external program to its end; standard output and error are both in `stdout`."""
    return subprocess.run(
        [require(program), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_ENVIRONMENT,
        timeout=timeout,
        check=False,
    )


def echoes(port: int, called: str, *, calling: str = "ECHOSCU") -> bool:
    """Return whether the Application Entity answers a C-ECHO with Success."""
    result = run_tool("echoscu", "-to", 2, "-ta", 2, "-td", 2, "-aet", calling, "-aec", called, LOOPBACK, port)
    return result.returncode == 0


class StoreScp(Server):
    """DCMTK's storescp: keeps every C-STORE as one more file, even of an instance that it has."""

    def __init__(self, folder: Path, *arguments: str, ae_title: str = "STORESCP", port: int | None = None) -> None:
        super().__init__(folder, port)
        self.ae_title = ae_title
        self.arguments = arguments
        self.received = folder / "received"
        self.received.mkdir(exist_ok=True)

    def command(self) -> Sequence[str | Path]:
        accepted = [] if "-xf" in self.arguments else ["+xa"]  # every syntax, unless a profile says which
        options = ["-v", "-aet", self.ae_title, *accepted, "+uf", "-od", str(self.received), *self.arguments]
        return [require("storescp"), *options, str(self.port)]

    def is_ready(self) -> bool:
        if {"--refuse", "--reject"} & set(self.arguments):
            with socket.socket() as probe:
                return probe.connect_ex((self.host, self.port)) == 0
        return echoes(self.port, self.ae_title)

    def files(self) -> list[Path]:
        """Return one complete file for each C-STORE, oldest first."""
        found = list(self.received.iterdir())
        being_written = self._open_files()  # looked up second: a file that is closed by now is complete
        return sorted(set(found) - being_written, key=lambda path: path.stat().st_mtime_ns)

    def datasets(self) -> list[Dataset]:
        """Return what was received, oldest first."""
        return [dcmread(path) for path in self.files()]

    def _open_files(self) -> set[Path]:
        found = set()
        for link in Path(f"/proc/{self.pid}/fd").iterdir() if self._process else ():
            with contextlib.suppress(FileNotFoundError):  # closed in between
                found.add(link.readlink())
        return found


class Orthanc(Server):
    """A real PACS: Orthanc with its own storage, DICOM on `port` and its REST API on `http_port`."""

    def __init__(
        self,
        folder: Path,
        *,
        modalities: Mapping[str, tuple[str, int]] | None = None,
        dicomweb: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Write its configuration.

        Args:
            folder: where its configuration, storage and log are kept; it outlives a restart.
            modalities: the AEs that it may send to: name -> (AE title, loopback port).
            dicomweb: load Debian's DICOMweb plug-in, for viewers.
            settings: further keys of Orthanc's configuration file.
        """
        super().__init__(folder)
        self.ae_title = "ORTHANC"
        self.http_port = free_port()
        self.settings: dict[str, Any] = {
            "Name": "Test PACS",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "StorageCompression": False,
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "DicomAlwaysAllowStore": True,
            "DicomModalities": {name: [ae, LOOPBACK, port] for name, (ae, port) in (modalities or {}).items()},
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,  # the ports cannot be bound to one address in this release
            "AuthenticationEnabled": False,
            "StableAge": 1,
            "Plugins": [str(require("orthanc-dicomweb"))] if dicomweb else [],
            **(settings or {}),
        }

    def command(self) -> Sequence[str | Path]:
        config = self.folder / "orthanc.json"
        config.write_text(json.dumps(self.settings, indent=2))
        return [require("Orthanc"), "--verbose", config]

    def is_ready(self) -> bool:
        try:
            self.get("/system")
        except OSError:
            return False
        return self.answers_echo()

    def answers_echo(self) -> bool:
        return echoes(self.port, self.ae_title)

    def __exit__(self, *_exception: object) -> None:
        self.kill()  # its storage ends with the test, and a polite end takes 3.5 s

    def get(self, path: str) -> Any:
        """Return the answer of the REST API to a GET, from JSON."""
        return json.loads(self.request("GET", path))

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of the REST API's answer.

        Raises:
            RuntimeError: the status is not in the 200s.
        """
        connection = http.client.HTTPConnection(self.host, self.http_port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status // 100 != 2:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
        return content

    def store(self, file: bytes) -> str:
        """Store one DICOM file through the REST API and return Orthanc's id of the instance."""
        identifier: str = json.loads(self.request("POST", "/instances", file))["ID"]
        return identifier

    def instances(self) -> list[str]:
        """Return Orthanc's ids of all instances, oldest first."""
        present = set(self.get("/instances"))
        changes = self.get("/changes?limit=1000000")["Changes"]
        stored = [change["ID"] for change in changes if change["ChangeType"] == "NewInstance"]
        return [identifier for identifier in dict.fromkeys(stored) if identifier in present]

    def studies(self) -> list[str]:
        """Return the Study Instance UIDs."""
        return [study["MainDicomTags"]["StudyInstanceUID"] for study in self.get("/studies?expand")]

    def file(self, identifier: str) -> bytes:
        """Return an instance as the DICOM Part 10 file that Orthanc keeps."""
        return self.request("GET", f"/instances/{identifier}/file")

    def datasets(self, modality: str | None = None) -> list[Dataset]:
        """Return the instances, of one Modality (0008,0060) or all, oldest first."""
        found = [dcmread(BytesIO(self.file(identifier))) for identifier in self.instances()]
        return [dataset for dataset in found if modality in (None, dataset.Modality)]

    def reports(self) -> list[Dataset]:
        """Return the Structured Reports, oldest first."""
        return self.datasets("SR")

    def wait_until(self, condition: Callable[[Orthanc], Any], timeout: float = 20.0, *, what: str = "") -> Any:
        """Return the first true value of `condition(self)`."""
        return wait_until(lambda: condition(self), timeout, what=what)


class Postgres(Server):
    """A PostgreSQL cluster of our own, reached over TCP only; its superuser is `postgres`, without a password."""

    stop_signal = signal.SIGINT  # "fast shutdown": does not wait for clients

    def __init__(self, folder: Path) -> None:
        """Make the cluster; `folder` must be empty, and is given to the user that runs the server."""
        super().__init__(folder)
        self._data = folder / "data"
        self._user = _unprivileged_user()
        if self._user:
            shutil.chown(folder, self._user)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(
            [require("initdb"), "-D", self._data, *options],
            check=True,
            capture_output=True,
            cwd=folder,
            **self.run_as(),
        )

    def command(self) -> Sequence[str | Path]:
        options = [f"listen_addresses={LOOPBACK}", f"port={self.port}", "unix_socket_directories="]
        arguments = [argument for option in options for argument in ("-c", option)]
        return [require("postgres"), "-D", self._data, *arguments]

    def stop_immediately(self) -> None:
        """End it as a power cut would ("immediate shutdown"): it recovers at the next start."""
        self._end(signal.SIGQUIT)

    def run_as(self) -> Mapping[str, Any]:
        # PostgreSQL refuses to run as root
        return {"user": self._user, "group": self._user, "extra_groups": []} if self._user else {}

    def is_ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database of this cluster."""
        return f"postgresql+psycopg://postgres@{self.host}:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Return a connection of the superuser that commits each statement."""
        at = {"host": self.host, "port": self.port, "user": "postgres", "dbname": database, "connect_timeout": 5}
        return psycopg.connect(**at, autocommit=True)  # type: ignore[arg-type]

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside a transaction, as the superuser."""
        with self.connect(database) as connection:
            connection.execute(statement.encode())

    def create(self, template: str = "template1") -> str:
        """Make a copy of a database, an empty one by default, and return its name."""
        name = f"test_{secrets.token_hex(8)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Drop a database with its users."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextlib.contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Make a copy of a database, an empty one by default; give its SQLAlchemy URL, and drop it with its users."""
        name = self.create(template)
        try:
            yield self.url(name)
        finally:
            self.drop(name)


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    return "postgres" if Path("/var/lib/postgresql").exists() else "nobody"


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that another user can enter, unlike pytest's, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="scp-node-test-", ignore_cleanup_errors=True) as name:
        yield Path(name)
