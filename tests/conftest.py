"""Fixtures that every test may use: real servers, DICOM tools and clinical test data."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
from sqlalchemy import make_url

from scp_node.demo import pacs as demo
from tests import node as running
from tests import servers, spread
from tests.certificates import Certificates, make_certificates
from tests.command import log_put_back
from tests.lent_ledgers import LentLedgers
from tests.scp_node.ledger_node import ledger_engine
from tests.spread import pytest_xdist_make_scheduler
from tests.tools import require

__all__ = ["pytest_xdist_make_scheduler"]  # a hook: pytest finds it by its name

REPOSITORY: Final = Path(__file__).resolve().parent.parent
DATA_VARIABLE: Final = "PNEUMONIA_TEST_DATA"


def clinical_data() -> Path:
    """Return where the clinical test data is expected: never part of the repository."""
    return Path(os.environ.get(DATA_VARIABLE) or REPOSITORY.parent / "shared" / "data")


def pytest_report_header() -> str:
    folder = clinical_data()
    if folder.is_dir():
        return f"clinical test data: {folder}"
    return f"clinical test data: absent, tests that need it are skipped (put its folder in {DATA_VARIABLE})"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one process of several
        spread.long_first(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            require(tool)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, bool | None, bool | None]:
    """Put back the log of the process: a command that was run here must not change what the next test sees of it."""
    with log_put_back():
        return (yield)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The clinical test data; the test is skipped where it is absent, with CI=true too: it may not be published."""
    folder = clinical_data()
    if not folder.is_dir():
        pytest.skip(f"clinical test data is absent (put its folder in {DATA_VARIABLE})")
    return folder


@pytest.fixture
def free_port() -> int:
    """A loopback port that nothing listens on."""
    return servers.free_port()


class Send(Protocol):
    """Send DICOM files to a Storage SCP with a DCMTK tool, and return how the tool ended."""

    def __call__(
        self,
        files: Path | Iterable[Path],
        *arguments: str | int,
        port: int,
        called: str = ...,
        calling: str = ...,
        host: str = ...,
    ) -> subprocess.CompletedProcess[str]: ...


def _sender(program: str) -> Send:
    def send(
        files: Path | Iterable[Path],
        *arguments: str | int,
        port: int,
        called: str = "PNEUMONIA",
        calling: str = "MODALITY1",
        host: str = servers.LOOPBACK,
    ) -> subprocess.CompletedProcess[str]:
        paths = [files] if isinstance(files, Path) else list(files)
        return servers.run_tool(program, "-v", "-aet", calling, "-aec", called, *arguments, host, port, *paths)

    return send


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of a node and of its peers."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def storescu() -> Send:
    """DCMTK's storescu: proposes one transfer syntax, uncompressed unless an argument says otherwise."""
    require("storescu")
    return _sender("storescu")


@pytest.fixture
def dcmsend() -> Send:
    """DCMTK's dcmsend: proposes what the files need."""
    require("dcmsend")
    return _sender("dcmsend")


@pytest.fixture
def start_storescp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., servers.StoreScp]]:
    """Start a storescp with arguments of your own; see `StoreScp`."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> servers.StoreScp:
            folder = tmp_path_factory.mktemp("storescp")
            return stack.enter_context(servers.StoreScp(folder, *arguments, **options))

        yield start


@pytest.fixture
def storescp(start_storescp: Callable[..., servers.StoreScp]) -> servers.StoreScp:
    """A running DCMTK storescp that keeps every C-STORE as a file."""
    return start_storescp()


@pytest.fixture
def start_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., servers.Orthanc]]:
    """Start an Orthanc with modalities and settings of your own; see `Orthanc`."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> servers.Orthanc:
            return stack.enter_context(servers.Orthanc(tmp_path_factory.mktemp("orthanc"), **options))

        yield start


@pytest.fixture
def orthanc(start_orthanc: Callable[..., servers.Orthanc]) -> servers.Orthanc:
    """A running, empty Orthanc."""
    return start_orthanc()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.Postgres]:
    """A running PostgreSQL for the whole run."""
    require("postgres")
    with servers.open_folder() as folder, servers.Postgres(folder) as server:
        yield server


@pytest.fixture
def running_postgres(postgres_server: servers.Postgres) -> servers.Postgres:
    """The PostgreSQL of the run; one that is gone fails one test, not all that follow."""
    if told := postgres_server.ended_by_itself():
        postgres_server.start()
        pytest.fail(told)
    return postgres_server


@pytest.fixture
def postgres(running_postgres: servers.Postgres) -> Iterator[str]:
    """The SQLAlchemy URL of an empty PostgreSQL database."""
    with running_postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def ledger_template(postgres_server: servers.Postgres) -> Iterator[str]:
    """The name of a PostgreSQL database with an empty ledger, to be copied: the migrations take four times as long."""
    with postgres_server.database() as url:
        with ledger_engine(url):
            name = make_url(url).database
        assert name
        yield name


@pytest.fixture(scope="session")
def lent_ledgers(ledger_template: str) -> LentLedgers:
    """The ledgers of the run in PostgreSQL."""
    return LentLedgers(ledger_template)


@pytest.fixture
def postgres_ledger(running_postgres: servers.Postgres, lent_ledgers: LentLedgers) -> Iterator[str]:
    """The SQLAlchemy URL of a PostgreSQL database with an empty ledger."""
    with lent_ledgers.lend(running_postgres) as url:
        yield url


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., running.Node]]:
    """Start a node with settings of your own; it is killed at the end."""
    with contextlib.ExitStack() as stack:

        def start(**changes: Any) -> running.Node:
            node = running.Node(tmp_path, changes)
            stack.callback(node.end)
            return node.start()

        yield start


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[demo.StoragePacs]:
    """A small PACS that takes Comprehensive 3D SR."""
    pacs = demo.StoragePacs(tmp_path / "pacs")
    yield pacs
    pacs.close()


@pytest.fixture
def node(start_node: Callable[..., running.Node], pacs: demo.StoragePacs) -> running.Node:
    """A running node that reports to `pacs`."""
    return start_node(destinations=[running.destination(pacs.port)])
