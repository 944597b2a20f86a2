"""DICOM TLS with the programs of others: DCMTK in all its profiles, and Orthanc, each as SCU and as SCP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from scp_node.delivery import Disposition, StorageScu, send_files
from scp_node.settings import COMPREHENSIVE_3D_SR, DeliverySettings, DestinationSettings, DestinationTlsSettings
from scp_node.tls.contexts import ClientTls, client_tls
from tests.certificates import Certificates
from tests.conftest import Send
from tests.interop.test_dcmtk_listener import write_film
from tests.scp_node.delivery.test_storage_scu import recast, report
from tests.scp_node.listener.conftest import Start
from tests.servers import LOOPBACK, Orthanc, StoreScp, run_tool

VERSIONS: Final = {"1.2": ["1.2"], "1.3": ["1.3"], "both": ["1.2", "1.3"]}
PROFILES: Final = {"+py": "BCP 195", "+px": "non-downgrading BCP 195", "+pz": "extended BCP 195"}
ONLY_1_2: Final = "+pz"  # DCMTK's extended profile does not know TLS 1.3


def shown(certificates: Certificates) -> list[str | Path]:
    """Return the options by which DCMTK shows a certificate, and trusts our authority."""
    pair = certificates.modality
    return ["+tls", pair.key, pair.certificate, "+cf", certificates.authority.file]


@pytest.mark.needs("echoscu")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_anonymous", [False, True], ids=["certificate", "anonymous"])
def test_dcmtk_comes_in_by_each_profile(
    start_listener: Start, certificates: Certificates, version: str, *, is_anonymous: bool
) -> None:
    asked = "optional" if is_anonymous else "required"
    table = certificates.listen(versions=VERSIONS[version], client_certificate=asked)
    _, port = start_listener(listen={"tls": table}).tls_address
    options = ["+tla", "+cf", certificates.authority.file] if is_anonymous else shown(certificates)
    answers = {
        profile: run_tool("echoscu", profile, *options, "-aec", "PNEUMONIA", LOOPBACK, port).returncode == 0
        for profile in PROFILES
    }
    assert answers == {profile: profile != ONLY_1_2 or version != "1.3" for profile in PROFILES}


@pytest.mark.needs("storescu")
def test_storescu_sends_a_film_by_tls(
    start_listener: Start, certificates: Certificates, storescu: Send, tmp_path: Path
) -> None:
    running = start_listener(listen={"tls": certificates.listen()})
    film = write_film(tmp_path / "film.dcm")
    options = [str(option) for option in shown(certificates)]
    assert storescu(film, *options, port=running.tls_address[1]).returncode == 0
    assert len(running.received) == 1


def sent(port: int, certificates: Certificates, **changes: Any) -> tuple[Disposition, str]:
    """Return what came of a report to a destination by TLS."""
    destination = DestinationSettings.model_validate(
        {
            "name": "pacs",
            "ae_title": "STORESCP",
            "host": LOOPBACK,
            "port": port,
            "tls": certificates.destination(**changes),
        }
    )
    scu = StorageScu(
        destination,
        calling_ae="PNEUMONIA",
        sop_classes=[COMPREHENSIVE_3D_SR],
        settings=DeliverySettings(send_seconds=10),
        recast=recast,
        tls=client_tls(destination),
    )
    try:
        result = scu.send(report())
    finally:
        scu.close()
    return result.disposition, result.detail


class TlsStoreScp(StoreScp):
    """A storescp that speaks TLS alone."""

    def __init__(self, folder: Path, certificates: Certificates, *arguments: str) -> None:
        self._asking = [str(option) for option in shown(certificates)]
        pair = certificates.node
        own = ["+tls", str(pair.key), str(pair.certificate), "+cf", str(certificates.authority.file)]
        super().__init__(folder, *own, *arguments)

    def is_ready(self) -> bool:
        asked = run_tool("echoscu", "-to", 2, *self._asking, "-aec", self.ae_title, LOOPBACK, self.port)
        return asked.returncode == 0


@pytest.mark.needs("storescp")
@pytest.mark.parametrize("profile", PROFILES)
def test_a_report_goes_to_storescp_by_each_profile(certificates: Certificates, tmp_path: Path, profile: str) -> None:
    with TlsStoreScp(tmp_path, certificates, profile) as scp:
        assert sent(scp.port, certificates) == (Disposition.DELIVERED, "")
        only_1_3 = sent(scp.port, certificates, versions=["1.3"])[0]
        assert only_1_3 is (Disposition.UNREACHABLE if profile == ONLY_1_2 else Disposition.DELIVERED)
        assert len(scp.files()) == 1 + (profile != ONLY_1_2)


class TlsOrthanc(Orthanc):
    """An Orthanc that speaks TLS alone."""

    def __init__(self, folder: Path, certificates: Certificates, node_port: int) -> None:
        self._asking = [str(option) for option in shown(certificates)]
        node = {"AET": "PNEUMONIA", "Host": LOOPBACK, "Port": node_port, "UseDicomTls": True}
        settings = {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(certificates.modality.certificate),
            "DicomTlsPrivateKey": str(certificates.modality.key),
            "DicomTlsTrustedCertificates": str(certificates.authority.file),
            "DicomModalities": {"node": node},
        }
        super().__init__(folder, settings=settings)

    def answers_echo(self) -> bool:
        asked = run_tool("echoscu", "-to", 2, *self._asking, "-aec", self.ae_title, LOOPBACK, self.port)
        return asked.returncode == 0


@pytest.mark.needs("Orthanc")
def test_orthanc_sends_and_receives_by_tls(start_listener: Start, certificates: Certificates, tmp_path: Path) -> None:
    running = start_listener(listen={"tls": certificates.listen()})
    with TlsOrthanc(tmp_path, certificates, running.tls_address[1]) as orthanc:
        film = orthanc.store(write_film(tmp_path / "film.dcm").read_bytes())
        orthanc.request("POST", "/modalities/node/echo", b"{}")
        orthanc.request("POST", "/modalities/node/store", film.encode())
        assert len(running.received) == 1
        called = certificates.destination(peer_certificate="modality.example")
        results = send_files(
            [write_film(tmp_path / "another.dcm", SOPInstanceUID="1.2.4")],
            host=LOOPBACK,
            port=orthanc.port,
            called_ae="ORTHANC",
            calling_ae="PNEUMONIA",
            on_progress=lambda *_: None,
            tls=ClientTls(DestinationTlsSettings.model_validate(called), "send"),
        )
        assert [status for _, status in results] == [0x0000]
        assert len(orthanc.instances()) == 2
