"""HTTPS by our own certificate, on a real socket: versions, wrong files, and renewal without a restart."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi import FastAPI

from scp_node.settings import SettingsError, WebSettings
from scp_node.web.application import create_application
from scp_node.web.server import Server, open_socket
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.web.site import page_before

NAME: Final = "ai.example"


def make_pair(folder: Path, serial: int) -> tuple[Path, Path]:
    """Write a certificate that signs itself, and its key."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(serial).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    certificate = made.sign(key, hashes.SHA256())
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].touch(mode=0o600)
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int, Path]]:
    """A server, its port, and the folder with its two files."""
    folder = tmp_path_factory.mktemp("https")
    file, key = make_pair(folder / "used", 1)
    settings = WebSettings(host="127.0.0.1", port=0, certificate=file, key=key)
    web = settings.model_dump(exclude={"oidc"}, exclude_unset=True)
    with ledger_engine(folder / "ledger.sqlite3") as engine, page_before(Node(engine), folder, web=web) as page:
        server = Server(create_application(page.site), settings)
        listening = open_socket(settings, threading.Event())
        assert listening
        server.start(listening)
        yield server, listening.getsockname()[1], folder / "used"
        server.stop(10)


def ask(port: int, **options: Any) -> tuple[int, str, str]:
    """Ask for the login page; return the certificate's serial number, the version of TLS, and the answer's head."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for option, value in options.items():
        setattr(context, option, value)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as tls,
    ):
        tls.sendall(f"GET /login HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while part := tls.recv(65_536):
            received += part
        shown = tls.getpeercert(binary_form=True)
        assert shown
        serial = x509.load_der_x509_certificate(shown).serial_number
        return serial, tls.version() or "", received.partition(b"\r\n\r\n")[0].decode().lower()


def test_the_page_is_served_by_tls_of_today(served: tuple[Server, int, Path]) -> None:
    _, port, _ = served
    serial, version, head = ask(port)
    assert (serial, version) == (1, "TLSv1.3")
    assert head.startswith("http/1.1 200")
    assert "strict-transport-security: max-age=31536000" in head
    assert ask(port, maximum_version=ssl.TLSVersion.TLSv1_2)[1] == "TLSv1.2"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # that old versions are old
def test_an_older_version_is_refused(served: tuple[Server, int, Path]) -> None:
    _, port, _ = served
    old = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(port, minimum_version=old, maximum_version=old)


def test_who_asks_in_the_clear_gets_nothing(served: tuple[Server, int, Path]) -> None:
    _, port, _ = served
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(f"GET /login HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        with plain.makefile("rb") as answer, contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in answer.read(100)


def test_a_renewed_certificate_is_used_without_a_restart_once_both_files_are_there(
    served: tuple[Server, int, Path], tmp_path: Path
) -> None:
    server, port, folder = served
    assert not server.renew_certificate()
    file, key = make_pair(tmp_path / "new", 2)
    shutil.copyfile(file, folder / "certificate.pem")
    assert not server.renew_certificate()  # its key is still the old one
    assert ask(port)[0] == 1
    shutil.copyfile(key, folder / "key.pem")
    (folder / "key.pem").chmod(0o644)
    assert not server.renew_certificate()
    (folder / "key.pem").chmod(0o600)
    assert server.renew_certificate()
    assert ask(port)[0] == 2
    assert not server.renew_certificate()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("wrong pair", "key.pem is not the key of "),
        ("others read it", "others may use it: chmod 600"),
        ("no key", "No such file"),
        ("no certificate", "certificate.pem"),
        ("nonsense", "certificate.pem"),
    ],
)
def test_files_that_cannot_be_used_refuse_the_start_by_their_name(tmp_path: Path, fault: str, told: str) -> None:
    file, key = make_pair(tmp_path / "one", 1)
    if fault == "wrong pair":
        _, key = make_pair(tmp_path / "two", 2)
    elif fault == "others read it":
        key.chmod(0o644)
    elif fault == "no key":
        key.unlink()
    elif fault == "no certificate":
        file.unlink()
    else:
        file.write_text("nonsense")
    settings = WebSettings(certificate=file, key=key)
    with pytest.raises(SettingsError, match=f"web.*{told}"):
        Server(FastAPI(), settings)
