"""TLS to a destination: who is trusted, and what is said where there is none."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from scp_node.delivery.association import RequestedAssociation
from scp_node.delivery.connection import AssociationError, Connection, TlsError
from scp_node.delivery.echo import answers_echo
from scp_node.settings import DestinationSettings, Settings, SettingsError
from scp_node.tls.authority import Pair
from scp_node.tls.certificates import sha256_of
from scp_node.tls.contexts import client_tls
from tests.certificates import Certificates
from tests.scp_node.delivery.scp import VERIFICATION, Scp
from tests.scp_node.listener.conftest import Start, start_listener
from tests.servers import free_port

__all__ = ["start_listener"]

NATIVE: Final = ["1.2.840.10008.1.2"]


@pytest.fixture
def scp(certificates: Certificates) -> Iterator[Scp]:
    """A destination that speaks TLS alone, and wants a certificate."""
    context = certificates.context(certificates.node, side="server", verify_mode=ssl.CERT_REQUIRED)
    with Scp().serving(context) as scp:
        yield scp


def ask(port: int, tls: dict[str, Any]) -> int:
    """Return the status of a C-ECHO by TLS."""
    destination = DestinationSettings.model_validate(
        {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "tls": tls}
    )
    association = RequestedAssociation.request(
        "127.0.0.1",
        port,
        calling_ae="PNEUMONIA",
        called_ae="PACS",
        contexts=[(VERIFICATION, NATIVE)],
        seconds=5,
        tls=client_tls(destination),
    )
    assert not association.is_stale()  # a session ticket is no message
    status = association.echo(seconds=5)
    assert not association.is_stale()
    association.release()
    return status


def test_a_destination_is_known_by_its_address_its_name_or_its_digest(scp: Scp, certificates: Certificates) -> None:
    digest = sha256_of(certificates.node.certificate, "")
    for expected in ("", "node.example", "127.0.0.1", digest, digest.upper().replace("SHA256", "sha256")):
        assert ask(scp.port, certificates.destination(peer_certificate=expected)) == 0


def test_it_may_be_trusted_by_its_own_certificate_alone(scp: Scp, certificates: Certificates) -> None:
    assert ask(scp.port, certificates.destination(ca_file=str(certificates.node.certificate))) == 0


WRONG: Final[dict[str, tuple[Callable[[Certificates], dict[str, Any]], str]]] = {
    "name": (lambda _: {"peer_certificate": "other.example"}, "Hostname mismatch"),
    "digest": (
        lambda made: {"peer_certificate": sha256_of(made.other.certificate, "")},
        "its certificate is not the expected one",
    ),
    "authority": (lambda made: {"ca_file": str(made.foreign_authority.file)}, "its certificate is not trusted"),
    "authorities of this machine": (lambda _: {"ca_file": ""}, "its certificate is not trusted"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_another_one_is_not_spoken_to(certificates: Certificates, wrong: str) -> None:
    changes, told = WRONG[wrong]
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                context = certificates.context(certificates.node, side="server")
                with context.wrap_socket(connection, server_side=True) as agreed:
                    heard.append(agreed.recv(1))

        thread = threading.Thread(target=listen)
        thread.start()
        with pytest.raises(TlsError, match=f"no TLS: .*{told}"):
            ask(server.getsockname()[1], certificates.destination(**changes(certificates)))
        thread.join()
    assert heard in ([], [b""])


def test_a_destination_that_wants_a_certificate_says_so(scp: Scp, certificates: Certificates) -> None:
    nothing = certificates.destination(certificate="", key="")
    with pytest.raises(TlsError, match="no TLS: it finds nothing in common, or wants a certificate"):
        ask(scp.port, {**nothing, "versions": ["1.2"]})
    with pytest.raises(AssociationError):  # in TLS 1.3 it says so when the handshake is over, or just closes
        ask(scp.port, nothing)
    assert scp.associations == 0


def test_a_destination_that_speaks_no_tls_is_named_so(certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(TlsError, match="no TLS: what it says is not TLS"):
            ask(server.getsockname()[1], certificates.destination())
        thread.join()


def test_a_destination_that_does_not_shake_hands_is_given_up_in_time(certificates: Certificates) -> None:
    destination = DestinationSettings.model_validate(
        {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104, "tls": certificates.destination()}
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(TlsError, match="no TLS: no handshake in time"),
    ):
        Connection.open("127.0.0.1", server.getsockname()[1], seconds=0.3, tls=client_tls(destination))


def test_a_renewed_certificate_is_shown_from_the_next_association_on(
    scp: Scp, certificates: Certificates, tmp_path: Path
) -> None:
    used = Pair(certificate=tmp_path / "node.pem", key=tmp_path / "node.key")
    shutil.copy(certificates.foreign.certificate, used.certificate)
    shutil.copy(certificates.foreign.key, used.key)
    destination = DestinationSettings.model_validate(
        {"name": "p", "ae_title": "PACS", "host": "127.0.0.1", "port": scp.port, "tls": certificates.destination(used)}
    )
    tls = client_tls(destination)
    call: dict[str, Any] = {"calling_ae": "A", "called_ae": "PACS", "contexts": [(VERIFICATION, NATIVE)], "seconds": 5}
    with pytest.raises(AssociationError):
        RequestedAssociation.request("127.0.0.1", scp.port, tls=tls, **call)
    shutil.copy(certificates.modality.key, used.key)
    shutil.copy(certificates.modality.certificate, used.certificate)
    RequestedAssociation.request("127.0.0.1", scp.port, tls=tls, **call).release()
    assert scp.associations == 1


def test_files_that_cannot_be_used_are_named_with_the_destination(certificates: Certificates) -> None:
    with pytest.raises(SettingsError, match=r"destinations\.pacs\.tls\.certificate: .* has expired"):
        ask(1, certificates.destination(certificates.expired))


def test_health_asks_the_port_for_tls_as_well(start_listener: Start, certificates: Certificates) -> None:
    """With a certificate of another authority than those of the peers the node is well, too."""

    def is_well(shown: Pair, *, port: int | None = None, by: Pair | None = None) -> bool:
        running = start_listener(listen={"tls": certificates.listen(shown)})
        tls = certificates.listen(by or shown, port=port or running.tls_address[1])
        return answers_echo(Settings.model_validate({"listen": {"port": running.port, "tls": tls}}))

    assert is_well(certificates.node)
    assert is_well(certificates.foreign)
    assert not is_well(certificates.node, by=certificates.other)
    assert not is_well(certificates.node, port=free_port())
