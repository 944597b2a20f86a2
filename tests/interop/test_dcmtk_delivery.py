"""Reports to DCMTK's storescp: as it is by default, and as it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from scp_node.delivery import Disposition, StorageScu, send_files
from scp_node.settings import COMPREHENSIVE_3D_SR, DeliverySettings, DestinationSettings
from tests.scp_node.delivery.scp import SR_CLASSES
from tests.scp_node.delivery.test_storage_scu import recast, report
from tests.servers import StoreScp

pytestmark = pytest.mark.needs("storescp")

OpenScu = Callable[..., StorageScu]


@pytest.fixture
def open_scu() -> Iterator[OpenScu]:
    with ExitStack() as stack:

        def open_(archive: StoreScp, **settings: float) -> StorageScu:
            scu = StorageScu(
                DestinationSettings(name="pacs", ae_title=archive.ae_title, host=archive.host, port=archive.port),
                calling_ae="PNEUMONIA",
                sop_classes=SR_CLASSES,
                settings=DeliverySettings(**settings),
                recast=recast,
            )
            stack.callback(scu.abort)
            return scu

        yield open_


def test_a_report_arrives_as_it_was_built(storescp: StoreScp, open_scu: OpenScu) -> None:
    scu = open_scu(storescp)
    assert scu.echo()
    result = scu.send(report())
    assert (result.disposition, result.sop_class_uid) == (Disposition.DELIVERED, COMPREHENSIVE_3D_SR)
    [dataset] = storescp.datasets()
    assert dataset.SOPInstanceUID == "2.25.1"
    assert dataset.PatientName == "Müller^Zoë"


def test_implicit_vr_is_sent_to_an_archive_that_takes_nothing_else(
    start_storescp: Callable[..., StoreScp], open_scu: OpenScu
) -> None:
    archive = start_storescp("+xi")
    assert open_scu(archive).send(report()).disposition is Disposition.DELIVERED
    [dataset] = archive.datasets()
    assert dataset.PatientName == "Müller^Zoë"


def test_an_archive_that_refuses_associations_is_told_apart(
    start_storescp: Callable[..., StoreScp], open_scu: OpenScu
) -> None:
    result = open_scu(start_storescp("--refuse")).send(report())
    assert result.status is None
    assert result.detail.startswith("association rejected")


def test_an_archive_that_rejects_without_an_implementation_uid_takes_ours(
    start_storescp: Callable[..., StoreScp], open_scu: OpenScu
) -> None:
    assert open_scu(start_storescp("--reject")).send(report()).disposition is Disposition.DELIVERED


def test_an_archive_that_is_frozen_costs_a_time_out_and_one_that_goes_on_is_reached_again(
    storescp: StoreScp, open_scu: OpenScu
) -> None:
    scu = open_scu(storescp, send_seconds=0.5, connect_seconds=0.5)
    assert scu.send(report()).disposition is Disposition.DELIVERED
    storescp.pause()
    assert scu.send(report()).disposition is Disposition.UNANSWERED, "on the association that was kept"
    assert scu.send(report()).disposition is Disposition.UNREACHABLE
    assert not scu.echo()
    storescp.resume()
    assert open_scu(storescp).send(report()).disposition is Disposition.DELIVERED


def test_an_archive_that_restarts_is_reached_again(storescp: StoreScp, open_scu: OpenScu) -> None:
    scu = open_scu(storescp)
    assert scu.send(report()).disposition is Disposition.DELIVERED
    storescp.stop()
    assert scu.send(report()).disposition is Disposition.UNREACHABLE
    storescp.start()
    assert scu.send(report()).disposition is Disposition.DELIVERED


def test_the_test_sender_reaches_an_archive(storescp: StoreScp, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("report") / "report.dcm"
    path.write_bytes(report())
    results = send_files(
        [path],
        host=storescp.host,
        port=storescp.port,
        called_ae=storescp.ae_title,
        calling_ae="TESTER",
        on_progress=lambda _path, _status: None,
    )
    assert results == [(path, 0x0000)]
