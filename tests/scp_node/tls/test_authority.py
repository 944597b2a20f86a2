"""The private authority: what it signs, for whom, and what it does not write over."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from scp_node.tls.authority import AuthorityError, open_authority
from tests.certificates import Certificates

NOW: Final = datetime(2026, 11, 30, tzinfo=UTC)


def test_a_certificate_holds_for_its_names_and_for_both_sides(certificates: Certificates) -> None:
    made = x509.load_pem_x509_certificate(certificates.node.certificate.read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node.example", "localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert made.not_valid_after_utc - made.not_valid_before_utc == timedelta(days=730, hours=1)


def test_what_is_made_passes_the_strictest_check_of_openssl(certificates: Certificates) -> None:
    authority = x509.load_pem_x509_certificate(certificates.authority.file.read_bytes())
    made = x509.load_pem_x509_certificate(certificates.node.certificate.read_bytes())
    made.verify_directly_issued_by(authority)
    context = certificates.context(certificates.node, verify_flags=ssl.VERIFY_X509_STRICT)
    assert [each["subject"] for each in context.get_ca_certs()]


def test_nobody_else_may_look_at_what_it_writes(certificates: Certificates) -> None:
    folder = certificates.authority.file.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}


def test_it_signs_again_and_writes_over_nothing(certificates: Certificates) -> None:
    again = open_authority(certificates.authority.file.parent, at=NOW)
    before = certificates.node.key.read_bytes()
    with pytest.raises(AuthorityError, match=r"node\.pem is there"):
        again.sign("node", ["a.example"], at=NOW)
    assert certificates.node.key.read_bytes() == before


@pytest.mark.parametrize("name", ["ca", "", "../x", "a/b", ".x", "a" * 64])
def test_a_name_that_is_none_of_a_file_is_refused(certificates: Certificates, name: str) -> None:
    with pytest.raises(AuthorityError, match="give letters"):
        certificates.authority.sign(name, ["a.example"], at=NOW)


@pytest.mark.parametrize("subject", ["röntgen.example", "10.0.0.300", "[::1]", "a b", "", "x" * 64, "*.example"])
def test_a_subject_that_cannot_stand_in_a_certificate_is_refused(certificates: Certificates, subject: str) -> None:
    with pytest.raises(AuthorityError, match="no DNS name"):
        certificates.authority.sign("subject", [subject], at=NOW)
    assert not certificates.authority.pair("subject").key.exists()


def test_an_authority_that_cannot_be_used_is_named(certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(certificates.authority.file.read_bytes())
    (tmp_path / "ca.key").write_bytes(certificates.node.key.read_bytes())
    with pytest.raises(AuthorityError, match=r"ca\.key is not the key of .*ca\.pem"):
        open_authority(tmp_path, at=NOW)
    (tmp_path / "ca.key").write_text("nothing")
    with pytest.raises(AuthorityError, match="no key in PEM form"):
        open_authority(tmp_path, at=NOW)
