"""Certificates: ours, from files, and that of a peer, against what is expected of it."""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scp_node.domain import utc_now
from scp_node.logs import get_logger
from scp_node.secret_files import refuse_if_others_read
from scp_node.settings import Settings, SettingsError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SHA256: Final = "sha256:"  # before the digest of a certificate that is expected
WARNING: Final = timedelta(days=30)  # so long before it expires, log and doctor say so

_A_DAY: Final = 86_400.0  # seconds

log = get_logger(__name__)

_State = tuple[int, int, int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCertificate:
    """What the certificate says that a peer has shown and proved to have the key of."""

    names: frozenset[str]  # DNS names and addresses of its Subject Alternative Name, in small letters
    sha256: str  # of the whole certificate, 64 hexadecimal digits

    def is_expected(self, expected: str) -> bool:
        """Return whether it is the one that `expected` names: a name in it, or "sha256:" and its digest."""
        if expected.startswith(SHA256):
            return expected == f"{SHA256}{self.sha256}"
        return expected in self.names


def shown_by(connection: ssl.SSLSocket) -> ShownCertificate | None:
    """Return the certificate of the peer; None where it showed none."""
    if not (encoded := connection.getpeercert(binary_form=True)):
        return None
    named = (connection.getpeercert() or {}).get("subjectAltName", ())
    return ShownCertificate(
        names=frozenset(str(value).lower() for kind, value in _pairs(named) if kind in {"DNS", "IP Address"}),
        sha256=hashlib.sha256(encoded).hexdigest(),
    )


def _pairs(named: object) -> Sequence[tuple[object, object]]:
    return [(each[0], each[1]) for each in named if len(each) > 1] if isinstance(named, tuple) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificate:
    """A certificate that the node shows, by its settings."""

    setting: str  # such as "listen.tls.certificate"
    file: Path


def own_certificates(settings: Settings) -> list[OwnCertificate]:
    """Return the certificates that the node shows."""
    named = {"listen.tls.certificate": settings.listen.tls.certificate, "web.certificate": settings.web.certificate}
    for entry in settings.destinations:
        named[f"destinations.{entry.name}.tls.certificate"] = entry.tls.certificate if entry.tls.enabled else None
    collector = settings.audit_messages
    if collector.host and collector.tls.enabled:
        named["audit_messages.tls.certificate"] = collector.tls.certificate
    return [OwnCertificate(setting=setting, file=file) for setting, file in named.items() if file is not None]


def expiry_of(file: Path, setting: str) -> datetime:
    """Return until when the first certificate of a file is valid, in UTC.

    Raises:
        SettingsError: it cannot be read, or holds none.
    """
    return _first_of(file, setting).not_valid_after_utc


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path, section: str) -> None:
    """Have a context show a certificate.

    Raises:
        SettingsError: one of the files cannot be read, they do not belong together, others may read the key, or the
            certificate has expired; the message names the setting.
    """
    refuse_if_others_read(key, f"{section}.key")
    if (expiry := expiry_of(certificate, f"{section}.certificate")) <= utc_now():
        raise SettingsError(f"{section}.certificate: {certificate} has expired on {expiry:%Y-%m-%d}")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"{section}.key: {key} is not the key of {certificate}") from error
        told = f"{key} holds no private key in PEM form without a password"
        raise SettingsError(f"{section}.key: {told}") from error
    except OSError as error:
        raise SettingsError(f"{section}.certificate, {section}.key: {error.strerror}") from error


def sha256_of(file: Path, setting: str) -> str:
    """Return the SHA-256 of the first certificate of a file, as [[peers]] and [destinations.tls] want it.

    Raises:
        SettingsError: it cannot be read, or holds none.
    """
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - for who has a certificate

    return f"{SHA256}{_first_of(file, setting).fingerprint(hashes.SHA256()).hex()}"


def _first_of(file: Path, setting: str) -> Certificate:
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415 - for who has a certificate

    try:
        return load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"{setting}: {file}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{setting}: {file} holds no certificate in PEM form") from error


def _no_password() -> str:
    """Answer who asks for the password of the key; without this, OpenSSL would ask on the terminal."""
    return ""


class Renewal:
    """Takes files into use, and again when they have changed."""

    def __init__(self, files: Sequence[Path | None], load: Callable[[], None], *, section: str) -> None:
        """Load them; the first is our certificate, if there is one, and `section` is where the settings name it.

        Raises:
            SettingsError: `load` says that they cannot be used.
        """
        self._files = [file for file in files if file is not None]
        self._certificate, self._section = files[0], section
        self._load = load
        self._used = self._state()
        self._refused: list[_State] | None = None
        self._warned_at = float("-inf")  # monotonic
        load()
        self._warn_of_expiry()

    def renew(self) -> bool:
        """Take the files into use where they have changed, say so in the log, and return whether they were."""
        try:
            changed = self.look()
        except SettingsError as error:
            log.warning("renewed files of TLS are not used yet", reason=error)
            return False
        if changed:
            log.info("renewed files of TLS are used", files=[str(file) for file in changed])
        return bool(changed)

    def look(self) -> list[Path]:
        """Take the files into use where they have changed; return those that have.

        A pair that does not fit is left until it does: whoever renews it writes one file after the other.

        Raises:
            SettingsError: the changed files cannot be used; raised once for each change.
        """
        self._warn_of_expiry()
        if (state := self._state()) in (self._used, self._refused):
            return []
        try:
            self._load()
        except SettingsError:
            self._refused = state
            raise
        used, self._used, self._refused = self._used, state, None
        return [file for file, now, then in zip(self._files, state, used, strict=True) if now != then]

    def _state(self) -> list[_State]:
        return [_version(file) for file in self._files]

    def _warn_of_expiry(self) -> None:
        """Say once a day that the certificate is about to expire."""
        if self._certificate is None or time.monotonic() - self._warned_at < _A_DAY:
            return
        self._warned_at = time.monotonic()
        try:
            expiry = expiry_of(self._certificate, f"{self._section}.certificate")
        except SettingsError as error:
            log.warning("certificate cannot be read", reason=error)
            return
        if expiry - utc_now() < WARNING:
            log.warning("certificate expires", file=self._certificate, on=expiry.isoformat())


def _version(file: Path) -> _State:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode
