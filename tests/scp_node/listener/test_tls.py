"""TLS in front of the listener: who may come in, what is spoken, and what a silent or broken peer holds up."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from scp_node.settings import SettingsError
from scp_node.tls.authority import Pair
from scp_node.tls.certificates import sha256_of
from tests.certificates import Certificates
from tests.scp_node.listener.conftest import Running, Start
from tests.scp_node.listener.datasets import radiograph
from tests.scp_node.listener.peer import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    C_ECHO_RQ,
    COMMAND_FIELD,
    DATASET_TYPE,
    MESSAGE_ID,
    NO_DATASET,
    P_DATA,
    SOP_CLASS,
    VERIFICATION,
    Peer,
    encoded_command,
)
from tests.waiting import wait_until

NAMED: Final = "modality.example"


@pytest.fixture
def tls(start_listener: Start, certificates: Certificates) -> Running:
    """A listener with a port for TLS beside the plain one; peers have to show a certificate."""
    return start_listener(listen={"tls": certificates.listen()})


def refused(running: Running, context: ssl.SSLContext) -> bool:
    """Return whether a peer of TLS gets no answer to its association request."""
    try:
        with Peer(running.tls_address, tls=context) as peer:
            return peer.associate()[0] not in {ASSOCIATE_AC, ASSOCIATE_RJ}
    except (ssl.SSLError, ConnectionError):
        return True


def test_a_film_comes_by_tls_and_another_in_the_clear_on_the_other_port(
    tls: Running, certificates: Certificates
) -> None:
    for address, context in ((tls.tls_address, certificates.context(certificates.modality)), (tls.address, None)):
        with Peer(address, tls=context) as peer:
            assert peer.associate()[0] == ASSOCIATE_AC
            assert peer.store(radiograph()).status == 0x0000
            assert peer.release() == 6
    assert [each.peer for each in tls.received] == ["127.0.0.1"] * 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken_with_forward_secrecy_and_authenticated_encryption(
    tls: Running, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.context(certificates.modality, minimum_version=version, maximum_version=version)
    with Peer(tls.tls_address, tls=context) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        assert isinstance(peer.connection, ssl.SSLSocket)
        assert peer.connection.version() == version.name.replace("_", ".")
        name, _, _ = peer.connection.cipher() or ("", "", 0)
        assert "GCM" in name or "CHACHA20" in name


@pytest.mark.parametrize("ciphers", ["AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384", "DHE-RSA-AES128-SHA256"])
def test_what_lacks_either_is_not_spoken(tls: Running, certificates: Certificates, ciphers: str) -> None:
    context = certificates.context(certificates.modality, maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(ciphers)
    assert refused(tls, context)


def test_a_site_may_speak_one_version_alone(start_listener: Start, certificates: Certificates) -> None:
    running = start_listener(listen={"tls": certificates.listen(versions=["1.3"])})
    assert refused(running, certificates.context(certificates.modality, maximum_version=ssl.TLSVersion.TLSv1_2))
    assert not refused(running, certificates.context(certificates.modality))


def test_no_certificate_or_one_of_another_authority_is_refused_with_its_reason(
    tls: Running, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    assert refused(tls, certificates.context(None))
    assert refused(tls, certificates.context(certificates.foreign))
    assert refused(tls, certificates.context(certificates.expired))
    wait_until(lambda: len(lines := caplog.messages) >= 3 and "certificate has expired" in lines[-1], 10)
    refusals = [each for each in caplog.messages if each.startswith("connection refused, no TLS peer=127.0.0.1")]
    assert "it shows no certificate" in refusals[0]
    assert "its certificate is not trusted: unable to get local issuer certificate" in refusals[1]
    assert tls.received == []


@pytest.mark.parametrize(("asked", "shown"), [("optional", True), ("optional", False), ("none", False)])
def test_a_site_may_let_peers_come_without_one(
    start_listener: Start, certificates: Certificates, asked: str, *, shown: bool
) -> None:
    running = start_listener(listen={"tls": certificates.listen(client_certificate=asked)})
    assert not refused(running, certificates.context(certificates.modality if shown else None))
    assert refused(running, certificates.context(certificates.foreign)) == (asked == "optional")


@pytest.mark.parametrize("by", ["name", "digest"])
def test_a_peer_with_a_certificate_is_known_by_title_address_and_certificate(
    start_listener: Start, certificates: Certificates, by: str
) -> None:
    digest = sha256_of(certificates.modality.certificate, "")
    expected = NAMED if by == "name" else digest
    peers = [{"ae_title": "MODALITY1", "address": "127.0.0.1", "certificate": expected}]
    running = start_listener(listen={"tls": certificates.listen()}, peers=peers)

    def answer(address: tuple[str, int], pair: Pair | None, calling: str = "MODALITY1") -> int:
        context = certificates.context(pair) if pair else None
        with Peer(address, tls=context) as peer:
            return peer.associate(calling=calling)[0]

    assert answer(running.tls_address, certificates.modality) == ASSOCIATE_AC
    assert answer(running.tls_address, certificates.other) == ASSOCIATE_RJ
    assert answer(running.tls_address, certificates.modality, "MODALITY2") == ASSOCIATE_RJ
    assert answer(running.address, None) == ASSOCIATE_RJ
    with Peer(running.tls_address, tls=certificates.context(certificates.modality)) as peer:
        peer.associate()
        assert peer.store(radiograph()).status == 0x0000


def echo_request() -> bytes:
    """Return a C-ECHO request in a PDU, in the third context."""
    command = encoded_command(
        {SOP_CLASS: VERIFICATION, COMMAND_FIELD: C_ECHO_RQ, MESSAGE_ID: 8, DATASET_TYPE: NO_DATASET}
    )
    value = struct.pack(">LBB", len(command) + 2, 5, 3) + command
    return struct.pack(">BxL", P_DATA, len(value)) + value


def test_two_pdus_in_one_record_are_two(tls: Running, certificates: Certificates) -> None:
    """The second waits decrypted, where `poll` does not see it."""
    with Peer(tls.tls_address, tls=certificates.context(certificates.modality)) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        peer.send_raw(echo_request() * 3)
        assert [peer.answer().status for _ in range(3)] == [0, 0, 0]


def test_a_pdu_in_a_hundred_records_is_one(tls: Running, certificates: Certificates) -> None:
    with Peer(tls.tls_address, tls=certificates.context(certificates.modality)) as peer:
        assert peer.associate()[0] == ASSOCIATE_AC
        for byte in echo_request():
            peer.send_raw(bytes((byte,)))
        assert peer.answer().status == 0


def test_a_record_that_is_half_there_holds_nobody_up(tls: Running, certificates: Certificates) -> None:
    """Its bytes can be read, and give nothing yet: the thread waits without turning round and round."""
    with socket.create_connection(tls.tls_address, timeout=10) as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = certificates.context(certificates.modality).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                peer.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65_536))
        peer.write(_request())
        record = outgoing.read()
        plain.sendall(record[:-10])
        before = time.process_time()
        plain.settimeout(1)
        with pytest.raises(TimeoutError):
            plain.recv(1)
        assert time.process_time() - before < 0.5
        plain.settimeout(10)
        plain.sendall(record[-10:])
        incoming.write(plain.recv(65_536))
        assert peer.read(1) == bytes((ASSOCIATE_AC,))


def _request() -> bytes:
    payload = Peer.request()
    return struct.pack(">BxL", ASSOCIATE_RQ, len(payload)) + payload


def test_a_silent_connection_leaves_the_others_alone_and_is_closed(
    start_listener: Start, certificates: Certificates
) -> None:
    running = start_listener(listen={"acse_timeout_seconds": 1.0, "tls": certificates.listen()})
    context = certificates.context(certificates.modality)
    silent = [socket.create_connection(running.tls_address, timeout=10) for _ in range(20)]
    try:
        for address, spoken in ((running.tls_address, context), (running.address, None)):
            with Peer(address, tls=spoken) as peer:
                assert peer.associate()[0] == ASSOCIATE_AC
                assert peer.echo().status == 0x0000
        assert all(each.recv(1) == b"" for each in silent)
    finally:
        for each in silent:
            each.close()
    [server, _] = running.listener._servers
    wait_until(lambda: not server.associations())


def descriptors() -> int:
    """Return how many files and sockets are open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_what_is_not_tls_is_refused_in_one_line(tls: Running, caplog: pytest.LogCaptureFixture) -> None:
    before = descriptors()
    for _ in range(3):
        with Peer(tls.tls_address) as peer:
            assert peer.associate()[0] not in {ASSOCIATE_AC, ASSOCIATE_RJ}
    wait_until(lambda: descriptors() <= before)
    assert sum("what it says is not TLS" in each for each in caplog.messages) == 1


