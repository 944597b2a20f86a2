"""The servers of the test suite are real, work as the tests assume, and go when they are told to."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from tests.conftest import Send
from tests.servers import LOOPBACK, Orthanc, Postgres, StoreScp, echoes, free_port
from tests.waiting import wait_until


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small image with a new SOP Instance UID."""
    return write_image(tmp_path / "image.dcm")


def write_image(path: Path, **attributes: str) -> Path:
    dataset = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    for keyword, value in {"SOPInstanceUID": generate_uid(), **attributes}.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path)
    return path


def test_free_ports_differ_and_are_free() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    with socket.socket() as server:
        server.bind((LOOPBACK, ports[0]))


def test_storescp_keeps_every_c_store_as_a_file(storescp: StoreScp, storescu: Send, image: Path) -> None:
    for _ in range(2):
        sent = storescu(image, port=storescp.port, called=storescp.ae_title)
        assert sent.returncode == 0, sent.stdout
    uids = [dataset.SOPInstanceUID for dataset in storescp.datasets()]
    assert uids == [dcmread(image).SOPInstanceUID] * 2


def test_storescp_takes_arguments_of_the_test(
    start_storescp: Callable[..., StoreScp], storescu: Send, image: Path
) -> None:
    refusing = start_storescp("--refuse", ae_title="CLOSED")
    assert storescu(image, port=refusing.port, called="CLOSED").returncode != 0
    assert refusing.files() == []


def test_dcmsend_proposes_what_a_compressed_file_needs(storescp: StoreScp, dcmsend: Send) -> None:
    compressed = Path(str(get_testdata_file("JPEG-lossy.dcm", download=False)))
    sent = dcmsend(compressed, port=storescp.port, called=storescp.ae_title)
    assert sent.returncode == 0, sent.stdout
    [received] = storescp.datasets()
    assert received.file_meta.TransferSyntaxUID == dcmread(compressed).file_meta.TransferSyntaxUID


def test_a_sender_says_when_nobody_listens(storescu: Send, image: Path) -> None:
    assert storescu(image, port=free_port()).returncode != 0


def test_orthanc_stores_lists_and_gives_back_what_was_sent(orthanc: Orthanc, storescu: Send, tmp_path: Path) -> None:
    image = write_image(tmp_path / "ct.dcm")
    report = write_image(tmp_path / "sr.dcm", Modality="SR")
    assert storescu([image, report], port=orthanc.port, called=orthanc.ae_title).returncode == 0
    sent = [dcmread(path).SOPInstanceUID for path in (image, report)]
    assert [dataset.SOPInstanceUID for dataset in orthanc.datasets()] == sent
    assert [dataset.SOPInstanceUID for dataset in orthanc.reports()] == sent[1:]
    assert orthanc.studies() == [dcmread(image).StudyInstanceUID]
    assert dcmread(image).PixelData in orthanc.file(orthanc.instances()[0])


def test_orthanc_sends_to_the_modalities_that_it_was_given(
    start_orthanc: Callable[..., Orthanc], storescp: StoreScp, image: Path
) -> None:
    orthanc = start_orthanc(modalities={"node": (storescp.ae_title, storescp.port)})
    identifier = orthanc.store(image.read_bytes())
    orthanc.request("POST", "/modalities/node/store", identifier.encode())
    assert wait_until(storescp.files)


@pytest.mark.needs("orthanc-dicomweb")
def test_orthanc_serves_dicomweb_where_a_test_asks_for_it(start_orthanc: Callable[..., Orthanc], image: Path) -> None:
    orthanc = start_orthanc(dicomweb=True)
    orthanc.store(image.read_bytes())
    [study] = orthanc.get("/dicom-web/studies")
    assert study["0020000D"]["Value"] == [dcmread(image).StudyInstanceUID]


def test_orthanc_still_has_its_instances_after_it_was_killed(orthanc: Orthanc, image: Path) -> None:
    identifier = orthanc.store(image.read_bytes())
    orthanc.kill()
    assert not echoes(orthanc.port, orthanc.ae_title)
    orthanc.start()
    assert orthanc.instances() == [identifier]


def test_a_paused_server_does_not_answer_until_it_is_resumed(storescp: StoreScp) -> None:
    storescp.pause()
    assert not echoes(storescp.port, storescp.ae_title)
    storescp.resume()
    assert echoes(storescp.port, storescp.ae_title)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)StoreScp ended with .*Unknown option"):
        StoreScp(tmp_path, "--unknown-option").start()


def test_a_server_that_ended_by_itself_says_how_and_starts_again(storescp: StoreScp) -> None:
    assert storescp.ended_by_itself() is None
    os.kill(storescp.pid, signal.SIGKILL)
    assert "StoreScp ended with -9" in str(wait_until(storescp.ended_by_itself))
    storescp.start()
    assert echoes(storescp.port, storescp.ae_title)


@pytest.mark.parametrize("_round", [1, 2])
def test_every_test_gets_an_empty_postgresql_database(postgres: str, _round: int) -> None:
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        assert sa.inspect(connection).get_table_names() == []
        connection.execute(sa.text("CREATE TABLE work (id integer)"))
        assert connection.scalar(sa.text("SHOW fsync")) == "on"
    engine.dispose()


def test_postgresql_listens_on_loopback_tcp_only(postgres_server: Postgres) -> None:
    log = postgres_server.log
    assert f'listening on IPv4 address "{LOOPBACK}", port {postgres_server.port}' in log
    assert "listening on IPv6" not in log
    assert "Unix socket" not in log
