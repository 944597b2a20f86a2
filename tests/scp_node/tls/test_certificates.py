"""Our certificates: that they expire is said in time, and renewed ones are taken once they fit."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from scp_node.domain import utc_now
from scp_node.settings import Settings, SettingsError
from scp_node.tls.certificates import Renewal, expiry_of, own_certificates, sha256_of
from tests.certificates import Certificates


def test_only_the_certificates_that_are_used_are_ours(certificates: Certificates) -> None:
    tls = certificates.destination()
    settings = Settings.model_validate(
        {
            "listen": {"tls": certificates.listen()},
            "destinations": [
                {"name": "one", "ae_title": "ONE", "host": "h", "tls": tls},
                {"name": "two", "ae_title": "TWO", "host": "h", "tls": {**tls, "enabled": False}},
            ],
        }
    )
    assert [each.setting for each in own_certificates(settings)] == [
        "listen.tls.certificate",
        "destinations.one.tls.certificate",
    ]


def test_the_first_certificate_of_a_chain_is_ours(certificates: Certificates, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificates.node.certificate.read_bytes() + certificates.authority.file.read_bytes())
    assert expiry_of(chain, "") == expiry_of(certificates.node.certificate, "")
    assert sha256_of(chain, "") == sha256_of(certificates.node.certificate, "")
    assert sha256_of(chain, "") != sha256_of(certificates.authority.file, "")


@pytest.mark.parametrize(("days", "is_told"), [(29, True), (31, False)])
def test_thirty_days_ahead_the_log_tells_that_a_certificate_expires(
    certificates: Certificates, caplog: pytest.LogCaptureFixture, days: int, *, is_told: bool
) -> None:
    pair = certificates.authority.sign(f"for-{days}-days", ["a.example"], at=utc_now(), days=days)
    renewal = Renewal([pair.certificate, pair.key], lambda: None, section="listen.tls")
    for _ in range(3):
        renewal.look()
    expiry = expiry_of(pair.certificate, "")
    assert timedelta(days=days - 1) < expiry - utc_now() <= timedelta(days=days)
    told = [f"certificate expires file={pair.certificate} on={expiry.isoformat()}"]
    assert caplog.messages == (told if is_told else [])  # once a day


def test_a_change_that_cannot_be_used_is_told_once_and_tried_again_with_the_next(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("1")
    loaded: list[str] = []

    def load() -> None:
        if (text := file.read_text()) == "bad":
            raise SettingsError("bad")
        loaded.append(text)

    renewal = Renewal([None, file], load, section="x")
    assert not renewal.look()
    file.write_text("bad")
    with pytest.raises(SettingsError):
        renewal.look()
    assert not renewal.look()
    file.write_text("third")
    assert renewal.look()
    assert not renewal.look()
    assert loaded == ["1", "third"]