def test_tls_on_the_plain_port_is_named_so(
    tls: Running, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Peer(tls.address, tls=certificates.context(certificates.modality))
    wait_until(lambda: "it speaks TLS; this port is plain" in caplog.text)


def test_both_ports_share_the_limits(start_listener: Start, certificates: Certificates) -> None:
    running = start_listener(listen={"max_associations": 2, "tls": certificates.listen()})
    context = certificates.context(certificates.modality)
    with Peer(running.address) as first, Peer(running.tls_address, tls=context) as second:
        assert [first.associate()[0], second.associate()[0]] == [ASSOCIATE_AC] * 2
        with Peer(running.tls_address, tls=context) as third, Peer(running.address) as fourth:
            assert [third.associate()[0], fourth.associate()[0]] == [ASSOCIATE_RJ] * 2


def test_a_renewed_certificate_is_used_for_new_associations_and_drops_none(
    start_listener: Start, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    used = Pair(certificate=tmp_path / "node.pem", key=tmp_path / "node.key")
    _put(certificates.node, used)
    running = start_listener(listen={"tls": certificates.listen(used)})
    context = certificates.context(certificates.modality, check_hostname=False)
    with Peer(running.tls_address, tls=context) as before:
        assert before.associate()[0] == ASSOCIATE_AC
        _put(Pair(certificate=certificates.other.certificate, key=certificates.node.key), used)
        running.listener.renew_certificate()  # the key is not there yet
        assert _shown(running, context) == certificates.node.certificate.read_text()
        _put(certificates.other, used)
        running.listener.renew_certificate()
        assert _shown(running, context) == certificates.other.certificate.read_text()
        assert before.store(radiograph()).status == 0x0000
    refusals = [each for each in caplog.messages if each.startswith("renewed files of TLS are not used yet")]
    assert len(refusals) == 1
    assert f"{used.key} is not the key of {used.certificate}" in refusals[0]


def _put(pair: Pair, at: Pair) -> None:
    shutil.copy(pair.key, at.key)
    shutil.copy(pair.certificate, at.certificate)


def _shown(running: Running, context: ssl.SSLContext) -> str:
    with Peer(running.tls_address, tls=context) as peer:
        peer.associate()
        assert isinstance(peer.connection, ssl.SSLSocket)
        return ssl.DER_cert_to_PEM_cert(peer.connection.getpeercert(binary_form=True) or b"")


def _unreadable(folder: Path, certificates: Certificates) -> dict[str, Any]:
    copied = Pair(certificate=folder / "node.pem", key=folder / "node.key")
    _put(certificates.node, copied)
    copied.key.chmod(0o644)
    return certificates.listen(copied)


Table = Callable[[Path, Certificates], dict[str, Any]]
WRONG: Final[dict[str, tuple[Table, str]]] = {
    "expired": (
        lambda _, made: made.listen(made.expired),
        "listen.tls.certificate: .*expired.pem has expired on",
    ),
    "mixed": (
        lambda _, made: made.listen(Pair(certificate=made.node.certificate, key=made.other.key)),
        "listen.tls.key: .*other.key is not the key of .*node.pem",
    ),
    "readable": (_unreadable, "listen.tls.key: .*node.key has mode 0644, others may use it: chmod 600"),
    "no certificate": (
        lambda _, made: made.listen(Pair(certificate=made.node.key, key=made.node.key)),
        "listen.tls.certificate: .*node.key holds no certificate in PEM form",
    ),
    "no key": (
        lambda _, made: made.listen(Pair(certificate=made.node.certificate, key=made.node.certificate)),
        "listen.tls.key: .*node.pem holds no private key in PEM form without a password",
    ),
    "no file": (
        lambda folder, made: made.listen(Pair(certificate=folder / "nothing.pem", key=made.node.key)),
        "listen.tls.certificate: .*nothing.pem: No such file or directory",
    ),
    "no authority": (
        lambda _, made: made.listen(ca_file=str(made.node.key)),
        "listen.tls.ca_file: .*node.key holds no certificate in PEM form",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_files_that_cannot_be_used_refuse_the_start_with_their_name(
    start_listener: Start, tmp_path: Path, certificates: Certificates, wrong: str
) -> None:
    table, told = WRONG[wrong]
    with pytest.raises(SettingsError, match=told):
        start_listener(listen={"tls": table(tmp_path, certificates)})
