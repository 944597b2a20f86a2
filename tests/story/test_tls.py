"""A site without a byte in the clear: a film comes by TLS, its report goes by TLS, and a certificate is renewed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
from pathlib import Path

import pytest

from scp_node.tls.authority import Pair
from tests.certificates import Certificates
from tests.conftest import Send
from tests.interop.test_tls import TlsStoreScp, shown
from tests.node import Node, destination, radiograph
from tests.servers import free_port, open_folder
from tests.waiting import wait_until


@pytest.mark.needs("storescp")
def test_a_film_and_its_report_travel_by_tls_and_a_renewed_certificate_drops_no_association(
    certificates: Certificates, storescu: Send, tmp_path: Path
) -> None:
    used = Pair(certificate=tmp_path / "node.pem", key=tmp_path / "node.key")
    _put(certificates.node, used)
    film = tmp_path / "film.dcm"
    radiograph(opacity=True).save_as(film, enforce_file_format=True)
    with open_folder() as folder, TlsStoreScp(tmp_path, certificates) as pacs:
        tls = certificates.listen(used, port=free_port())
        entry = destination(pacs.port, ae_title=pacs.ae_title, tls=certificates.destination(used))
        node = Node(folder, {"listen": {"tls": tls, "acse_timeout_seconds": 120}, "destinations": [entry]}).start()
        try:
            assert storescu(film, *map(str, shown(certificates)), port=tls["port"]).returncode == 0
            wait_until(pacs.files, 60, what=f"the report arrives; log:\n{node.log[-2000:]}")
            with _association(certificates, tls["port"]) as held:
                assert _name(held) == "node.example"
                _put(certificates.other, used)
                assert node.process
                os.kill(node.process.pid, signal.SIGHUP)
                wait_until(
                    lambda: _name_now(certificates, tls["port"]) == "other.example",
                    60,
                    what="the renewed certificate is shown",
                )
                held.sendall(b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00")  # out of order: it is answered
                assert held.recv(1) == b"\x07"
        finally:
            node.stop()


def _put(pair: Pair, at: Pair) -> None:
    shutil.copy(pair.key, at.key)
    shutil.copy(pair.certificate, at.certificate)


def _association(certificates: Certificates, port: int) -> ssl.SSLSocket:
    context = certificates.context(certificates.modality, check_hostname=False)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))


def _name(connection: ssl.SSLSocket) -> str:
    """Return the first name of the certificate that is shown."""
    shown = connection.getpeercert() or {}
    return str(next(iter(shown["subjectAltName"]))[1])


def _name_now(certificates: Certificates, port: int) -> str:
    with _association(certificates, port) as connection:
        return _name(connection)
