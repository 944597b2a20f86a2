"""A private authority, to try TLS in a minute: it signs a certificate for the node and for each peer.

The keys are RSA of 3,072 bits, which every DICOM program of the last ten years can use (RFC 9325 section 4.5).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scp_node.private_files import FOLDER_MODE, write_private

CA: Final = "ca"
DAYS: Final = 730  # how long a certificate is valid unless told otherwise
_CA_DAYS: Final = 3_650
_KEY_BITS: Final = 3_072
_BEFORE: Final = timedelta(hours=1)  # clocks differ
_DNS_NAME: Final = re.compile(r"(?=.{1,253}$)([A-Za-z0-9_-]{1,63}\.)*(?![0-9]+$)[A-Za-z0-9_-]{1,63}")  # RFC 1123, 2.1
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}")


class AuthorityError(ValueError):
    """The authority cannot sign; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its private key, in PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own, and all that it signs, lie in one folder that nobody else may enter."""

    def __init__(self, folder: Path, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> None:
        """Take over an authority; `open_authority` finds or makes one."""
        self._folder = folder
        self._certificate = certificate
        self._key = key

    @property
    def file(self) -> Path:
        """The certificate of the authority, for all who shall trust it."""
        return self._folder / f"{CA}.pem"

    def pair(self, name: str) -> Pair:
        """Return where the certificate of this name lies, or would."""
        return Pair(certificate=self._folder / f"{name}.pem", key=self._folder / f"{name}.key")

    def sign(self, name: str, subjects: Sequence[str], *, at: datetime, days: float = DAYS) -> Pair:
        """Make a certificate for `subjects`, DNS names and addresses, good for both sides of a connection.

        `at` is now, in UTC. It is valid for `days`, and no longer than that of the authority.

        Raises:
            AuthorityError: the name is not one of a file, is taken, or a subject cannot stand in a certificate.
            OSError: a file cannot be written.
        """
        require_name(name)
        pair = self.pair(name)
        if pair.certificate.exists() or pair.key.exists():
            raise AuthorityError(f"{pair.certificate} is there: remove it and its key to have another one")
        key = _new_key()
        until = min(at + timedelta(days=days), self._certificate.not_valid_after_utc)
        certificate = (
            _begun(name, key, at=at, until=until)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.SubjectAlternativeName([_general_name(each) for each in subjects]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        _write(pair, certificate, key)
        return pair


def require_name(name: str) -> None:
    """Check that files may be named so.

    Raises:
        AuthorityError: they may not.
    """
    if not _FILE_NAME.fullmatch(name) or name == CA:
        raise AuthorityError(f"{name}: give letters, digits, '-', '_' or '.', and not {CA!r}")


def require_subject(subject: str) -> None:
    """Check that a certificate can be for this DNS name or address.

    Raises:
        AuthorityError: it cannot.
    """
    _general_name(subject)


def open_authority(folder: Path, *, at: datetime) -> Authority:
    """Return the authority that lies in a folder; where there is none, make it, and the folder.

    Raises:
        AuthorityError: what lies there cannot be used.
        OSError: a file cannot be read or written.
    """
    pair = Pair(certificate=folder / f"{CA}.pem", key=folder / f"{CA}.key")
    if pair.certificate.exists() or pair.key.exists():
        return _found(folder, pair)
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    key = _new_key()
    name = f"scp-node private authority {os.urandom(4).hex()}"  # so that two of them differ
    begun = _begun(name, key, at=at, until=at + timedelta(days=_CA_DAYS))
    certificate = (
        begun.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(pair, certificate, key)
    return Authority(folder, certificate, key)


def _found(folder: Path, pair: Pair) -> Authority:
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"{pair.certificate} or {pair.key} is no certificate or no key in PEM form") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.public_key() != certificate.public_key():
        raise AuthorityError(f"{pair.key} is not the key of {pair.certificate}")
    return Authority(folder, certificate, key)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=_KEY_BITS)


def _begun(name: str, key: rsa.RSAPrivateKey, *, at: datetime, until: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _BEFORE)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(subject: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(subject))
    except ValueError as error:  # a name, then: its last part is never a number
        if not _DNS_NAME.fullmatch(subject):
            raise AuthorityError(f"{subject!r} is no DNS name in ASCII, and no address") from error
        return x509.DNSName(subject)


def _write(pair: Pair, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> None:
    """Write the key first: without it a certificate is useless."""
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write_private(pair.key, key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    write_private(pair.certificate, certificate.public_bytes(pem))
